"""A process for what is measured: it fails alone, and what fails is tried once more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from reference_kernels.core import worker
from reference_kernels.core.ceilings import Ceilings
from reference_kernels.core.worker import Worker

LIMITS = Ceilings(1.0, 1.0, 1.0, 1.0, 1.0)


def _note(unit: str, case: str, _limits: Ceilings) -> dict[str, Any]:
    """Stand in for a measurement: the unit's name is a file in which runs are noted, the case says what happens."""
    with Path(unit).open("a") as file:
        file.write(f"{os.getpid()}\n")
    runs = len(Path(unit).read_text().split())
    if case == "always fails" or (case == "fails once" and runs == 2):
        raise RuntimeError("an illegal access")
    if case == "kills the process" and runs == 2:
        os._exit(1)
    return {"process": os.getpid()}


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setattr(worker, "_bench", _note)
    return str(tmp_path / "notes")


def test_one_process_serves_all_cases_and_it_is_not_this_one(notes: str):
    with Worker() as hired:
        first, second = (hired.bench(notes, "good", LIMITS)["process"] for _ in range(2))
    assert first == second != os.getpid()


@pytest.mark.parametrize("case", ["fails once", "kills the process"])
def test_what_fails_is_tried_again_in_a_fresh_process(notes: str, case: str):
    with Worker() as hired:
        first = hired.bench(notes, "good", LIMITS)["process"]
        second = hired.bench(notes, case, LIMITS)["process"]
    assert first != second
    assert len(Path(notes).read_text().split()) == 3


def test_what_fails_twice_raises_and_the_next_case_is_measured(notes: str):
    with Worker() as hired:
        with pytest.raises(RuntimeError, match="an illegal access"):
            hired.bench(notes, "always fails", LIMITS)
        assert hired.bench(notes, "good", LIMITS)["process"]
