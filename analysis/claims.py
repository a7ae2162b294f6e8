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
    """Return a part of the file: `observations`, `challenges`, `too_few` or `differences`."""
    parts: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return parts[part]


def words(text: dict[str, str], **figures: float | str) -> Words:
    """Return a text of the file with its figures filled in."""
    return Words(*(text[language].format(**figures) for language in LANGUAGES))
