"""Reported factors: one mark each, by leaf, best cases hollow."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import plotly.graph_objects as go

from analysis.charts.affinity import leaf_name
from analysis.charts.chart import LEGEND, Chart, Row, Texts, layout
from analysis.charts.colors import LINE, PAPER, color_of, dark_colors
from analysis.gains import Reported, reported, spreads
from analysis.selection import Selection
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper

Builder = Callable[[Atlas, Selection, str], Chart]
TICKS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]


def gains_chart(objective: str) -> Builder:
    """Return the chart of one objective's factors."""

    def build(atlas: Atlas, selection: Selection, language: str) -> Chart:
        """Draw the reported factors above 1 of one objective, by leaf."""
        return _chart(objective, atlas, selection, language)

    return build


def _chart(objective: str, atlas: Atlas, selection: Selection, language: str) -> Chart:
    texts = Texts("gains", language)
    every = [item for item in reported(atlas, selection) if item.objective.code == objective]
    items = [item for item in every if (item.gain.factor or 0) > 1]
    leaves = [leaf for leaf in atlas.leaves.values() if any(item.leaf is leaf for item in items)]
    figure = go.Figure()
    for up_to, name in ((False, texts.either("as stated", "所述数值")), (True, texts.either("up to", "最高可达"))):
        chosen = [item for item in items if item.gain.up_to is up_to]
        colors = [color_of(item.leaf.dimension) for item in chosen]
        figure.add_scatter(
            x=[item.gain.factor for item in chosen],
            y=[leaves.index(item.leaf) + _shift(index, up_to=up_to) for index, item in enumerate(chosen)],
            mode="markers",
            name=name,
            marker={
                "size": 8,
                "symbol": "circle" if not up_to else "diamond",
                "color": PAPER if up_to else colors,
                "line": {"color": colors, "width": 1.5},
                "opacity": 0.85,
            },
            hovertext=[_hover(item) for item in chosen],
            hoverinfo="text",
            customdata=[f"paper:{item.paper.id}" for item in chosen],
        )
    height = 130 + 42 * len(leaves)
    layout(figure, height=height, legend=LEGEND)
    figure.update_xaxes(type="log", tickvals=TICKS, ticktext=[f"{tick}×" for tick in TICKS], gridcolor=LINE)
    names = [leaf_name(leaf, texts) for leaf in leaves]
    span = [len(leaves) - 0.5, -0.5]
    figure.update_yaxes(tickvals=[*range(len(leaves))], ticktext=names, range=span, showgrid=False, zeroline=False)
    mine = [spread for spread in spreads(atlas, selection) if spread.objective.code == objective]
    best = texts.either(" (up to)", "（最高）")
    medians = [f"{leaf_name(s.leaf, texts)} {s.median:.2g}×{best if s.up_to else ''}" for s in mine]
    return Chart(
        f"gains-{objective}",
        texts("title", objective=texts.of(atlas.objectives[objective].label)),
        texts(
            "caption",
            numbers=len({(i.paper.id, i.gain) for i in items}),
            papers=len({i.paper.id for i in items}),
            up_to=len({(i.paper.id, i.gain) for i in items if i.gain.up_to}),
        ),
        texts("alt", list=", ".join(medians) or texts.either("none", "无")),
        figure,
        [_row(item) for item in every],
        _lists(items),
        dark_colors(*atlas.dimensions),
        height,
        480,
    )


def _shift(index: int, *, up_to: bool) -> float:
    """Spread marks that would cover each other over the height of a row: stated factors above, best cases below."""
    return (0.06 + 0.28 * ((index * 0.618034) % 1)) * (1 if up_to else -1)


def _hover(item: Reported) -> str:
    gain, name = item.gain, item.paper.name or item.paper.title
    against = f"<br>vs {_wrapped(gain.against)}" if gain.against else ""
    up_to = "≤ " if gain.up_to else ""
    return f"<b>{_wrapped(name)}</b><br>{up_to}{gain.amount} {_wrapped(gain.kind)}{against}"


def _wrapped(text: str, width: int = 48) -> str:
    """Break a long line, which plotly does not, and escape its marks, which plotly would take for its own."""
    line, lines = "", []
    for word in escape(text, quote=False).split(" "):
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
    return "<br>".join([*lines, line])


def _row(item: Reported) -> Row:
    gain = item.gain
    return Row(
        {
            "paper": item.paper.id,
            "leaf": item.leaf.code,
            "factor": gain.factor,
            "percent": gain.percent,
            "up to": "yes" if gain.up_to else "",
            "kind": gain.kind,
            "against": gain.against,
            "setting": gain.setting,
        }
    )


def _lists(items: list[Reported]) -> dict[str, list[Paper]]:
    return {f"paper:{item.paper.id}": [item.paper] for item in items}
