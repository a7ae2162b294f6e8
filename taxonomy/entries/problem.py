"""One thing that is wrong with an input file, and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby

from taxonomy.entries.characters import printable

SHOWN_OF_A_FILE = 20
MAX_FIELD = 120


@dataclass(frozen=True, order=True)
class Problem:
    """A finding at a place in a file. `line` and `column` count from 1, as editors do.

    File, field and message may hold what a stranger wrote. Each form of a problem is one line in which every character
    is seen.
    """

    file: str
    line: int
    column: int
    field: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        """Render as `file:line:column: field: what is wrong (did you mean …?)`."""
        return f"{printable(self.file)}:{self.line}:{self.column}: {self._sentence()}"

    def as_annotation(self) -> str:
        """Render as a GitHub workflow command, which marks the line in a pull request."""
        place = printable(self.file).replace("%", "%25").replace(",", "%2C").replace(":", "%3A")
        text = self._sentence().replace("%", "%25")
        return f"::error file={place},line={self.line},col={self.column}::{text}"

    def as_dict(self) -> dict[str, str | int]:
        """Return the fields as plain values, for `--json`."""
        return {name: printable(value) if isinstance(value, str) else value for name, value in asdict(self).items()}

    def _sentence(self) -> str:
        field = f"{clipped(self.field, MAX_FIELD)}: " if self.field else ""
        hint = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return printable(f"{field}{self.message}{hint}")


def abridged(problems: Iterable[Problem], limit: int = SHOWN_OF_A_FILE) -> Iterator[Problem]:
    """Yield the first `limit` problems of each file, and one more that says how many others the file has."""
    for file, group in groupby(sorted(problems), key=lambda problem: problem.file):
        of_file = list(group)
        yield from of_file[:limit]
        if rest := of_file[limit:]:
            others = "1 more problem" if len(rest) == 1 else f"{len(rest)} more problems"
            yield Problem(file, rest[0].line, rest[0].column, "", f"{others} in this file; --json lists all of them")


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
    return f'"{printable(clipped(text, limit))}"'


def clipped(text: str, limit: int) -> str:
    """Return `text`, or its beginning and an ellipsis where it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
