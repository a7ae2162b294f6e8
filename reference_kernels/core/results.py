"""Measurements as JSON files: `results/<gpu>/<unit>.json`, each with the machine and the versions it was taken with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "results"
PACKAGES = (
    "torch",
    "triton",
    "flashinfer-python",
    "nvidia-cudnn-cu13",
    "nvidia-nvcomp-cu13",
    "kvpress",
    "optimum-quanto",
)


def machine() -> dict[str, Any]:
    """Return the GPU, its driver and the versions in use; what cannot be told is absent."""
    import torch

    versions = {name: version for name in PACKAGES if (version := _version(name))}
    versions["torch"] = str(torch.__version__)  # the package's metadata may leave out which CUDA it is for
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    facts = {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "memory_bytes": properties.total_memory,
        "driver": _line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": versions,
        "commit": os.environ.get("SKIS_COMMIT") or _line("git", "rev-parse", "HEAD"),
    }
    return {key: value for key, value in facts.items() if value}


def folder(gpu: str, base: Path = RESULTS) -> Path:
    """Return the folder of a GPU's results."""
    return base / re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def write(unit: str, result: dict[str, Any], base: Path = RESULTS) -> Path:
    """Write one unit's measurements and return where."""
    place = folder(result["machine"]["gpu"], base)
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{unit}.json"
    path.write_text(json.dumps(_rounded(result), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def read(base: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return all measurements: {gpu folder: {unit: result}}, in the order of their names."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(base.glob("*/*.json")):
        found.setdefault(path.parent.name, {})[path.stem] = json.loads(path.read_text("utf-8"))
    return found


def _rounded(value: Any) -> Any:
    """Keep six significant digits: more are noise."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _line(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=RESULTS.parent)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None
