"""Affinity at the end of each year, side by side: small multiples of the heat map."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import ceil

from plotly.subplots import make_subplots

from analysis.affinity import Affinity, Pair, affinity
from analysis.charts.chart import Chart, Row, Texts, layout
from analysis.charts.colors import INK, dark_colors, tints
from analysis.charts.heatmap import AXIS, TINTS, heat_map, value
from analysis.selection import Selection
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper

ENOUGH = 30  # papers by the end of a year for it to be shown; the last year always is
ACROSS = 2
TALL = 290


def years_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw the affinity of every pair of behaviors over all papers until the end of each year."""
    texts, found = Texts("affinity-by-year", language), _until_each_year(atlas, selection)
    down, top = ceil(len(found) / ACROSS), max(pair.affinity for table in found.values() for pair in table.pairs) or 1
    colors = tints(atlas.dimensions, *TINTS)
    titles = [
        texts.either(f"up to {year}: {t.count} papers", f"截至 {year} 年：{t.count} 篇") for year, t in found.items()
    ]
    figure = make_subplots(down, ACROSS, subplot_titles=titles, horizontal_spacing=0.1, vertical_spacing=0.3 / down)
    for index, (year, table) in enumerate(found.items()):
        names = [label.code.upper() for label in table.labels]
        trace = heat_map(
            table,
            names,
            colors=[*colors],
            shown=value,
            hover=lambda pair: f"{pair.key.upper().replace('+', '–')}: {pair.affinity:.2f}",
            key=partial(_key, year=year),
            top=top,
            font=11,
            gap=1,
        )
        figure.add_trace(trace, row=index // ACROSS + 1, col=index % ACROSS + 1)
    height = 40 + TALL * down
    layout(figure, height=height, margin={"l": 10, "r": 10, "t": 40, "b": 10})
    axis = AXIS | {"linecolor": "rgba(0,0,0,0)"}
    figure.update_xaxes(tickfont={"size": 10}, **axis)
    figure.update_yaxes(tickfont={"size": 10}, autorange="reversed", **axis)
    figure.update_annotations(font={"size": 13, "color": INK})
    strongest = ", ".join(f"{year} {t.pairs[0].key.upper().replace('+', '–')}" for year, t in found.items())
    rows = [
        Row(
            {"pair": pair.key, "until": year, "affinity": round(pair.affinity, 4), "papers": pair.observed},
            _key(pair, year) if pair.papers else "",
        )
        for year, table in found.items()
        for pair in sorted(table.pairs, key=lambda pair: pair.key)
    ]
    return Chart(
        "affinity-by-year",
        texts("title"),
        texts("caption", first=min(found), last=max(found), strongest=strongest),
        texts("alt", count=len(found), strongest=strongest),
        figure,
        rows,
        _lists(found),
        dark_colors() | colors,
        height,
        600,
    )


def _until_each_year(atlas: Atlas, selection: Selection) -> dict[str, Affinity]:
    """Return the affinities by year; the last one is that of all selected papers."""
    papers = selection.papers(atlas)
    last = max(paper.year for paper in papers)
    counts = {year: sum(paper.year <= year for paper in papers) for year in {paper.year for paper in papers}}
    shown = sorted(year for year, count in counts.items() if count >= ENOUGH or year == last)
    ends = {str(year): selection if year == last else replace(selection, until=f"{year}-12") for year in shown}
    return {year: affinity(atlas, chosen, draws=1) for year, chosen in ends.items()}


def _key(pair: Pair, year: str) -> str:
    return f"{pair.key}+{year}"


def _lists(found: dict[str, Affinity]) -> dict[str, list[Paper]]:
    return {_key(p, year): p.papers for year, table in found.items() for p in table.pairs if p.papers}
