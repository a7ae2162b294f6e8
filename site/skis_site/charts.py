"""Charts on a page: the figure as data for the script, the pages and lists that its points lead to, and its table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from analysis.charts.chart import Chart, Row, Texts
from analysis.charts.files import plain
from skis_site.addresses import Target
from skis_site.wording import Wording
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper

ROWS = 60  # of a table on a page; the CSV file has all


@dataclass(frozen=True)
class Shown:
    """A chart as a template prints it."""

    chart: Chart
    columns: list[str]  # heads of its table
    data: Markup

    @property
    def rows(self) -> list[Row]:
        """The rows that the page shows."""
        return self.chart.table[:ROWS]


def shown(chart: Chart, atlas: Atlas, w: Wording, link: Callable[[Target], str]) -> Shown:
    """Prepare a chart for a page; `link` gives an address as written on that page."""
    data = {
        "figure": plain(chart.figure),
        "dark": chart.dark,
        "lists": {key: [p.id for p in papers] for key, papers in chart.lists.items() if not key.startswith("paper:")},
        "links": _links(chart, atlas, link),
    }
    return Shown(chart, [_head(column, atlas, w) for column in chart.columns], json_of(data))


def papers_of(charts: list[Chart], link: Callable[[Target], str]) -> Markup:
    """Return title, venue or month, and address of every paper that a click may list, by id."""
    papers: dict[str, Paper] = {
        paper.id: paper
        for chart in charts
        for key, listed in chart.lists.items()
        if not key.startswith("paper:")
        for paper in listed
    }
    return json_of({i: [p.title, p.venue_label or p.month, link(p)] for i, p in sorted(papers.items())})


def json_of(value: Any) -> Markup:
    """Return JSON that can stand inside a script element, whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029`":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)  # noqa: S704 (this is the escaping)


def _head(column: str, atlas: Atlas, w: Wording) -> str:
    """Return the head of a column of a chart's table, which may be one of the vocabulary."""
    if column in atlas.behaviors:
        return atlas.behaviors[column].acronym
    if column in atlas.communities:
        return w.of(atlas.communities[column].label)
    return Texts("columns", w.language).column(column)


def _links(chart: Chart, atlas: Atlas, link: Callable[[Target], str]) -> dict[str, str]:
    """Return the addresses of the points that lead to a page: a behavior's, a paper's."""
    keys = {str(key) for trace in chart.figure.data for key in _flat(trace.customdata)}
    links = {f"term:{code}": behavior for code, behavior in atlas.behaviors.items()}
    found: dict[str, str] = {key: link(term) for key, term in links.items() if key in keys}
    return found | {key: link(listed[0]) for key, listed in chart.lists.items() if key.startswith("paper:")}


def _flat(values: Any) -> list[Any]:
    if values is None or isinstance(values, str):
        return []
    return [item for value in values for item in (_flat(value) if isinstance(value, (list, tuple)) else [value])]
