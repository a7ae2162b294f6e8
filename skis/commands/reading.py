"""`skis find`, `skis show`, `skis stats`: questions to the store of the last build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from skis.commands.shared import HERE, AsJson, Root, atlas_at, out, print_json, stop_call
from taxonomy.atlas import Atlas, Paper
from taxonomy.exports.bibtex import bibtex_entry
from taxonomy.exports.records import paper_record
from taxonomy.loading import StoreError, read_atlas, search
from taxonomy.problem import hint
from taxonomy.statistics import coverage, leaf_counts


def find(
    words: Annotated[list[str] | None, typer.Argument(help="What to look for, in English or Chinese.")] = None,
    leaf: Annotated[str | None, typer.Option(help="Only of this behavior or leaf: kvcc, kvcc/quantization.")] = None,
    venue: Annotated[str | None, typer.Option(help="Only of this venue: ICML, or 'ICML 2024'.")] = None,
    year: Annotated[int | None, typer.Option(help="Only first public in this year.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Find papers by words, leaf, venue or year; best match first, or newest first without words."""
    store, atlas = _read(root)
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
        out.print("nothing found", style="yellow")
    for paper in papers:
        facts = ", ".join([paper.venue_label or paper.month, *(placement.leaf.code for placement in paper.placements)])
        out.print(paper.id, style="bold cyan", markup=False, end="  ")
        out.print(paper.title, markup=False, end="  ")
        out.print(facts, style="dim", markup=False)


def show(
    paper_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a paper, such as kivi.")],
    bibtex: Annotated[bool, typer.Option("--bibtex", help="As BibTeX.")] = False,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Show all that is known of one paper."""
    _, atlas = _read(root)
    if paper_id not in atlas.by_id:
        stop_call(f"there is no paper {paper_id}{hint(paper_id, list(atlas.by_id))}")
    paper = atlas.by_id[paper_id]
    if bibtex:
        typer.echo(bibtex_entry(paper), nl=False)
    elif as_json:
        print_json(paper_record(paper))
    else:
        _print_paper(paper)


def stats(as_json: AsJson = False, root: Root = HERE) -> None:
    """Count papers per leaf, and say how complete the entries are: all of them, and those of the survey."""
    _, atlas = _read(root)
    counts = leaf_counts(atlas)
    groups = {"papers": atlas.papers, "survey": [paper for paper in atlas.papers if paper.survey]}
    facts = {name: coverage(papers) for name, papers in groups.items()}
    totals = {name: len(papers) for name, papers in groups.items()}
    if as_json:
        survey = {"papers": totals["survey"], "coverage": facts["survey"]}
        print_json({"papers": totals["papers"], "leaves": counts, "coverage": facts["papers"], "survey": survey})
        return
    table = Table("leaf", "papers", "also", box=None, header_style="bold")
    for row in counts:
        table.add_row(row["leaf"], str(row["primary"]), str(row["secondary"] or ""))
    out.print(table)
    table = Table("coverage", box=None, header_style="bold")
    for heading in (f"of {totals['papers']}", "", f"of the survey's {totals['survey']}", ""):
        table.add_column(heading, justify="right")
    for fact in facts["papers"]:
        cells = [(facts[name][fact], totals[name]) for name in groups]
        table.add_row(fact, *(cell for number, total in cells for cell in (str(number), _share(number, total))))
    out.print(table)


def _share(number: int, total: int) -> str:
    return f"{100 * number / total:.1f} %" if total else ""


def _read(root: Path) -> tuple[Path, Atlas]:
    store = atlas_at(root).store
    try:
        return store, read_atlas(store)
    except StoreError as error:
        stop_call(str(error))


def _print_paper(paper: Paper) -> None:
    out.print(paper.title, style="bold", markup=False)
    out.print(", ".join(paper.authors), markup=False)
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
            out.print(f"{name:{width}}", style="cyan", markup=False, end="  ")
            out.print(str(value), markup=False)
