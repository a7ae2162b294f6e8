"""Research gaps: combinations of labels, or of leaves and objectives, that are rarer than under independence.

The p of a combination is the probability of so few papers, or fewer, under independence: for two parts it is
hypergeometric, for three binomial with the product of their shares. Its q is the false discovery rate (Benjamini and
Hochberg) over the combinations of its kind with at least 3 expected papers. A rare combination may also be infeasible
or useless; the nearest papers help to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, false_discovery_control, hypergeom

from analysis.effects import effect_on
from analysis.selection import EVERYTHING, Selection
from analysis.weights import Label, Level, Matrix, labels, weights
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper
from taxonomy.store.terms import Objective

Kind = Literal["behaviors", "leaves", "triples", "leaf-triples", "objectives"]
KINDS: tuple[Kind, ...] = ("behaviors", "leaves", "triples", "leaf-triples", "objectives")
TRIPLES = ("triples", "leaf-triples")
NEAREST = 3
LEAST = 3.0  # expected papers: a combination with fewer is not tested
Column = tuple[Label | Objective, NDArray[np.float64]]
Parts = tuple[Column, ...]


@dataclass(frozen=True)
class Opening:
    """A combination, the papers with all its parts, how many independence predicts, and the nearest papers."""

    parts: tuple[Label | Objective, ...]
    papers: list[Paper] = field(repr=False)
    expected: float
    p: float
    q: float
    nearest: list[Paper] = field(repr=False)

    @property
    def observed(self) -> int:
        """How many papers have all parts."""
        return len(self.papers)

    @property
    def ratio(self) -> float:
        """Observed over expected."""
        return self.observed / self.expected

    @property
    def key(self) -> str:
        """The codes of its parts."""
        return "+".join(part.code for part in self.parts)


def openings(atlas: Atlas, kind: Kind = "leaves", selection: Selection = EVERYTHING) -> list[Opening]:
    """Return the combinations of a kind with fewer papers than expected, the least likely first.

    Kinds: pairs of `behaviors` and of `leaves`, `triples` of behaviors, `leaf-triples`, and leaves with `objectives`.

    Raises:
        ValueError: there is no such kind.
        EmptySelectionError: there is no paper.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")
    papers = selection.papers(atlas)
    candidates = [_measured(parts, papers) for parts in _candidates(atlas, kind, papers)]
    candidates = [found for found in candidates if found[2] >= LEAST]
    if not candidates:
        return []
    rates = false_discovery_control([found[3] for found in candidates])
    found = [
        Opening(tuple(label for label, _ in parts), both, expected, p, float(q), _nearest(parts, papers))
        for (parts, both, expected, p), q in zip(candidates, rates, strict=True)
        if len(both) < expected
    ]
    return sorted(found, key=lambda opening: (opening.p, opening.key))


def _candidates(atlas: Atlas, kind: Kind, papers: list[Paper]) -> list[Parts]:
    level: Level = "behavior" if kind in ("behaviors", "triples") else "leaf"
    names = labels(atlas, level)
    columns: list[Column] = [*zip(names, weights(papers, names, level).T, strict=True)]
    if kind != "objectives":
        return [*combinations(columns, 3 if kind in TRIPLES else 2)]
    goals = [(o, np.array([_weight(paper, o.code) for paper in papers])) for o in atlas.objectives.values()]
    return [(column, goal) for column in columns for goal in goals]


def _weight(paper: Paper, objective: str) -> float:
    effect = effect_on(paper, objective)
    return 0.0 if effect is None else 1.0 if effect.effect == "direct" else 0.5


def _measured(parts: Parts, papers: Sequence[Paper]) -> tuple[Parts, list[Paper], float, float]:
    """Return the parts, the papers with all of them, how many independence predicts, and p."""
    there = np.array([column > 0 for _, column in parts])
    sizes, count = there.sum(1), len(papers)
    both = [papers[row] for row in np.flatnonzero(there.all(0)).tolist()]
    share = float(np.prod(sizes / count))
    if len(parts) == 2:
        return parts, both, share * count, float(hypergeom.cdf(len(both), count, sizes[0], sizes[1]))
    return parts, both, share * count, float(binom.cdf(len(both), count, share))


def _nearest(parts: Parts, papers: Sequence[Paper]) -> list[Paper]:
    """Return the papers whose weights in the parts are largest in sum; of equals, the newest."""
    closeness: Matrix = np.sum([column for _, column in parts], axis=0)
    best = np.argsort(-closeness, kind="stable")[:NEAREST]  # papers are newest first
    return [papers[row] for row in best.tolist() if closeness[row] > 0]
