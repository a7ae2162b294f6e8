"""What a chart is, and the look that all share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml

from analysis.charts.colors import INK, LINE, PAPER
from taxonomy.store.papers import Paper
from taxonomy.store.row import Words

FILE = Path(__file__).with_name("texts.yaml")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'Noto Sans CJK SC', sans-serif"
LEGEND = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "traceorder": "normal"}

Cells = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Row:
    """A row of a chart's table: its cells by column, and the key of the list of papers it leads to, "" for none."""

    cells: Cells
    key: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart in one language.

    `lists` are the papers behind what can be clicked, by the key that a point of the figure carries in `customdata` and
    a row of the table in `key`; `dark` says what each color becomes on a dark page.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: go.Figure = field(repr=False)
    table: list[Row] = field(repr=False)
    lists: dict[str, list[Paper]] = field(repr=False)
    dark: dict[str, str] = field(repr=False)
    height: int = 460
    least: int = 320  # smallest width in pixels

    @property
    def rows(self) -> list[Cells]:
        """The cells of its table, for pandas and CSV."""
        return [row.cells for row in self.table]

    @property
    def columns(self) -> list[str]:
        """The columns of its table."""
        return [*self.table[0].cells] if self.table else []


@dataclass(frozen=True)
class Texts:
    """The title, caption and alternative text of a chart in one language."""

    name: str
    language: str

    def __call__(self, part: str, **numbers: Any) -> str:
        """Return a part with the numbers filled in."""
        text: str = _texts()[self.name][part][self.language]
        return text.format(**numbers)

    def of(self, words: Words) -> str:
        """Return words in the language."""
        return words.get(self.language)

    def column(self, name: str) -> str:
        """Return the head of a column of the table. Raises KeyError if it has none."""
        head: str = _texts()["columns"][name][self.language]
        return head

    def either(self, en: str, zh: str) -> str:
        """Return a short label in the language."""
        return zh if self.language == "zh" else en


@cache
def _texts() -> dict[str, Any]:
    texts: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return texts


def layout(figure: go.Figure, *, height: int, **more: Any) -> go.Figure:
    """Give a figure the shared look: no background, the page's ink, thin lines, room for every label."""
    axis = {"gridcolor": LINE, "linecolor": LINE, "zerolinecolor": LINE, "automargin": True, "fixedrange": True}
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        height=height,
        hoverlabel={"bgcolor": PAPER, "bordercolor": LINE, "font": {"color": INK, "family": FONT}, "align": "left"},
        dragmode=False,
        xaxis=axis,
        yaxis=axis,
    )
    figure.update_layout(**more)
    figure.update_xaxes(title_font_size=13)
    figure.update_yaxes(title_font_size=13)
    for index, trace in enumerate(figure.data):
        trace.uid = f"{index}"  # else plotly draws it at random, and no two files are equal
    return figure
