"""What the survey printed, beside the atlas's results for the same papers. The facts are in `published.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from analysis.affinity import Affinity, affinity
from analysis.claims import claims, words
from analysis.effects import Effects, effects
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

    what: str
    printed: str
    figure: str
    listed: str
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
    figure, listed = (affinity(atlas, s, threshold=facts["threshold"]) for s in (figure_papers(), SURVEY))
    pair, printed = facts["strongest"]["pair"], {frozenset(edge) for edge in facts["edges"]}
    strength = f"{facts['strongest']['affinity']:.2f}"
    alone = ", ".join(facts["isolated"])
    rows = [
        Difference("strongest pair", "–".join(pair), _strongest(figure), _strongest(listed), "strongest"),
        Difference(
            f"affinity of {'–'.join(pair)}",
            strength,
            f"{figure.pair(*pair).affinity:.2f}",
            f"{listed.pair(*pair).affinity:.2f}",
            "affinity",
        ),
    ]
    for found in sorted(figure.pairs, key=lambda p: p.key):
        codes = found.one.code, found.other.code
        ours = [_edge(table, *codes) for table in (figure, listed)]
        if frozenset(codes) in printed or "edge" in ours:
            edge = "edge" if frozenset(codes) in printed else "no edge"
            rows.append(Difference("–".join(codes), edge, ours[0], ours[1], "edge"))
    rows.append(Difference("without an edge", alone, _alone(figure), _alone(listed), "edge"))
    return rows


def _strongest(table: Affinity) -> str:
    return f"{table.pairs[0].one.code}–{table.pairs[0].other.code}"


def _edge(table: Affinity, one: str, other: str) -> str:
    return "edge" if table.pair(one, other).affinity >= table.threshold else "no edge"


def _alone(table: Affinity) -> str:
    return ", ".join(isolated(table)) or "none"


def _compare_effects(atlas: Atlas) -> list[Difference]:
    facts = published()
    figure, listed = effects(atlas, figure_papers()), effects(atlas, SURVEY)
    rows = []
    for behavior, marks in facts["effects"].items():
        for objective, mark in zip(facts["columns"], marks, strict=True):
            kind, star = SHORT[mark[0]], ", starred" if mark.endswith("*") else ""
            ours, theirs = _cell(figure, behavior, objective), _cell(listed, behavior, objective)
            why = "star" if ours.startswith(kind) else "kind"
            rows.append(Difference(f"{behavior} on {objective}", kind + star, ours, theirs, why))
    for behavior, bounds in facts["rows"].items():
        rows.append(_density(f"papers of {behavior}", bounds, figure.rows[behavior], listed.rows[behavior]))
    for objective, bounds in facts["columns"].items():
        rows.append(_density(f"papers on {objective}", bounds, figure.columns[objective], listed.columns[objective]))
    return rows


def _cell(table: Effects, behavior: str, objective: str) -> str:
    cell = table.cells[behavior, objective]
    return cell.kind + (", starred" if cell.star else "")


def _density(what: str, bounds: list[int], figure: int, listed: int) -> Difference:
    least, most = bounds[0], bounds[1] if len(bounds) > 1 else None
    printed = f"{least} or more" if most is None else f"{least} to {most}"

    def shown(count: int) -> str:
        return printed if count >= least and (most is None or count <= most) else str(count)

    return Difference(what, printed, shown(figure), shown(listed), "density")
