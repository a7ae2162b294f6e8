"""From the files to the rows, by name: a field of a file fills the column of its name.

A text in two languages, or another part of parts, fills a column for each (`label` fills `label_en` and `label_zh`);
the code of another word fills `…_code`. What a file does not say itself (ids, places) is given beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

from taxonomy.entries.checks import EntryFile
from taxonomy.entries.entry import Entry, Links
from taxonomy.entries.fields import Part
from taxonomy.entries.names import Person
from taxonomy.entries.out_of_scope import OutOfScope
from taxonomy.entries.vocabulary import Vocabulary
from taxonomy.store import papers as p
from taxonomy.store import terms as t
from taxonomy.store.row import Row

ADDRESSES = {
    "arxiv": "https://arxiv.org/abs/{}",
    "doi": "https://doi.org/{}",
    "openreview": "https://openreview.net/forum?id={}",
}

Values: TypeAlias = dict[str, Any]
Rows: TypeAlias = tuple[type[Row], list[Values]]


def values(table: type[Row], part: Part, **beside: Any) -> Values:
    """Return the row of `table` that `part` fills, with what is given `beside`; a column that neither names is NULL."""
    fields: Values = {}
    for name, value in part:
        if isinstance(value, Part):
            fields |= {f"{name}_{inner}": inner_value for inner, inner_value in value}
        else:
            fields[name] = value
            fields[f"{name}_code"] = value
    return {column: beside[column] if column in beside else fields.get(column) for column in table.model_fields}


def _numbered(table: type[Row], parts: Iterable[Part], **beside: Any) -> list[Values]:
    return [values(table, part, position=place, **beside) for place, part in enumerate(parts)]


def vocabulary_rows(vocabulary: Vocabulary) -> Iterator[Rows]:
    """Yield each table of words with its rows, referenced tables first."""
    yield t.Dimension, _numbered(t.Dimension, vocabulary.dimensions)
    yield t.Behavior, _numbered(t.Behavior, vocabulary.behaviors)
    yield t.Leaf, _numbered(t.Leaf, vocabulary.leaves)
    yield t.Objective, _numbered(t.Objective, vocabulary.objectives)
    yield t.Community, _numbered(t.Community, vocabulary.communities)
    yield t.Venue, _numbered(t.Venue, vocabulary.venues)
    yield t.TraitGroup, _numbered(t.TraitGroup, vocabulary.traits)
    traits = (_numbered(t.Trait, group.traits, group_code=group.code) for group in vocabulary.traits)
    yield t.Trait, [*chain.from_iterable(traits)]


def paper_rows(vocabulary: Vocabulary, papers: Sequence[EntryFile]) -> Iterator[Rows]:
    """Yield each table of papers with its rows, referenced tables first."""
    venues = {venue.key: venue.code for venue in vocabulary.venues}
    people = {person for paper in papers for person in paper.entry.authors}
    authors = {person: i for i, person in enumerate(sorted(people, key=lambda a: (a.name, a.family)), start=1)}
    yield p.Paper, [_paper(paper, venues) for paper in papers]
    yield p.Author, [values(p.Author, person, id=i, name=person.name) for person, i in authors.items()]
    rows: dict[type[Row], list[Values]] = {
        table: []
        for table in (p.Authorship, p.Alias, p.Link, p.Placement, p.Effect, p.Gain, p.Evaluation, p.PaperTrait)
    }
    for paper in papers:
        for table, row in _parts(paper.entry, authors):
            rows[table].append(row | {"paper_id": paper.id})
    yield from rows.items()


def _paper(paper: EntryFile, venues: dict[str, str]) -> Values:
    entry = paper.entry
    venue = venues[entry.venue.key] if entry.venue else None
    return values(p.Paper, entry, id=paper.id, file=paper.file, year=int(entry.published[:4]), venue_code=venue)


def _parts(entry: Entry, authors: dict[Person, int]) -> Iterator[tuple[type[Row], Values]]:
    """Yield the rows of all tables below the paper's, each still without `paper_id`."""
    for i, person in enumerate(entry.authors):
        yield p.Authorship, {"position": i, "author_id": authors[person]}
    for i, title in enumerate(entry.aliases):
        yield p.Alias, {"position": i, "title": title}
    for link in _links(entry.links):
        yield p.Link, link
    for i, placement in enumerate(entry.placements):
        yield p.Placement, values(p.Placement, placement, position=i)
    for i, (code, effect) in enumerate(entry.effects.items()):
        yield p.Effect, values(p.Effect, effect, position=i, objective_code=code)
        for n, gain in enumerate(effect.gains):
            yield p.Gain, values(p.Gain, gain, position=n, objective_code=code)
    for kind, items in entry.evaluation or ():
        for i, item in enumerate(items):
            yield p.Evaluation, {"kind": kind, "position": i, "value": item}
    for group, traits in entry.traits.items():
        for code, value in traits.items():
            for i, item in enumerate(value if isinstance(value, tuple) else (value,)):
                yield p.PaperTrait, {"group_code": group, "trait_code": code, "position": i, "value": item}


def _links(links: Links) -> Iterator[Values]:
    for kind, value in links:
        if value is not None:
            yield {"kind": kind, "value": value, "url": ADDRESSES.get(kind, "{}").format(value)}


def out_of_scope_rows(items: Sequence[OutOfScope]) -> Iterator[Rows]:
    """Yield the table of what is out of scope with its rows."""
    yield (
        p.OutOfScope,
        [
            values(
                p.OutOfScope, item, position=i, url=ADDRESSES["arxiv"].format(item.arxiv) if item.arxiv else item.paper
            )
            for i, item in enumerate(items)
        ],
    )
