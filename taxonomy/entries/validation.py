"""Turns pydantic's findings into problems with a place and a readable sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from taxonomy.entries.document import Document, Path_
from taxonomy.entries.problem import nearest, shown


def report(
    document: Document, error: ValidationError, fields: Sequence[str] = (), renamed: Mapping[str, str] | None = None
) -> None:
    """Add every finding of `error` to the document's problems.

    `fields` are the names that a suggestion is taken from. `renamed` gives the present name of a field by its former.
    """
    for detail in error.errors(include_url=False):
        path = _known_path(document, detail["loc"])
        if detail["type"] == "extra_forbidden":
            name = str(path[-1])
            if renamed and name in renamed and not any(isinstance(part, str) for part in path[:-1]):
                document.problem(path, f"is called {renamed[name]} now", key=True)
            else:
                document.problem(path, f"{shown(name)} is not a field here", nearest(name, fields), key=True)
        elif detail["type"] == "missing":
            document.problem(path, "is missing")
        else:
            document.problem(path, _sentence(detail), _suggestion(detail))


def _known_path(document: Document, location: tuple[str | int, ...]) -> Path_:
    """Drop the parts that pydantic adds for its own use, such as the branch of a union."""
    path: Path_ = ()
    for part in location:
        longer = (*path, part)
        if longer in document.values or longer in document.keys or part is location[-1]:
            path = longer
    return path


def _suggestion(detail: ErrorDetails) -> str:
    if detail["type"] != "literal_error" or not isinstance(detail["input"], str):
        return ""
    expected = detail.get("ctx", {}).get("expected", "")
    return nearest(detail["input"], [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")])


def _sentence(detail: ErrorDetails) -> str:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if (
        isinstance(given, str)
        and not given.strip()
        and kind not in ("list_type", "dict_type", "model_type", "model_attributes_type")
    ):
        return "is empty; a field that is unknown is left out"
    sentences = {
        "value_error": str(context.get("error", "")),
        "literal_error": f"must be {str(context.get('expected')).replace(chr(39), '')}",
        "string_pattern_mismatch": f"has the wrong form (must match {context.get('pattern')})",
        "string_too_long": f"is longer than {context.get('max_length')} characters",
        "string_type": "must be text",
        "bool_parsing": "must be true or false",
        "float_parsing": "must be a number",
        "finite_number": "must be a finite number",
        "greater_than": f"must be greater than {context.get('gt')}",
        "less_than": f"must be less than {context.get('lt')}",
        "list_type": "must be a list",
        "tuple_type": "must be a list",
        "too_short": f"needs at least {context.get('min_length')} item{'s' if context.get('min_length') != 1 else ''}",
        # pydantic calls a long text so as well, where a validator stands before the limit
        "too_long": f"is longer than {context.get('max_length')} characters"
        if isinstance(given, str)
        else f"takes at most {context.get('max_length')} items",
        "dict_type": "must be a mapping of fields",
        "model_type": "must be a mapping of fields",
        "model_attributes_type": "must be a mapping of fields",
    }
    text = sentences.get(kind) or detail["msg"][0].lower() + detail["msg"][1:]
    return f"{shown(given)} {text}" if isinstance(given, str) and given and not text.startswith("is longer") else text
