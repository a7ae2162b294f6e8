"""Metadata for Datasette: titles, license, and how to search. Written as JSON, which is YAML."""

from __future__ import annotations

import json
from typing import Any

from taxonomy.exports.datapackage import LICENSE

TABLES: dict[str, dict[str, Any]] = {
    "paper": {
        "title": "Papers",
        "description": "One row per paper.",
        "label_column": "title",
        "sort_desc": "published",
        "fts_table": "paper_search",
        "facets": ["year", "venue_code", "survey"],
    },
    "placement": {
        "title": "Placements",
        "description": "A paper in a leaf of the taxonomy, with the reason and where it was read.",
        "facets": ["leaf_code", "role", "source"],
    },
    "effect": {"title": "Effects on objectives", "facets": ["objective_code", "effect"]},
    "gain": {"title": "Reported gains", "description": "Not comparable across papers: settings differ."},
    "leaf": {"label_column": "label_en", "sort": "position"},
    "behavior": {"label_column": "label_en", "sort": "position"},
    "dimension": {"label_column": "label_en", "sort": "position"},
    "objective": {"label_column": "label_en", "sort": "position"},
    "venue": {"label_column": "key", "sort": "position"},
    "author": {"label_column": "name"},
    "kernel": {"title": "Reference kernels", "label_column": "name", "sort": "position", "facets": ["leaf_code"]},
    "kernel_result": {
        "title": "Measurements of kernels",
        "description": "Median seconds, share of what the GPU allows, and gain over the fastest peer with 16 bits.",
        "facets": ["gpu", "kernel_name"],
    },
}


def datasette_metadata() -> str:
    """Return `metadata.yml`."""
    metadata = {
        "title": "sKis Atlas",
        "description": "KV cache optimization for serving large language models",
        "license": LICENSE["title"],
        "license_url": LICENSE["path"],
        "databases": {"skis": {"tables": TABLES}},
    }
    return json.dumps(metadata, ensure_ascii=False, indent=1) + "\n"
