"""What the rest of the atlas is told of the kernels: plain rows, made without torch.

Figures come from `results/<gpu>/<unit>.json`, which strangers may send: a file that does not say what it should is
refused with words.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypedDict

from reference_kernels.core.results import folder
from reference_kernels.registry import ROOT, read_cards

FEWER_BITS = ("fp8",)  # words in the names of peers that read a smaller cache than 16 bits
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class Result(TypedDict):
    """One case on one GPU. Without `seconds` the result was wrong, and was not timed."""

    gpu: str
    case: str
    seconds: float | None  # median
    share: float | None  # of the ceiling: the least time that this GPU allows, over the time taken
    gain: float | None  # how many times as fast as `peer`; absent where there was none to compare with
    peer: str | None  # the fastest peer that keeps 16 bits per number
    others: dict[str, float]  # the same for peers with fewer bits
    taken: str
    commit: str | None


class Row(TypedDict):
    """One unit."""

    name: str
    file: str  # from the root of the repository
    leaf: str
    title: str
    papers: list[str]
    results: list[Result]


class BadResultError(Exception):
    """A file of results is not one; `file` is its path below the package, `reason` what is wrong."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file, self.reason = file, reason


def table(package: Path = ROOT) -> list[Row]:
    """Return a row per unit of the package in a folder, in the order of the registry.

    Raises:
        BadResultError: a file of results is malformed, of no unit, or in the folder of another GPU.
    """
    cards = read_cards(package)
    results: dict[str, list[Result]] = {card.name: [] for card in cards}
    for path in sorted((package / "results").glob("*/*.json")):
        file = path.relative_to(package).as_posix()
        if path.stem not in results:
            raise BadResultError(file, f"there is no unit {path.stem}")
        try:
            found = _results(json.loads(path.read_text("utf-8")))
        except MALFORMED as error:
            raise BadResultError(file, f"not a result as `bench` writes it ({error!r})") from error
        for gpu in {result["gpu"] for result in found}:
            if path.parent != folder(gpu, package / "results"):
                raise BadResultError(file, f"results of {gpu} belong into {folder(gpu).name}/")
        results[path.stem] += found
    return [
        {
            "name": card.name,
            "file": card.file,
            "leaf": card.leaf,
            "title": card.title,
            "papers": list(card.papers),
            "results": results[card.name],
        }
        for card in cards
    ]


def _results(said: dict[str, Any]) -> list[Result]:
    machine = said["machine"]
    found: list[Result] = []
    for case, measured in said["cases"].items():
        result: Result = {
            "gpu": _text(machine["gpu"]),
            "case": case,
            "seconds": None,
            "share": None,
            "gain": None,
            "peer": None,
            "others": {},
            "taken": _text(machine["taken"]),
            "commit": _text(machine["commit"]) if "commit" in machine else None,
        }
        if "seconds" in measured:
            mine = _number(measured["seconds"]["median"])
            peers = measured.get("peers", {}).items()
            gains = {name: _number(p["seconds"]["median"]) / mine for name, p in peers if "seconds" in p}
            equals = {name: gain for name, gain in gains.items() if not any(word in name for word in FEWER_BITS)}
            result |= {"seconds": mine, "share": _number(measured["share"])}
            result["others"] = {name: gain for name, gain in gains.items() if name not in equals}
            if equals:
                result["peer"] = min(equals, key=lambda name: equals[name])
                result["gain"] = float(f"{equals[result['peer']]:.6g}")  # as exact as the times are
        found.append(result)
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{value!r} is not a positive number")
    return number
