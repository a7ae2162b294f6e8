"""What an entry still lacks before it is complete: facts that every paper has, and judgements that a curator owes."""

from __future__ import annotations

from collections.abc import Iterator

from taxonomy.entries.checks import EntryFile
from taxonomy.entries.document import Path_
from taxonomy.entries.problem import Problem


def missing(papers: list[EntryFile]) -> list[Problem]:
    """List what each entry lacks, where it belongs in its file."""
    return [
        Problem(paper.file, *paper.document.place(path), "", f"has no {what}")
        for paper in papers
        for path, what in _missing(paper)
    ]


def _missing(paper: EntryFile) -> Iterator[tuple[Path_, str]]:
    entry = paper.entry
    if not (entry.links.arxiv or entry.links.doi or entry.links.openreview):
        yield ("links",), "arXiv number, DOI or OpenReview id"
    for language, name in (("en", "English"), ("zh", "Chinese")):
        if not (entry.summary and getattr(entry.summary, language)):
            yield ("summary",), f"{name} summary (summary.{language})"
    for index, placement in enumerate(entry.placements):
        if not placement.why:
            yield ("placements", index), f"reason (why) for {placement.leaf}"
    if not entry.effects:
        yield ("effects",), "objective that the method improves or costs (effects)"
    if not entry.read:
        yield ("read",), "statement of how far the curator read (read)"
