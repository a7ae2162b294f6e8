"""Co-design affinity: how often two behaviors (or leaves) occur in the same papers, as the survey computes it.

The co-occurrence matrix is C = WᵀW, with W [papers, labels] from `analysis.weights`. The affinity of two labels is
their Tanimoto coefficient T_ij = C_ij / (C_ii + C_jj − C_ij): 1 if both have the same weight in every paper, 0 if no
paper has both. Two labels have an edge if T reaches the threshold.

A coefficient does not say whether a pair is more frequent than by chance, so each pair also has
- the papers with both labels, and their expected number if the two were independent, n_i n_j / n;
- the two-sided p of Fisher's exact test of independence, and q, its false discovery rate over all pairs (Benjamini and
  Hochberg);
- a 95 % bootstrap interval of T (percentiles; papers are drawn with replacement).
Independence is a rough reference: a paper has few labels, so each makes every other one less likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, fisher_exact

from analysis.selection import EVERYTHING, Selection
from analysis.weights import Label, Level, Matrix, labels, weights
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper

THRESHOLD = 0.14  # the survey's
DRAWS = 1000
DRAWN_AT_ONCE = 1_000_000  # multiplicities of papers, which bounds the memory


@dataclass(frozen=True)
class Pair:
    """Two labels: their affinity with its interval, the papers with both (newest first), the test of independence."""

    one: Label
    other: Label
    affinity: float
    low: float
    high: float
    papers: list[Paper] = field(repr=False)
    expected: float
    p: float
    q: float

    @property
    def observed(self) -> int:
        """How many papers have both."""
        return len(self.papers)

    @property
    def key(self) -> str:
        """The two codes, in the order of the vocabulary."""
        return f"{self.one.code}+{self.other.code}"

    @property
    def inside(self) -> bool:
        """Whether both belong to one dimension."""
        return self.one.dimension is self.other.dimension


@dataclass(frozen=True)
class Affinity:
    """The affinities of a selection. Arrays are in the order of `labels`."""

    selection: Selection
    level: Level
    threshold: float
    labels: list[Label]
    primary: list[int]  # papers with each label as a primary one
    present: list[int]  # papers with it, primary or secondary
    count: int  # papers in all
    co_occurrence: Matrix = field(repr=False)  # C
    tanimoto: Matrix = field(repr=False)  # T
    samples: Matrix = field(repr=False)  # [DRAWS, pairs in the order of `combinations`], T of each draw
    pairs: list[Pair] = field(repr=False)  # strongest first

    @property
    def edges(self) -> list[Pair]:
        """The pairs that reach the threshold, strongest first."""
        return [pair for pair in self.pairs if pair.affinity >= self.threshold]

    def pair(self, one: str, other: str) -> Pair:
        """Return the pair of two codes, in either order. Raises KeyError if there is none."""
        for pair in self.pairs:
            if {pair.one.code, pair.other.code} == {one, other}:
                return pair
        raise KeyError(f"no pair of {one} and {other}")

    def chance_above(self, pair: Pair, other: Pair) -> float:
        """Return the share of bootstrap samples in which `pair` is stronger than `other`; a tie counts as half."""
        order = {frozenset(p): i for i, p in enumerate(combinations([label.code for label in self.labels], 2))}
        mine, its = (order[frozenset((p.one.code, p.other.code))] for p in (pair, other))
        return float((np.sign(self.samples[:, mine] - self.samples[:, its]) + 1).mean() / 2)


def affinity(
    atlas: Atlas,
    selection: Selection = EVERYTHING,
    *,
    level: Level = "behavior",
    threshold: float = THRESHOLD,
    draws: int = DRAWS,
    seed: int = 0,
) -> Affinity:
    """Compute the affinities of the selected papers; the same input gives the same numbers.

    Raises:
        EmptySelectionError: there is no paper.
        ValueError: a threshold outside of 0 … 1, or fewer than one draw.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"a threshold lies between 0 and 1, not at {threshold}")
    if draws < 1:
        raise ValueError(f"an interval needs at least one draw, not {draws}")
    papers = selection.papers(atlas)
    columns = labels(atlas, level)
    matrix = weights(papers, columns, level)
    co_occurrence = matrix.T @ matrix
    coefficients = tanimoto(co_occurrence)
    samples = _samples(matrix, draws, seed)
    return Affinity(
        selection,
        level,
        threshold,
        columns,
        [int(n) for n in (matrix == 1).sum(0)],
        [int(n) for n in (matrix > 0).sum(0)],
        len(papers),
        co_occurrence,
        coefficients,
        samples,
        _pairs(papers, columns, matrix, coefficients, samples),
    )


def tanimoto(co_occurrence: Matrix) -> Matrix:
    """Return T of C [..., n, n]; a label without papers has 0 with every other and with itself."""
    own = np.diagonal(co_occurrence, axis1=-2, axis2=-1)
    union = own[..., :, None] + own[..., None, :] - co_occurrence
    return np.divide(co_occurrence, union, out=np.zeros_like(co_occurrence), where=union > 0)


def _samples(matrix: Matrix, draws: int, seed: int) -> Matrix:
    """Return T of each pair in each draw [draws, pairs]."""
    count, columns = matrix.shape
    first, second = np.triu_indices(columns, 1)
    # C of a sample is the sum over papers of their contribution times their multiplicity: one matrix product for all
    parts = np.hstack([matrix[:, first] * matrix[:, second], matrix**2])
    random = np.random.default_rng(seed)
    even = np.full(count, 1 / count)
    step = max(1, DRAWN_AT_ONCE // count)
    times = (random.multinomial(count, even, size=min(step, draws - begin)) for begin in range(0, draws, step))
    sums = np.vstack([drawn @ parts for drawn in times])
    both, own = sums[:, : len(first)], sums[:, len(first) :]
    union = own[:, first] + own[:, second] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _pairs(
    papers: Sequence[Paper], columns: list[Label], matrix: Matrix, coefficients: Matrix, samples: Matrix
) -> list[Pair]:
    indices = [*combinations(range(len(columns)), 2)]
    there: NDArray[np.bool_] = matrix > 0
    present = there.sum(0)
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    chances = [_independent(there[:, i], there[:, j]) for i, j in indices]
    rates = false_discovery_control(chances)
    pairs = [
        Pair(
            columns[i],
            columns[j],
            float(coefficients[i, j]),
            float(low[k]),
            float(high[k]),
            [papers[row] for row in np.flatnonzero(there[:, i] & there[:, j]).tolist()],
            float(present[i] * present[j] / len(papers)),
            chances[k],
            float(rates[k]),
        )
        for k, (i, j) in enumerate(indices)
    ]
    return sorted(pairs, key=lambda pair: -pair.affinity)


def _independent(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the two-sided p of Fisher's exact test that two labels are independent."""
    table = np.array([[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]])
    return float(fisher_exact(table).pvalue)
