"""Reads a store into an `Atlas`, and searches it. The file is opened read-only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlmodel import Session, col, select

from taxonomy.store import atlas as a
from taxonomy.store import tables as t
from taxonomy.store.search import match_expression


class StoreError(Exception):
    """There is no store at the given path, or one of another version."""


@contextmanager
def open_store(path: Path) -> Iterator[Session]:
    """Open a store for reading.

    Raises:
        StoreError: it is missing, or its `user_version` is not the one this code knows.
    """
    if not path.is_file():
        raise StoreError(f"{path} does not exist; `skis build` makes it")
    engine = create_engine(f"sqlite:///file:{path.resolve()}?mode=ro&uri=true")
    try:
        with Session(engine) as session:
            version = session.connection().execute(text("PRAGMA user_version")).scalar_one()
            if version != t.VERSION:
                raise StoreError(f"{path} has version {version}, not {t.VERSION}; `skis build` renews it")
            yield session
    finally:
        engine.dispose()


def read_atlas(path: Path) -> a.Atlas:
    """Read everything. Raises StoreError as `open_store` does."""
    with open_store(path) as session:
        dimensions = _dimensions(session)
        behaviors = _behaviors(session, dimensions)
        leaves = _leaves(session, behaviors)
        objectives = {
            o.code: a.Objective(o.code, _label(o), _definition(o), better=o.better)
            for o in session.exec(select(t.Objective).order_by(col(t.Objective.position)))
        }
        communities = {
            c.code: a.Community(c.code, _label(c), _definition(c))
            for c in session.exec(select(t.Community).order_by(col(t.Community.position)))
        }
        venues = {
            v.code: a.Venue(v.code, v.key, v.name, v.kind, communities[v.community_code], v.url)
            for v in session.exec(select(t.Venue).order_by(col(t.Venue.position)))
        }
        papers = _papers(session, venues)
        _attach_names(session, papers)
        _attach_judgements(session, papers, leaves, objectives)
        kernels = _kernels(session, leaves, papers)
        left_out = [
            a.LeftOut(item.former_id, item.title, item.url, item.fails, item.why, item.decided)
            for item in session.exec(select(t.LeftOut).order_by(col(t.LeftOut.position)))
        ]
        return a.Atlas(
            [*dimensions.values()],
            behaviors,
            leaves,
            objectives,
            communities,
            venues,
            [*papers.values()],
            kernels,
            left_out,
        )


def search(path: Path, query: str, limit: int = 20) -> list[str]:
    """Return the ids of the papers that match best. Raises StoreError as `open_store` does."""
    expression = match_expression(query)
    if not expression:
        return []
    statement = text(
        "SELECT p.id FROM paper_search s JOIN paper p ON p.rowid = s.rowid WHERE paper_search MATCH :q"
        " ORDER BY bm25(paper_search, 10, 20, 5, 3, 2, 1, 2), p.id LIMIT :n"
    )
    with open_store(path) as session:
        return list(session.connection().execute(statement, {"q": expression, "n": limit}).scalars())


def _label(row: t.Term) -> a.Words:
    return a.Words(row.label_en, row.label_zh)


def _definition(row: t.Term) -> a.Words:
    return a.Words(row.definition_en, row.definition_zh)


def _dimensions(session: Session) -> dict[str, a.Dimension]:
    return {
        d.code: a.Dimension(
            d.code,
            _label(d),
            _definition(d),
            title=a.Words(d.title_en, d.title_zh),
            question=a.Words(d.question_en, d.question_zh),
            color_light=d.color_light,
            color_dark=d.color_dark,
        )
        for d in session.exec(select(t.Dimension).order_by(col(t.Dimension.position)))
    }


def _behaviors(session: Session, dimensions: dict[str, a.Dimension]) -> dict[str, a.Behavior]:
    behaviors: dict[str, a.Behavior] = {}
    for b in session.exec(select(t.Behavior).order_by(col(t.Behavior.position))):
        dimension = dimensions[b.dimension_code]
        behaviors[b.code] = a.Behavior(b.code, _label(b), _definition(b), b.acronym, dimension)
        dimension.behaviors.append(behaviors[b.code])
    return behaviors


def _leaves(session: Session, behaviors: dict[str, a.Behavior]) -> dict[str, a.Leaf]:
    leaves: dict[str, a.Leaf] = {}
    groups = {g.leaf_code: g.code for g in session.exec(select(t.TraitGroup))}
    for row in session.exec(select(t.Leaf).order_by(col(t.Leaf.position))):
        behavior = behaviors[row.behavior_code]
        leaf = a.Leaf(row.code, _label(row), _definition(row), behavior, groups.get(row.code))
        behavior.leaves.append(leaf)
        leaves[leaf.code] = leaf
    by_group = {leaf.trait_group: leaf for leaf in leaves.values()}
    for trait in session.exec(select(t.Trait).order_by(col(t.Trait.position))):
        by_group[trait.group_code].traits.append(a.Trait(trait.code, _label(trait), _definition(trait), trait.type))
    return leaves


def _papers(session: Session, venues: dict[str, a.Venue]) -> dict[str, a.Paper]:
    newest_first = select(t.Paper).order_by(col(t.Paper.published).desc(), col(t.Paper.id))
    return {
        p.id: a.Paper(
            id=p.id,
            title=p.title,
            name=p.name,
            published=p.published,
            year=p.year,
            venue=venues[p.venue_code] if p.venue_code else None,
            venue_year=p.venue_year,
            award=p.award,
            summary=a.Words(p.summary_en, p.summary_zh),
            read=p.read,
            survey=p.survey,
            added=p.added,
            file=p.file,
        )
        for p in session.exec(newest_first)
    }


def _attach_names(session: Session, papers: dict[str, a.Paper]) -> None:
    """Add authors, aliases, links and what the paper was evaluated on."""
    authors = (
        select(t.Authorship.paper_id, t.Author.name)
        .join(t.Author, col(t.Author.id) == col(t.Authorship.author_id))
        .order_by(col(t.Authorship.paper_id), col(t.Authorship.position))
    )
    for paper_id, name in session.exec(authors):
        papers[paper_id].authors.append(name)
    for alias in session.exec(select(t.Alias).order_by(col(t.Alias.position))):
        papers[alias.paper_id].aliases.append(alias.title)
    for kind in ("paper", "arxiv", "doi", "openreview", "code"):
        for link in session.exec(select(t.Link).where(t.Link.kind == kind)):
            papers[link.paper_id].links[kind] = a.Link(kind, link.value, link.url)
    for item in session.exec(select(t.Evaluation).order_by(col(t.Evaluation.position))):
        papers[item.paper_id].evaluation.setdefault(item.kind, []).append(item.value)


def _attach_judgements(
    session: Session, papers: dict[str, a.Paper], leaves: dict[str, a.Leaf], objectives: dict[str, a.Objective]
) -> None:
    """Add placements, effects with their gains, and traits."""
    for p in session.exec(select(t.Placement).order_by(col(t.Placement.position))):
        technique = a.Words(p.technique_en, p.technique_zh)
        placement = a.Placement(leaves[p.leaf_code], p.role, technique, p.why, p.source, p.note)
        papers[p.paper_id].placements.append(placement)
    gains: dict[tuple[str, str], list[a.Gain]] = defaultdict(list)
    for g in session.exec(select(t.Gain).order_by(col(t.Gain.position))):
        gains[g.paper_id, g.objective_code].append(a.Gain(g.factor, g.percent, g.kind, g.against, g.setting, g.up_to))
    for e in session.exec(select(t.Effect).order_by(col(t.Effect.position))):
        found = gains[e.paper_id, e.objective_code]
        effect = a.Effect(objectives[e.objective_code], e.effect, e.source, e.note, found)
        papers[e.paper_id].effects.append(effect)
    traits = {(leaf.trait_group, trait.code): (leaf, trait) for leaf in leaves.values() for trait in leaf.traits}
    values: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for v in session.exec(select(t.PaperTrait).order_by(col(t.PaperTrait.position))):
        values[v.paper_id, v.group_code, v.trait_code].append(v.value)
    for (paper_id, group, code), found_values in sorted(values.items()):
        leaf, trait = traits[group, code]
        papers[paper_id].traits.append(a.TraitValue(leaf, trait, found_values))


def _kernels(session: Session, leaves: dict[str, a.Leaf], papers: dict[str, a.Paper]) -> list[a.Kernel]:
    kernels = {
        k.name: a.Kernel(k.name, k.file, leaves[k.leaf_code], k.title)
        for k in session.exec(select(t.Kernel).order_by(col(t.Kernel.position)))
    }
    for link in session.exec(select(t.KernelPaper).order_by(col(t.KernelPaper.position))):
        kernels[link.kernel_name].papers.append(papers[link.paper_id])
    for r in session.exec(select(t.KernelResult).order_by(col(t.KernelResult.position))):
        result = a.KernelResult(r.gpu, r.case_name, r.seconds, r.share, r.gain, r.peer, r.taken, r.commit_id)
        kernels[r.kernel_name].results.append(result)
    return [*kernels.values()]
