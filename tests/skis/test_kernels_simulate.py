"""`kernels simulate`: it compares the policies that are named, says what it did not measure, and refuses with words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from reference_kernels import cli
from reference_kernels.kvs.serving.report import MEANINGS
from reference_kernels.kvs.serving.trace import Request, save_trace

TRACE = "".join(
    json.dumps({"timestamp": 100 * i, "input_length": 1000, "output_length": 5, "hash_ids": [0, 1, i + 2][:2]}) + "\n"
    for i in range(6)
)


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["simulate", *arguments])


def words(text: str) -> str:
    """Undo the wrapping of lines."""
    return " ".join(text.split())


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.jsonl"
    path.write_text(TRACE, "utf-8")
    return str(path)


def test_it_compares_the_policies_that_are_named(trace: str):
    line = [trace, "--policy", "round-robin", "--policy", "least-loaded", "--replicas", "2"]
    result = simulate(*line, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found["policies"]) == ["round-robin", "least-loaded"]
    assert (found["requests"], found["replicas"], found["order"]) == (6, 2, "fcfs")
    for figures in found["policies"].values():
        assert set(figures) == set(MEANINGS)
    table = simulate(*line)
    assert table.exit_code == 0
    assert "6 requests, replicas: 2, fcfs" in words(table.stdout)
    assert "nothing was measured" in words(table.stdout)


def test_without_a_trace_it_says_that_its_own_is_generated():
    result = simulate("--policy", "least-loaded", "--order", "longest-prefix")
    assert result.exit_code == 0
    assert "no trace was given" in result.stderr
    assert "nothing was measured" in result.stdout


def test_what_it_cannot_simulate_is_refused_with_words(tmp_path: Path, trace: str):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    for arguments, said in (
        ([str(bad)], "bad.jsonl:1: timestamp"),
        ([str(tmp_path / "nowhere.jsonl")], "No such file or directory"),
        ([trace, "--policy", "nonsense"], "nonsense"),
        ([trace, "--replicas", "0"], "replica"),
        ([trace, "--capacity", "600"], "needs"),
    ):
        result = simulate(*arguments)
        assert result.exit_code == 2, result.output
        assert said in words(result.stderr)


def test_json_has_no_nan(tmp_path: Path):
    path = tmp_path / "trace.jsonl"
    save_trace(path, [Request(0.0, 5, 1, (0,))])  # one output token has no time per further token
    answer = json.loads(simulate(str(path), "--json").stdout, parse_constant=pytest.fail)
    assert answer["policies"]["round-robin"]["tpot_mean"] is None
