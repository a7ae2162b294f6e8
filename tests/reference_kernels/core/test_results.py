"""Results as files: what is written comes back, rounded to what means something."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core import results

pytestmark = pytest.mark.quick

MACHINE = {"gpu": "NVIDIA H100 80GB HBM3", "multiprocessors": 132}


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("NVIDIA GeForce RTX 4090 (Laptop)", "nvidia-geforce-rtx-4090-laptop"),
        ("../../etc", "etc"),
    ],
)
def test_the_folder_is_the_gpus_name_in_plain_letters(gpu: str, name: str, tmp_path: Path):
    assert results.folder(gpu, tmp_path) == tmp_path / name


def test_what_is_written_comes_back(tmp_path: Path):
    result = {
        "unit": "quest", "machine": MACHINE, "none": None,
        "cases": {"B=1 x 128k": {"seconds": {"median": 0.125, "graph": True}, "shape": {"lengths": [1, 2]}}},
    }  # fmt: skip
    path = results.write("quest", result, tmp_path)
    assert path == tmp_path / "nvidia-h100-80gb-hbm3" / "quest.json"
    assert results.read(tmp_path) == {"nvidia-h100-80gb-hbm3": {"quest": result}}


def test_a_second_writing_replaces_the_first(tmp_path: Path):
    for value in (1, 2):
        results.write("quest", {"machine": MACHINE, "value": value}, tmp_path)
    assert results.read(tmp_path)["nvidia-h100-80gb-hbm3"]["quest"]["value"] == 2


def test_machines_and_units_are_read_in_the_order_of_their_names(tmp_path: Path):
    for gpu in ("B", "A"):
        for unit in ("kivi", "fp8"):
            results.write(unit, {"machine": {"gpu": gpu}}, tmp_path)
    assert [(gpu, list(units)) for gpu, units in results.read(tmp_path).items()] == [
        ("a", ["fp8", "kivi"]),
        ("b", ["fp8", "kivi"]),
    ]
    assert results.read(tmp_path / "nothing") == {}


@given(value=st.floats(allow_nan=False, allow_infinity=False), whole=st.integers(-(10**15), 10**15))
@settings(max_examples=60, deadline=None)
def test_floats_keep_six_significant_digits_and_integers_all(
    value: float, whole: int, tmp_path_factory: pytest.TempPathFactory
):
    base = tmp_path_factory.mktemp("results")
    results.write("x", {"machine": MACHINE, "deep": [{"value": value}], "whole": whole, "yes": True}, base)
    found = results.read(base)["nvidia-h100-80gb-hbm3"]["x"]
    rounded = found["deep"][0]["value"]
    assert abs(rounded - value) <= 5.0000001e-6 * abs(value)
    assert float(f"{rounded:.5e}") == rounded
    assert found["whole"] == whole
    assert found["yes"] is True


def test_more_digits_are_noise(tmp_path: Path):
    path = results.write("x", {"machine": MACHINE, "value": 0.123456789, "large": 3061234567890.0}, tmp_path)
    assert json.loads(path.read_text("utf-8"))["value"] == 0.123457
    assert json.loads(path.read_text("utf-8"))["large"] == 3061230000000.0


def test_a_file_ends_in_a_line_and_keeps_letters_readable(tmp_path: Path):
    text = results.write("x", {"machine": MACHINE, "word": "größer"}, tmp_path).read_text("utf-8")
    assert text.endswith("}\n")
    assert "größer" in text


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU to ask, and nothing to ask about its driver."""
    facts = types.SimpleNamespace(name="NVIDIA X", multi_processor_count=7, L2_cache_size=8, total_memory=9)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    monkeypatch.setattr(results.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))


def test_the_machine_is_named_with_versions_and_commit(card: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SKIS_COMMIT", "abc123")
    machine: dict[str, Any] = results.machine()
    assert machine["gpu"] == "NVIDIA X"
    assert (machine["multiprocessors"], machine["l2_bytes"], machine["memory_bytes"]) == (7, 8, 9)
    assert machine["commit"] == "abc123"
    assert machine["versions"]["torch"] == torch.__version__


def test_what_cannot_be_told_is_absent(card: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SKIS_COMMIT", raising=False)
    machine = results.machine()
    assert not {"driver", "commit"} & set(machine)
    assert all(machine.values())


def test_versions_are_those_of_the_packages_that_are_installed(card: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(results, "PACKAGES", ("pytest", "no-such-package"))
    versions = results.machine()["versions"]
    assert versions["pytest"] == pytest.__version__
    assert "no-such-package" not in versions
