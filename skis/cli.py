"""The command `skis`: small commands, each doing one thing. Every command that answers something knows `--json`.

Exit status: 0 good, 1 the input is wrong (with every problem listed), 2 the call is wrong.
"""

from __future__ import annotations

import gc

import typer

from reference_kernels.cli import app as kernels
from skis.commands.build import build
from skis.commands.charts import charts
from skis.commands.check import check
from skis.commands.export import export
from skis.commands.find import find
from skis.commands.new import new
from skis.commands.show import show
from skis.commands.site import site
from skis.commands.stats import stats

app = typer.Typer(
    name="skis",
    help="The sKis Atlas: papers on KV cache optimization, checked, stored, listed and shown.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)

# A command lives for seconds, and most of what it makes stays until its end: look for garbage seldom.
gc.set_threshold(100_000, 20, 100)

for command in (check, new, build, site, export, find, show, stats, charts):
    app.command(command.__name__)(command)
app.add_typer(kernels, name="kernels")
