"""Scripts by others that the website serves: plotly, and the shim for the search from disk. npm installs them."""

from __future__ import annotations

import json
from pathlib import Path

from plotly.offline import get_plotlyjs, get_plotlyjs_version

PART = "node_modules/plotly.js-cartesian-dist-min"
SHIM = "node_modules/iframe-worker"
NO_SHIM = """\
// A browser starts no Worker from a file on disk, and the search runs in one. The npm package iframe-worker, which runs
// it in a frame instead, was not installed when this website was built (`make bundle`). Over HTTP the search works.
if (location.protocol === "file:") console.warn("The search works over HTTP only: iframe-worker was not installed.");
"""


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


def worker_shim(site: Path) -> str:
    """Return the script, with its license, by which the search works on pages that are opened from disk.

    Where npm has not put it below `site`, return a script that says so: such a website's search needs HTTP.
    """
    try:
        script = (site / SHIM / "shim" / "index.js").read_text(encoding="utf-8")
        license_text = (site / SHIM / "LICENSE").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return NO_SHIM
    return f"/*! iframe-worker, https://github.com/squidfunk/iframe-worker\n\n{license_text}\n*/\n{script}"
