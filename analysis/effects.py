"""The effects of behaviors on objectives (the survey's Table 7): which system metrics they affect, and how.

A cell counts the papers whose primary behavior (or leaf) it is. Its effect is direct if the objective is a direct
target of at least half of those that affect it, indirect if of fewer, none if no paper affects it. Its star says that
at least 70 % of the behavior's papers report a number for the objective.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from analysis.selection import EVERYTHING, Selection
from analysis.weights import Label, Level, label_of, labels
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Effect, Paper
from taxonomy.store.terms import Objective

STAR = 0.7
Kind = Literal["direct", "indirect", "none"]


@dataclass(frozen=True)
class Cell:
    """One behavior (or leaf) and one objective. Lists of papers are newest first."""

    label: Label
    objective: Objective
    total: int  # papers with the label as a primary one
    direct: list[Paper] = field(repr=False)
    indirect: list[Paper] = field(repr=False)
    reporting: list[Paper] = field(repr=False)  # report a number

    @property
    def papers(self) -> list[Paper]:
        """All that affect the objective: first those with a direct effect."""
        return self.direct + self.indirect

    @property
    def kind(self) -> Kind:
        """Whether the objective is a direct target of at least half of the papers that affect it."""
        if not self.papers:
            return "none"
        return "direct" if 2 * len(self.direct) >= len(self.papers) else "indirect"

    @property
    def share(self) -> float:
        """Share of the label's papers that report a number."""
        return len(self.reporting) / self.total if self.total else 0.0

    @property
    def star(self) -> bool:
        """Whether that share reaches the survey's 70 %."""
        return self.share >= STAR


@dataclass(frozen=True)
class Effects:
    """All cells of a selection, and how many papers stand behind each row and column."""

    selection: Selection
    level: Level
    labels: list[Label]
    objectives: list[Objective]
    cells: dict[tuple[str, str], Cell] = field(repr=False)  # by the codes of label and objective
    rows: dict[str, int]  # papers with each label as a primary one
    columns: dict[str, int]  # papers that affect each objective
    count: int


def effects(atlas: Atlas, selection: Selection = EVERYTHING, *, level: Level = "behavior") -> Effects:
    """Count the effects of the selected papers. Raises EmptySelectionError if there is none."""
    papers = selection.papers(atlas)
    columns = labels(atlas, level)
    about = {label.code: [p for p in papers if _is_about(p, label, level)] for label in columns}
    objectives = [*atlas.objectives.values()]
    return Effects(
        selection,
        level,
        columns,
        objectives,
        {(label.code, o.code): _cell(label, o, about[label.code]) for label in columns for o in objectives},
        {code: len(found) for code, found in about.items()},
        {o.code: sum(effect_on(p, o.code) is not None for p in papers) for o in objectives},
        len(papers),
    )


def effect_on(paper: Paper, objective: str) -> Effect | None:
    """Return the effect of a paper on an objective, if it has one."""
    return next((effect for effect in paper.effects if effect.objective.code == objective), None)


def _is_about(paper: Paper, label: Label, level: Level) -> bool:
    return any(label_of(placement, level) is label for placement in paper.primary)


def _cell(label: Label, objective: Objective, papers: list[Paper]) -> Cell:
    found = [(paper, effect) for paper in papers if (effect := effect_on(paper, objective.code))]
    return Cell(
        label,
        objective,
        len(papers),
        [paper for paper, effect in found if effect.effect == "direct"],
        [paper for paper, effect in found if effect.effect != "direct"],
        [paper for paper, effect in found if effect.gains],
    )
