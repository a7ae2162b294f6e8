"""The command line: what it says, and how it ends. 0 is good, 1 a wrong kernel, 2 a wrong call."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from reference_kernels import cli
from reference_kernels.core import ceilings, results
from reference_kernels.core.device import choose_device
from reference_kernels.core.unit import Unit, Work
from reference_kernels.core.worker import Worker
from reference_kernels.registry import card, cards, load
from tests.reference_kernels.repository import ROOT

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU, and there is one")
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "triton", "numpy"):
            raise ImportError(f"{name} is blocked by the test")

sys.meta_path.insert(0, Blocker())
"""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def words(text: str) -> str:
    """Undo the wrapping of lines."""
    return " ".join(text.split())


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "reference_kernels", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which neither torch nor Triton can be imported."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "sitecustomize.py").write_text(BLOCKER, "utf-8")
    return {"PYTHONPATH": str(folder)}


def test_list_has_a_line_for_every_unit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "out", Console(highlight=False, width=250))
    result = invoke("list")
    assert result.exit_code == 0
    lines = [words(line) for line in result.stdout.splitlines()[1:]]
    assert lines == [words(f"{u.name} {u.leaf} {u.title} {', '.join(u.papers)}") for u in cards()]


def test_list_as_json_is_the_cards_without_their_texts():
    found = json.loads(invoke("list", "--json").stdout)
    assert [unit["name"] for unit in found] == [unit.name for unit in cards()]
    for unit in found:
        mine = card(unit["name"])
        assert (unit["module"], unit["leaf"], unit["title"]) == (mine.module, mine.leaf, mine.title)
        assert unit["papers"] == list(mine.papers)
        assert "sections" not in unit


def test_list_works_where_torch_cannot_be_imported(without_torch: dict[str, str]):
    blocked = subprocess.run(
        [sys.executable, "-c", "import torch"], capture_output=True, env={**os.environ, **without_torch}
    )
    assert b"is blocked by the test" in blocked.stderr, "the test's own premise"
    done = command("list", "--json", **without_torch)
    assert done.returncode == 0, done.stderr
    assert {unit["name"] for unit in json.loads(done.stdout)} == {unit.name for unit in cards()}


@NO_GPU
def test_bench_without_a_gpu_refuses_and_explains():
    done = invoke("bench", "paged_decode")
    assert done.exit_code == 2
    assert "there is no GPU here, and the interpreter's times would say nothing" in words(done.stderr)
    assert "`run` checks the kernels on a CPU" in words(done.stderr)
    assert done.stdout == ""


