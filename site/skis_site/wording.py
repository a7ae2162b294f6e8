"""The website's own texts (labels, headings, ledes) in one language."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from taxonomy.store.row import Words


@dataclass(frozen=True)
class Wording:
    """Answers `wording("papers")`, and `wording.of(words)` for a text in two languages."""

    language: str
    texts: dict[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """Return the text of `key`, its {placeholders} filled. Raises KeyError for an unknown key."""
        return self.texts[key].format(**values)

    def of(self, words: Words) -> str:
        """Return `words` in this language, or in the other where they are missing in this."""
        return words.get(self.language)

    def count(self, number: int) -> str:
        """Return `12 papers`."""
        return self("one_paper") if number == 1 else self("n_papers", n=number)


def read_wording(path: Path, language: str) -> Wording:
    """Read the texts of `language` from the file of translations."""
    table = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Wording(language, {key: texts[language] for key, texts in table.items()})
