"""What the store is told of the reference kernels: plain rows, as `reference_kernels.table` makes them.

A row is {name, file, leaf, title, papers: [id], results: [{gpu, case, seconds, share, gain, peer, taken, commit}]}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlmodel import SQLModel

from taxonomy.entries.checks import EntryFile
from taxonomy.entries.problem import Problem, nearest, shown
from taxonomy.entries.vocabulary import Vocabulary
from taxonomy.store import tables as t

KernelRow = Mapping[str, Any]


def check_kernels(kernels: Sequence[KernelRow], vocabulary: Vocabulary, papers: Sequence[EntryFile]) -> list[Problem]:
    """Return what is wrong with the kernels: leaves and papers that the atlas does not have, things named twice."""
    leaves = [leaf.code for leaf in vocabulary.leaves]
    ids = {paper.id for paper in papers}
    names = Counter(kernel["name"] for kernel in kernels)
    problems: list[Problem] = []
    for kernel in kernels:
        file, name, leaf = kernel["file"], kernel["name"], kernel["leaf"]

        def report(field: str, message: str, suggestion: str = "", file: str = file) -> None:
            problems.append(Problem(file, 1, 1, field, message, suggestion))  # the docstring is at the top

        if names[name] > 1:
            report("", f"there are {names[name]} kernels named {shown(name)}")
        if leaf not in leaves:
            report("leaf", f"{shown(leaf)} is not a leaf", nearest(leaf, leaves))
        named: list[str] = kernel["papers"]
        for paper, count in Counter(named).items():
            if paper not in ids:
                report("papers", f"there is no paper {shown(paper)}", nearest(paper, ids))
            if count > 1:
                report("papers", f"{shown(paper)} is named {count} times")
    return problems


def kernel_rows(kernels: Sequence[KernelRow]) -> Iterable[tuple[type[SQLModel], list[dict[str, Any]]]]:
    """Yield each table of kernels with its rows, referenced tables first."""
    yield (
        t.Kernel,
        [
            {"position": i, "leaf_code": kernel["leaf"]} | {key: kernel[key] for key in ("name", "file", "title")}
            for i, kernel in enumerate(kernels)
        ],
    )
    yield (
        t.KernelPaper,
        [
            {"kernel_name": kernel["name"], "position": i, "paper_id": paper}
            for kernel in kernels
            for i, paper in enumerate(kernel["papers"])
        ],
    )
    yield (
        t.KernelResult,
        [
            {"kernel_name": kernel["name"], "position": i, "case_name": result["case"], "commit_id": result["commit"]}
            | {key: result[key] for key in ("gpu", "seconds", "share", "gain", "peer", "taken")}
            for kernel in kernels
            for i, result in enumerate(kernel["results"])
        ],
    )
