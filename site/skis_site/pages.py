"""Which pages the website has, and what each is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from skis_site.addresses import page_of
from skis_site.citations import citation_tags
from skis_site.comparison import comparison
from skis_site.wording import Wording
from taxonomy.exports.bibtex import bibtex_entry
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper
from taxonomy.store.related import RelatedPapers
from taxonomy.store.terms import Behavior, Dimension, Leaf

NEWEST = 8
ALONE = {"hide": ["navigation"]}  # a page that is a tab of its own has no tree to show
WIDE = {"hide": ["navigation", "toc"]}
HIDDEN = {**ALONE, "search": {"exclude": True}}
OUT_OF_SCOPE = "out-of-scope.html"


@dataclass(frozen=True)
class Page:
    """One page: its path (`papers/kivi.html`), the template that draws it, and what the template is given.

    `meta` goes into the front matter, for Material and the theme.
    """

    path: str
    template: str
    title: str
    description: str
    context: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


def all_pages(atlas: Atlas, wording: Wording) -> Iterator[Page]:
    """Yield every page of one language."""
    yield from _front_pages(atlas, wording)
    yield from _taxonomy_pages(atlas, wording)
    yield from _objective_pages(atlas, wording)
    yield from _venue_pages(atlas, wording)
    yield from _year_pages(atlas, wording)
    yield _kernels_page(atlas, wording)
    related = RelatedPapers(atlas)
    for paper in atlas.papers:
        yield _paper_page(paper, related, wording)
    yield from _out_of_scope_pages(atlas, wording)


def _front_pages(atlas: Atlas, w: Wording) -> Iterator[Page]:
    count = len(atlas.papers)
    hero = w("hero_text", papers=count)
    yield Page("index.html", "home.md.j2", "sKis Atlas", hero, {"newest": atlas.papers[:NEWEST], "text": hero}, WIDE)
    yield Page("data.html", f"data.{w.language}.md.j2", w("data"), w("get_data_text"), meta=ALONE)
    yield Page("about.html", f"about.{w.language}.md.j2", w("about"), w("about_lede"), meta=ALONE)


def _taxonomy_pages(atlas: Atlas, w: Wording) -> Iterator[Page]:
    lede = w("taxonomy_lede", behaviors=len(atlas.behaviors), leaves=len(atlas.leaves))
    yield Page("taxonomy/index.html", "taxonomy.md.j2", w("taxonomy"), lede, {"text": lede}, {"hide": ["toc"]})
    for dimension in atlas.dimensions:
        yield _term_page(dimension, "dimension.md.j2", w, {"dimension": dimension})
        for behavior in dimension.behaviors:
            if not behavior.is_leaf:
                yield _term_page(behavior, "behavior.md.j2", w, {"behavior": behavior})
            for leaf in behavior.leaves:
                yield _term_page(leaf, "leaf.md.j2", w, {"leaf": leaf, "comparison": comparison(atlas, leaf)})


def _term_page(term: Dimension | Behavior | Leaf, template: str, w: Wording, context: dict[str, Any]) -> Page:
    return Page(page_of(term), template, w.of(term.label), w.of(term.definition), context)


def _objective_pages(atlas: Atlas, w: Wording) -> Iterator[Page]:
    lede = w("objectives_lede")
    yield Page("objectives/index.html", "objectives.md.j2", w("objectives"), lede, {"text": lede})
    for objective in atlas.objectives.values():
        context = {"objective": objective, "papers": atlas.by_objective.get(objective.code, [])}
        label, definition = w.of(objective.label), w.of(objective.definition)
        yield Page(page_of(objective), "objective.md.j2", label, definition, context)


def _venue_pages(atlas: Atlas, w: Wording) -> Iterator[Page]:
    preprints = sum(paper.venue is None for paper in atlas.papers)
    lede = w("venues_lede", preprints=preprints, papers=len(atlas.papers))
    used = [venue for venue in atlas.venues.values() if venue.code in atlas.by_venue]
    groups = [(c, [v for v in used if v.community is c]) for c in atlas.communities.values()]
    yield Page("venues/index.html", "venues.md.j2", w("venues"), lede, {"text": lede, "groups": groups}, ALONE)
    for venue in used:
        context = {"venue": venue, "papers": atlas.by_venue[venue.code]}
        yield Page(page_of(venue), "venue.md.j2", venue.key, venue.name, context)


def _year_pages(atlas: Atlas, w: Wording) -> Iterator[Page]:
    lede = w("papers_lede", papers=len(atlas.papers))
    yield Page("papers/index.html", "papers.md.j2", w("papers"), lede, {"text": lede, "newest": atlas.papers[:20]})
    for year, papers in atlas.by_year.items():
        title = w("papers_of", year=year)
        yield Page(f"years/{year}.html", "year.md.j2", title, title, {"papers": papers, "year": year})


def _kernels_page(atlas: Atlas, w: Wording) -> Page:
    lede = w("kernels_lede")
    groups = [(b, [k for k in atlas.kernels if k.leaf.behavior is b]) for b in atlas.behaviors.values()]
    context = {"text": lede, "groups": [(behavior, kernels) for behavior, kernels in groups if kernels]}
    return Page("kernels/index.html", "kernels.md.j2", w("reference_kernels"), lede, context, ALONE)


def _out_of_scope_pages(atlas: Atlas, w: Wording) -> Iterator[Page]:
    """Yield the list of papers out of scope, and for each that was once in the atlas a page at its address."""
    title, lede = w("out_of_scope"), w("out_of_scope_lede", count=len(atlas.out_of_scope))
    yield Page(OUT_OF_SCOPE, "out_of_scope.md.j2", title, lede, {"text": lede}, {"hide": ["navigation"]})
    yield Page("left-out.html", "moved.md.j2", title, lede, {"to": OUT_OF_SCOPE}, HIDDEN | {"moved": OUT_OF_SCOPE})
    for item in atlas.out_of_scope:
        if item.former_id:
            path, text = f"papers/{item.former_id}.html", w("out_of_scope_paper")
            yield Page(path, "out_of_scope_paper.md.j2", item.title, text, {"item": item}, HIDDEN)


def _paper_page(paper: Paper, related: RelatedPapers, w: Wording) -> Page:
    technique = "; ".join(w.of(placement.technique) for placement in paper.placements if placement.technique)
    context = {"paper": paper, "related": related.of(paper), "bibtex": bibtex_entry(paper)}
    meta = {**ALONE, "citation": citation_tags(paper)}
    description = w.of(paper.summary) or technique or paper.title
    return Page(page_of(paper), "paper.md.j2", paper.title, description, context, meta)
