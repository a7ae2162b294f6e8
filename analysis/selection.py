"""The papers that an analysis is made over."""

from __future__ import annotations

from dataclasses import dataclass

from taxonomy.entries.problem import hint
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper
from taxonomy.store.terms import Behavior, Dimension, Leaf


class EmptySelectionError(ValueError):
    """A selection has no papers; the message says what was asked for."""


@dataclass(frozen=True)
class Selection:
    """Conditions that a paper has to meet; without any, every paper does.

    Args:
        until, since: first public by then, or from then on: YYYY, YYYY-MM or YYYY-MM-DD, the named day, month or year
            included. A paper of which only the month is known may be of any of its days.
        survey: only papers of the survey's own list.
        term: code of a dimension, behavior or leaf that the paper is placed in, in whatever role.
        ids: only these papers.
    """

    until: str | None = None
    since: str | None = None
    survey: bool = False
    term: str | None = None
    ids: frozenset[str] | None = None

    def papers(self, atlas: Atlas) -> list[Paper]:
        """Return the papers, newest first.

        Raises:
            ValueError: `term` is not in the taxonomy.
            EmptySelectionError: no paper meets the conditions.
        """
        leaves = {leaf.code for leaf in self._leaves(atlas)}
        papers = [paper for paper in atlas.papers if self._holds(paper, leaves)]
        if not papers:
            raise EmptySelectionError(f"no paper is left: the atlas has none of {self}")
        return papers

    def __str__(self) -> str:
        parts = ["the survey's papers" if self.survey else "all papers"]
        parts += [] if self.ids is None else [f"out of {len(self.ids)} named ones"]
        parts += [f"in {self.term}"] if self.term else []
        parts += [f"since {self.since}"] if self.since else []
        parts += [f"until {self.until}"] if self.until else []
        return " ".join(parts)

    def _holds(self, paper: Paper, leaves: set[str]) -> bool:
        return (
            (not self.survey or paper.survey)
            and (self.ids is None or paper.id in self.ids)
            and (self.since is None or paper.published >= self.since[: len(paper.published)])
            and (self.until is None or paper.published[: len(self.until)] <= self.until)
            and any(placement.leaf.code in leaves for placement in paper.placements)
        )

    def _leaves(self, atlas: Atlas) -> list[Leaf]:
        if self.term is None:
            return [*atlas.leaves.values()]
        terms: dict[str, Dimension | Behavior | Leaf] = {d.code: d for d in atlas.dimensions}
        terms |= atlas.behaviors
        terms |= {code: leaf for code, leaf in atlas.leaves.items() if code not in terms}
        if self.term not in terms:
            raise ValueError(f"{self.term!r} is not in the taxonomy{hint(self.term, terms)}")
        term = terms[self.term]
        return [term] if isinstance(term, Leaf) else term.leaves


EVERYTHING = Selection()
SURVEY = Selection(survey=True)
