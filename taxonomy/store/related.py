"""Related papers: those whose placements are most alike, then those nearest in time.

Likeness is the Tanimoto coefficient of the weighted leaves (primary 1, secondary 0.5), as the survey compares
behaviors: T(p, q) = Σ w_p·w_q / (Σ w_p² + Σ w_q² − Σ w_p·w_q). Many papers have the same placements, so the work is
done once per distinct set of placements and does not grow with the square of the number of papers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping

from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper

Signature = frozenset[tuple[str, float]]


def tanimoto(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    """Return the Tanimoto coefficient of two weighted sets: 1 if they are equal, 0 if disjoint or both empty."""
    shared = sum(weight * q.get(key, 0.0) for key, weight in p.items())
    total = sum(w * w for w in p.values()) + sum(w * w for w in q.values()) - shared
    return shared / total if total else 0.0


class RelatedPapers:
    """Answers `RelatedPapers(atlas).of(paper)`."""

    def __init__(self, atlas: Atlas) -> None:
        self._groups: dict[Signature, list[Paper]] = defaultdict(list)
        for paper in sorted(atlas.papers, key=_date):
            self._groups[_signature(paper)].append(paper)
        self._order: dict[Signature, list[Signature]] = {}

    def of(self, paper: Paper, count: int = 6) -> list[Paper]:
        """Return up to `count` papers that share a leaf with `paper`, most alike first."""
        found: list[Paper] = []
        for signature in self._most_alike(_signature(paper)):
            missing = count - len(found)
            if not missing:
                break
            found += _nearest(self._groups[signature], paper, missing)
        return found

    def _most_alike(self, signature: Signature) -> list[Signature]:
        if signature not in self._order:
            own = dict(signature)
            scored = [(-tanimoto(own, dict(other)), sorted(other), other) for other in self._groups]
            self._order[signature] = [other for score, _, other in sorted(scored, key=lambda s: s[:2]) if score]
        return self._order[signature]


def _signature(paper: Paper) -> Signature:
    return frozenset((placement.leaf.code, placement.weight) for placement in paper.placements)


def _date(paper: Paper) -> tuple[str, str]:
    return paper.published, paper.id


def _nearest(papers: list[Paper], to: Paper, count: int) -> list[Paper]:
    """Return the `count` papers around the place of `to` in a list sorted by date, `to` itself left out."""
    place = bisect_left(papers, _date(to), key=_date)
    window = [paper for paper in papers[max(0, place - count) : place + count + 1] if paper.id != to.id]
    window.sort(key=lambda paper: (abs(_months(paper) - _months(to)), paper.id))
    return window[:count]


def _months(paper: Paper) -> int:
    return paper.year * 12 + int(paper.published[5:7])
