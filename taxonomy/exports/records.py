"""Papers as plain records: `papers.json` with everything, two CSV tables for spreadsheets and dataframes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import groupby
from typing import Any, TypeVar

from taxonomy.exports.escaping import spreadsheet
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Effect, Gain, Paper, Placement
from taxonomy.store.row import Row, Words

RowT = TypeVar("RowT", bound=Row)

PAPER_COLUMNS: dict[str, Callable[[Paper], Any]] = {
    "id": lambda p: p.id,
    "title": lambda p: p.title,
    "name": lambda p: p.name,
    "authors": lambda p: "; ".join(author.name for author in p.authors),
    "published": lambda p: p.published,
    "venue": lambda p: p.venue.key if p.venue else None,
    "venue_year": lambda p: p.venue_year,
    "award": lambda p: p.award,
    "primary_leaves": lambda p: "; ".join(placement.leaf_code for placement in p.primary),
    "secondary_leaves": lambda p: "; ".join(placement.leaf_code for placement in p.secondary),
    "objectives": lambda p: "; ".join(effect.objective_code for effect in p.effects),
    "paper_url": lambda p: _value(p, "paper"),
    "arxiv": lambda p: _value(p, "arxiv"),
    "doi": lambda p: _value(p, "doi"),
    "openreview": lambda p: _value(p, "openreview"),
    "code_url": lambda p: _value(p, "code"),
    "summary_en": lambda p: p.summary_en,
    "summary_zh": lambda p: p.summary_zh,
    "read": lambda p: p.read,
    "survey": lambda p: str(p.survey).lower(),
    "added": lambda p: p.added,
    "file": lambda p: p.file,
}
PLACEMENT_COLUMNS: dict[str, Callable[[Placement], Any]] = {
    "paper_id": lambda p: p.paper_id,
    "dimension": lambda p: p.leaf.dimension.code,
    "behavior": lambda p: p.leaf.behavior_code,
    "leaf": lambda p: p.leaf_code,
    "role": lambda p: p.role,
    "weight": lambda p: p.weight,
    "technique_en": lambda p: p.technique_en,
    "technique_zh": lambda p: p.technique_zh,
    "why": lambda p: p.why,
    "source": lambda p: p.source,
    "note": lambda p: p.note,
}


def paper_record(paper: Paper) -> dict[str, Any]:
    """Return all facts of a paper as JSON values, unknown ones left out."""
    return _known(
        {
            "id": paper.id,
            "title": paper.title,
            "name": paper.name,
            "aliases": [alias.title for alias in paper.aliases],
            "authors": [author.name for author in paper.authors],
            "published": paper.published,
            "venue": paper.venue_label,
            "award": paper.award,
            "links": {link.kind: link.url for link in paper.links.values()},
            "ids": {kind: paper.links[kind].value for kind in ("arxiv", "doi", "openreview") if kind in paper.links},
            "summary": _words(paper.summary),
            "placements": [_placement(placement) for placement in paper.placements],
            "effects": [_effect(effect) for effect in paper.effects],
            "evaluation": paper.evaluation,
            "traits": _traits(paper),
            "read": paper.read,
            "survey": paper.survey,
            "added": paper.added,
            "file": paper.file,
        }
    )


def _placement(placement: Placement) -> dict[str, Any]:
    above = {"dimension": placement.leaf.dimension.code, "behavior": placement.leaf.behavior_code}
    return above | _facts(placement)


def _effect(effect: Effect) -> dict[str, Any]:
    return _known(_facts(effect) | {"gains": [_facts(gain) for gain in effect.gains]})


def _facts(row: Row) -> dict[str, Any]:
    """Return the columns of a row as its file has them: `…_en` and `…_zh` as one, `…_code` without its ending."""
    facts = {key: getattr(row, name) for key, name in _keys(type(row))}
    return _known({key: _words(value) if isinstance(value, Words) else value for key, value in facts.items()})


@cache
def _keys(table: type[Row]) -> list[tuple[str, str]]:
    """Return the key of each fact, with the attribute that has it; what the row stands below is none of its facts."""
    above = {"paper_id", "position", *(["objective_code"] if table is Gain else [])}
    names = [name for name in table.model_fields if name not in above]
    texts = dict.fromkeys(re.sub(r"_(en|zh)$", "", name) for name in names)
    return [(name.removesuffix("_code"), name) for name in texts]


def papers_json(atlas: Atlas) -> str:
    """Return all papers as one JSON array, newest first."""
    return json.dumps([paper_record(paper) for paper in atlas.papers], ensure_ascii=False, indent=1) + "\n"


def papers_csv(atlas: Atlas) -> str:
    """Return one row per paper; several values in a cell are separated by `; `."""
    return _table(PAPER_COLUMNS, atlas.papers)


def placements_csv(atlas: Atlas) -> str:
    """Return one row per placement."""
    return _table(PLACEMENT_COLUMNS, (placement for paper in atlas.papers for placement in paper.placements))


def _table(columns: Mapping[str, Callable[[RowT], Any]], rows: Iterable[RowT]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = [value(row) for value in columns.values()]
        writer.writerow([spreadsheet(cell) if isinstance(cell, str) else cell for cell in cells])
    return out.getvalue()


def _value(paper: Paper, kind: str) -> str | None:
    return paper.links[kind].value if kind in paper.links else None


def _traits(paper: Paper) -> list[dict[str, Any]]:
    groups = groupby(paper.traits, key=lambda item: item.trait)
    return [
        {"leaf": trait.group.leaf_code, "trait": trait.code, "values": [item.value for item in items]}
        for trait, items in groups
    ]


def _words(words: Words) -> dict[str, str]:
    return _known({"en": words.en, "zh": words.zh})


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value not in (None, "", [], {})}
