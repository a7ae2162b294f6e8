"""Affinities drawn: the network of the survey's Figure 6, heat maps, and lines over time."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from typing import Any

import plotly.graph_objects as go

from analysis.affinity import THRESHOLD, Affinity, Pair, affinity
from analysis.charts.chart import LEGEND, Chart, Row, Texts, layout
from analysis.charts.colors import LINE, PAPER, QUIET, color_of, dark_colors, dash, free_colors, mark, tints
from analysis.charts.heatmap import AXIS, TINTS, heat_map, value
from analysis.network import isolated, network
from analysis.selection import Selection
from analysis.timeline import affinity_trends
from analysis.weights import Label
from taxonomy.store.atlas import Atlas
from taxonomy.store.terms import Behavior

SIGNIFICANT = 0.05  # false discovery rate
Ends = list[dict[str, Any]]  # the two nodes of a line


def affinity_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw behaviors as circles and the pairs that reach the threshold as lines."""
    texts, found = Texts("affinity", language), affinity(atlas, selection)
    graph, figure = network(found), go.Figure()
    lines = [[graph.nodes[code] for code in edge] for edge in graph.edges]
    for one, other, data in sorted(graph.edges(data=True), key=lambda edge: edge[2]["weight"]):
        ends = [graph.nodes[code] for code in (one, other)]
        _line(figure, ends, [line for line in lines if line != ends], data["pair"], texts)
    codes = [*graph.nodes]
    nodes = [graph.nodes[code] for code in codes]
    figure.add_scatter(
        x=[node["x"] for node in nodes],
        y=[node["y"] for node in nodes],
        mode="markers+text",
        marker={
            "size": [max(4.2 * node["papers"] ** 0.5, 6) for node in nodes],
            "color": [color_of(node["label"].dimension) for node in nodes],
            "line": {"color": PAPER, "width": 2},
            "opacity": 1,
        },
        text=[f"<b>{node['label'].acronym}</b>" for node in nodes],
        textposition=["top center" if node["y"] > -0.01 else "bottom center" for node in nodes],
        hovertext=[
            f"<b>{texts.of(node['label'].label)}</b><br>{node['papers']} {texts.either('papers', '篇论文')}"
            for node in nodes
        ],
        hoverinfo="text",
        customdata=[f"term:{code}" for code in codes],
        cliponaxis=False,
    )
    hidden = {"visible": False, "range": [-1.35, 1.35], "fixedrange": True}
    layout(figure, height=480, xaxis=hidden, yaxis=hidden | {"range": [-1.3, 1.3]}, showlegend=False)
    first = found.pairs[0]
    return Chart(
        "affinity",
        texts("title"),
        texts(
            "caption",
            papers=found.count,
            threshold=found.threshold,
            first=_name(first, texts),
            strength=first.affinity,
            low=first.low,
            high=first.high,
            isolated=", ".join(code.upper() for code in isolated(found)) or texts.either("none", "无"),
        ),
        texts("alt", behaviors=len(found.labels), edges=len(found.edges), list=_listed(found.edges, texts)),
        figure,
        pair_rows(found),
        {pair.key: pair.papers for pair in found.pairs if pair.papers},
        dark_colors(*atlas.dimensions),
        480,
    )


def _line(figure: go.Figure, ends: Ends, others: list[Ends], pair: Pair, texts: Texts) -> None:
    """Add a line, and on it, away from other lines, a circle with its coefficient to hover and click."""
    x, y = ([node[axis] for node in ends] for axis in ("x", "y"))
    line = {"color": QUIET, "width": 1 + 22 * pair.affinity, "dash": "dash" if pair.inside else "solid"}
    figure.add_scatter(x=x, y=y, mode="lines", line=line, opacity=0.45, hoverinfo="skip")
    places = [_between(ends, share / 100) for share in range(35, 66, 5)]
    best = max(places, key=lambda place: min((_distance(place, other) for other in others), default=0))
    figure.add_scatter(
        x=[best[0]],
        y=[best[1]],
        mode="markers+text",
        marker={"size": 30, "color": PAPER, "line": {"color": LINE, "width": 1}},
        text=[f"{pair.affinity:.2f}"],
        textposition="middle center",
        textfont={"size": 11},
        hovertext=[_hover(pair, texts)],
        hoverinfo="text",
        customdata=[pair.key],
    )


def _between(ends: Ends, share: float) -> tuple[float, float]:
    (x, y), (to_x, to_y) = ((node["x"], node["y"]) for node in ends)
    return x + share * (to_x - x), y + share * (to_y - y)


def _distance(place: tuple[float, float], line: Ends) -> float:
    """Return how far a place is from the nearest of some points of a line."""
    return min(hypot(place[0] - x, place[1] - y) for x, y in (_between(line, share / 20) for share in range(21)))


def matrix_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw the affinity of every pair of behaviors as a heat map."""
    texts, found = Texts("affinity-matrix", language), affinity(atlas, selection)
    names = [label.acronym for label in found.labels if isinstance(label, Behavior)]
    significant = [pair for pair in found.pairs if pair.q < SIGNIFICANT]
    caption = texts(
        "caption",
        papers=found.count,
        pairs=len(found.pairs),
        more=sum(pair.observed > pair.expected for pair in significant),
        fewer=sum(pair.observed < pair.expected for pair in significant),
    )
    return _heat_map(atlas, found, names, texts, caption, counts=True)


def leaves_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw the affinity of every pair of leaves as a heat map."""
    texts, found = Texts("affinity-leaves", language), affinity(atlas, selection, level="leaf")
    names = [leaf_name(label, texts) for label in found.labels]
    caption = texts(
        "caption", papers=found.count, pairs=len(found.pairs), edges=len(found.edges), threshold=found.threshold
    )
    return _heat_map(atlas, found, names, texts, caption, counts=False)


