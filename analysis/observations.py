"""The survey's observations O1 to O7 as checks on the data of today and on its own papers; its challenges C1 to C6.

A check computes figures and says "holds", "no longer holds" or "cannot be told". The claims, and the sentences that say
why, are in `claims.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from scipy.stats import binomtest, fisher_exact

from analysis.affinity import affinity
from analysis.effects import effect_on
from analysis.selection import EVERYTHING, SURVEY, Selection
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper
from taxonomy.store.row import Words

FILE = Path(__file__).with_name("claims.yaml")
RARE = 0.2  # a share below it is rare
MOST = 0.5  # above it is most
FEW = 10  # a share of fewer papers tells nothing
SURE = 0.95  # of the bootstrap draws, and of an interval
Verdict = Literal["holds", "no longer holds", "cannot be told"]
Figures = dict[str, float | str]


@dataclass(frozen=True)
class Finding:
    """What the data say of a claim, the figures behind it, and both in a sentence."""

    verdict: Verdict
    figures: Figures
    reason: Words


@dataclass(frozen=True)
class Observation:
    """A claim of the survey with its finding on the selected papers and on the survey's own."""

    code: str
    claim: Words
    today: Finding
    survey: Finding | None  # none where the atlas has no paper of the survey


@dataclass(frozen=True)
class Challenge:
    """An open problem of the survey, the observation it follows from ("" for none), and the papers that work on it."""

    code: str
    text: Words
    observation: str
    papers: list[Paper] = field(repr=False)


def observations(atlas: Atlas, selection: Selection = EVERYTHING) -> list[Observation]:
    """Check every observation on the selected papers, and on the survey's own.

    Raises EmptySelectionError if no paper is selected.
    """
    today = _Papers(atlas, selection)
    survey = _Papers(atlas, SURVEY) if any(paper.survey for paper in atlas.papers) else None
    return [
        Observation(
            code, _words(text["claim"]), _finding(text, check(today)), _finding(text, check(survey)) if survey else None
        )
        for (code, text), check in zip(_claims()["observations"].items(), _CHECKS, strict=True)
    ]


def challenges(atlas: Atlas, selection: Selection = EVERYTHING) -> list[Challenge]:
    """Return the open challenges with the papers that work on them.

    C1, C2: papers that aim at tail latency, at energy. C3: at quality, and at latency or throughput. C4: that exhibit
    HAE and CDO. C5: that compress and act in another dimension too. C6: none, benchmarks are outside the atlas's scope.
    """
    data = _Papers(atlas, selection)
    at_work: dict[str, list[Paper]] = {
        "C1": data.aiming("tail-latency"),
        "C2": data.aiming("energy"),
        "C3": _both(data.aiming("quality"), data.aiming("mean-latency", "throughput")),
        "C4": _both(data.exhibiting("hae"), data.exhibiting("cdo")),
        "C5": [p for p in data.exhibiting("kvcc") if len({m.leaf.dimension.code for m in p.placements}) > 1],
    }
    return [
        Challenge(code, _words(text["text"]), text["from"] or "", at_work.get(code, []))
        for code, text in _claims()["challenges"].items()
    ]


def claim_words(part: str, key: str) -> Words:
    """Return a text of `claims.yaml`."""
    return _words(_claims()[part][key])


@cache
def _claims() -> dict[str, Any]:
    claims: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return claims


def _words(text: dict[str, str]) -> Words:
    return Words(text["en"], text["zh"])


def _finding(text: dict[str, Any], found: tuple[Verdict, Figures]) -> Finding:
    verdict, figures = found
    reason = text["reason"]
    if set(figures) == {"few"}:
        reason = {"en": "Only {few} papers could tell.", "zh": "只有 {few} 篇论文可供判断。"}
    return Finding(verdict, figures, Words(*(reason[language].format(**figures) for language in ("en", "zh"))))


