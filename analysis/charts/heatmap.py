"""The heat map of affinities: the lower triangle of the matrix, one cell for each pair."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go

from analysis.affinity import Affinity, Pair
from analysis.charts.colors import INK, PAPER

TINTS = (0.28, 0.52)  # shares of the color of a cell at half and at full strength
AXIS = {"showgrid": False, "ticks": "", "automargin": True, "fixedrange": True}


def heat_map(
    found: Affinity,
    names: list[str],
    *,
    colors: list[str],
    shown: Callable[[Pair], str],
    hover: Callable[[Pair], str],
    key: Callable[[Pair], str],
    top: float,
    font: int,
    gap: int,
) -> go.Heatmap:
    """Return a cell for each pair, with its text, hover and key; a pair without papers has neither text nor key.

    `names` are those of the labels, `colors` those of half of the affinity `top` and of all of it.
    """
    size, place = len(names) - 1, {label.code: index for index, label in enumerate(found.labels)}
    z: list[list[float | None]] = [[None] * size for _ in range(size)]
    text, hovers, keys = [[[""] * size for _ in range(size)] for _ in range(3)]
    for pair in found.pairs:
        column, row = sorted((place[pair.one.code], place[pair.other.code]))
        row -= 1  # the first label has no row, the last no column
        z[row][column], hovers[row][column] = round(pair.affinity, 4), hover(pair)
        if pair.papers:
            text[row][column], keys[row][column] = shown(pair), key(pair)
    return go.Heatmap(
        x=names[:-1],
        y=names[1:],
        z=z,
        text=text,
        hovertext=hovers,
        customdata=keys,
        texttemplate="%{text}",
        textfont={"size": font, "color": INK},
        hoverinfo="text",
        hoverongaps=False,
        colorscale=[[0, PAPER], [0.5, colors[0]], [1, colors[1]]],
        zmin=0,
        zmax=top,
        showscale=False,
        xgap=gap,
        ygap=gap,
    )


def value(pair: Pair) -> str:
    """Return the affinity as a cell shows it: .29."""
    return f"{pair.affinity:.2f}".removeprefix("0")
