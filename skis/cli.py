"""The command `skis`: small verbs, each doing one thing. Every verb that answers something knows `--json`.

Exit status: 0 good, 1 the input is wrong (with every problem listed), 2 the call is wrong.
"""

from __future__ import annotations

import typer

from reference_kernels.cli import app as kernels
from skis.commands import adding, building, checking, drawing, reading

app = typer.Typer(
    name="skis",
    help="The sKis Atlas: papers on KV cache optimization, checked, stored, listed and shown.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)

app.command("check")(checking.check)
app.command("new")(adding.new)
app.command("build")(building.build)
app.command("site")(building.site)
app.command("export")(building.export)
app.command("find")(reading.find)
app.command("show")(reading.show)
app.command("stats")(reading.stats)
app.command("charts")(drawing.charts)
app.add_typer(kernels, name="kernels")
