"""What several verbs need: the atlas they work on, output as text or JSON, and the ways to stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from skis.settings import Checkout, NoCheckoutError, find_checkout
from taxonomy.entries.problem import Problem
from taxonomy.store.atlas import Atlas
from taxonomy.store.reading import StoreError, read_atlas

Root = Annotated[Path, typer.Option("--root", help="A folder of the atlas.", show_default="here", metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
HERE = Path()

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


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


def stop_call(message: str) -> NoReturn:
    """Say what is wrong with the call, and exit 2."""
    err.print(f"skis: {message}", style="red", markup=False)
    raise typer.Exit(2)


def stop_input(problems: list[Problem], *, as_json: bool = False, annotate: bool = False) -> NoReturn:
    """List every problem of the input, and exit 1."""
    if as_json:
        print_json([problem.as_dict() for problem in problems])
    for problem in problems if not as_json else ():
        out.print(problem.as_annotation() if annotate else str(problem), markup=False)
    err.print(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}", style="red")
    raise typer.Exit(1)


def print_json(value: Any) -> None:
    """Print a value as JSON, without colors or wrapping."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))
