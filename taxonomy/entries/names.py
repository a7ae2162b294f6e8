"""A person's name with its two parts, which BibTeX and CSL want apart."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, model_serializer, model_validator

from taxonomy.entries.fields import MAX_LINE, Line, Part

# Words that begin a family name. Anything else before the last word is taken as given.
PARTICLES = frozenset(
    {
        *("al", "ben", "bin", "da", "de", "del", "della", "den", "der", "di", "dos", "du", "el", "ibn"),
        *("la", "le", "san", "si", "ten", "ter", "van", "von", "zu"),
    }
)
_OTHERS = re.compile(r"\bet\.? al\b|\band others\b|^others$")
_NOT_ONE_PERSON = re.compile(r"[,;&/@<>{}\[\]|\\、\d]|(?:^| )and(?: |$)")
SUFFIXES = frozenset({"jr.", "jr", "sr.", "sr", "ii", "iii", "iv"})


def split_name(name: str) -> tuple[str, str]:
    """Return (given, family) by guess: the last word is the family name, with particles before and a suffix after it.

    The first word is never a particle, for many a given name looks like one (Di Wu, Le Chen, Ben Ma). A single word is
    a family name.
    """
    words = name.split()
    last = len(words) - 1
    if last > 0 and words[last].casefold() in SUFFIXES:
        last -= 1
    first = last
    while first > 1 and words[first - 1].casefold() in PARTICLES:
        first -= 1
    return " ".join(words[:first]), " ".join(words[first:])


def _checked(value: str) -> str:
    """Refuse what is not one person's name.

    BibTeX separates names at `and` between spaces, in any case, and reads the name `others` as et al. Full-width forms
    and spaces of any kind count as the plain ones that they look like.
    """
    plain = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    if _OTHERS.search(plain):
        raise ValueError("lists people as `et al.`; name every author")
    if _NOT_ONE_PERSON.search(plain) or not any(c.isalpha() for c in plain):
        raise ValueError("must be one person as `Given Family`, without commas, digits or marks")
    return value


NamePart = Annotated[Line, AfterValidator(_checked)]


class Person(Part):
    """An author, written as `Given Family`, or as `{given: Vincent, family: Van Gogh}` where `split_name` errs."""

    given: NamePart | None = None
    family: NamePart

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            if len(value) > MAX_LINE:
                raise ValueError(f"is longer than {MAX_LINE} characters")
            if "\n" in value.strip():
                raise ValueError("must be one line")
            given, family = split_name(_checked(value))
            return {"given": given or None, "family": family}
        if not isinstance(value, dict):
            raise ValueError("must be one person as `Given Family`, or a mapping of given and family")  # noqa: TRY004
        return value

    @model_serializer
    def _as_written(self) -> str | dict[str, str]:
        if split_name(self.name) == (self.given or "", self.family):
            return self.name
        return {"given": self.given, "family": self.family} if self.given else {"family": self.family}

    @property
    def name(self) -> str:
        """The whole name, as the paper has it."""
        return f"{self.given} {self.family}" if self.given else self.family


PERSON_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": MAX_LINE},
        {
            "type": "object",
            "properties": {"given": {"type": "string"}, "family": {"type": "string"}},
            "required": ["family"],
            "additionalProperties": False,
        },
    ]
}
