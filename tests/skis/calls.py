"""Calls of the command line: within this process, which is fast, or as a process of its own, as a person makes them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from skis.cli import app
from tests.checkouts import SKIS


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    returncode: int
    stdout: str
    stderr: str


def skis(*arguments: str | Path, stdin: str = "", where: Path | None = None) -> Answer:
    """Call the command within this process, in the folder `where`. An exception that it does not catch is raised."""
    with contextlib.chdir(where or Path.cwd()):
        result = CliRunner().invoke(app, [*map(str, arguments)], input=stdin, prog_name="skis", env={"COLUMNS": "100"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def skis_process(*arguments: str | Path, where: Path | None = None, **environment: str) -> Answer:
    """Call the installed command."""
    plain = {k: v for k, v in os.environ.items() if k != "GITHUB_ACTIONS"} | {"NO_COLOR": "1", "COLUMNS": "100"}
    run = subprocess.run(
        [SKIS, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=where,
        env=plain | environment,
        timeout=120,
        check=False,
    )
    return Answer(run.returncode, run.stdout, run.stderr)
