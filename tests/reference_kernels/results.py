"""Made-up results, in the form that `bench` writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from reference_kernels.core import results
from tests.reference_kernels.repository import ROOT

GPU = "Made-up GPU 8GB"
TIMED = {
    "checks": [{"output": "out", "error": 0.1, "budget": 0.2, "good": True}],
    "seconds": {"median": 2e-4, "p20": 1e-4, "p80": 3e-4},
    "share": 0.8125,
    "peers": {
        "slow": {"seconds": {"median": 8e-4}},
        "fast, dense": {"seconds": {"median": 3e-4}},
        "fast, fp8": {"seconds": {"median": 1e-4}},
        "absent": {"missing": "it is not installed"},
    },
}
WRONG = {"checks": [{"output": "out", "error": 0.3, "budget": 0.2, "good": False}]}


def made_up(unit: str, cases: dict[str, Any], gpu: str = GPU, **machine: str) -> dict[str, Any]:
    """Return what `bench` would write of a unit."""
    facts = {"gpu": gpu, "taken": "2026-11-24T08:20:31Z", "commit": "c0ffee"} | machine
    return {"unit": unit, "machine": facts, "ceilings": {"read": 1e12}, "cases": cases}


def copied_package(folder: Path, *units: str) -> Path:
    """Copy the named files of units, such as `kvs/quest.py`, into a package without results and return its folder."""
    package = folder / "reference_kernels"
    for unit in units:
        (package / unit).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "reference_kernels" / unit, package / unit)
    return package


def write_result(package: Path, result: dict[str, Any]) -> Path:
    """Write a file of results into its place."""
    return results.write(result["unit"], result, package / "results")
