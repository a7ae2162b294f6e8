"""What `entry_text` writes, `read_document` reads back."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from taxonomy.entries.characters import HIDDEN
from taxonomy.entries.checks import FIRST_LINE
from taxonomy.entries.document import parse_document
from taxonomy.entries.entry import Entry
from taxonomy.entries.vocabulary import Vocabulary
from taxonomy.entries.writing import NUMBERS, entry_text


def read_back(entry: Entry) -> Entry:
    document = parse_document(entry_text(entry).encode(), "f")
    assert document.problems == []
    return Entry.model_validate(document.value)


def test_a_full_entry_comes_back_the_same(sample: dict[str, Any]):
    entry = Entry.model_validate(sample)
    assert read_back(entry) == entry
    assert entry_text(entry).startswith(FIRST_LINE + "\n")


line = st.text(st.characters(blacklist_categories=("C", "Zl", "Zp")), min_size=1, max_size=80).filter(
    lambda text: text.strip() and not HIDDEN.search(text)
)


@settings(deadline=None)
@given(line, line, line, st.floats(0.01, 1e5))
def test_any_text_comes_back_the_same(title: str, name: str, setting: str, factor: float):
    factor = float(f"{factor:.6g}")
    entry = Entry.model_validate(
        {
            "title": title,
            "name": name[:60].strip() or "x",
            "aliases": [setting],
            "authors": ["Ada Lovelace"],
            "published": "2024-05",
            "links": {"paper": "https://example.org/a?b=c#d"},
            "placements": [{"leaf": name, "role": "primary", "source": "survey", "why": setting}],
            "effects": {
                "energy": {"effect": "direct", "source": "survey", "gains": [{"factor": factor, "kind": setting}]}
            },
            "evaluation": {"models": [title, name]},
            "added": "2026-11-24",
        }
    )
    assert read_back(entry) == entry
    assert yaml.safe_load(entry_text(entry))["title"] == entry.title


def test_numeric_traits_are_written_as_numbers(vocabulary: Vocabulary, sample):
    assert {t.code for group in vocabulary.traits for t in group.traits if t.type == "number"} == NUMBERS
    assert "bits: 2," in entry_text(Entry.model_validate(sample))
