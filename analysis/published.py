"""What the survey printed, beside the atlas's results for the same papers. The facts are in `published.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from analysis.affinity import Affinity, affinity
from analysis.claims import claims, words
from analysis.effects import Cell, effects
from analysis.network import isolated
from analysis.selection import SURVEY, Selection
from taxonomy.store.atlas import Atlas
from taxonomy.store.row import Words

FILE = Path(__file__).with_name("published.yaml")
SHORT = {"d": "direct", "i": "indirect", "-": "none"}


@cache
def published() -> dict[str, Any]:
    """Return the survey's figures as data."""
    facts: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return facts


def figure_papers() -> Selection:
    """Select the papers of the survey's own taxonomy figure; its public list has grown since."""
    ids = {paper for papers in published()["papers"].values() for paper in papers}
    return Selection(ids=frozenset(ids))


@dataclass(frozen=True)
class Difference:
    """One printed fact beside the atlas's results: for the papers of the survey's taxonomy figure, and of its list."""

    what: Words
    printed: Words
    figure: Words
    listed: Words
    kind: str  # of `differences` in claims.yaml

    @property
    def why(self) -> Words:
        """Why the atlas's result may differ."""
        return words(claims("differences")[self.kind])

    @property
    def agrees(self) -> bool:
        """Whether the atlas's result for the papers of the figure is what was printed."""
        return self.printed == self.figure


def compare(atlas: Atlas) -> list[Difference]:
    """Compare what the survey printed: edges of Figure 6; cells, rows and columns of Table 7.

    Raises EmptySelectionError if the atlas has none of the survey's papers.
    """
    return [*_compare_affinity(atlas), *_compare_effects(atlas)]


def _compare_affinity(atlas: Atlas) -> list[Difference]:
    facts = published()
    figure, listed = (affinity(atlas, s, threshold=facts["threshold"], draws=1) for s in (figure_papers(), SURVEY))
    pair, printed = facts["strongest"]["pair"], {frozenset(edge) for edge in facts["edges"]}
    rows = [
        Difference(_what("strongest"), _value(_pair(*pair)), _strongest(figure), _strongest(listed), "strongest"),
        Difference(
            _what("affinity", pair=_pair(*pair)),
            _value(f"{facts['strongest']['affinity']:.2f}"),
            _value(f"{figure.pair(*pair).affinity:.2f}"),
            _value(f"{listed.pair(*pair).affinity:.2f}"),
            "affinity",
        ),
    ]
    for found in sorted(figure.pairs, key=lambda p: p.key):
        codes = found.one.code, found.other.code
        if frozenset(codes) in printed or found.affinity >= figure.threshold:
            edge = _result("edge" if frozenset(codes) in printed else "no edge")
            what = _what("pair", pair=_pair(*codes))
            rows.append(Difference(what, edge, _edge(figure, *codes), _edge(listed, *codes), "edge"))
    rows.append(Difference(_what("isolated"), _names(facts["isolated"]), _alone(figure), _alone(listed), "edge"))
    return rows


def _strongest(table: Affinity) -> Words:
    first = table.pairs[0]
    return _value(_pair(first.one.code, first.other.code))


def _edge(table: Affinity, one: str, other: str) -> Words:
    return _result("edge" if table.pair(one, other).affinity >= table.threshold else "no edge")


def _alone(table: Affinity) -> Words:
    return _names(isolated(table))


def _compare_effects(atlas: Atlas) -> list[Difference]:
    facts = published()
    figure, listed = effects(atlas, figure_papers()), effects(atlas, SURVEY)
    rows = []
    for behavior, marks in facts["effects"].items():
        for objective, mark in zip(facts["columns"], marks, strict=True):
            cell, cell_listed = (table.cells[behavior, objective] for table in (figure, listed))
            what = _what("cell", behavior=behavior.upper(), objective=atlas.objectives[objective].label)
            kind = SHORT[mark[0]]
            why = "star" if cell.kind == kind else "kind"
            rows.append(Difference(what, _result(kind + mark[1:]), _starred(cell), _starred(cell_listed), why))
    for behavior, bounds in facts["rows"].items():
        what = _what("row", behavior=behavior.upper())
        rows.append(_density(what, bounds, figure.rows[behavior], listed.rows[behavior]))
    for objective, bounds in facts["columns"].items():
        what = _what("column", objective=atlas.objectives[objective].label)
        rows.append(_density(what, bounds, figure.columns[objective], listed.columns[objective]))
    return rows


def _starred(cell: Cell) -> Words:
    return _result(cell.kind + ("*" if cell.star else ""))


def _density(what: Words, bounds: list[int], figure: int, listed: int) -> Difference:
    least, most = bounds[0], bounds[1] if len(bounds) > 1 else None
    printed = _result("at least", least=least) if most is None else _result("between", least=least, most=most)

    def shown(count: int) -> Words:
        return printed if count >= least and (most is None or count <= most) else _value(str(count))

    return Difference(what, printed, shown(figure), shown(listed), "density")


def _what(key: str, **parts: str | Words) -> Words:
    return words(claims("compared")[key], **parts)


def _result(key: str, **figures: int) -> Words:
    return words(claims("results")[key], **figures)


def _value(value: str) -> Words:
    return words(claims("results")["value"], value=value)


def _names(codes: list[str]) -> Words:
    return _value(", ".join(map(str.upper, codes))) if codes else _result("none")


def _pair(one: str, other: str) -> str:
    return f"{one.upper()}–{other.upper()}"
