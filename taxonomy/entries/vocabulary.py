"""The words that entries may use: dimensions, behaviors, leaves, objectives, traits, communities and venues.

They are data (`taxonomy/vocabulary/*.yaml`). Adding a leaf or a venue is adding an item to a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import StringConstraints, TypeAdapter, ValidationError

from taxonomy.entries.document import Document, read_document
from taxonomy.entries.fields import Line, Part, Url
from taxonomy.entries.problem import Problem, nearest, shown
from taxonomy.entries.validation import report

FOLDER = Path(__file__).parent.parent / "vocabulary"
NAME = "taxonomy/vocabulary"  # in messages: its path in a checkout
MAX_BYTES = 1024 * 1024

Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
LeafCode = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)?$")]
Color = Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$")]


class Bilingual(Part):
    """The same text in English and in Chinese."""

    en: Line
    zh: Line


class Colors(Part):
    """A color for light pages and one for dark pages, both with enough contrast for text."""

    light: Color
    dark: Color


class Term(Part):
    """A word of the taxonomy."""

    code: Code
    label: Bilingual
    definition: Bilingual


class Dimension(Term):
    """One of the three questions of sKis."""

    title: Bilingual
    question: Bilingual
    color: Colors


class Behavior(Term):
    """A kind of optimization; belongs to a dimension."""

    dimension: Code
    acronym: Line


class Leaf(Term):
    """What papers are tagged with; belongs to a behavior."""

    code: LeafCode
    behavior: Code


class Objective(Term):
    """A system metric; `better` says which way is good."""

    better: Literal["lower", "higher"]


class Trait(Term):
    """A comparable fact: free text, a number, or one (or `many`) of `values`."""

    type: Literal["text", "number"] = "text"
    values: tuple[Code, ...] = ()
    many: bool = False


class TraitGroup(Part):
    """The traits of one leaf."""

    code: Code
    leaf: LeafCode
    traits: tuple[Trait, ...]


class Community(Term):
    """A research community, to which venues belong."""


class Venue(Part):
    """A place of publication; entries name it by `key` and year."""

    key: Line
    code: Code
    name: Line
    kind: Literal["conference", "journal", "workshop"]
    community: Code
    url: Url


class Vocabulary(Part):
    """All words, in the order of their files."""

    dimensions: tuple[Dimension, ...]
    behaviors: tuple[Behavior, ...]
    leaves: tuple[Leaf, ...]
    objectives: tuple[Objective, ...]
    traits: tuple[TraitGroup, ...]
    communities: tuple[Community, ...]
    venues: tuple[Venue, ...]


class VocabularyError(Exception):
    """The vocabulary files are wrong; `problems` says how."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


PartT = TypeVar("PartT", bound=Part)

# What refers to what: (list, field) -> (list, field that names it).
REFERENCES = {
    ("behaviors", "dimension"): ("dimensions", "code"),
    ("leaves", "behavior"): ("behaviors", "code"),
    ("traits", "leaf"): ("leaves", "code"),
    ("venues", "community"): ("communities", "code"),
}


def load_vocabulary(folder: Path = FOLDER) -> Vocabulary:
    """Read and check the vocabulary.

    Raises:
        VocabularyError: a file is missing, a link or wrong, a code is used twice, or a reference leads nowhere.
    """
    if folder.is_symlink():
        raise VocabularyError([Problem(NAME, 1, 1, "", "is a link; the vocabulary is a folder of the repository")])
    lists: dict[str, tuple[Any, ...]] = {}
    documents: dict[str, Document] = {}
    problems: list[Problem] = []
    for name, annotation in (
        ("dimensions", Dimension),
        ("behaviors", Behavior),
        ("leaves", Leaf),
        ("objectives", Objective),
        ("traits", TraitGroup),
        ("communities", Community),
        ("venues", Venue),
    ):
        path = folder / f"{name}.yaml"
        document = documents[name] = read_document(path, f"{NAME}/{path.name}", MAX_BYTES)
        lists[name] = _terms(document, annotation)
        problems += document.problems
    if not problems:
        problems = _inconsistencies(lists, documents)
    if problems:
        raise VocabularyError(sorted(problems))
    return Vocabulary(**lists)


def _terms(document: Document, model: type[PartT]) -> tuple[PartT, ...]:
    if document.problems:
        return ()
    try:
        return TypeAdapter(tuple[model, ...]).validate_python(document.value)  # type: ignore[valid-type]
    except ValidationError as error:
        report(document, error)
        return ()


def _inconsistencies(lists: dict[str, tuple[Any, ...]], documents: dict[str, Document]) -> list[Problem]:
    for name, words in lists.items():
        for field in ("code", "key"):
            _refuse_repeats(documents[name], (getattr(word, field, None) for word in words), field)
    for (name, field), (target, by) in REFERENCES.items():
        known = [getattr(word, by) for word in lists[target]]
        for index, word in enumerate(lists[name]):
            if (used := getattr(word, field)) not in known:
                message = f"{shown(used)} is not in {target}.yaml"
                documents[name].problem((index, field), message, nearest(used, known))
    return [problem for document in documents.values() for problem in document.problems]


def _refuse_repeats(document: Document, codes: Iterable[str | None], field: str) -> None:
    seen: set[str] = set()
    for index, code in enumerate(codes):
        if code is not None and code.casefold() in seen:
            document.problem((index, field), f"{shown(code)} is used twice")
        seen.add((code or "").casefold())
