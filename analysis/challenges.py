"""The survey's open challenges C1 to C6, each with the papers that work on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from analysis.claims import claims, words
from analysis.evidence import Evidence, both
from analysis.selection import EVERYTHING, Selection
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper
from taxonomy.store.row import Words


@dataclass(frozen=True)
class Challenge:
    """An open problem of the survey, the observation it follows from ("" for none), and the papers that work on it."""

    code: str
    text: Words
    observation: str
    papers: list[Paper] = field(repr=False)


def challenges(atlas: Atlas, selection: Selection = EVERYTHING) -> dict[str, Challenge]:
    """Return the open challenges by code. Raises EmptySelectionError if no paper is selected."""
    evidence = Evidence(atlas, selection)
    return {
        code: Challenge(code, words(text["text"]), text["from"] or "", _AT_WORK[code](evidence))
        for code, text in claims("challenges").items()
    }


def _tail_latency(e: Evidence) -> list[Paper]:
    """C1: the papers that target tail latency directly."""
    return e.targeting("tail-latency")


def _energy(e: Evidence) -> list[Paper]:
    """C2: the papers that target energy directly."""
    return e.targeting("energy")


def _quality_and_speed(e: Evidence) -> list[Paper]:
    """C3: the papers that target quality, and mean latency or throughput, directly."""
    return both(e.targeting("quality"), e.targeting("mean-latency", "throughput"))


def _hardware_and_devices(e: Evidence) -> list[Paper]:
    """C4: the papers that exhibit HAE and CDO."""
    return both(e.exhibiting("hae"), e.exhibiting("cdo"))


def _compression_and_more(e: Evidence) -> list[Paper]:
    """C5: the papers that exhibit KVCC and a behavior of another dimension."""
    return [p for p in e.exhibiting("kvcc") if len({m.leaf.dimension.code for m in p.placements}) > 1]


def _benchmarks(_: Evidence) -> list[Paper]:
    """C6: none, since benchmarks are outside the scope of the atlas."""
    return []


_AT_WORK: dict[str, Callable[[Evidence], list[Paper]]] = {
    "C1": _tail_latency,
    "C2": _energy,
    "C3": _quality_and_speed,
    "C4": _hardware_and_devices,
    "C5": _compression_and_more,
    "C6": _benchmarks,
}
