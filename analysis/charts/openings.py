"""Under-explored pairs of leaves: papers with both beside what independence predicts."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.charts.affinity import leaf_name
from analysis.charts.chart import LEGEND, Chart, Row, Texts, layout
from analysis.charts.colors import INK, LINE, PAPER, QUIET, dark_colors
from analysis.openings import Opening, openings
from analysis.selection import Selection
from analysis.weights import Label
from taxonomy.store.atlas import Atlas
from taxonomy.store.terms import Objective

SHOWN = 15


def openings_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw the least likely pairs of leaves: a bar for the papers with both, a diamond for those expected."""
    texts, every = Texts("openings", language), openings(atlas, "leaves", selection)
    found = every[:SHOWN]
    names = [_name(opening, texts) for opening in found]
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=[opening.observed for opening in found],
        orientation="h",
        name=texts.either("papers with both", "论文数"),
        marker={"color": QUIET},
        hoverinfo="skip",
        customdata=[opening.key for opening in found],
    )
    figure.add_scatter(
        y=names,
        x=[round(opening.expected, 1) for opening in found],
        mode="markers",
        name=texts.either("expected papers", "预期论文数"),
        marker={"symbol": "diamond", "size": 11, "color": PAPER, "line": {"color": INK, "width": 2}},
        hovertemplate="%{y}: %{x:.1f}<extra></extra>",
        customdata=[opening.key for opening in found],
    )
    height = 130 + 34 * len(found)
    layout(figure, height=height, legend=LEGEND)
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 12})
    figure.update_xaxes(rangemode="tozero", gridcolor=LINE, title={"text": texts.either("papers", "论文数")})
    return Chart(
        "openings",
        texts("title"),
        texts("caption", papers=len(selection.papers(atlas))),
        texts("alt", count=len(found), list=names[0].replace("<br>", " ") if names else texts.either("none", "无")),
        figure,
        opening_rows(every),
        {opening.key: opening.papers or opening.nearest for opening in every},
        dark_colors(),
        height,
        440,
    )


def opening_rows(found: list[Opening]) -> list[Row]:
    """Return the table of openings, the least likely first."""
    return [
        Row(
            {
                "combination": opening.key,
                "papers": opening.observed,
                "expected": round(opening.expected, 1),
                "ratio": round(opening.ratio, 3),
                "p": float(f"{opening.p:.3g}"),
                "q": float(f"{opening.q:.3g}"),
                "nearest": " ".join(paper.id for paper in opening.nearest),
            },
            opening.key,
        )
        for opening in found
    ]


def _name(opening: Opening, texts: Texts) -> str:
    return "<br>+ ".join(part_name(part, texts) for part in opening.parts)


def part_name(part: Label | Objective, texts: Texts) -> str:
    """Return the name of a part of a combination."""
    return texts.of(part.label) if isinstance(part, Objective) else leaf_name(part, texts)
