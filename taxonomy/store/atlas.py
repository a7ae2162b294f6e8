"""What the store says, as the list, the exports, the pages and the analyses read it.

`taxonomy.store.reading.read_atlas` makes it from a store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from taxonomy.store.kernels import Kernel
from taxonomy.store.papers import OutOfScope, Paper
from taxonomy.store.terms import Behavior, Community, Dimension, Leaf, Objective, Venue

K = TypeVar("K")
T = TypeVar("T")


@dataclass
class Atlas:
    """Everything in the store. Papers are newest first, words in the order of the vocabulary."""

    dimensions: list[Dimension]
    behaviors: dict[str, Behavior]
    leaves: dict[str, Leaf]
    objectives: dict[str, Objective]
    communities: dict[str, Community]
    venues: dict[str, Venue]
    papers: list[Paper]
    kernels: list[Kernel]
    out_of_scope: list[OutOfScope]

    @cached_property
    def out_of_scope_by_criterion(self) -> dict[str, list[OutOfScope]]:
        """What is out of scope, by the criterion that fails; the criterion that most fail first."""
        groups = _grouped(self.out_of_scope, lambda item: [item.fails])
        return dict(sorted(groups.items(), key=lambda group: -len(group[1])))

    @cached_property
    def by_id(self) -> dict[str, Paper]:
        """Papers by id."""
        return {paper.id: paper for paper in self.papers}

    @cached_property
    def last_added(self) -> str:
        """The day of the newest addition, YYYY-MM-DD: the atlas's own clock, "" where it is empty."""
        return max((paper.added for paper in self.papers), default="")

    @cached_property
    def _by_leaf(self) -> dict[str, list[Paper]]:
        return _grouped(self.papers, lambda paper: [placement.leaf_code for placement in paper.placements])

    @cached_property
    def by_objective(self) -> dict[str, list[Paper]]:
        """Papers by the code of each objective they bear on."""
        return _grouped(self.papers, lambda paper: [effect.objective_code for effect in paper.effects])

    @cached_property
    def by_venue(self) -> dict[str, list[Paper]]:
        """Papers by code of venue; preprints are not there."""
        return _grouped(self.papers, lambda paper: [paper.venue_code] if paper.venue_code else [])

    @cached_property
    def by_year(self) -> dict[int, list[Paper]]:
        """Papers by year of their first public version, newest year first."""
        return _grouped(self.papers, lambda paper: [paper.year])

    @cached_property
    def kernels_by_paper(self) -> dict[str, list[Kernel]]:
        """Kernels by the id of each paper they stand for."""
        return _grouped(self.kernels, lambda kernel: [paper.id for paper in kernel.papers])

    @cached_property
    def kernels_by_leaf(self) -> dict[str, list[Kernel]]:
        """Kernels by the code of their leaf."""
        return _grouped(self.kernels, lambda kernel: [kernel.leaf_code])

    def in_leaf(self, code: str, role: str | None = None) -> list[Paper]:
        """Return the papers of a leaf, with `role` ("primary", "secondary") or with any."""
        papers = self._by_leaf.get(code, [])
        if role is None:
            return papers
        return [p for p in papers if any(m.leaf_code == code and m.role == role for m in p.placements)]

    def in_leaves(self, leaves: Iterable[Leaf], role: str | None = None) -> list[Paper]:
        """Return the papers that stand in any of the leaves, each once."""
        wanted = {paper.id for leaf in leaves for paper in self.in_leaf(leaf.code, role)}
        return [paper for paper in self.papers if paper.id in wanted]


def _grouped(things: list[T], keys: Callable[[T], Iterable[K]]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for thing in things:
        for key in keys(thing):
            groups[key].append(thing)
    return dict(groups)
