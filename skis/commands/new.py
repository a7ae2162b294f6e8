"""`skis new`: asks for the facts of a paper and writes its file."""

from __future__ import annotations

import datetime
import re
import unicodedata
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from skis.commands.shared import HERE, Root, checkout_at, err, out, stop_call, stop_input
from taxonomy.entries.checks import MAX_ID, check_papers
from taxonomy.entries.entry import Entry
from taxonomy.entries.vocabulary import Vocabulary, VocabularyError, load_vocabulary
from taxonomy.entries.writing import entry_text


def new(
    title: Annotated[str, typer.Option(prompt="Title, as published", help="As published.")],
    authors: Annotated[str, typer.Option(prompt="Authors, in order, separated by commas", help="Separated by commas.")],
    published: Annotated[str, typer.Option(prompt="First public version (YYYY-MM-DD or YYYY-MM)", help="Date.")],
    link: Annotated[str, typer.Option(prompt="Address of the paper", help="Address; arXiv and DOI are recognized.")],
    leaf: Annotated[str, typer.Option(prompt="Leaf it is mainly about (? lists them)", help="Such as kvrm/eviction.")],
    technique: Annotated[str, typer.Option(prompt="What it does there, in one line", help="In your own words.")],
    name: Annotated[str, typer.Option(prompt="Short name of the method (empty if none)", help="Such as KIVI.")] = "",
    venue: Annotated[str, typer.Option(prompt="Venue and year (empty for a preprint)", help="Such as ICML 2024.")] = "",
    paper_id: Annotated[str | None, typer.Option("--id", help="Id; made from the name or title without.")] = None,
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
    facts: dict[str, Any] = {
        "title": title,
        "name": name or None,
        "authors": [author for author in re.split(r"\s*[,;]\s*", authors.strip()) if author],
        "published": published,
        "venue": venue or None,
        "links": _links(link.strip()),
        "placements": [{"leaf": leaf.strip(), "role": "primary", "technique": {"en": technique}, "source": "abstract"}],
        "read": "abstract",
        "added": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    try:
        entry = Entry.model_validate(facts)
    except ValidationError as error:
        for detail in error.errors():
            err.print(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}", style="red", markup=False)
        stop_call("nothing was written")
    path = checkout.root / "papers" / entry.published[:4] / f"{paper_id or _id(name or title)}.yaml"
    if path.exists():
        stop_call(f"{path.relative_to(checkout.root)} exists; choose another --id")
    path.parent.mkdir(exist_ok=True)
    path.write_text(entry_text(entry), encoding="utf-8", newline="\n")
    file = path.relative_to(checkout.root).as_posix()
    out.print(f"wrote {file}", style="green", markup=False)
    problems = [problem for problem in check_papers(checkout.root, vocabulary).problems if problem.file == file]
    for problem in problems:
        out.print(str(problem), markup=False)
    if problems:
        err.print("please mend these in the file, then run `skis check`", style="yellow")
        raise typer.Exit(1)


def _choose_leaf(vocabulary: Vocabulary) -> str:
    for leaf in vocabulary.leaves:
        out.print(f"  {leaf.code:34} {leaf.label.en}", markup=False)
    answer: str = typer.prompt("Leaf")
    return answer


def _links(address: str) -> dict[str, str]:
    links = {"paper": address}
    if match := re.search(r"arxiv\.org/(?:abs|pdf|html)/(\d{4}\.\d{4,5})", address):
        links |= {"paper": f"https://arxiv.org/abs/{match[1]}", "arxiv": match[1]}
    if match := re.search(r"(?:doi\.org|dl\.acm\.org/doi(?:/e?pdf|/abs|/full)?)/(10\.\d{4,9}/[^?#]+)", address):
        links["doi"] = match[1]
    if match := re.search(r"openreview\.net/(?:forum|pdf)\?id=([\w-]+)", address):
        links["openreview"] = match[1]
    return links


def _id(text: str) -> str:
    """Make an id from a name or title: its first words in small ASCII letters, joined by hyphens."""
    plain = unicodedata.normalize("NFKD", text.partition(":")[0]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_ID].strip("-") or "paper"
