"""CSL-JSON, the format of citation processors (Zotero, pandoc, citeproc)."""

from __future__ import annotations

import json
from typing import Any

from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Author, Paper

TYPES = {"conference": "paper-conference", "workshop": "paper-conference", "journal": "article-journal"}


def csl_item(paper: Paper) -> dict[str, Any]:
    """Return the paper as one CSL-JSON item."""
    item: dict[str, Any] = {
        "id": paper.id,
        "type": TYPES[paper.venue.kind] if paper.venue else "article",
        "title": paper.title,
        "author": [_person(author) for author in paper.authors],
        "issued": {"date-parts": [_date_parts(paper)]},
        "URL": paper.url,
    }
    if paper.venue:
        item["container-title"] = paper.venue.name
        item["container-title-short"] = paper.venue.key
    elif "arxiv" in paper.links:
        item |= {"publisher": "arXiv", "number": f"arXiv:{paper.links['arxiv'].value}"}
    if "doi" in paper.links:
        item["DOI"] = paper.links["doi"].value
    return item


def csl_file(atlas: Atlas) -> str:
    """Return all papers, in order of id."""
    items = [csl_item(paper) for paper in sorted(atlas.papers, key=lambda p: p.id)]
    return json.dumps(items, ensure_ascii=False, indent=1) + "\n"


def _person(author: Author) -> dict[str, str]:
    return {"family": author.family, "given": author.given} if author.given else {"literal": author.family}


def _date_parts(paper: Paper) -> list[int]:
    """The year of the venue, or else the date of the first public version."""
    return [paper.venue_year] if paper.venue_year else [int(part) for part in paper.published.split("-")]
