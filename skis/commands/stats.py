"""`skis stats`."""

from __future__ import annotations

from rich.table import Table

from skis.commands.shared import HERE, AsJson, Root, out, print_json, read
from taxonomy.store.statistics import coverage, leaf_counts


def stats(as_json: AsJson = False, root: Root = HERE) -> None:
    """Count the papers of every leaf, and the papers that have each kind of fact: of all, and of the survey's."""
    _, atlas = read(root)
    counts = leaf_counts(atlas)
    groups = {"papers": atlas.papers, "survey": [paper for paper in atlas.papers if paper.survey]}
    facts = {name: coverage(papers) for name, papers in groups.items()}
    totals = {name: len(papers) for name, papers in groups.items()}
    if as_json:
        survey = {"papers": totals["survey"], "coverage": facts["survey"]}
        print_json({"papers": totals["papers"], "leaves": counts, "coverage": facts["papers"], "survey": survey})
        return
    table = Table("leaf", "primary", "secondary", box=None, header_style="bold")
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
