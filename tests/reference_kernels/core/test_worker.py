"""A process for what is measured: it fails alone, and what fails is tried once more, then without peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reference_kernels.core import worker
from reference_kernels.core.ceilings import Ceilings
from reference_kernels.core.unit import MissingPeerError
from reference_kernels.registry import load
from tests.conftest import ROOT

SCRIPT = """
import json, sys
from reference_kernels.core import worker
from reference_kernels.core.ceilings import Ceilings
from tests.reference_kernels.core.test_worker import note

worker._bench = note
with worker.Worker() as hired:
    for case in sys.argv[2:]:
        try:
            print(json.dumps(hired.bench(sys.argv[1], case, Ceilings(1.0, 1.0, 1.0, 1.0, 1.0))["process"]))
        except RuntimeError as error:
            print(json.dumps(str(error)))
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


def measure(notes: Path, *cases: str) -> list[Any]:
    """Measure cases in a Python of its own, since a test runner's main module cannot be started anew."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(notes), *cases], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_process_serves_all_cases(tmp_path: Path):
    first, second = measure(tmp_path / "notes", "good", "good")
    assert first == second
    assert len((tmp_path / "notes").read_text().split()) == 2


@pytest.mark.parametrize("case", ["fails once", "kills the process"])
def test_what_fails_is_tried_again_in_a_fresh_process(tmp_path: Path, case: str):
    first, second = measure(tmp_path / "notes", "good", case)
    assert first != second
    assert len((tmp_path / "notes").read_text().split()) == 3


def test_what_a_peer_kills_is_measured_without_peers(tmp_path: Path):
    (process,) = measure(tmp_path / "notes", "has a peer that kills")
    assert isinstance(process, int)
    assert len((tmp_path / "notes").read_text().split()) == 3


def test_a_case_without_peers_says_what_became_of_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "bench", lambda unit, *_: unit.peers)
    peers: Any = worker._bench("quest", "B=1 x 128k, 2k kept", Ceilings(1.0, 1.0, 1.0, 1.0, 1.0), False)
    assert list(peers) == list(load("quest").UNIT.peers)
    with pytest.raises(MissingPeerError, match="killed the process"):
        peers["dense, ours"]({})


def test_what_fails_always_raises_and_the_next_case_is_measured(tmp_path: Path):
    error, process = measure(tmp_path / "notes", "always fails", "good")
    assert error == "an illegal access"
    assert isinstance(process, int)
