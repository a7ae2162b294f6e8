"""What the survey printed, and how our numbers for the same papers differ. The facts are in `published.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from analysis.affinity import affinity
from analysis.effects import Effects, effects
from analysis.network import isolated
from analysis.selection import SURVEY, Selection
from taxonomy.atlas import Atlas

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
    """One printed fact beside ours for the papers of the survey's figure, and for those of its list."""

    what: str
    printed: str
    figure: str
    listed: str

    @property
    def agrees(self) -> bool:
        """Whether the figure's papers, as we read them, give what was printed."""
        return self.printed == self.figure


def compare(atlas: Atlas) -> list[Difference]:
    """Compare every number that the survey printed: edges of Figure 6, cells, rows and columns of Table 7."""
    return [*_compare_affinity(atlas), *_compare_effects(atlas)]


def _compare_affinity(atlas: Atlas) -> list[Difference]:
    facts = published()
    ours = [affinity(atlas, s, threshold=facts["threshold"]) for s in (figure_papers(), SURVEY)]
    strongest = [f"{a.pairs[0].one.code}–{a.pairs[0].other.code}" for a in ours]
    pair = facts["strongest"]["pair"]
    rows = [
        Difference("strongest pair", "–".join(pair), *strongest),
        Difference(
            f"affinity of {'–'.join(pair)}",
            f"{facts['strongest']['affinity']:.2f}",
            *(f"{a.pair(*pair).affinity:.2f}" for a in ours),
        ),
    ]
    printed = {frozenset(edge) for edge in facts["edges"]}
    for found in sorted(ours[0].pairs, key=lambda p: p.key):
        codes = (found.one.code, found.other.code)
        there = [a.pair(*codes).affinity for a in ours]
        if frozenset(codes) in printed or max(there) >= facts["threshold"]:
            says = [f"{'edge' if t >= facts['threshold'] else 'no edge'}" for t in there]
            rows.append(Difference(f"{'–'.join(codes)}", "edge" if frozenset(codes) in printed else "no edge", *says))
    alone = [", ".join(isolated(a)) or "none" for a in ours]
    rows.append(Difference("without an edge", ", ".join(facts["isolated"]), *alone))
    return rows


def _compare_effects(atlas: Atlas) -> list[Difference]:
    facts = published()
    figure, listed = effects(atlas, figure_papers()), effects(atlas, SURVEY)
    rows = []
    for behavior in atlas.behaviors:
        for objective, mark in zip(facts["effects"]["columns"], facts["effects"][behavior], strict=True):
            printed = SHORT[mark[0]] + (", starred" if mark.endswith("*") else "")
            rows.append(
                Difference(
                    f"{behavior} on {objective}", printed, *(_cell(e, behavior, objective) for e in (figure, listed))
                )
            )
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

    return Difference(what, printed, shown(figure), shown(listed))
