"""`skis charts`: draw the charts of the last build, over all papers or some."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.table import Table

from skis.commands.shared import HERE, Root, checkout_at, err, needs, out, say, stop_call
from taxonomy.entries.problem import hint
from taxonomy.store.reading import StoreError, read_atlas
from taxonomy.store.row import LANGUAGES

if TYPE_CHECKING:
    from analysis.charts.files import Format

DAY = r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?"


def charts(
    names: Annotated[list[str] | None, typer.Argument(help="Names of the charts to draw; all charts without.")] = None,
    folder: Annotated[
        Path, typer.Option("--out", help="Folder to write into; it is made if missing.", metavar="DIR")
    ] = Path("charts"),
    formats: Annotated[
        str, typer.Option("--format", help="Formats, separated by commas: svg, png, csv, html.")
    ] = "svg,csv",
    until: Annotated[
        str | None, typer.Option(help="Only papers first public by this year, month or day: 2025, 2025-06.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only papers first public from this year, month or day on.")] = None,
    leaf: Annotated[str | None, typer.Option(help="Only papers placed in this dimension, behavior or leaf.")] = None,
    survey: Annotated[bool, typer.Option("--survey", help="Only papers of the survey's own list.")] = False,
    language: Annotated[str, typer.Option(help="Language of titles and labels: en or zh.")] = "en",
    show: Annotated[bool, typer.Option("--list", help="List the charts and draw none.")] = False,
    root: Root = HERE,
) -> None:
    """Draw the charts of the last build as pictures and tables, over all papers or a selection of them."""
    with needs("analysis"):  # here: SciPy and plotly take longer to import than other commands to answer
        from analysis.charts import CHARTS
        from analysis.charts.files import FORMATS, NoBrowserError, write_charts
        from analysis.selection import EmptySelectionError, Selection

    if show:
        table = Table("name", "chart", box=None, header_style="dim")
        for name, draw in CHARTS.items():
            table.add_row(name, (draw.__doc__ or "").splitlines()[0])
        out.print(table)
        return
    wanted = _known(names or [*CHARTS], [*CHARTS], "chart")
    kinds = cast("list[Format]", _known([f for f in formats.split(",") if f], [*FORMATS], "format"))
    _known([language], [*LANGUAGES], "language")
    selection = Selection(until=_day(until), since=_day(since), survey=survey, term=leaf)
    drawn = []
    try:
        atlas = read_atlas(checkout_at(root).store)
        with err.status("drawing") as status:
            for number, name in enumerate(wanted, 1):
                status.update(f"drawing {number} of {len(wanted)}: {name}")
                drawn.append(CHARTS[name](atlas, selection, language))
            status.update(f"writing {len(drawn)} charts as {', '.join(kinds)}")
            paths = write_charts(drawn, folder, kinds)
    except (StoreError, EmptySelectionError, ValueError, NoBrowserError, OSError) as error:
        stop_call(str(error))
    for path in paths:
        say(str(path))


def _known(words: list[str], known: list[str], what: str) -> list[str]:
    for word in words:
        if word not in known:
            stop_call(f"{word} is not a {what}" + (hint(word, known) or f": {', '.join(known)}"))
    return words


def _day(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(DAY, text):
        stop_call(f"{text} is not a year, a month or a day: 2025, 2025-06, 2025-06-30")
    return text
