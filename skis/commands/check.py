"""`skis check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from skis.build import check as check_checkout
from skis.commands.shared import HERE, AsJson, Root, checkout_at, print_json, say, stop_call, stop_input
from taxonomy.entries.completeness import missing
from taxonomy.entries.vocabulary import VocabularyError


def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders to report on; without, all entries.")
    ] = None,
    github: Annotated[
        bool, typer.Option(help="Print as GitHub annotations.", show_default="on in a GitHub workflow")
    ] = "GITHUB_ACTIONS" in os.environ,
    complete: Annotated[bool, typer.Option("--complete", help="List also what entries still lack.")] = False,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Check entries: form, vocabulary, facts that must agree, duplicates. All files are checked in one run.

    Of a file with many problems the first are listed, and with --json all of them.
    """
    checkout = checkout_at(root)
    wanted = paths or [checkout.root / "papers"]
    for path in wanted:
        if not os.path.lexists(path):
            stop_call(f"{path} does not exist")
    places = {place for path in wanted for place in _places(path)}
    try:
        _, checked, _ = check_checkout(checkout)
    except VocabularyError as error:
        stop_input(error.problems, as_json=as_json, annotate=github)
    found = checked.problems + (missing(checked.papers) if complete else [])
    problems = [problem for problem in found if _is_below(checkout.root / problem.file, places)]
    if problems:
        stop_input(problems, as_json=as_json, annotate=github)
    count = sum(_is_below(checkout.root / paper.file, places) for paper in checked.papers)
    if as_json:
        print_json([])
    else:
        say(f"{count} {'entry' if count == 1 else 'entries'}, no problems", style="green")


def _places(path: Path) -> tuple[Path, Path]:
    """Return the absolute path of `path` itself, which may be a link, and of what it leads to."""
    return Path(os.path.realpath(path.parent)) / path.name, Path(os.path.realpath(path))


def _is_below(file: Path, places: set[Path]) -> bool:
    return file in places or not places.isdisjoint(file.parents)
