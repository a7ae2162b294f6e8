"""One thing that is wrong with an input file, and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """A finding at a place in a file. `line` and `column` count from 1, as editors do."""

    file: str
    line: int
    column: int
    field: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        """Render as `file:line:column: field: what is wrong (did you mean …?)`."""
        field = f"{self.field}: " if self.field else ""
        hint = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return f"{self.file}:{self.line}:{self.column}: {field}{self.message}{hint}"

    def as_annotation(self) -> str:
        """Render as a GitHub workflow command, which marks the line in a pull request."""
        text = str(self).split(": ", 1)[1]
        text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        place = self.file.replace("%", "%25").replace(",", "%2C").replace(":", "%3A")
        return f"::error file={place},line={self.line},col={self.column}::{text}"

    def as_dict(self) -> dict[str, str | int]:
        """Return the fields as plain values, for `--json`."""
        return asdict(self)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word most like `word` (letter case ignored), or "" when none is near."""
    by_folded = {k.casefold(): k for k in known}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else ""


def hint(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean …?)` with the nearest known word, or "" when none is near."""
    near = nearest(word, known)
    return f" (did you mean {near}?)" if near else ""


def shown(text: str, limit: int = 60) -> str:
    """Quote `text` for a message: one line, printable, clipped."""
    clipped = text if len(text) <= limit else text[: limit - 1] + "…"
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in clipped) + '"'