class _Papers:
    """The papers of a selection, and those of them that a claim speaks of."""

    def __init__(self, atlas: Atlas, selection: Selection) -> None:
        self.all = selection.papers(atlas)
        self.affinity = affinity(atlas, selection)
        self.objectives = [*atlas.objectives]
        self.behaviors = [*atlas.behaviors]
        self.about: dict[str, list[Paper]] = {  # by code of a dimension or a behavior
            **{d.code: self._where(lambda leaf, d=d: leaf.dimension is d) for d in atlas.dimensions},
            **{b.code: self._where(lambda leaf, b=b: leaf.behavior is b) for b in atlas.behaviors.values()},
        }

    def _where(self, holds: Callable[..., bool]) -> list[Paper]:
        return [paper for paper in self.all if any(holds(placement.leaf) for placement in paper.primary)]

    def exhibiting(self, behavior: str) -> list[Paper]:
        """Return the papers of a behavior in whatever role."""
        return [paper for paper in self.all if any(m.leaf.behavior.code == behavior for m in paper.placements)]

    def aiming(self, *objectives: str) -> list[Paper]:
        """Return the papers that act directly on one of the objectives."""
        return self._with(lambda effect: effect.effect == "direct", objectives)

    def gaining(self, *objectives: str) -> list[Paper]:
        """Return the papers that report a number for one of them."""
        return self._with(lambda effect: bool(effect.gains), objectives)

    def bearing(self, *objectives: str) -> list[Paper]:
        """Return the papers that say anything of one of them."""
        return self._with(lambda _: True, objectives)

    def _with(self, holds: Callable[..., bool], objectives: Iterable[str]) -> list[Paper]:
        wanted = [*objectives]
        return [p for p in self.all if any((e := effect_on(p, code)) and holds(e) for code in wanted)]


def _both(papers: Sequence[Paper], others: Sequence[Paper]) -> list[Paper]:
    """Return the papers that are also among the others."""
    ids = {paper.id for paper in others}
    return [paper for paper in papers if paper.id in ids]


def _share(part: Sequence[Paper], whole: Sequence[Paper]) -> float:
    """Return which part of `whole` is also in `part`."""
    return len(_both(whole, part)) / len(whole) if whole else 0.0


def _verdict(holds: bool) -> Verdict:
    return "holds" if holds else "no longer holds"


DIMENSIONS = ("temporal", "spatial", "structural")


def _structure_saves_memory(d: _Papers) -> tuple[Verdict, Figures]:
    savers, aiming = d.gaining("gpu-memory"), d.aiming("gpu-memory")
    if len(savers) < FEW:
        return "cannot be told", {"few": len(savers)}
    sizes = {code: len(d.about[code]) for code in DIMENSIONS}
    direct = {code: _share(aiming, d.about[code]) for code in DIMENSIONS}
    others = max(direct["temporal"], direct["spatial"])
    structural = _share(d.about["structural"], savers)
    holds = sizes["structural"] == max(sizes.values()) and structural > MOST and direct["structural"] > others
    return _verdict(holds), {**sizes, "savers": structural, "direct": direct["structural"], "others": others}


def _time_saves_time(d: _Papers) -> tuple[Verdict, Figures]:
    if len(d.about["temporal"]) < FEW:
        return "cannot be told", {"few": len(d.about["temporal"])}
    aiming = d.aiming("mean-latency", "throughput")
    shares = {code: _share(aiming, d.about[code]) for code in DIMENSIONS}
    tail = _share(d.gaining("tail-latency"), d.about["temporal"])
    rival = max(DIMENSIONS[1:], key=lambda code: (shares[code], len(d.about[code])))
    by_chance = _chance_of_difference(aiming, d.about["temporal"], d.about[rival])
    figures: Figures = {**shares, "tail": tail, "p": by_chance}
    if tail < RARE and by_chance > 1 - SURE:
        return "cannot be told", figures
    return _verdict(shares["temporal"] > shares[rival] and tail < RARE), figures


