"""The survey's observations O1 to O7, checked on today's papers and on the survey's own.

A check computes figures and gives a verdict: "holds", "no longer holds" or "inconclusive". The claims, and the
sentences that give the figures, are in `claims.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest, fisher_exact

from analysis.claims import claims, words
from analysis.evidence import Evidence, both, share
from analysis.selection import EVERYTHING, SURVEY, Selection
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper
from taxonomy.store.row import Words

RARE = 0.2  # a smaller share is rare
MOST = 0.5  # a larger share is most
FEW = 10  # a share of fewer papers is no evidence
SURE = 0.95  # share of the bootstrap samples, and level of a confidence interval
Verdict = Literal["holds", "no longer holds", "inconclusive"]
Figures = dict[str, float | str]
Found = tuple[Verdict, Figures]


@dataclass(frozen=True)
class Finding:
    """What the papers say of a claim: the verdict, the figures behind it, and a sentence with these figures."""

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


def observations(
    atlas: Atlas, selection: Selection = EVERYTHING, *, codes: Iterable[str] | None = None
) -> dict[str, Observation]:
    """Check observations, by default all, on the selected papers and on the survey's own; return them by code.

    Raises:
        EmptySelectionError: no paper is selected.
        KeyError: there is no observation of such a code.
    """
    today = Evidence(atlas, selection)
    survey = Evidence(atlas, SURVEY) if any(paper.survey for paper in atlas.papers) else None
    texts = claims("observations")
    return {
        code: Observation(
            code, words(texts[code]["claim"]), _finding(code, today), _finding(code, survey) if survey else None
        )
        for code in (texts if codes is None else codes)
    }


def _finding(code: str, evidence: Evidence) -> Finding:
    verdict, figures = _CHECKS[code](evidence)
    text: dict[str, Any] = claims("too_few") if "few" in figures else claims("observations")[code]["reason"]
    return Finding(verdict, figures, words(text, **figures))


def _verdict(holds: bool) -> Verdict:
    return "holds" if holds else "no longer holds"


def _too_few(papers: int) -> Found:
    return "inconclusive", {"few": papers, "needed": FEW}


def _structure_saves_memory(e: Evidence) -> Found:
    """O1: the structural papers are most, most of those that report memory, and most often target it."""
    savers, targeting = e.reporting("gpu-memory"), e.targeting("gpu-memory")
    if len(savers) < FEW:
        return _too_few(len(savers))
    sizes = {code: len(e.about[code]) for code in e.dimensions}
    direct = {code: share(targeting, e.about[code]) for code in e.dimensions}
    others = max(direct[code] for code in e.dimensions if code != "structural")
    structural = share(e.about["structural"], savers)
    holds = sizes["structural"] == max(sizes.values()) and structural > MOST and direct["structural"] > others
    return _verdict(holds), {**sizes, "savers": structural, "direct": direct["structural"], "others": others}


def _time_saves_time(e: Evidence) -> Found:
    """O2: the temporal papers most often target latency or throughput, and rarely report tail latency."""
    if len(e.about["temporal"]) < FEW:
        return _too_few(len(e.about["temporal"]))
    targeting = e.targeting("mean-latency", "throughput")
    shares = {code: share(targeting, e.about[code]) for code in e.dimensions}
    tail = share(e.reporting("tail-latency"), e.about["temporal"])
    others = [code for code in e.dimensions if code != "temporal"]
    rival = max(others, key=lambda code: (shares[code], len(e.about[code])))
    by_chance = _chance_of_difference(targeting, e.about["temporal"], e.about[rival])
    figures: Figures = {**shares, "tail": tail, "p": by_chance}
    if tail < RARE and by_chance > 1 - SURE:
        return "inconclusive", figures
    return _verdict(shares["temporal"] > shares[rival] and tail < RARE), figures


def _chance_of_difference(part: Sequence[Paper], one: Sequence[Paper], other: Sequence[Paper]) -> float:
    """Return the two-sided p of Fisher's exact test that `part` has equal shares in `one` and in `other`."""
    counts = [(len(both(whole, part)), len(whole)) for whole in (one, other)]
    table = np.array([[within, size - within] for within, size in counts])
    return float(fisher_exact(table).pvalue)


