"""The path of each page from the root of its language, such as `papers/kivi.html`. Paths never change."""

from __future__ import annotations

from taxonomy.store.kernels import Kernel
from taxonomy.store.papers import Paper
from taxonomy.store.terms import Behavior, Dimension, Leaf, Objective, Venue

Target = Dimension | Behavior | Leaf | Objective | Venue | Paper | Kernel | str


def page_of(target: Target) -> str:
    """Return the path of the page about `target`; a string is a path already."""
    match target:
        case Paper():
            return f"papers/{target.id}.html"
        case Kernel():
            return f"kernels/index.html#{target.name}"
        case Venue():
            return f"venues/{target.code}.html"
        case Objective():
            return f"objectives/{target.code}.html"
        case Dimension() | Behavior():
            return f"taxonomy/{target.code}/index.html"
        case Leaf():
            return page_of(target.behavior) if target.behavior.is_leaf else f"taxonomy/{target.code}.html"
        case str():
            return target


def relative(target: str, folder: str) -> str:
    """Return the address of `target` as written on a page in `folder`, so that the site works below any path."""
    path, mark, anchor = target.partition("#")
    up, rest = folder.split("/") if folder else [], path.split("/")
    while up and rest[:-1] and up[0] == rest[0]:
        up, rest = up[1:], rest[1:]
    return "../" * len(up) + "/".join(rest) + mark + anchor
