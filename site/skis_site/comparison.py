"""The comparison table of a leaf: its papers by the traits that the vocabulary gives it."""

from __future__ import annotations

from dataclasses import dataclass

from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper
from taxonomy.store.terms import Leaf, Trait


@dataclass(frozen=True)
class Comparison:
    """A row of cells, one per trait, for each of the leaf's `papers` that has any trait recorded, newest first."""

    traits: list[Trait]
    rows: list[tuple[Paper, list[str]]]
    papers: int


def comparison(atlas: Atlas, leaf: Leaf) -> Comparison:
    """Compare the papers of `leaf`, whatever their role. A cell joins a paper's values; "" where none is recorded."""
    papers = atlas.in_leaf(leaf.code)
    rows = [(paper, [_cell(paper, trait) for trait in leaf.traits]) for paper in papers]
    return Comparison(leaf.traits, [row for row in rows if any(row[1])], len(papers))


def _cell(paper: Paper, trait: Trait) -> str:
    return ", ".join(value.value for value in paper.traits if value.trait is trait)
