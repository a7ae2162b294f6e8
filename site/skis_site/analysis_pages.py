"""The pages of the analyses: the charts on each, and the tables below them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from analysis.challenges import challenges
from analysis.charts import CHARTS
from analysis.charts.chart import Texts
from analysis.charts.openings import part_name
from analysis.observations import Verdict, observations
from analysis.openings import Kind, openings
from analysis.published import Difference, compare, figure_papers
from analysis.selection import EVERYTHING
from analysis.timeline import combinations_by_age
from skis_site.addresses import Target, page_of, relative
from skis_site.charts import papers_of, shown
from skis_site.pages import Page
from skis_site.wording import Wording
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper

FOLDER = "analysis"
ROWS = 12
NEWEST = 12
TOPICS: dict[str, tuple[str, str, tuple[str, ...]]] = {  # page: its title, its lede, the charts on it
    "affinity": (
        "affinity",
        "affinity_lede",
        ("affinity", "affinity-matrix", "affinity-leaves", "affinity-over-time", "affinity-by-year"),
    ),
    "effects": ("effects_title", "effects_lede", ("effects",)),
    "timeline": ("timeline", "timeline_lede", ("months", "venues", "code")),
    "openings": ("openings", "openings_lede", ("openings",)),
    "gains": ("gains", "gains_lede", ("gains-mean-latency", "gains-throughput", "gains-gpu-memory")),
}
VERDICTS: dict[Verdict, str] = {"holds": "holds", "no longer holds": "no_longer_holds", "inconclusive": "inconclusive"}
Cell = str | int | float | list[Paper]


@dataclass(frozen=True)
class Table:
    """A table below the charts."""

    name: str
    title: str
    text: str
    columns: list[str]
    rows: list[list[Cell]]


def analysis_pages(atlas: Atlas, w: Wording) -> Iterator[Page]:
    """Yield the page of each topic, the comparison with the survey, and the page that lists them."""
    pages = [_topic(name, atlas, w) for name in TOPICS]
    if _has_survey(atlas):
        pages.append(_as_printed(atlas, w))
    yield from pages
    lede = w("analysis_lede", papers=len(atlas.papers))
    context = {
        "text": lede,
        "overview": pages,
        "observations": observations(atlas) if atlas.papers else {},
        "challenges": challenges(atlas) if atlas.papers else {},
        "verdicts": VERDICTS,
    }
    yield Page(f"{FOLDER}/index.html", "analysis.md.j2", w("analysis"), lede, context)


def topics(atlas: Atlas, w: Wording) -> dict[str, str]:
    """Return the title of each page below the first one, by its path."""
    titles = {_path(name): w(title) for name, (title, _, _) in TOPICS.items()}
    return titles | ({_path("survey"): w("as_printed")} if _has_survey(atlas) else {})


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.html"


def _has_survey(atlas: Atlas) -> bool:
    return any(paper.survey and paper.id in (figure_papers().ids or ()) for paper in atlas.papers)


def _topic(name: str, atlas: Atlas, w: Wording) -> Page:
    title, lede, names = TOPICS[name]
    charts = [CHARTS[chart](atlas, EVERYTHING, w.language) for chart in names] if atlas.papers else []
    text = w(lede)
    context = {
        "text": text,
        "charts": [shown(chart, atlas, w, _link) for chart in charts],
        "tables": _tables(name, atlas, w) if atlas.papers else [],
        "papers": papers_of(charts, _link),
    }
    return Page(_path(name), "charts.md.j2", w(title), text, context, {"charts": bool(charts)})


def _link(target: Target) -> str:
    return relative(page_of(target), FOLDER)


def _tables(name: str, atlas: Atlas, w: Wording) -> list[Table]:
    if name == "timeline":
        return [_newest(atlas, w)]
    if name == "openings":
        kinds: tuple[Kind, ...] = ("behaviors", "triples", "leaf-triples", "objectives")
        return [table for kind in kinds if (table := _rarest(kind, atlas, w)).rows]
    return []


def _newest(atlas: Atlas, w: Wording) -> Table:
    texts = Texts("openings", w.language)
    rows: list[list[Cell]] = [
        [
            f"{part_name(found.one, texts)} + {part_name(found.other, texts)}",
            found.first.month.replace("-", "\u2011"),  # in one line
            [found.first],
            found.papers,
        ]
        for found in combinations_by_age(atlas)[:NEWEST]
    ]
    columns = [texts.column("combination"), w("since"), w("first_paper"), texts.column("papers")]
    return Table("newest", w("newest_combinations"), w("newest_combinations_text"), columns, rows)


def _rarest(kind: Kind, atlas: Atlas, w: Wording) -> Table:
    texts = Texts("openings", w.language)
    rows: list[list[Cell]] = [
        [
            " + ".join(part_name(part, texts) for part in opening.parts),
            opening.observed,
            f"{opening.expected:.1f}",
            f"{opening.q:.1g}",
            opening.nearest,
        ]
        for opening in openings(atlas, kind)[:ROWS]
    ]
    columns = [texts.column(name) for name in ("combination", "papers", "expected", "q", "nearest")]
    return Table(kind, w(f"openings_{kind}"), w("openings_text"), columns, rows)


def _as_printed(atlas: Atlas, w: Wording) -> Page:
    found = compare(atlas)
    agree = sum(row.agrees for row in found)
    text = w("as_printed_lede", agree=agree, all=len(found))
    sizes = w("differences_text", figure=len(figure_papers().papers(atlas)), listed=sum(p.survey for p in atlas.papers))
    differ = [row for row in found if not row.agrees]
    tables = [
        _compared(f"differ-{kind}", w(f"differ_{kind}"), w.of(rows[0].why), rows, w)
        for kind in dict.fromkeys(row.kind for row in differ)
        if (rows := [row for row in differ if row.kind == kind])
    ]
    tables.append(_compared("agreements", w("agreements"), sizes, [row for row in found if row.agrees], w))
    context: dict[str, Any] = {"text": text, "charts": [], "tables": tables, "papers": ""}
    return Page(_path("survey"), "charts.md.j2", w("as_printed"), text, context)


def _compared(name: str, title: str, text: str, rows: list[Difference], w: Wording) -> Table:
    cells: list[list[Cell]] = [[*map(w.of, (row.what, row.printed, row.figure, row.listed))] for row in rows]
    columns = [w("compared"), w("printed"), w("atlas_figure"), w("atlas_listed")]
    return Table(name, title, text, columns, cells)
