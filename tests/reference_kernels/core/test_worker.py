"""A process for what is measured: it fails alone, and what fails is tried once more, then without peers."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from reference_kernels.core import worker
from reference_kernels.core.ceilings import Ceilings
from reference_kernels.core.unit import MissingPeerError
from reference_kernels.registry import load
from tests.reference_kernels.repository import ROOT

SCRIPT = """
import sys
from multiprocessing import get_context
from pathlib import Path
from tests.reference_kernels.core.test_worker import measure

print(*measure(Path(sys.argv[1]), *sys.argv[2:]))
"""


def note(unit: str, case: str, _limits: Ceilings, peers: bool) -> dict[str, Any]:
    """Stand in for a measurement: the unit's name is a file in which runs are noted, the case says what happens."""
    with Path(unit).open("a") as file:
        file.write(f"{os.getpid()}\n")
    runs = len(Path(unit).read_text().split())
    if case == "always fails" or (case == "fails once" and runs == 2):
        raise RuntimeError("an illegal access")
    if (case == "kills the process" and runs == 2) or (case == "has a peer that kills" and peers):
        os._exit(1)
    return {"process": os.getpid()}


def measure(notes: Path, *cases: str) -> list[int | str]:
    """Return the process that measured each case, or what it raised."""
    with pytest.MonkeyPatch.context() as patch, worker.Worker() as hired:
        patch.setattr(worker, "_bench", note)
        results: list[int | str] = []
        for case in cases:
            try:
                results.append(hired.bench(str(notes), case, Ceilings(1.0, 1.0, 1.0, 1.0, 1.0))["process"])
            except RuntimeError as error:
                results.append(str(error))
        return results


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are copies of this one: a new one would import torch each time."""
    monkeypatch.setattr(worker, "get_context", lambda _: get_context("fork"))


def test_one_new_process_serves_all_cases(tmp_path: Path):
    """In a Python of its own, since a test runner's main module cannot be started anew."""
    line = [sys.executable, "-c", SCRIPT, str(tmp_path / "notes"), "good", "good"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    assert first == second
    assert len((tmp_path / "notes").read_text().split()) == 2


@pytest.mark.parametrize("case", ["fails once", "kills the process"])
def test_what_fails_is_tried_again_in_a_fresh_process(tmp_path: Path, case: str, forked: None):
    first, second = measure(tmp_path / "notes", "good", case)
    assert first != second
    assert len((tmp_path / "notes").read_text().split()) == 3


def test_what_a_peer_kills_is_measured_without_peers(tmp_path: Path, forked: None):
    (process,) = measure(tmp_path / "notes", "has a peer that kills")
    assert isinstance(process, int)
    assert len((tmp_path / "notes").read_text().split()) == 3


def test_a_case_without_peers_says_what_became_of_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "bench", lambda unit, *_: unit.peers)
    peers: Any = worker._bench("quest", "B=1 x 128k, 2k kept", Ceilings(1.0, 1.0, 1.0, 1.0, 1.0), False)
    assert list(peers) == list(load("quest").UNIT.peers)
    with pytest.raises(MissingPeerError, match="killed the process"):
        peers["dense, ours"]({})


def test_what_fails_always_raises_and_the_next_case_is_measured(tmp_path: Path, forked: None):
    error, process = measure(tmp_path / "notes", "always fails", "good")
    assert error == "an illegal access"
    assert isinstance(process, int)
