"""Papers as rows of weights: 1 for a primary label, 0.5 for a secondary one, 0 for any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper, Placement
from taxonomy.store.terms import Behavior, Leaf

Level = Literal["behavior", "leaf"]
Label: TypeAlias = Behavior | Leaf
Matrix: TypeAlias = NDArray[np.float64]


def labels(atlas: Atlas, level: Level) -> list[Label]:
    """Return the columns of a level, in the order of the vocabulary."""
    return [*(atlas.behaviors if level == "behavior" else atlas.leaves).values()]


def label_of(placement: Placement, level: Level) -> Label:
    """Return the column that a placement counts in."""
    return placement.leaf.behavior if level == "behavior" else placement.leaf


def weights(papers: Sequence[Paper], columns: Iterable[Label], level: Level) -> Matrix:
    """Return W [papers, columns]. Of several placements in one behavior, the one with the largest weight counts."""
    place = {label.code: index for index, label in enumerate(columns)}
    matrix = np.zeros((len(papers), len(place)))
    for row, paper in enumerate(papers):
        for placement in paper.placements:
            column = place[label_of(placement, level).code]
            matrix[row, column] = max(matrix[row, column], placement.weight)
    return matrix
