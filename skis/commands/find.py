"""`skis find`."""

from __future__ import annotations

from typing import Annotated

import typer

from skis.commands.shared import HERE, AsJson, Root, print_json, read, say, stop_call
from taxonomy.entries.problem import hint
from taxonomy.exports.records import paper_record
from taxonomy.store.reading import search


def find(
    words: Annotated[list[str] | None, typer.Argument(help="Words to search for, in English or Chinese.")] = None,
    leaf: Annotated[
        str | None, typer.Option(help="Only papers of this behavior or leaf: kvcc, kvcc/quantization.")
    ] = None,
    venue: Annotated[str | None, typer.Option(help="Only papers of this venue: ICML, or 'ICML 2024'.")] = None,
    year: Annotated[int | None, typer.Option(help="Only papers first public in this year.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of papers to list.")] = 20,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Find papers by words, leaf, venue or year: the best match first, or without words the newest paper first."""
    store, atlas = read(root)
    query = " ".join(words or [])
    papers = [atlas.by_id[i] for i in search(store, query, len(atlas.papers))] if query else atlas.papers
    if leaf is not None:
        known = [*atlas.leaves, *atlas.behaviors]
        if leaf not in known:
            stop_call(f"{leaf} is not a leaf or behavior{hint(leaf, known)}")
        papers = [p for p in papers if any(leaf in (m.leaf.code, m.leaf.behavior.code) for m in p.placements)]
    if venue is not None:
        papers = [
            p for p in papers if p.venue and venue.casefold() in (p.venue.key.casefold(), p.venue_label.casefold())
        ]
    if year is not None:
        papers = [p for p in papers if p.year == year]
    papers = papers[:limit]
    if as_json:
        print_json([paper_record(paper) for paper in papers])
        return
    if not papers:
        say("nothing found", style="yellow")
    for paper in papers:
        facts = ", ".join([paper.venue_label or paper.month, *(placement.leaf.code for placement in paper.placements)])
        say(paper.id, style="bold cyan", end="  ")
        say(paper.title, end="  ")
        say(facts, style="dim")
