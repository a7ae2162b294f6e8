"""Counts of the store: papers per leaf, and how much of each kind of fact is filled in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper


class LeafCount(TypedDict):
    """How many papers have a leaf as primary placement, and how many as secondary."""

    leaf: str
    primary: int
    secondary: int


def leaf_counts(atlas: Atlas) -> list[LeafCount]:
    """Return a row per leaf, in the order of the vocabulary."""
    return [
        {
            "leaf": code,
            "primary": len(atlas.in_leaf(code, "primary")),
            "secondary": len(atlas.in_leaf(code, "secondary")),
        }
        for code in atlas.leaves
    ]


def coverage(papers: Sequence[Paper]) -> dict[str, int]:
    """Return how many of `papers` have each kind of fact."""
    return {
        "summary in English": sum(bool(p.summary.en) for p in papers),
        "summary in Chinese": sum(bool(p.summary.zh) for p in papers),
        "full date": sum(len(p.published) == len("YYYY-MM-DD") for p in papers),
        "arXiv, DOI or OpenReview id": sum(bool({"arxiv", "doi", "openreview"} & set(p.links)) for p in papers),
        "code": sum("code" in p.links for p in papers),
        "venue": sum(p.venue is not None for p in papers),
        "a reason for every placement": sum(all(m.why for m in p.placements) for p in papers),
        "a secondary placement": sum(bool(p.secondary) for p in papers),
        "more than one placement": sum(len(p.placements) > 1 for p in papers),
        "an effect on an objective": sum(bool(p.effects) for p in papers),
        "a reported gain": sum(any(e.gains for e in p.effects) for p in papers),
        "traits": sum(bool(p.traits) for p in papers),
        "read by a curator": sum(p.read is not None for p in papers),
    }
