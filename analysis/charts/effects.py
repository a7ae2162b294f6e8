"""The effects of behaviors on objectives, as a matrix in the manner of the survey's Table 7."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.charts.chart import Chart, Row, Texts, layout
from analysis.charts.colors import INK, PAPER, dark_colors, tints
from analysis.effects import Cell, effects
from analysis.selection import Selection
from taxonomy.store.atlas import Atlas

MARK = {"direct": "●", "indirect": "○", "none": "–"}


def effects_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw the effect of each behavior on each objective, and the share of papers that report a number."""
    texts, table = Texts("effects", language), effects(atlas, selection)
    cells = [[table.cells[label.code, o.code] for o in table.objectives] for label in table.labels]
    colors = tints(atlas.dimensions, 0.5)
    figure = go.Figure(
        go.Heatmap(
            x=[f"{texts.of(o.label).replace(' ', '<br>', 1)}<br>({table.columns[o.code]})" for o in table.objectives],
            y=[f"{label.code.upper()} ({table.rows[label.code]})" for label in table.labels],
            z=[[round(cell.share, 4) for cell in row] for row in cells],
            text=[[_shown(cell) for cell in row] for row in cells],
            hovertext=[[_hover(cell, texts) for cell in row] for row in cells],
            customdata=[[_key(cell) for cell in row] for row in cells],
            texttemplate="%{text}",
            textfont={"color": INK},
            hoverinfo="text",
            colorscale=[[0, PAPER], *([1, full] for full in colors)],
            zmin=0,
            zmax=1,
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    height = 40 + 60 * len(table.labels)
    axis = {"showgrid": False, "ticks": "", "automargin": True, "fixedrange": True}
    layout(figure, height=height, xaxis=axis, yaxis=axis | {"autorange": "reversed"})
    starred = [f"{c.label.code.upper()} {texts.of(c.objective.label)}" for row in cells for c in row if c.star]
    return Chart(
        "effects",
        texts("title"),
        texts("caption", papers=table.count),
        texts(
            "alt",
            behaviors=len(table.labels),
            objectives=len(table.objectives),
            list=", ".join(starred) or texts.either("none", "无"),
        ),
        figure,
        [_row(cell) for row in cells for cell in row],
        {_key(cell): cell.papers for row in cells for cell in row if cell.papers},
        dark_colors() | colors,
        height,
        40 + 80 * len(table.objectives),
    )


def _key(cell: Cell) -> str:
    return f"{cell.label.code}+{cell.objective.code}" if cell.papers else ""


def _row(cell: Cell) -> Row:
    return Row(
        {
            "behavior": cell.label.code,
            "objective": cell.objective.code,
            "effect": cell.kind,
            "affecting": len(cell.papers),
            "direct": len(cell.direct),
            "indirect": len(cell.indirect),
            "reporting": len(cell.reporting),
            "primary": cell.total,
            "share": round(cell.share, 4),
            "star": "★" if cell.star else "",
        },
        _key(cell),
    )


def _shown(cell: Cell) -> str:
    return f"{MARK[cell.kind]} {cell.share:.0%}{' ★' if cell.star else ''}" if cell.papers else MARK["none"]


def _hover(cell: Cell, texts: Texts) -> str:
    direct, indirect = texts.either("direct", "直接"), texts.either("indirect", "间接")
    return (
        f"<b>{texts.of(cell.label.label)}<br>{texts.of(cell.objective.label)}</b>"
        f"<br>{direct}: {len(cell.direct)}, {indirect}: {len(cell.indirect)}"
        f"<br>{texts.either('report a number', '报告数值')}: {len(cell.reporting)} / {cell.total}"
    )
