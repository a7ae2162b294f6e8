"""`skis show`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skis.commands.shared import HERE, AsJson, Root, print_json, read, say, stop_call
from taxonomy.entries.problem import hint
from taxonomy.exports.bibtex import bibtex_entry
from taxonomy.exports.records import paper_record
from taxonomy.store.papers import Paper


def show(
    paper_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a paper, such as kivi.")],
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Print the paper's BibTeX entry only.")] = False,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Show all that the atlas knows of one paper."""
    _, atlas = read(root)
    if paper_id not in atlas.by_id:
        stop_call(f"there is no paper {paper_id}{hint(paper_id, list(atlas.by_id))}")
    paper = atlas.by_id[paper_id]
    if bibtex:
        typer.echo(bibtex_entry(paper), nl=False)
    elif as_json:
        print_json(paper_record(paper))
    else:
        _print_paper(paper)


def _print_paper(paper: Paper) -> None:
    say(paper.title, style="bold")
    say(", ".join(author.name for author in paper.authors))
    rows: list[tuple[str, Any]] = [
        ("published", paper.published),
        ("venue", paper.venue_label),
        ("award", paper.award),
        *((link.kind, link.url) for link in paper.links.values()),
        *((m.leaf.code, f"{m.technique.get('en')} ({m.role})") for m in paper.placements),
        *((e.objective.code, ", ".join([e.effect, *(f"{g.amount} {g.kind}" for g in e.gains)])) for e in paper.effects),
        ("summary", paper.summary.get("en")),
        ("file", paper.file),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        if value:
            say(f"{name:{width}}", style="cyan", end="  ")
            say(str(value))
