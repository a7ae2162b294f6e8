"""The sentences about the survey's claims in both languages (`claims.yaml`), each found by its code: O1, C1, …"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from taxonomy.store.row import LANGUAGES, Words

FILE = Path(__file__).with_name("claims.yaml")


@cache
def claims(part: str) -> dict[str, Any]:
    """Return a part of the file by its key: `observations`, `challenges`, …"""
    parts: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return parts[part]


def words(text: dict[str, str], **figures: float | str | Words) -> Words:
    """Return a text of the file with its figures filled in."""

    def filled(language: str) -> str:
        return text[language].format(
            **{name: value.get(language) if isinstance(value, Words) else value for name, value in figures.items()}
        )

    return Words(*map(filled, LANGUAGES))
