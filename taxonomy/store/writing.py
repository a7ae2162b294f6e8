"""Builds the store: one SQLite file with every word, paper and kernel, made anew each time.

The same vocabulary, entries and kernels give the same bytes (no clock, no random order).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, insert, text
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import SQLModel

from taxonomy.entries.checks import EntryFile, split_venue
from taxonomy.entries.entry import Entry, Links
from taxonomy.entries.out_of_scope import OutOfScope
from taxonomy.entries.vocabulary import Bilingual, Term, Vocabulary
from taxonomy.store import tables as t
from taxonomy.store.kernels import KernelRow, kernel_rows
from taxonomy.store.search import spaced

ADDRESSES = {
    "arxiv": "https://arxiv.org/abs/{}",
    "doi": "https://doi.org/{}",
    "openreview": "https://openreview.net/forum?id={}",
}

Row = dict[str, Any]


def build_store(
    path: Path,
    vocabulary: Vocabulary,
    papers: Sequence[EntryFile],
    kernels: Sequence[KernelRow] = (),
    left_out: Sequence[OutOfScope] = (),
) -> None:
    """Write the store to `path`, which must not exist.

    The entries must have passed `check_papers`, the kernels `check_kernels`, what was left out `check_out_of_scope`.
    Raises sqlalchemy.exc.SQLAlchemyError or
    OSError when the file cannot be written or a constraint is broken; it is then incomplete and must not be used.
    """
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _prepare)
    with engine.connect() as connection:
        _create(connection)
        with connection.begin():
            filled: tuple[tuple[type[SQLModel], list[Row]], ...] = (
                *_vocabulary_rows(vocabulary),
                *_paper_rows(vocabulary, papers),
                *kernel_rows(kernels),
                (t.LeftOut, [_left_out_row(i, item) for i, item in enumerate(left_out)]),
            )
            for table, rows in filled:
                if rows:
                    connection.execute(insert(table), rows)
            _index(connection)
    engine.dispose()


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.executescript("PRAGMA foreign_keys = ON; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF")


def _create(connection: Connection) -> None:
    with connection.begin():
        for table in SQLModel.metadata.sorted_tables:
            connection.execute(CreateTable(table))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):  # a set: its own order is random
                connection.execute(CreateIndex(index))
        connection.execute(text(t.SEARCH_TABLE))
        for name, select in t.VIEWS.items():
            connection.execute(text(f"CREATE VIEW {name} AS {select}"))
        connection.execute(text(f"PRAGMA user_version = {t.VERSION}"))


def _term(position: int, term: Term) -> Row:
    return {
        "position": position,
        "code": term.code,
        **_both("label", term.label),
        **_both("definition", term.definition),
    }


def _left_out_row(position: int, item: OutOfScope) -> Row:
    return {
        "position": position,
        "former_id": item.id,
        "url": ADDRESSES["arxiv"].format(item.arxiv) if item.arxiv else item.paper,
        **item.model_dump(include={"title", "fails", "why", "decided"}),
    }


def _both(name: str, words: Bilingual) -> Row:
    return {f"{name}_en": words.en, f"{name}_zh": words.zh}


def _vocabulary_rows(v: Vocabulary) -> Iterable[tuple[type[SQLModel], list[Row]]]:
    """Yield each table of words with its rows, referenced tables first."""
    yield (
        t.Dimension,
        [
            _term(i, d)
            | _both("title", d.title)
            | _both("question", d.question)
            | {"color_light": d.color.light, "color_dark": d.color.dark}
            for i, d in enumerate(v.dimensions)
        ],
    )
    yield (
        t.Behavior,
        [_term(i, b) | {"dimension_code": b.dimension, "acronym": b.acronym} for i, b in enumerate(v.behaviors)],
    )
    yield t.Leaf, [_term(i, leaf) | {"behavior_code": leaf.behavior} for i, leaf in enumerate(v.leaves)]
    yield t.Objective, [_term(i, o) | {"better": o.better} for i, o in enumerate(v.objectives)]
    yield t.Community, [_term(i, c) for i, c in enumerate(v.communities)]
    yield (
        t.Venue,
        [
            {"position": i, "community_code": venue.community, **venue.model_dump(exclude={"community"})}
            for i, venue in enumerate(v.venues)
        ],
    )
    yield (
        t.TraitGroup,
        [{"position": i, "code": group.code, "leaf_code": group.leaf} for i, group in enumerate(v.traits)],
    )
    yield (
        t.Trait,
        [
            _term(i, trait) | {"group_code": group.code, "type": trait.type}
            for group in v.traits
            for i, trait in enumerate(group.traits)
        ],
    )


def _paper_rows(v: Vocabulary, papers: Sequence[EntryFile]) -> Iterable[tuple[type[SQLModel], list[Row]]]:
    """Yield each table of papers with its rows, referenced tables first."""
    venue_codes = {venue.key: venue.code for venue in v.venues}
    names = sorted({name for paper in papers for name in paper.entry.authors})
    author_ids = {name: number for number, name in enumerate(names, start=1)}
    yield t.Paper, [_paper(paper, venue_codes) for paper in papers]
    yield t.Author, [{"id": number, "name": name} for name, number in author_ids.items()]
    rows: dict[type[SQLModel], list[Row]] = {
        table: []
        for table in (t.Authorship, t.Alias, t.Link, t.Placement, t.Effect, t.Gain, t.Evaluation, t.PaperTrait)
    }
    for paper in papers:
        entry, of = paper.entry, {"paper_id": paper.id}
        rows[t.Authorship] += [of | {"position": i, "author_id": author_ids[a]} for i, a in enumerate(entry.authors)]
        rows[t.Alias] += [of | {"position": i, "title": alias} for i, alias in enumerate(entry.aliases)]
        rows[t.Link] += [of | link for link in _links(entry.links)]
        rows[t.Placement] += [of | placement for placement in _placements(entry)]
        for i, (code, effect) in enumerate(entry.objectives.items()):
            to = of | {"objective_code": code}
            rows[t.Effect].append(to | {"position": i, **effect.model_dump(exclude={"gains"})})
            rows[t.Gain] += [to | {"position": n, **gain.model_dump()} for n, gain in enumerate(effect.gains)]
        for kind, values in entry.evaluation.model_dump().items() if entry.evaluation else ():
            rows[t.Evaluation] += [of | {"kind": kind, "position": i, "value": value} for i, value in enumerate(values)]
        rows[t.PaperTrait] += [of | trait for trait in _traits(entry)]
    yield from rows.items()


def _paper(paper: EntryFile, venue_codes: dict[str, str]) -> Row:
    entry = paper.entry
    key, year = (split_venue(entry.venue) or (None, None)) if entry.venue else (None, None)
    return {
        "id": paper.id,
        **entry.model_dump(include={"title", "name", "published", "award", "read", "survey", "added"}),
        "year": int(entry.published[:4]),
        "venue_code": venue_codes[key] if key else None,
        "venue_year": year,
        "summary_en": entry.summary and entry.summary.en,
        "summary_zh": entry.summary and entry.summary.zh,
        "file": paper.file,
    }


def _links(links: Links) -> list[Row]:
    found = links.model_dump(exclude_none=True)
    return [{"kind": k, "value": v, "url": ADDRESSES.get(k, "{}").format(v)} for k, v in found.items()]


def _placements(entry: Entry) -> list[Row]:
    return [
        {
            "position": i,
            "leaf_code": p.leaf,
            "technique_en": p.technique and p.technique.en,
            "technique_zh": p.technique and p.technique.zh,
            **p.model_dump(include={"role", "why", "source", "note"}),
        }
        for i, p in enumerate(entry.behaviors)
    ]


def _traits(entry: Entry) -> list[Row]:
    return [
        {"group_code": group, "trait_code": code, "position": i, "value": item}
        for group, values in entry.traits.items()
        for code, value in values.items()
        for i, item in enumerate(value if isinstance(value, tuple) else (value,))
    ]


def _index(connection: Connection) -> None:
    """Fill the full-text table from the others."""
    select = text("""
        SELECT p.rowid, p.title, p.summary_en AS summary,
               coalesce(p.name, '') || ' ' || coalesce(
                   (SELECT group_concat(title, ' ') FROM alias WHERE paper_id = p.id), '') AS name,
               (SELECT authors FROM paper_list WHERE id = p.id) AS authors,
               (SELECT group_concat(technique_en, ' ') FROM placement WHERE paper_id = p.id) AS techniques,
               (SELECT group_concat(f.label_en || ' ' || b.acronym, ' ') FROM placement l
                JOIN leaf f ON f.code = l.leaf_code JOIN behavior b ON b.code = f.behavior_code
                WHERE l.paper_id = p.id) AS labels,
               coalesce(p.summary_zh, '') || ' ' || (
                   SELECT group_concat(f.label_zh || ' ' || coalesce(l.technique_zh, ''), ' ') FROM placement l
                   JOIN leaf f ON f.code = l.leaf_code WHERE l.paper_id = p.id) AS zh
        FROM paper p ORDER BY p.id""")
    rows = [dict(row) | {"zh": spaced(row["zh"] or "")} for row in connection.execute(select).mappings()]
    if rows:
        columns = "rowid, title, name, authors, techniques, summary, labels, zh"
        values = ", ".join(f":{column}" for column in columns.split(", "))
        connection.execute(text(f"INSERT INTO paper_search({columns}) VALUES ({values})"), rows)  # noqa: S608 (constants)
    connection.execute(text("INSERT INTO paper_search(paper_search) VALUES ('optimize')"))