def _heat_map(atlas: Atlas, found: Affinity, names: list[str], texts: Texts, caption: str, *, counts: bool) -> Chart:
    def shown(pair: Pair) -> str:
        return f"{value(pair)}<br><span style='font-size:10px'>{pair.observed}</span>" if counts else value(pair)

    colors = tints(atlas.dimensions, *TINTS)
    height = 70 + 60 * (len(names) - 1) if counts else 140 + 40 * (len(names) - 1)
    figure = go.Figure(
        heat_map(
            found,
            names,
            colors=[*colors],
            shown=shown,
            hover=lambda pair: _hover(pair, texts),
            key=lambda pair: pair.key,
            top=found.pairs[0].affinity or 1,
            font=12 if counts else 10,
            gap=2,
        )
    )
    across = AXIS | {"tickangle": 0 if counts else -40}
    layout(figure, height=height, xaxis=across, yaxis=AXIS | {"autorange": "reversed"})
    return Chart(
        texts.name,
        texts("title"),
        caption,
        texts("alt", pairs=len(found.pairs), list=_listed(found.pairs[:5], texts)),
        figure,
        pair_rows(found),
        {pair.key: pair.papers for pair in found.pairs if pair.papers},
        dark_colors() | colors,
        height,
        max(320, 45 * len(names)),
    )


def trends_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw the affinity of each pair that ever reached the threshold, by quarter."""
    texts = Texts("affinity-over-time", language)
    ends, trends = affinity_trends(atlas, selection)
    figure, colors = go.Figure(), free_colors(atlas.dimensions, len(trends))
    for index, (trend, color) in enumerate(zip(trends, colors, strict=True)):
        name = f"{trend.one.acronym}–{trend.other.acronym}"
        figure.add_scatter(
            x=[f"{end}-01" for end in ends],
            y=[round(value, 4) for value in trend.values],
            name=name,
            mode="lines+markers",
            line={"color": color, "dash": dash(index), "width": 2},
            marker={"symbol": mark(index), "size": 7},
            hovertemplate=f"{name}: %{{y:.2f}} (%{{x|%Y-%m}})<extra></extra>",
            customdata=[f"{trend.one.code}+{trend.other.code}"] * len(ends),
        )
    figure.add_hline(y=THRESHOLD, line={"color": QUIET, "dash": "dot", "width": 1})
    layout(figure, height=440, legend=LEGEND)
    figure.update_yaxes(rangemode="tozero", title={"text": texts.either("affinity (Tanimoto)", "亲和度（Tanimoto）")})
    papers = {pair.key: pair.papers for pair in affinity(atlas, selection, draws=1).pairs}
    keys = [f"{trend.one.code}+{trend.other.code}" for trend in trends]
    rows = [
        Row({"pair": key, "until": end, "affinity": round(value, 4)}, key if papers[key] else "")
        for key, trend in zip(keys, trends, strict=True)
        for end, value in zip(ends, trend.values, strict=True)
    ]
    last = ", ".join(f"{t.one.acronym}–{t.other.acronym} {t.values[-1]:.2f}" for t in trends)
    return Chart(
        texts.name,
        texts("title"),
        texts("caption", first=ends[0], last=ends[-1], threshold=THRESHOLD),
        texts("alt", lines=len(trends), list=last),
        figure,
        rows,
        {key: papers[key] for key in keys if papers[key]},
        dark_colors() | colors,
        440,
    )


def pair_rows(found: Affinity) -> list[Row]:
    """Return the table of a selection's pairs, strongest first."""
    return [
        Row(
            {
                "pair": pair.key,
                "affinity": round(pair.affinity, 4),
                "low": round(pair.low, 4),
                "high": round(pair.high, 4),
                "papers": pair.observed,
                "expected": round(pair.expected, 1),
                "p": float(f"{pair.p:.3g}"),
                "q": float(f"{pair.q:.3g}"),
            },
            pair.key if pair.papers else "",
        )
        for pair in found.pairs
    ]


def leaf_name(label: Label, texts: Texts) -> str:
    """Return the name of a leaf; a behavior that is its own leaf goes by its acronym."""
    return texts.of(label.label) if "/" in label.code else label.code.upper()


def _name(pair: Pair, texts: Texts) -> str:
    return f"{leaf_name(pair.one, texts)}–{leaf_name(pair.other, texts)}"


def _listed(pairs: Sequence[Pair], texts: Texts) -> str:
    return ", ".join(f"{_name(pair, texts)} {pair.affinity:.2f}" for pair in pairs) or texts.either("none", "无")


def _hover(pair: Pair, texts: Texts) -> str:
    return (
        f"<b>{_name(pair, texts)}</b><br>T = {pair.affinity:.2f} ({pair.low:.2f} … {pair.high:.2f})"
        f"<br>{texts.either('papers', '论文数')}: {pair.observed}"
        f"<br>{texts.either('expected', '预期')}: {pair.expected:.1f}, q = {pair.q:.1g}"
    )
