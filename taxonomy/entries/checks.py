"""Checks every entry below `papers/`: its form, its words, its place, and that no two entries are the same paper.

All problems of all files are found in one run. Nothing is written.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from taxonomy.entries.characters import HIDDEN
from taxonomy.entries.document import Document, Path_, dotted, read_document
from taxonomy.entries.entry import Entry, Placement
from taxonomy.entries.fields import Part, in_the_future
from taxonomy.entries.places import entry_files
from taxonomy.entries.problem import Problem, nearest, shown
from taxonomy.entries.validation import report
from taxonomy.entries.vocabulary import Trait, TraitGroup, Vocabulary

SCHEMA_NAME = "schema.json"
OUT_OF_SCOPE_NAME = "out_of_scope.yaml"
FIRST_LINE = f"# yaml-language-server: $schema=../{SCHEMA_NAME}"
# Fields of an entry that had another name until November 2026.
RENAMED = {"behaviors": "placements", "objectives": "effects"}

_ENTRY = TypeAdapter(Entry)


@dataclass(frozen=True)
class EntryFile:
    """An entry that was read, with its id and the file that it came from (relative to the atlas's root)."""

    id: str
    file: str
    entry: Entry
    document: Document


@dataclass(frozen=True)
class Checked:
    """What a check found: the entries whose own form is right, and every problem, in order of file and line."""

    papers: list[EntryFile]
    problems: list[Problem]


def check_papers(root: Path, vocabulary: Vocabulary, today: datetime.date | None = None) -> Checked:
    """Check all of `root/papers`. Dates may not lie after `today`, the day in UTC; None leaves that out."""
    papers: list[EntryFile] = []
    paths, problems = entry_files(root, own=(SCHEMA_NAME, OUT_OF_SCOPE_NAME))
    for path in paths:
        file = path.relative_to(root).as_posix()
        document = read_document(path, file)
        entry = _read_entry(document, path, vocabulary, today)
        problems += document.problems
        if entry:
            papers.append(EntryFile(path.stem, file, entry, document))
    problems += _repeats(papers)
    return Checked(sorted(papers, key=lambda p: p.id), sorted(set(problems)))


def normalized_title(title: str) -> str:
    """Reduce a title to its letters and digits, without case, width and accents, to compare it with others.

    The letters of a Hangul syllable are taken apart and those that have no shape are left out.
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", title).casefold())
    return HIDDEN.sub("", re.sub(r"[\W_]", "", plain))


def _read_entry(document: Document, path: Path, vocabulary: Vocabulary, today: datetime.date | None) -> Entry | None:
    if document.problems:
        return None
    if document.first_line != FIRST_LINE:
        document.problems.append(Problem(document.file, 1, 1, "", f"must begin with the line: {FIRST_LINE}"))
    try:
        entry = _ENTRY.validate_python(document.value)
    except ValidationError as error:
        report(document, error, _field_names(), RENAMED)
        return None
    _check_words(document, entry, vocabulary)
    _check_facts(document, entry, path)
    _check_dates(document, entry, today)
    return entry


def _field_names() -> list[str]:
    return sorted({name for part in Part.__subclasses__() for name in part.model_fields})


def _unknown(
    document: Document, path: Path_, word: str, known: Collection[str], what: str, *, key: bool = False
) -> bool:
    """Record that `word` is not among the `known` words, if so."""
    if word in known:
        return False
    document.problem(path, f"{shown(word)} is not {what}", nearest(word, known), key=key)
    return True


def _check_words(document: Document, entry: Entry, vocabulary: Vocabulary) -> None:
    """Check that leaves, objectives, traits and venue are in the vocabulary."""
    leaves = [leaf.code for leaf in vocabulary.leaves]
    for index, placement in enumerate(entry.placements):
        _unknown(document, ("placements", index, "leaf"), placement.leaf, leaves, "a leaf of leaves.yaml")
    objectives = [objective.code for objective in vocabulary.objectives]
    for code in entry.effects:
        _unknown(document, ("effects", code), code, objectives, "an objective of objectives.yaml", key=True)
    groups = {group.code: group for group in vocabulary.traits}
    for code, values in entry.traits.items():
        path: Path_ = ("traits", code)
        if not _unknown(document, path, code, groups, "a group of traits.yaml", key=True):
            if groups[code].leaf not in {placement.leaf for placement in entry.placements}:
                document.problem(path, f"describes {groups[code].leaf}, which is not among the placements", key=True)
            _check_traits(document, path, values, groups[code])
    if entry.venue:
        keys = [venue.key for venue in vocabulary.venues]
        _unknown(document, ("venue",), entry.venue.key, keys, "a venue of venues.yaml")


def _check_traits(document: Document, path: Path_, values: dict[str, str | tuple[str, ...]], group: TraitGroup) -> None:
    traits: dict[str, Trait] = {trait.code: trait for trait in group.traits}
    for code, value in values.items():
        here = (*path, code)
        if _unknown(document, here, code, traits, f"a trait of {group.code}", key=True):
            continue
        trait = traits[code]
        if isinstance(value, tuple) and not (trait.many and value):
            document.problem(here, "takes one value, not a list" if value else "is an empty list")
            continue
        for index, item in enumerate(value) if isinstance(value, tuple) else [(None, value)]:
            at = here if index is None else (*here, index)
            if trait.values:
                _unknown(document, at, item, trait.values, f"one of {', '.join(trait.values)}")
            elif trait.type == "number" and not re.fullmatch(r"[0-9]+(\.[0-9]+)?", item):
                document.problem(at, f"{shown(item)} is not a number")


def _check_facts(document: Document, entry: Entry, path: Path) -> None:
    """Check that the facts of one entry agree with each other and with its file name."""
    year = entry.published[:4]
    if path.parent.name != year:
        document.problem(("published",), f"is of {year}, but the file lies in papers/{path.parent.name}/")
    if entry.venue and not int(year) <= entry.venue.year <= int(year) + 10:
        document.problem(("venue",), f"{shown(str(entry.venue))} does not follow the first public version of {year}")
    if not any(entry.links.model_dump().values()):
        document.problem(("links",), "needs at least one address")
    for path_, title in _titles(entry):
        if not normalized_title(title):
            document.problem(path_, "has no letter and no digit")
    _refuse_repeats(document, ("authors",), [author.name for author in entry.authors])
    _refuse_repeats(document, ("aliases",), entry.aliases)
    _check_placements(document, entry.placements)


def _check_dates(document: Document, entry: Entry, today: datetime.date | None) -> None:
    """Check that the paper was public before it was added, and that it was added before tomorrow."""
    if in_the_future(entry.added, today):
        document.problem(("added",), f"{entry.added} lies in the future: today is {today}")
    if entry.published > entry.added:
        document.problem(("published",), f"is later than {entry.added}, the day on which the entry was added")
    if entry.links.arxiv:
        month = f"20{entry.links.arxiv[:2]}-{entry.links.arxiv[2:4]}"
        if entry.published[:7] > month:
            document.problem(("published",), f"is later than the arXiv number, which is of {month}")
        if month > entry.added:
            document.problem(("links", "arxiv"), f"is of {month}, but the entry was added on {entry.added}")


def _titles(entry: Entry) -> Iterator[tuple[Path_, str]]:
    """Yield every title of a paper, and where it stands."""
    yield ("title",), entry.title
    for index, alias in enumerate(entry.aliases):
        yield ("aliases", index), alias


def _check_placements(document: Document, placements: tuple[Placement, ...]) -> None:
    seen: set[str] = set()
    for index, placement in enumerate(placements):
        if placement.leaf in seen:
            document.problem(("placements", index, "leaf"), f"{shown(placement.leaf)} is given twice")
        seen.add(placement.leaf)
    primary = {p.leaf.partition("/")[0] for p in placements if p.role == "primary"}
    if not 1 <= len(primary) <= 2:
        document.problem(("placements",), f"has {len(primary)} primary behaviors; a paper has one or two")


def _refuse_repeats(document: Document, path: Path_, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value.casefold() in seen:
            document.problem((*path, index), f"{shown(value)} is given twice")
        seen.add(value.casefold())


def _repeats(papers: list[EntryFile]) -> Iterator[Problem]:
    """Yield a problem for each place where two entries claim the same id, title, number or address."""
    claims: dict[tuple[str, str], list[tuple[EntryFile, Path_]]] = defaultdict(list)
    for paper in papers:
        for kind, value, path in _claims(paper):
            claims[kind, value].append((paper, path))
    for (kind, _), claimants in claims.items():
        files = sorted({paper.file for paper, _ in claimants})
        for paper, path in claimants if len(files) > 1 else ():
            line, column = paper.document.place(path)
            other = files[1] if paper.file == files[0] else files[0]
            more = f" and {len(files) - 2} others" if len(files) > 2 else ""
            yield Problem(paper.file, line, column, dotted(path), f"has the same {kind} as {other}{more}")


def _claims(paper: EntryFile) -> Iterator[tuple[str, str, Path_]]:
    """Yield what identifies a paper: kind, normalized value, and where it stands."""
    entry = paper.entry
    yield "id", paper.id, ()
    for path, title in _titles(entry):
        if compared := normalized_title(title):
            yield "title", compared, path
    links = entry.links
    for field, value in (("arxiv", links.arxiv), ("doi", links.doi), ("openreview", links.openreview)):
        if value:
            yield field, value.casefold() if field == "doi" else value, ("links", field)
    if links.paper:
        address = re.sub(r"^https?://(www\.)?", "", links.paper).rstrip("/")
        yield "link", re.sub(r"^arxiv\.org/pdf/|\.pdf$", "", address), ("links", "paper")
