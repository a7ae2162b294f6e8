"""Papers as plain records: `papers.json` with everything, two CSV tables for spreadsheets and dataframes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from taxonomy.exports.escaping import spreadsheet
from taxonomy.store.atlas import Atlas, Effect, Paper, Placement, Words

PAPER_COLUMNS = [
    *("id", "title", "name", "authors", "published", "venue", "venue_year", "award"),
    *("primary_leaves", "secondary_leaves", "objectives"),
    *("paper_url", "arxiv", "doi", "openreview", "code_url"),
    *("summary_en", "summary_zh", "read", "survey", "added", "file"),
]
PLACEMENT_COLUMNS = [
    *("paper_id", "dimension", "behavior", "leaf", "role", "weight"),
    *("technique_en", "technique_zh", "why", "source", "note"),
]


def paper_record(paper: Paper) -> dict[str, Any]:
    """Return all facts of a paper as JSON values, unknown ones left out."""
    return _known(
        {
            "id": paper.id,
            "title": paper.title,
            "name": paper.name,
            "aliases": paper.aliases,
            "authors": paper.authors,
            "published": paper.published,
            "venue": paper.venue_label,
            "award": paper.award,
            "links": {link.kind: link.url for link in paper.links.values()},
            "ids": {kind: paper.links[kind].value for kind in ("arxiv", "doi", "openreview") if kind in paper.links},
            "summary": _words(paper.summary),
            "behaviors": [_placement(placement) for placement in paper.placements],
            "objectives": [_effect(effect) for effect in paper.effects],
            "evaluation": paper.evaluation,
            "traits": [{"leaf": t.leaf.code, "trait": t.trait.code, "values": t.values} for t in paper.traits],
            "read": paper.read,
            "survey": paper.survey,
            "added": paper.added,
            "file": paper.file,
        }
    )


def _placement(placement: Placement) -> dict[str, Any]:
    return _known(
        {
            "dimension": placement.leaf.dimension.code,
            "behavior": placement.leaf.behavior.code,
            "leaf": placement.leaf.code,
            "role": placement.role,
            "technique": _words(placement.technique),
            "why": placement.why,
            "source": placement.source,
            "note": placement.note,
        }
    )


def _effect(effect: Effect) -> dict[str, Any]:
    return _known(
        {
            "objective": effect.objective.code,
            "effect": effect.effect,
            "source": effect.source,
            "note": effect.note,
            "gains": [_known(vars(gain)) for gain in effect.gains],
        }
    )


def papers_json(atlas: Atlas) -> str:
    """Return all papers as one JSON array, newest first."""
    return json.dumps([paper_record(paper) for paper in atlas.papers], ensure_ascii=False, indent=1) + "\n"


def papers_csv(atlas: Atlas) -> str:
    """Return one row per paper; several values in a cell are separated by `; `."""
    return _table(PAPER_COLUMNS, (_paper_row(paper) for paper in atlas.papers))


def placements_csv(atlas: Atlas) -> str:
    """Return one row per placement."""
    rows = (
        [
            paper.id,
            placement.leaf.dimension.code,
            placement.leaf.behavior.code,
            placement.leaf.code,
            placement.role,
            placement.weight,
            placement.technique.en,
            placement.technique.zh,
            placement.why,
            placement.source,
            placement.note,
        ]
        for paper in atlas.papers
        for placement in paper.placements
    )
    return _table(PLACEMENT_COLUMNS, rows)


def _paper_row(paper: Paper) -> list[Any]:
    values = {kind: link.value for kind, link in paper.links.items()}
    return [
        paper.id,
        paper.title,
        paper.name,
        "; ".join(paper.authors),
        paper.published,
        paper.venue.key if paper.venue else None,
        paper.venue_year,
        paper.award,
        "; ".join(placement.leaf.code for placement in paper.primary),
        "; ".join(placement.leaf.code for placement in paper.secondary),
        "; ".join(effect.objective.code for effect in paper.effects),
        *(values.get(kind) for kind in ("paper", "arxiv", "doi", "openreview", "code")),
        paper.summary.en,
        paper.summary.zh,
        paper.read,
        str(paper.survey).lower(),
        paper.added,
        paper.file,
    ]


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([spreadsheet(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return out.getvalue()


def _words(words: Words) -> dict[str, str]:
    return _known({"en": words.en, "zh": words.zh})


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value not in (None, "", [], {})}
