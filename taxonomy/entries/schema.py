"""The JSON Schema of an entry, for completion and checks in editors: the models plus the vocabulary's words."""

from __future__ import annotations

import json
from typing import Any

from taxonomy.entries.entry import Entry
from taxonomy.entries.vocabulary import Trait, Vocabulary


def entry_schema(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the schema (draft 2020-12) with every code, venue and trait spelled out."""
    schema = Entry.model_json_schema()
    definitions, properties = schema["$defs"], schema["properties"]
    for part in (schema, *definitions.values()):
        _tidy(part)
    definitions["Placement"]["properties"]["leaf"] |= {
        "oneOf": [{"const": leaf.code, "title": leaf.label.en} for leaf in vocabulary.leaves]
    }
    effect = properties["effects"].pop("additionalProperties")
    properties["effects"] |= {
        "additionalProperties": False,
        "properties": {o.code: effect | {"description": o.definition.en} for o in vocabulary.objectives},
    }
    properties["traits"] |= {
        "additionalProperties": False,
        "properties": {
            group.code: {
                "type": "object",
                "description": f"Traits of papers in {group.leaf}.",
                "additionalProperties": False,
                "properties": {trait.code: _trait_schema(trait) for trait in group.traits},
            }
            for group in vocabulary.traits
        },
    }
    keys = "|".join(venue.key for venue in vocabulary.venues)
    properties["venue"]["pattern"] = f"^({keys}) [0-9]{{4}}$"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Entry of the sKis Atlas",
        "description": "Generated from the models and the vocabulary by `skis build`; edit those.",
        **{key: value for key, value in schema.items() if key not in ("title", "description")},
    }


def schema_text(vocabulary: Vocabulary) -> str:
    """Return the schema as the text of `papers/schema.json`."""
    return json.dumps(entry_schema(vocabulary), ensure_ascii=False, indent=1) + "\n"


def _trait_schema(trait: Trait) -> dict[str, Any]:
    if trait.values:
        value: dict[str, Any] = {"enum": list(trait.values)}
    else:
        value = {"type": "number" if trait.type == "number" else "string"}
    schema = {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]} if trait.many else value
    return {"description": trait.definition.en, **schema}


def _tidy(part: dict[str, Any]) -> None:
    """Unknown facts are absent, not null: drop the null branches and defaults that pydantic adds."""
    for name, field in list(part.get("properties", {}).items()):
        branches = [branch for branch in field.get("anyOf", []) if branch != {"type": "null"}]
        if len(branches) == 1:
            field = {key: value for key, value in field.items() if key != "anyOf"} | branches[0]
        part["properties"][name] = {k: v for k, v in field.items() if k not in ("default", "title")}
