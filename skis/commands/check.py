"""`skis check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from skis.build import check as check_checkout
from skis.commands.shared import HERE, AsJson, Root, checkout_at, out, print_json, stop_call, stop_input
from taxonomy.entries.completeness import missing
from taxonomy.entries.vocabulary import VocabularyError


def check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders to report on; all without.")] = None,
    github: Annotated[
        bool, typer.Option(help="Print as GitHub annotations.", show_default="on in a GitHub workflow")
    ] = "GITHUB_ACTIONS" in os.environ,
    complete: Annotated[bool, typer.Option("--complete", help="List what entries still lack, too.")] = False,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Check entries: form, vocabulary, facts that must agree, duplicates. Lists every problem of every file at once."""
    checkout = checkout_at(root)
    wanted = [path.resolve() for path in paths or [checkout.root / "papers"]]
    for path in wanted:
        if not path.exists():
            stop_call(f"{path} does not exist")
    try:
        _, checked, _ = check_checkout(checkout)
    except VocabularyError as error:
        stop_input(error.problems, as_json=as_json, annotate=github)
    found = checked.problems + (missing(checked.papers) if complete else [])
    problems = [problem for problem in found if _is_below(checkout.root / problem.file, wanted)]
    if problems:
        stop_input(problems, as_json=as_json, annotate=github)
    count = sum(_is_below(checkout.root / paper.file, wanted) for paper in checked.papers)
    if as_json:
        print_json([])
    else:
        out.print(f"{count} {'entry' if count == 1 else 'entries'}, no problems", style="green")


def _is_below(file: Path, wanted: list[Path]) -> bool:
    return any(file == path or path in file.parents for path in wanted)