def _space_saves_transfers(e: Evidence) -> Found:
    """O3: the spatial papers most often affect interconnect I/O, and overlap twice as often as all others."""
    spatial = e.about["spatial"]
    if len(spatial) < FEW:
        return _too_few(len(spatial))
    affecting, overlapping = e.affecting("interconnect-io"), e.exhibiting("ovlp")
    shares = {code: share(affecting, e.about[code]) for code in e.dimensions}
    here = share(overlapping, spatial)
    ids = {paper.id for paper in spatial}
    there = share(overlapping, [paper for paper in e.all if paper.id not in ids])
    holds = shares["spatial"] == max(shares.values()) and here > 2 * there
    return _verdict(holds), {**shares, "here": here, "there": there}


def _energy_is_neglected(e: Evidence) -> Found:
    """O4: fewer papers affect energy than any other objective, and less than a fifth do."""
    if len(e.all) < FEW:
        return _too_few(len(e.all))
    shares = {code: share(e.affecting(code), e.all) for code in e.objectives}
    energy = shares.pop("energy")
    rarest = min(shares.values())
    return _verdict(energy < min(rarest, RARE)), {"energy": energy, "next": rarest}


def _quality_is_everywhere(e: Evidence) -> Found:
    """O5: in every behavior with enough papers, at least a fifth of them affect quality."""
    known = [code for code in e.behaviors if len(e.about[code]) >= FEW]
    if len(known) < len(e.behaviors) - 1:
        return _too_few(min(len(e.about[code]) for code in e.behaviors))
    affecting = e.affecting("quality")
    shares = {code: share(affecting, e.about[code]) for code in known}
    lowest, highest = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    papers = e.about[lowest]
    sure = binomtest(round(shares[lowest] * len(papers)), len(papers)).proportion_ci(SURE, method="wilson")
    figures: Figures = {"lowest": lowest.upper(), "highest": highest.upper(), "least": sure.low, "most": sure.high}
    verdict: Verdict = "inconclusive" if sure.low < RARE <= sure.high else _verdict(shares[lowest] >= RARE)
    return verdict, {"low": shares[lowest], "high": shares[highest], "rare": RARE, "needed": FEW, **figures}


def _hae_and_cdo(e: Evidence) -> Found:
    """O6: HAE–CDO is stronger than the strongest other pair in nearly all bootstrap samples."""
    pair = e.affinity.pair("hae", "cdo")
    rival = next(other for other in e.affinity.pairs if other is not pair)
    chance = e.affinity.chance_above(pair, rival)
    sure = chance >= SURE or chance <= 1 - SURE
    name = f"{rival.one.code.upper()}–{rival.other.code.upper()}"
    figures: Figures = {"affinity": pair.affinity, "other": rival.affinity, "rival": name, "chance": chance}
    return _verdict(chance >= SURE) if sure else "inconclusive", figures


def _compression_is_isolated(e: Evidence) -> Found:
    """O7: KVCC is one of the two largest behaviors and has no edge."""
    rank = 1 + sum(len(e.about[code]) > len(e.about["kvcc"]) for code in e.behaviors)
    best = next(pair for pair in e.affinity.pairs if "kvcc" in (pair.one.code, pair.other.code))
    partner = best.one if best.other.code == "kvcc" else best.other
    figures: Figures = {
        "papers": len(e.about["kvcc"]),
        "rank": rank,
        "behaviors": len(e.behaviors),
        "partner": partner.code.upper(),
        "affinity": best.affinity,
        "low": best.low,
        "high": best.high,
        "threshold": e.affinity.threshold,
    }
    if best.low < e.affinity.threshold <= best.high:
        return "inconclusive", figures
    return _verdict(rank <= 2 and best.affinity < e.affinity.threshold), figures


_CHECKS: dict[str, Callable[[Evidence], Found]] = {
    "O1": _structure_saves_memory,
    "O2": _time_saves_time,
    "O3": _space_saves_transfers,
    "O4": _energy_is_neglected,
    "O5": _quality_is_everywhere,
    "O6": _hae_and_cdo,
    "O7": _compression_is_isolated,
}
