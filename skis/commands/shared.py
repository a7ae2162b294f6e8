"""What several commands need: the checkout that they work on, output as text or JSON, and the ways to stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from skis.settings import Checkout, NoCheckoutError, find_checkout
from taxonomy.entries.characters import printable
from taxonomy.entries.problem import Problem, abridged
from taxonomy.store.atlas import Atlas
from taxonomy.store.reading import StoreError, read_atlas

Root = Annotated[Path, typer.Option("--root", help="A folder of the checkout.", show_default="here", metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
HERE = Path()

# Text is text: in these consoles `[red]` is no style, `:100:` no emoji, and a path or number gets no color of its own.
out = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
err = Console(markup=False, emoji=False, highlight=False, soft_wrap=True, stderr=True)


def checkout_at(folder: Path) -> Checkout:
    """Return the checkout that holds `folder`, or stop: the call is wrong."""
    try:
        return find_checkout(folder)
    except NoCheckoutError as error:
        stop_call(str(error))


def read(root: Path) -> tuple[Path, Atlas]:
    """Read the store of the last build, or stop: return its path and what it says."""
    store = checkout_at(root).store
    try:
        return store, read_atlas(store)
    except StoreError as error:
        stop_call(str(error))


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Stop if a package that the block imports is not installed, and say which extra brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        stop_call(f"{error.name} is not installed; it comes with: pip install -e '.[{extra}]'")


def say(text: str, *, style: str = "", end: str = "\n", to: Console = out) -> None:
    """Print a text that may hold what a stranger wrote: as one line, every character seen, none of it acting."""
    to.print(printable(text), style=style, end=end)


def stop_call(message: str) -> NoReturn:
    """Say what is wrong with the call, and exit 2."""
    say(f"skis: {message}", style="red", to=err)
    raise typer.Exit(2)


def stop_input(problems: list[Problem], *, as_json: bool = False, annotate: bool = False) -> NoReturn:
    """List the problems of the input, and exit 1. As text, a file's first problems and the number of its others."""
    if as_json:
        print_json([problem.as_dict() for problem in problems])
    else:
        list_problems(problems, annotate=annotate)
    say(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}", style="red", to=err)
    raise typer.Exit(1)


def list_problems(problems: list[Problem], *, annotate: bool = False) -> None:
    """Print one line per problem, for people and editors or, to `annotate`, for GitHub."""
    for problem in abridged(problems):
        say(problem.as_annotation() if annotate else str(problem))


def print_json(value: Any) -> None:
    """Print a value as JSON, without colors or wrapping."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))
