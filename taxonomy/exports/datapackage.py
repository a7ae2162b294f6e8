"""The Frictionless Data Package that describes the other exports, with size and SHA-256 of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from taxonomy.exports.export import Export
from taxonomy.exports.records import PAPER_COLUMNS, PLACEMENT_COLUMNS

LICENSE = {
    "name": "CC-BY-4.0",
    "path": "https://creativecommons.org/licenses/by/4.0/",
    "title": "Creative Commons Attribution 4.0 International",
}
TYPES = {"venue_year": "year", "survey": "boolean", "added": "date", "weight": "number"}
DESCRIPTIONS = {
    "published": "First public version, YYYY-MM-DD or YYYY-MM.",
    "authors": "In order, separated by `; `.",
    "weight": "1 for a primary, 0.5 for a secondary placement.",
    "primary_leaves": "Codes of leaves, separated by `; `.",
    "secondary_leaves": "Codes of leaves, separated by `; `.",
}


def data_package(folder: Path, exports: Iterable[Export], version: str) -> str:
    """Return `datapackage.json` for those of `exports` that hold data, which lie in `folder`."""
    package = {
        "name": "skis-atlas",
        "title": "sKis Atlas",
        "description": "KV cache optimization for serving large language models: papers, tagged with the sKis taxonomy."
        " What begins like a spreadsheet formula, at the start of a cell or behind a semicolon, carries an apostrophe.",
        "version": version,
        "licenses": [LICENSE],
        "resources": [_resource(export, folder / export.name) for export in exports if export.format],
    }
    return json.dumps(package, ensure_ascii=False, indent=1) + "\n"


def _resource(export: Export, path: Path) -> dict[str, Any]:
    data, label = path.read_bytes(), export.label.get("en")
    resource: dict[str, Any] = {
        "name": export.name.replace(".", "-"),
        "path": export.name,
        "description": f"{label[:1].upper()}{label[1:]}.",
        "format": export.format,
        "mediatype": export.media_type,
        "encoding": "utf-8",
        "bytes": len(data),
        "hash": f"sha256:{hashlib.sha256(data).hexdigest()}",
    }
    if path.name == "papers.csv":
        resource |= {"profile": "tabular-data-resource", "schema": _schema(PAPER_COLUMNS, "id")}
    elif path.name == "placements.csv":
        schema = _schema(PLACEMENT_COLUMNS, ["paper_id", "leaf"])
        reference = {"resource": "papers-csv", "fields": "id"}
        schema["foreignKeys"] = [{"fields": "paper_id", "reference": reference}]
        resource |= {"profile": "tabular-data-resource", "schema": schema}
    return resource


def _schema(columns: Iterable[str], primary_key: str | list[str]) -> dict[str, Any]:
    fields = [
        {"name": column, "type": TYPES.get(column, "string")}
        | ({"description": DESCRIPTIONS[column]} if column in DESCRIPTIONS else {})
        for column in columns
    ]
    return {"fields": fields, "primaryKey": primary_key}