@NO_GPU
@pytest.mark.slow
def test_run_checks_a_unit_on_a_cpu_and_switches_the_interpreter_on_itself():
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    line = [sys.executable, "-m", "reference_kernels", "run", "streaming_llm"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert "on the CPU, in Triton’s interpreter" in done.stdout
    for shape in load("streaming_llm").UNIT.shapes:
        assert f"✓ streaming_llm: {shape}: " in words(done.stdout)
    assert "✗" not in done.stdout


@pytest.mark.parametrize("verb", ["run", "bench"])
def test_an_unknown_unit_is_a_wrong_call(verb: str):
    result = invoke(verb, "paged_decode", "nonsense")
    assert result.exit_code == 2
    assert "there is no unit 'nonsense'; `list` names them all" in words(result.stderr)
    assert result.stdout == ""


def test_no_command_shows_the_help():
    result = invoke()
    for verb in ("list", "run", "bench", "simulate"):
        assert verb in result.output


def sample(kernel: Any, **kwargs: Any) -> Unit:
    """A unit that doubles."""
    return Unit(
        kernel, lambda x: {"out": 2 * x}, lambda *, device, dtype, seed, size: {"x": torch.ones(size, dtype=dtype)},
        lambda **_: Work(0), shapes={"small": {"size": 1}, "odd": {"size": 3}}, **kwargs,
    )  # fmt: skip


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the command line find other units behind the names: `use(name=unit)`."""

    def replace(**units: Unit) -> None:
        monkeypatch.setattr(cli, "load", lambda name: types.SimpleNamespace(UNIT=units[name]))

    return replace


def test_run_says_how_large_error_and_budget_are(use: Any):
    use(kivi=sample(lambda x: {"out": 2 * x}))
    result = invoke("run", "kivi")
    assert result.exit_code == 0
    for shape in ("small", "odd"):
        assert f"✓ kivi: {shape}: out: error 0, budget " in words(result.stdout)


@pytest.mark.parametrize("off", [0.5, float("nan")])
def test_a_wrong_kernel_ends_run_with_1_after_all_shapes_were_seen(use: Any, off: float):
    use(kivi=sample(lambda x: {"out": 2 * x + (off if len(x) == 1 else 0)}), quest=sample(lambda x: {"out": 2 * x}))
    result = invoke("run", "kivi", "quest")
    assert result.exit_code == 1
    out = words(result.stdout)
    assert "✗ kivi: small: out: error" in out
    assert out.count("✗") == out.count("WRONG") == 1
    assert out.count("✓") == 3


def test_run_without_names_checks_every_unit(use: Any, monkeypatch: pytest.MonkeyPatch):
    use(**{unit.name: sample(lambda x: {"out": 2 * x}) for unit in cards()})
    result = invoke("run")
    assert result.exit_code == 0
    for unit in cards():
        assert f"✓ {unit.name}: small" in words(result.stdout)


def test_run_takes_the_dtype_that_is_asked_for_where_the_unit_has_it(use: Any):
    seen: list[torch.dtype] = []

    def kernel(x: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(x.dtype)
        return {"out": 2 * x}

    use(kivi=sample(kernel), quest=sample(kernel, dtypes=(torch.float32,)))
    assert invoke("run", "--dtype", "float16", "kivi", "quest").exit_code == 0
    assert seen == [torch.float16] * 2 + [torch.float32] * 2


@pytest.mark.parametrize("dtype", ["float12", "nn", "zeros"])
def test_what_is_no_dtype_is_a_wrong_call(dtype: str):
    result = invoke("run", "kivi", "--dtype", dtype)
    assert result.exit_code == 2
    assert f"{dtype} is not a dtype of torch" in words(result.stderr)


def test_a_dtype_of_integers_is_refused():
    result = invoke("run", "kivi", "--dtype", "int32")
    assert result.exit_code == 2
    assert "int32 is not a floating-point dtype" in words(result.stderr)


@NO_GPU
def test_bfloat16_on_a_cpu_is_refused_with_the_reason():
    result = invoke("run", "kivi", "--dtype", "bfloat16")
    assert result.exit_code == 2
    assert "the interpreter has no bfloat16" in words(result.stderr)


@pytest.mark.parametrize("package", ["torch", "triton"])
@pytest.mark.parametrize("verb", ["run", "bench"])
def test_a_missing_package_is_named_with_what_to_install(verb: str, package: str, monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    result = invoke(verb, "kivi")
    assert result.exit_code == 2
    assert f"{package} is not installed" in words(result.stderr)
    assert "[kernels]'" in words(result.stderr)


LIMITS = ceilings.Ceilings(read=3e12, copy=2.5e12, to_device=5e10, to_host=5e10, matmul=8e14)
CHECK = {"output": "out", "error": 0.0, "budget": 1.0, "good": True}
CASE = {
    "checks": [CHECK], "seconds": {"median": 2e-5}, "share": 0.875, "figures": {"gain": 3.25},
    "peers": {"Slow": {"seconds": {"median": 5e-5}}, "Absent": {"missing": "it is not installed"}},
}  # fmt: skip


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU on which every case takes 20 us."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ceilings, "measure", lambda: LIMITS)
    monkeypatch.setattr(results, "machine", lambda: {"gpu": "NVIDIA X"})

    def measure(_worker: Worker, unit: str, case: str, _limits: ceilings.Ceilings) -> Any:
        result = cli.load(unit).UNIT.benchmarks[case]["result"]
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(Worker, "bench", measure)


def measured(**cases: Any) -> Unit:
    return sample(None, benchmarks={name: {"result": case} for name, case in cases.items()})


def test_bench_writes_what_it_measured_and_shows_it(fake_gpu: None, use: Any, tmp_path: Path):
    use(kivi=measured(large=CASE), quest=measured())
    result = invoke("bench", "kivi", "quest", "--out", str(tmp_path))
    assert result.exit_code == 0
    out = words(result.stdout)
    assert "kivi: large: 20.0 us, 0.875 of the ceiling, gain 3.25" in out
    assert "Slow: 50.0 us, ours is 2.50x as fast" in out
    assert "Absent: it is not installed" in out
    found = results.read(tmp_path)["nvidia-x"]
    assert set(found) == {"kivi"}, "a unit without benchmarks leaves no file"
    assert found["kivi"]["cases"] == {"large": CASE}
    assert found["kivi"]["ceilings"] == LIMITS.as_dict()
    assert found["kivi"]["unit"] == "kivi"
    assert found["kivi"]["machine"]["gpu"] == "NVIDIA X"


def test_bench_ends_with_1_where_a_result_is_wrong(fake_gpu: None, use: Any, tmp_path: Path):
    use(kivi=measured(wrong={"checks": [{**CHECK, "good": False}]}, right=CASE))
    result = invoke("bench", "kivi", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "✗ kivi: wrong: wrong, not timed" in words(result.stdout)
    assert set(results.read(tmp_path)["nvidia-x"]["kivi"]["cases"]) == {"wrong", "right"}


def test_a_case_that_fails_is_named_and_costs_the_others_nothing(fake_gpu: None, use: Any, tmp_path: Path):
    use(kivi=measured(broken=RuntimeError("illegal access\nand a long trace"), right=CASE), quest=measured(large=CASE))
    result = invoke("bench", "kivi", "quest", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert words(result.stderr) == "✗ kivi: broken: RuntimeError: illegal access"
    found = results.read(tmp_path)["nvidia-x"]
    assert {name: list(unit["cases"]) for name, unit in found.items()} == {"kivi": ["right"], "quest": ["large"]}


def test_the_interpreter_is_chosen_only_without_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")  # so that it is restored, whatever it was
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device().type == "cuda"
    assert "TRITON_INTERPRET" not in os.environ
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().type == "cpu"
    assert os.environ["TRITON_INTERPRET"] == "1"


def test_no_field_of_a_card_is_lost_in_the_list():
    wanted = {field.name for field in dataclasses.fields(cards()[0])} - {"sections"}
    assert all(set(unit) == wanted for unit in json.loads(invoke("list", "--json").stdout))
