"""`skis new`: asks for the facts of a paper and writes its file."""

from __future__ import annotations

import datetime
import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from skis.build import check as check_checkout
from skis.commands.shared import HERE, Root, checkout_at, err, list_problems, say, stop_call, stop_input
from taxonomy.entries.document import Document, parse_document
from taxonomy.entries.entry import Entry
from taxonomy.entries.places import MAX_ID, bad_id
from taxonomy.entries.problem import Problem
from taxonomy.entries.validation import report
from taxonomy.entries.vocabulary import Vocabulary, VocabularyError, load_vocabulary
from taxonomy.entries.writing import entry_text


def new(
    title: Annotated[str, typer.Option(prompt="Title, as published", help="Title, as published.")],
    authors: Annotated[
        str,
        typer.Option(prompt="Authors, in order, separated by commas", help="Authors in order, separated by commas."),
    ],
    published: Annotated[
        str,
        typer.Option(
            prompt="First public version (YYYY-MM-DD or YYYY-MM)", help="First public version: YYYY-MM-DD or YYYY-MM."
        ),
    ],
    link: Annotated[
        str,
        typer.Option(
            prompt="Address of the paper",
            help="Address of the paper; arXiv numbers, DOIs and OpenReview ids in it are recognized.",
        ),
    ],
    leaf: Annotated[
        str,
        typer.Option(
            prompt="Leaf that it is mainly about (? lists all)",
            help="Leaf that the paper is mainly about, such as kvrm/eviction.",
        ),
    ],
    technique: Annotated[
        str,
        typer.Option(
            prompt="What it does there, in one line", help="What the method does in that leaf, in one line of your own."
        ),
    ],
    name: Annotated[
        str,
        typer.Option(prompt="Short name of the method (empty if none)", help="Short name of the method, such as KIVI."),
    ] = "",
    venue: Annotated[
        str, typer.Option(prompt="Venue and year (empty for a preprint)", help="Venue and year, such as ICML 2024.")
    ] = "",
    paper_id: Annotated[
        str | None, typer.Option("--id", help="Name of the file; without, made from the name or title.")
    ] = None,
    root: Root = HERE,
) -> None:
    """Write the file of a new paper. Asks for what the options do not give."""
    checkout = checkout_at(root)
    try:
        vocabulary = load_vocabulary(checkout.vocabulary)
    except VocabularyError as error:
        stop_input(error.problems)
    if leaf.strip() == "?":
        leaf = _choose_leaf(vocabulary)
    entry = _entry(
        {
            "title": title,
            "name": name or None,
            "authors": [author for author in re.split(r"\s*[,;]\s*", authors.strip()) if author],
            "published": published,
            "venue": venue or None,
            "links": _links(link.strip()),
            "placements": [
                {"leaf": leaf.strip(), "role": "primary", "technique": {"en": technique}, "source": "abstract"}
            ],
            "read": "abstract",
            "added": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
    )
    if wrong := bad_id(paper_id := paper_id or _id(name or title)):
        stop_call(f"the entry {wrong}; choose another --id")
    file = f"papers/{entry.published[:4]}/{paper_id}.yaml"
    _write(checkout.root, file, entry_text(entry))
    say(f"wrote {file}", style="green")
    _, checked, _ = check_checkout(checkout)
    problems = [problem for problem in checked.problems if problem.file == file]
    if problems:
        list_problems(problems)
        say(f"correct {file}, then run `skis check`", style="yellow", to=err)
        raise typer.Exit(1)


def _entry(facts: dict[str, Any]) -> Entry:
    """Return the facts as an entry that a file can hold, or stop: nothing is written."""
    answers = Document("")
    try:
        entry = Entry.model_validate(facts)
    except ValidationError as error:
        report(answers, error)
        _stop_answers(answers.problems)
    if problems := parse_document(entry_text(entry).encode(errors="surrogatepass"), "").problems:
        _stop_answers(problems)
    return entry


def _stop_answers(problems: list[Problem]) -> NoReturn:
    for problem in problems:
        say(f"{problem.field or 'an answer'}: {problem.message}", style="red", to=err)
    stop_call("nothing was written")


def _write(root: Path, file: str, text: str) -> None:
    """Write a new file below `root`, or stop: one that exists is kept, and no link is followed out of `papers/`."""
    path = root / file
    if os.path.realpath(path.parent) != str(path.parent):
        stop_call(f"{path.parent.relative_to(root)} is a link; nothing was written")
    if os.path.lexists(path):
        stop_call(f"{file} exists; choose another --id")
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as target:
            try:
                target.write(text)
                target.flush()
            except OSError:
                path.unlink()
                raise
    except OSError as error:
        stop_call(f"cannot write {file}: {error.strerror}; nothing was written")


def _choose_leaf(vocabulary: Vocabulary) -> str:
    for leaf in vocabulary.leaves:
        say(f"  {leaf.code:34} {leaf.label.en}")
    answer: str = typer.prompt("Leaf")
    return answer


def _links(address: str) -> dict[str, str]:
    links = {"paper": address}
    if match := re.search(r"arxiv\.org/(?:abs|pdf|html)/([0-9]{4}\.[0-9]{4,5})", address):
        links |= {"paper": f"https://arxiv.org/abs/{match[1]}", "arxiv": match[1]}
    if match := re.search(r"(?:doi\.org|dl\.acm\.org/doi(?:/e?pdf|/abs|/full)?)/(10\.[0-9]{4,9}/[^?#]+)", address):
        links["doi"] = match[1]
    if match := re.search(r"openreview\.net/(?:forum|pdf)\?id=([A-Za-z0-9_-]+)", address):
        links["openreview"] = match[1]
    return links


def _id(text: str) -> str:
    """Make an id from a name or title: its first words in small ASCII letters, joined by hyphens."""
    plain = unicodedata.normalize("NFKD", text.partition(":")[0]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_ID].strip("-") or "paper"
