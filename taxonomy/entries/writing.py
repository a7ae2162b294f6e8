"""Writes an entry as YAML in the house's form: one field a line, lists in brackets, text in double quotes.

`read_document` of what is written gives the same entry back.
"""

from __future__ import annotations

import json
import re
from typing import Any

from taxonomy.entries.checks import FIRST_LINE
from taxonomy.entries.entry import Entry

WIDTH = 120
# Words that no reader of YAML takes for a number, a date, a boolean or syntax.
PLAIN = re.compile(r"[A-Za-z\u00c0-\u024f][\w \u00c0-\u024f.'’()+/:-]*")
NOT_PLAIN = re.compile(r"(?i)y|n|yes|no|on|off|true|false|null|.*: .*|.*:|.* ")
# Fields whose text is a sentence or could look like a number: always quoted, for an even look.
QUOTED = frozenset({"title", "en", "zh", "why", "note", "kind", "against", "setting", "arxiv", "openreview"})
NUMBERS = frozenset({"bits"})  # traits whose type in traits.yaml is number
NEVER_FLOW = frozenset({"placements", "effects"})
DATES = frozenset({"published", "added"})


def entry_text(entry: Entry) -> str:
    """Return the text of the entry's file, absent fields left out."""
    lines = [FIRST_LINE]
    for field, value in entry.model_dump(exclude_defaults=True).items():
        lines += _field(field, value, indent="")
    return "\n".join(lines) + "\n"


def _field(name: str, value: Any, indent: str) -> list[str]:
    """Write one field, on one line where that fits, else as an indented block."""
    one_line = f"{indent}{name}: {_flow(name, value)}"
    if not isinstance(value, (dict, list, tuple)) or (len(one_line) <= WIDTH and name not in NEVER_FLOW):
        return [one_line]
    if isinstance(value, dict):
        return [f"{indent}{name}:", *(line for k, v in value.items() for line in _field(k, v, indent + "  "))]
    if all(isinstance(item, str) for item in value):
        return [f"{indent}{name}:", *(f"{indent}  - {_flow(name, item)}" for item in value)]
    lines = [f"{indent}{name}:"]
    for item in value:
        block = [line for k, v in item.items() for line in _field(k, v, indent + "    ")]
        lines += [f"{indent}  - {block[0].lstrip()}", *block[1:]]
    return lines


def _flow(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_flow(k, v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(name, item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    text = str(value)
    plain = name in DATES | NUMBERS or (name not in QUOTED and PLAIN.fullmatch(text) and not NOT_PLAIN.fullmatch(text))
    return text if plain else json.dumps(text, ensure_ascii=False)
