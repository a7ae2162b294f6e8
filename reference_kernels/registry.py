"""All units, read from the docstrings of their files, without importing torch.

A unit is a module below a behavior's folder whose docstring ends in a field list with `:leaf:` and `:papers:`, and
which defines `UNIT` (see `core/unit.py`). Adding a method is adding that file: nothing else registers it.
"""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent
BEHAVIORS = ("kvs", "ovlp", "hae", "mho", "cdo", "kvcc", "kvrm")
_FIELD = re.compile(r"^:(\w+): *(.*)$", re.MULTILINE)
_HEADING = re.compile(r"^(?P<name>[A-Z][^\n]*)\n-{3,}\n", re.MULTILINE)


@dataclass(frozen=True)
class Card:
    """What a unit says of itself in its docstring."""

    name: str  # the command line's word for it: the file's name
    module: str  # what to import
    leaf: str  # code of the taxonomy's leaf
    papers: tuple[str, ...]  # ids of files below papers/
    title: str  # the first line
    sections: dict[str, str]  # heading -> text

    @property
    def behavior(self) -> str:
        """The folder, which is the code of the behavior."""
        return self.leaf.split("/")[0]

    @property
    def file(self) -> str:
        """Its path within the repository."""
        return self.module.replace(".", "/") + ".py"


@cache
def cards() -> tuple[Card, ...]:
    """Return the cards of all units, in the order of the behaviors and then by name."""
    return read_cards(ROOT)


def read_cards(package: Path) -> tuple[Card, ...]:
    """Return what `cards` does for a copy of this package that lies elsewhere."""
    found = (_card(path, package) for behavior in BEHAVIORS for path in sorted((package / behavior).rglob("*.py")))
    return tuple(card for card in found if card)


def card(name: str) -> Card:
    """Return one card.

    Raises:
        KeyError: no unit has this name.
    """
    for found in cards():
        if found.name == name:
            return found
    raise KeyError(name)


def load(name: str) -> ModuleType:
    """Import the module of a unit (this imports torch)."""
    return importlib.import_module(card(name).module)


def _card(path: Path, package: Path) -> Card | None:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    fields = dict(_FIELD.findall(text))
    if "leaf" not in fields:
        return None
    parts = path.relative_to(package).with_suffix("").parts
    body = _FIELD.sub("", text)
    headings = list(_HEADING.finditer(body))
    ends = [h.start() for h in headings[1:]] + [len(body)]
    return Card(
        name=parts[-1],
        module=".".join(("reference_kernels", *parts)),
        leaf=fields["leaf"],
        papers=tuple(p.strip() for p in fields.get("papers", "").split(",") if p.strip()),
        title=text.splitlines()[0],
        sections={h["name"]: body[h.end() : end].strip() for h, end in zip(headings, ends, strict=False)},
    )
