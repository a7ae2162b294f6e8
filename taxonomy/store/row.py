"""What every table of the store has in common, and the version of them all.

A table is an SQLModel class, and its rows are the objects that exports, analyses, pages and commands read: there is no
other form of them. Columns and names of tables are a public interface: `VERSION` rises with every change of theirs.

What follows from columns is a `cached_property`: a template asks for it on every page that names the row.

A text in two languages is two columns, `…_en` and `…_zh`, read together as `Words`. `position` keeps the order of the
source file.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Case, CheckConstraint, case
from sqlmodel import Relationship, SQLModel

VERSION = 5  # 2: reference kernels; 3: gains in percent; 4: what was left out; 5: it is `out_of_scope`; parts of names
LANGUAGES = ("en", "zh")
LOADED: dict[str, Any] = {"lazy": "selectin", "viewonly": True}


@dataclass(frozen=True)
class Words:
    """A text in English and Chinese; either may be missing."""

    en: str | None
    zh: str | None

    def __bool__(self) -> bool:
        return bool(self.en or self.zh)

    def get(self, language: str) -> str:
        """Return the text in `language`, or in the other one where it is missing, or ""."""
        first, second = (self.zh, self.en) if language == "zh" else (self.en, self.zh)
        return first or second or ""


class Row(SQLModel):
    """A row of a table. It is equal to itself alone, so that comparing two never walks through the whole store."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def one_of(column: str, *values: str) -> CheckConstraint:
    """Return the constraint that `column` holds one of `values`."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})")


def in_order(column: Any, values: tuple[str, ...]) -> Case[int]:
    """Return what sorts rows as `values` stand, by what they have in `column`."""
    return case({value: place for place, value in enumerate(values)}, value=column)


def related(**options: Any) -> Any:
    """Return a relationship that is loaded together with the row that has it; rows are inserted table by table."""
    return Relationship(sa_relationship_kwargs=LOADED | options)