def _chance_of_difference(part: Sequence[Paper], one: Sequence[Paper], other: Sequence[Paper]) -> float:
    """Return the chance of shares at least as far apart, if they were the same: Fisher's exact test."""
    counts = [(len(_both(whole, part)), len(whole)) for whole in (one, other)]
    table = np.array([[within, size - within] for within, size in counts])
    return float(fisher_exact(table).pvalue)


def _space_saves_transfers(d: _Papers) -> tuple[Verdict, Figures]:
    spatial = d.about["spatial"]
    if len(spatial) < FEW:
        return "cannot be told", {"few": len(spatial)}
    bearing, overlapping = d.bearing("interconnect-io"), d.exhibiting("ovlp")
    shares: Figures = {code: _share(bearing, d.about[code]) for code in DIMENSIONS}
    here = _share(overlapping, spatial)
    ids = {paper.id for paper in spatial}
    there = _share(overlapping, [paper for paper in d.all if paper.id not in ids])
    holds = shares["spatial"] == max(shares.values()) and here > 2 * there
    return _verdict(holds), {**shares, "here": here, "there": there}


def _energy_is_neglected(d: _Papers) -> tuple[Verdict, Figures]:
    if len(d.all) < FEW:
        return "cannot be told", {"few": len(d.all)}
    shares = {code: _share(d.bearing(code), d.all) for code in d.objectives}
    energy = shares.pop("energy")
    rarest = min(shares.values())
    return _verdict(energy < min(rarest, RARE)), {"energy": energy, "next": rarest}


def _quality_is_everywhere(d: _Papers) -> tuple[Verdict, Figures]:
    known = [code for code in d.behaviors if len(d.about[code]) >= FEW]
    if len(known) < len(d.behaviors) - 1:
        return "cannot be told", {"few": min(len(d.about[code]) for code in d.behaviors)}
    bearing = d.bearing("quality")
    shares = {code: _share(bearing, d.about[code]) for code in known}
    lowest, highest = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    papers = d.about[lowest]
    sure = binomtest(round(shares[lowest] * len(papers)), len(papers)).proportion_ci(SURE, method="wilson")
    figures: Figures = {"lowest": lowest.upper(), "highest": highest.upper(), "least": sure.low, "most": sure.high}
    verdict: Verdict = "cannot be told" if sure.low < RARE <= sure.high else _verdict(shares[lowest] >= RARE)
    return verdict, {"low": shares[lowest], "high": shares[highest], "rare": RARE, **figures}


def _hae_and_cdo(d: _Papers) -> tuple[Verdict, Figures]:
    pair = d.affinity.pair("hae", "cdo")
    rival = next(other for other in d.affinity.pairs if other is not pair)
    chance = d.affinity.chance_above(pair, rival)
    sure = chance >= SURE or chance <= 1 - SURE
    name = f"{rival.one.code.upper()}–{rival.other.code.upper()}"
    figures: Figures = {"affinity": pair.affinity, "other": rival.affinity, "rival": name, "chance": chance}
    return _verdict(chance >= SURE) if sure else "cannot be told", figures


def _compression_is_isolated(d: _Papers) -> tuple[Verdict, Figures]:
    popular = sorted(d.behaviors, key=lambda code: -len(d.about[code]))[:2]
    best = next(pair for pair in d.affinity.pairs if "kvcc" in (pair.one.code, pair.other.code))
    partner = best.one if best.other.code == "kvcc" else best.other
    figures: Figures = {
        "papers": len(d.about["kvcc"]),
        "partner": partner.code.upper(),
        "affinity": best.affinity,
        "low": best.low,
        "high": best.high,
        "threshold": d.affinity.threshold,
    }
    if best.low < d.affinity.threshold <= best.high:
        return "cannot be told", figures
    return _verdict("kvcc" in popular and best.affinity < d.affinity.threshold), figures


_CHECKS: list[Callable[[_Papers], tuple[Verdict, Figures]]] = [  # O1 to O7
    _structure_saves_memory,
    _time_saves_time,
    _space_saves_transfers,
    _energy_is_neglected,
    _quality_is_everywhere,
    _hae_and_cdo,
    _compression_is_isolated,
]
