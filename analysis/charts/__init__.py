"""Every chart by name, each in English and Chinese, over whatever papers are selected."""

from __future__ import annotations

from collections.abc import Callable

from analysis.charts.affinity import affinity_chart, leaves_chart, matrix_chart, trends_chart
from analysis.charts.chart import Chart
from analysis.charts.effects import effects_chart
from analysis.charts.gains import gains_chart
from analysis.charts.openings import openings_chart
from analysis.charts.timeline import code_chart, months_chart, venues_chart
from analysis.charts.years import years_chart
from analysis.selection import EVERYTHING, Selection
from taxonomy.store.atlas import Atlas

CHARTS: dict[str, Callable[[Atlas, Selection, str], Chart]] = {
    "affinity": affinity_chart,
    "affinity-matrix": matrix_chart,
    "affinity-leaves": leaves_chart,
    "affinity-over-time": trends_chart,
    "affinity-by-year": years_chart,
    "effects": effects_chart,
    "months": months_chart,
    "venues": venues_chart,
    "code": code_chart,
    "openings": openings_chart,
    "gains-mean-latency": gains_chart("mean-latency"),
    "gains-throughput": gains_chart("throughput"),
    "gains-gpu-memory": gains_chart("gpu-memory"),
}


def chart(name: str, atlas: Atlas, selection: Selection = EVERYTHING, *, language: str = "en") -> Chart:
    """Draw one chart.

    Raises:
        KeyError: there is no chart of that name.
        EmptySelectionError: there is no paper to draw.
    """
    return CHARTS[name](atlas, selection, language)
