"""The script that draws charts: the part of plotly that they need, or all of it."""

from __future__ import annotations

import json
from pathlib import Path

from plotly.offline import get_plotlyjs, get_plotlyjs_version

PART = "node_modules/plotly.js-cartesian-dist-min"


def plotly_script(site: Path) -> str:
    """Return plotly's script for lines, bars and heat maps, a third of the whole, if npm has put it below `site`.

    Where it is not there, or of another version than the Python package that wrote the figures, return the whole
    script, which comes with that package.
    """
    part = site / PART
    try:
        version: str = json.loads((part / "package.json").read_text(encoding="utf-8"))["version"]
    except FileNotFoundError:
        return str(get_plotlyjs())
    if version != get_plotlyjs_version():
        return str(get_plotlyjs())
    return (part / "plotly-cartesian.min.js").read_text(encoding="utf-8")
