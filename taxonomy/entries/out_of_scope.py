"""Papers that were looked at and left out: `papers/out_of_scope.yaml`, with the criterion that fails and the reason.

The list keeps a decision from being made twice, and lets anybody argue with it.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from taxonomy.entries.checks import OUT_OF_SCOPE_NAME, EntryFile, normalized_title
from taxonomy.entries.document import read_document
from taxonomy.entries.fields import ArxivId, FullDate, Line, Part, Url, in_the_future
from taxonomy.entries.places import bad_id
from taxonomy.entries.problem import Problem
from taxonomy.entries.validation import report

MAX_BYTES = 1024 * 1024


Criterion = Literal["serving-time", "kv-cache", "system-metric", "retraining", "no-method", "duplicate", "withdrawn"]


class OutOfScope(Part):
    """A paper that is not in the atlas, and why."""

    title: Annotated[Line, Field(description="As published.")]
    arxiv: Annotated[ArxivId | None, Field(description="arXiv number without version, in quotes.")] = None
    paper: Annotated[Url | None, Field(description="Address of the paper, where there is no arXiv number.")] = None
    former_id: Annotated[
        Line | None, Field(description="The id it had, if it was in the atlas: that page then says why it left.")
    ] = None
    fails: Annotated[
        Criterion,
        Field(description="Which criterion fails: CONTRIBUTING.md says what they mean."),
    ]
    why: Annotated[Line, Field(description="The reason, in one line.")]
    decided: Annotated[FullDate, Field(description="Day of the decision.")]


# Fields of an item that had another name until November 2026.
RENAMED = {"id": "former_id"}

_LIST = TypeAdapter(tuple[OutOfScope, ...])


def check_out_of_scope(
    root: Path, papers: list[EntryFile], today: datetime.date | None = None
) -> tuple[tuple[OutOfScope, ...], list[Problem]]:
    """Read the list below `root/papers`, if there is one: return what it holds, and every problem of it.

    No decision may lie after `today`, the day in UTC; None leaves that out.
    """
    path = root / "papers" / OUT_OF_SCOPE_NAME
    if not os.path.lexists(path):
        return (), []
    document = read_document(path, path.relative_to(root).as_posix(), MAX_BYTES)
    if document.problems:
        return (), document.problems
    try:
        items = _LIST.validate_python(document.value or ())
    except ValidationError as error:
        report(document, error, sorted(OutOfScope.model_fields), RENAMED)
        return (), document.problems
    taken = {paper.id: paper.file for paper in papers}
    known = {key: paper.file for paper in papers for key in _keys(paper.entry.title, paper.entry.links.arxiv)}
    for index, item in enumerate(items):
        if in_the_future(item.decided, today):
            document.problem((index, "decided"), f"{item.decided} lies in the future: today is {today}")
        if not normalized_title(item.title):
            document.problem((index, "title"), "has no letter and no digit")
        for key in _keys(item.title, item.arxiv):
            if key in known:
                document.problem((index, "title"), f"the paper is in {known[key]} already")
        known |= dict.fromkeys(_keys(item.title, item.arxiv), "this list")
        if item.former_id is not None:
            if wrong := bad_id(item.former_id):
                document.problem((index, "former_id"), wrong)
            elif item.former_id in taken:
                document.problem((index, "former_id"), f"{item.former_id} is the id of {taken[item.former_id]}")
            taken[item.former_id] = "another item of this list"
    return items, document.problems


def _keys(title: str, arxiv: str | None) -> set[str]:
    return {key for key in (normalized_title(title), arxiv) if key}
