"""The papers that a claim of the survey speaks of, out of those that are selected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from analysis.affinity import Affinity, affinity
from analysis.effects import effect_on
from analysis.selection import Selection
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper


class Evidence:
    """The selected papers, grouped by placement and by objective. Raises EmptySelectionError if there is none."""

    def __init__(self, atlas: Atlas, selection: Selection) -> None:
        self.all = selection.papers(atlas)
        self.dimensions = [dimension.code for dimension in atlas.dimensions]
        self.behaviors = [*atlas.behaviors]
        self.objectives = [*atlas.objectives]
        self.about: dict[str, list[Paper]] = {  # by the code of a dimension or behavior: primary placements
            **{d.code: self._where(lambda leaf, d=d: leaf.dimension is d) for d in atlas.dimensions},
            **{b.code: self._where(lambda leaf, b=b: leaf.behavior is b) for b in atlas.behaviors.values()},
        }
        self._atlas, self._selection = atlas, selection

    @cached_property
    def affinity(self) -> Affinity:
        """The affinities of behaviors over the selected papers."""
        return affinity(self._atlas, self._selection)

    def exhibiting(self, behavior: str) -> list[Paper]:
        """Return the papers with a primary or secondary placement in a behavior."""
        return [paper for paper in self.all if any(p.leaf.behavior.code == behavior for p in paper.placements)]

    def targeting(self, *objectives: str) -> list[Paper]:
        """Return the papers with a direct effect on one of the objectives."""
        return self._with(lambda effect: effect.effect == "direct", objectives)

    def reporting(self, *objectives: str) -> list[Paper]:
        """Return the papers that report a number for one of the objectives."""
        return self._with(lambda effect: bool(effect.gains), objectives)

    def affecting(self, *objectives: str) -> list[Paper]:
        """Return the papers with a direct or indirect effect on one of the objectives."""
        return self._with(lambda _: True, objectives)

    def _where(self, holds: Callable[..., bool]) -> list[Paper]:
        return [paper for paper in self.all if any(holds(placement.leaf) for placement in paper.primary)]

    def _with(self, holds: Callable[..., bool], objectives: Iterable[str]) -> list[Paper]:
        wanted = [*objectives]
        return [p for p in self.all if any((e := effect_on(p, code)) and holds(e) for code in wanted)]


def both(papers: Sequence[Paper], others: Sequence[Paper]) -> list[Paper]:
    """Return the papers that are also among the others."""
    ids = {paper.id for paper in others}
    return [paper for paper in papers if paper.id in ids]


def share(part: Sequence[Paper], whole: Sequence[Paper]) -> float:
    """Return the share of `whole` that is also in `part`."""
    return len(both(whole, part)) / len(whole) if whole else 0.0
