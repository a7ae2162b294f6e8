"""Trends: papers over time by behavior, community and code; affinities over time; the newest combinations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import combinations

from analysis.affinity import THRESHOLD, tanimoto
from analysis.selection import EVERYTHING, Selection
from analysis.weights import Label, Level, label_of, labels, weights
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper
from taxonomy.store.terms import Behavior, Community


@dataclass(frozen=True)
class Month:
    """The papers first public in a month, and their number by primary behavior (a paper with two counts in both)."""

    month: str  # YYYY-MM
    papers: list[Paper] = field(repr=False)
    by_behavior: dict[str, int]  # by code, every behavior


def months(atlas: Atlas, selection: Selection = EVERYTHING) -> list[Month]:
    """Return every month from the first paper's to the last one's, including months without papers."""
    papers = selection.papers(atlas)
    by_month: dict[str, list[Paper]] = {}
    for paper in papers:
        by_month.setdefault(paper.month, []).append(paper)
    return [_month(month, by_month.get(month, []), atlas) for month in _span(min(by_month), max(by_month))]


def _month(month: str, papers: list[Paper], atlas: Atlas) -> Month:
    counts = Counter(code for paper in papers for code in {p.leaf.behavior.code for p in paper.primary})
    return Month(month, papers, {code: counts[code] for code in atlas.behaviors})


def _span(first: str, last: str) -> list[str]:
    begin, end = (int(month[:4]) * 12 + int(month[5:]) - 1 for month in (first, last))
    return [f"{month // 12}-{month % 12 + 1:02}" for month in range(begin, end + 1)]


@dataclass(frozen=True)
class Year:
    """The papers first public in a year: how many each community published, and how many link to the authors' code."""

    year: int
    papers: list[Paper] = field(repr=False)
    by_community: dict[str, int]  # by code, every community; a preprint is in none
    with_code: int

    @property
    def preprints(self) -> int:
        """Papers without a venue."""
        return len(self.papers) - sum(self.by_community.values())


def years(atlas: Atlas, selection: Selection = EVERYTHING) -> list[Year]:
    """Return every year that has papers, oldest first."""
    by_year: dict[int, list[Paper]] = {}
    for paper in selection.papers(atlas):
        by_year.setdefault(paper.year, []).append(paper)
    return [_year(year, by_year[year], atlas.communities) for year in sorted(by_year)]


def _year(year: int, papers: list[Paper], communities: dict[str, Community]) -> Year:
    counts = Counter(paper.venue.community.code for paper in papers if paper.venue)
    return Year(year, papers, {code: counts[code] for code in communities}, sum("code" in p.links for p in papers))


@dataclass(frozen=True)
class Trend:
    """The affinity of two behaviors at the end of each quarter, over all papers up to then."""

    one: Behavior
    other: Behavior
    values: list[float]


def affinity_trends(atlas: Atlas, selection: Selection = EVERYTHING) -> tuple[list[str], list[Trend]]:
    """Return the last month of each quarter, and a trend for each pair that reaches the threshold in one of them.

    The last quarter ends with the newest paper. The first is the one by whose end there are 30 papers (or all, if there
    are fewer): coefficients of fewer papers are noise.
    """
    papers = sorted(selection.papers(atlas), key=lambda paper: paper.published)
    behaviors = [*atlas.behaviors.values()]
    matrix = weights(papers, behaviors, "behavior")
    ends = [month for month in _span(papers[0].month, papers[-1].month) if int(month[5:]) % 3 == 0]
    ends += [papers[-1].month] if not ends or ends[-1] < papers[-1].month else []
    counts = [sum(paper.month <= end for paper in papers) for end in ends]
    kept = [(end, count) for end, count in zip(ends, counts, strict=True) if count >= min(30, len(papers))]
    tables = [tanimoto(matrix[:count].T @ matrix[:count]) for _, count in kept]
    trends = [
        Trend(behaviors[i], behaviors[j], [float(table[i, j]) for table in tables])
        for i, j in combinations(range(len(behaviors)), 2)
    ]
    strong = [trend for trend in trends if max(trend.values) >= THRESHOLD]
    return [end for end, _ in kept], sorted(strong, key=lambda trend: -trend.values[-1])


@dataclass(frozen=True)
class Combination:
    """Two labels, the first paper with both, and how many papers have both by now."""

    one: Label
    other: Label
    first: Paper
    papers: int


def combinations_by_age(atlas: Atlas, selection: Selection = EVERYTHING, *, level: Level = "leaf") -> list[Combination]:
    """Return every combination of two labels that some paper has, the newest first."""
    order = {label.code: index for index, label in enumerate(labels(atlas, level))}
    found: dict[tuple[str, str], Combination] = {}
    for paper in sorted(selection.papers(atlas), key=lambda paper: (paper.published, paper.id)):
        mine = {label.code: label for label in (label_of(placement, level) for placement in paper.placements)}
        for one, other in combinations(sorted(mine, key=order.__getitem__), 2):
            old = found.get((one, other))
            found[one, other] = (
                replace(old, papers=old.papers + 1) if old else Combination(mine[one], mine[other], paper, 1)
            )
    return sorted(found.values(), key=lambda c: (c.first.published, c.first.id), reverse=True)
