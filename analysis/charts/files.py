"""Charts as files: pictures (SVG, PNG), tables (CSV), pages (HTML).

The same charts give the same bytes of SVG, CSV and HTML.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from analysis.charts.chart import Chart
from analysis.charts.colors import INK, PAPER
from taxonomy.exports.escaping import spreadsheet

Format = Literal["svg", "png", "csv", "html"]
FORMATS: tuple[Format, ...] = ("svg", "png", "csv", "html")
WIDTH = 900
SCRIPT = "plotly.min.js"
TITLE = 56  # pixels that a picture's title takes


class NoBrowserError(RuntimeError):
    """Pictures need a Chromium or Chrome, and none was found."""


def write_charts(charts: Iterable[Chart], folder: Path, formats: Iterable[Format] = ("svg", "csv")) -> list[Path]:
    """Write every chart in every format into `folder`, which is made if needed, and return the files.

    Raises:
        NoBrowserError: pictures were asked for and there is no browser; the other formats are written then.
        OSError: a file could not be written.
    """
    charts, formats = [*charts], [*formats]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts:
        if "csv" in formats:
            written.append(_write(folder / f"{chart.name}.csv", csv_text(chart)))
        if "html" in formats:
            written.append(_write(folder / f"{chart.name}.html", page(chart)))
    if "html" in formats:
        written.append(_write(folder / SCRIPT, get_plotlyjs()))
    for kind in ("svg", "png"):
        if kind in formats:
            written += _pictures(charts, folder, kind)
    return sorted(written)


def csv_text(chart: Chart) -> str:
    """Return a chart's table as CSV, in which no text is a formula to a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in (chart.columns, *(row.values() for row in chart.rows)) if chart.table else ():
        writer.writerow([spreadsheet(cell) if isinstance(cell, str) else cell for cell in row])
    return out.getvalue()


def page(chart: Chart) -> str:
    """Return a page that shows a chart with its title and caption, with plotly's script beside it."""
    figure = go.Figure(chart.figure).update_layout(paper_bgcolor=PAPER)
    body = figure.to_html(
        full_html=False, include_plotlyjs=SCRIPT, div_id=chart.name, config={"displaylogo": False, "responsive": True}
    )
    title, caption = html.escape(chart.title), html.escape(chart.caption)
    return (
        f'<!doctype html>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<body style="font-family: sans-serif; max-width: {WIDTH}px; margin: 2em auto; color: {INK}">\n'
        f"<h1>{title}</h1>\n{body}\n<p>{caption}</p>\n"
    )


def plain(value: Any) -> Any:
    """Return a figure as plain values for JSON, as plotly writes them."""
    return json.loads(go.Figure(value).to_json())


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _pictures(charts: list[Chart], folder: Path, kind: str) -> list[Path]:
    """Draw all charts in one browser."""
    import kaleido  # slow to import, and only pictures need it

    paths = [folder / f"{chart.name}.{kind}" for chart in charts]
    wanted = [
        {
            "fig": _framed(chart),
            "path": str(path),
            "opts": {
                "format": kind,
                "width": WIDTH,
                "height": chart.height + TITLE,
                "scale": 2 if kind == "png" else 1,
            },
        }
        for chart, path in zip(charts, paths, strict=True)
    ]
    try:
        kaleido.write_fig_from_object_sync(wanted)
    except Exception as error:
        if "chrome" in f"{type(error).__name__} {error}".lower():
            raise NoBrowserError("pictures need Chromium or Chrome, which is not there; CSV and HTML do not") from error
        raise
    if kind == "svg":
        for chart, path in zip(charts, paths, strict=True):
            _write(path, _settled(path.read_text(encoding="utf-8"), chart))
    return paths


def _framed(chart: Chart) -> go.Figure:
    """Return a chart as it stands alone: on white, with its title."""
    title = {"text": f"<b>{chart.title}</b>", "x": 0.01, "y": 0.985, "yanchor": "top", "font": {"size": 18}}
    top = (chart.figure.layout.margin.t or 10) + TITLE
    return go.Figure(chart.figure).update_layout(
        paper_bgcolor=PAPER, title=title, margin={"t": top, "l": 16, "r": 16, "b": 16}, height=chart.height + TITLE
    )


def _settled(svg: str, chart: Chart) -> str:
    """Replace the names that plotly draws at random, and tell screen readers what the picture shows."""
    drawn = re.search(r'id="defs-([0-9a-f]+)"', svg)
    if drawn:
        svg = svg.replace(drawn[1], "chart")
    label = html.escape(f"{chart.title}. {chart.alt}", quote=True)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
