"""The gains that papers report, by objective and leaf. Gains are not comparable across papers.

Each is relative to its authors' own baseline, models, hardware and load; many are the best case ("up to").
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles

from analysis.selection import EVERYTHING, Selection
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Gain, Paper
from taxonomy.store.terms import Leaf, Objective


@dataclass(frozen=True)
class Reported:
    """One gain of a paper, in one of its primary leaves (a paper with two has each gain in both)."""

    paper: Paper
    leaf: Leaf
    objective: Objective
    gain: Gain


@dataclass(frozen=True)
class Spread:
    """The factors reported in one leaf for one objective, "up to" and others apart."""

    leaf: Leaf
    objective: Objective
    up_to: bool
    factors: list[float]  # ascending
    papers: int

    @property
    def median(self) -> float:
        """The middle factor."""
        return median(self.factors)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile; with one factor, that one."""
        if len(self.factors) == 1:
            return self.factors[0], self.factors[0]
        low, _, high = quantiles(self.factors, n=4, method="inclusive")
        return low, high


def reported(atlas: Atlas, selection: Selection = EVERYTHING) -> list[Reported]:
    """Return every reported gain, in the order of objectives and leaves, papers newest first."""
    order = {code: index for index, code in enumerate(atlas.objectives)}
    leaves = {code: index for index, code in enumerate(atlas.leaves)}
    found = [
        Reported(paper, placement.leaf, effect.objective, gain)
        for paper in selection.papers(atlas)
        for effect in paper.effects
        for gain in effect.gains
        for placement in paper.primary
    ]
    return sorted(found, key=lambda r: (order[r.objective.code], leaves[r.leaf.code]))


def spreads(atlas: Atlas, selection: Selection = EVERYTHING) -> list[Spread]:
    """Return the factors above 1 by objective, leaf and "up to"; percentages are left out.

    A factor of 1 or less is a cost or no change, so it is left out too.
    """
    groups: dict[tuple[str, str, bool], list[Reported]] = {}
    for item in reported(atlas, selection):
        if item.gain.factor is not None and item.gain.factor > 1:
            groups.setdefault((item.objective.code, item.leaf.code, item.gain.up_to), []).append(item)
    return [_spread(items) for items in groups.values()]


def _spread(items: list[Reported]) -> Spread:
    factors = sorted(item.gain.factor or 0.0 for item in items)
    first = items[0]
    return Spread(first.leaf, first.objective, first.gain.up_to, factors, len({item.paper.id for item in items}))
