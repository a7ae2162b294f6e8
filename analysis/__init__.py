"""Analyses of the whole atlas: affinities, effects, observations, trends, research gaps and gains, and their charts.

>>> import analysis
>>> atlas = analysis.load()                      # the store of the last build
>>> analysis.affinity(atlas).edges[0].key
>>> analysis.observations(atlas, analysis.Selection(until="2025-06"))["O6"].today.reason.en
>>> analysis.chart("effects", atlas).rows        # of which `pandas.DataFrame` makes a table

An analysis takes an atlas and, if not all papers are meant, a `Selection`; it returns plain values: frozen dataclasses,
in lists or by code. (`compare` always takes the survey's papers; `network` takes affinities.)
"""

from __future__ import annotations

from pathlib import Path

from analysis.affinity import affinity
from analysis.challenges import challenges
from analysis.charts import chart
from analysis.effects import effects
from analysis.gains import reported, spreads
from analysis.network import network
from analysis.observations import observations
from analysis.openings import openings
from analysis.published import compare
from analysis.selection import EmptySelectionError, Selection
from analysis.timeline import affinity_trends, combinations_by_age, months, years
from taxonomy.store.atlas import Atlas
from taxonomy.store.reading import read_atlas

__all__ = [
    "EmptySelectionError",
    "Selection",
    "affinity",
    "affinity_trends",
    "challenges",
    "chart",
    "combinations_by_age",
    "compare",
    "effects",
    "load",
    "months",
    "network",
    "observations",
    "openings",
    "reported",
    "spreads",
    "years",
]


def load(store: Path | str = "build/data/skis.db") -> Atlas:
    """Read the atlas from a store. Raises FileNotFoundError if there is none: `skis build` makes it."""
    path = Path(store)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; `skis build` makes it")
    return read_atlas(path)
