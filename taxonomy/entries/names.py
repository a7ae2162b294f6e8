"""Splits a person's name into given and family name, for the formats that want the two apart."""

from __future__ import annotations

# Words that begin a family name. Anything else before the last word is taken as given.
PARTICLES = frozenset(
    {
        *("al", "ben", "bin", "da", "de", "del", "della", "den", "der", "di", "dos", "du", "el", "ibn"),
        *("la", "le", "san", "si", "ten", "ter", "van", "von", "zu"),
    }
)
SUFFIXES = frozenset({"jr.", "jr", "sr.", "sr", "ii", "iii", "iv"})


def split_name(name: str) -> tuple[str, str]:
    """Return (given, family). A suffix stays with the family name; a single word is a family name."""
    words = name.split()
    last = len(words) - 1
    if last > 0 and words[last].casefold() in SUFFIXES:
        last -= 1
    first = last
    while first > 1 and words[first - 1].casefold() in PARTICLES:
        first -= 1
    return " ".join(words[:first]), " ".join(words[first:])
