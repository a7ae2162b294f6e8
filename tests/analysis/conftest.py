"""Small atlases made of placements and effects alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taxonomy.store.atlas import Atlas

Papers = dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def small(atlas_of: Callable[..., Atlas]) -> Callable[[Papers], Atlas]:
    """Make an atlas: `small({id: {"primary": [leaves], "secondary": [leaves], "effects": {objective: effect}, …}})`."""

    def make(papers: Papers) -> Atlas:
        return atlas_of({paper: facts(paper, **given) for paper, given in papers.items()})

    return make


def facts(
    paper: str,
    primary: tuple[str, ...] | list[str] = ("kvs",),
    secondary: tuple[str, ...] | list[str] = (),
    effects: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a valid entry with these placements, and objectives as `{code: "direct"}` or `{code: [gains]}`."""
    roles = [(leaf, "primary") for leaf in primary] + [(leaf, "secondary") for leaf in secondary]
    objectives: dict[str, Any] = {}
    for code, given in (effects or {}).items():
        objectives[code] = {"effect": "direct", "source": "abstract"}
        objectives[code] |= {"effect": given} if isinstance(given, str) else {"gains": given}
    return {
        "title": f"The paper {paper}",
        "authors": ["Ada Lovelace"],
        "published": "2024-05-06",
        "links": {"paper": f"https://example.org/{paper}"},
        "placements": [{"leaf": leaf, "role": role, "source": "abstract"} for leaf, role in roles],
        "effects": objectives,
        "added": "2026-11-24",
        **more,
    }
