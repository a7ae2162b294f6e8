"""The tables of the reference kernels, and what the store is told of them, as `reference_kernels.table` makes it.

A row is {name, file, leaf, title, papers: [id], results: [{gpu, case, seconds, share, gain, peer, taken, commit}]}.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

from sqlmodel import Field

from taxonomy.entries.checks import EntryFile
from taxonomy.entries.problem import Problem, nearest, shown
from taxonomy.entries.vocabulary import Vocabulary
from taxonomy.store.papers import Paper
from taxonomy.store.row import Row, related
from taxonomy.store.terms import Leaf

KernelRow: TypeAlias = Mapping[str, Any]


class Kernel(Row, table=True):
    """A reference implementation of the repository: `reference_kernels/<behavior>/<name>.py`, of one leaf."""

    name: str = Field(primary_key=True)
    position: int
    file: str
    leaf_code: str = Field(foreign_key="leaf.code", index=True)
    title: str
    leaf: Leaf = related()
    papers: list[Paper] = related(secondary="kernel_paper", order_by="KernelPaper.position")
    results: list["KernelResult"] = related(order_by="KernelResult.position")

    @cached_property
    def by_gpu(self) -> dict[str, list["KernelResult"]]:
        """The kernel's results by the name of the GPU."""
        found: dict[str, list[KernelResult]] = {}
        for result in self.results:
            found.setdefault(result.gpu, []).append(result)
        return found


class KernelPaper(Row, table=True):
    """A paper that a kernel stands for."""

    __tablename__ = "kernel_paper"

    kernel_name: str = Field(primary_key=True, foreign_key="kernel.name")
    paper_id: str = Field(primary_key=True, foreign_key="paper.id", index=True)
    position: int


class KernelResult(Row, table=True):
    """A kernel measured in one case on one GPU, at a time and commit. A wrong result is kept, without figures.

    `seconds` is a median; `share` is the least time that the GPU's measured ceilings allow, over that; `gain` is how
    many times as fast as `peer`, the fastest with 16 bits per number.
    """

    __tablename__ = "kernel_result"

    kernel_name: str = Field(primary_key=True, foreign_key="kernel.name")
    gpu: str = Field(primary_key=True)
    case_name: str = Field(primary_key=True)
    position: int
    seconds: float | None
    share: float | None
    gain: float | None
    peer: str | None
    taken: str
    commit_id: str | None


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


def kernel_rows(kernels: Sequence[KernelRow]) -> Iterable[tuple[type[Row], list[dict[str, Any]]]]:
    """Yield each table of kernels with its rows, referenced tables first."""
    yield (
        Kernel,
        [
            {"position": i, "leaf_code": kernel["leaf"]} | {key: kernel[key] for key in ("name", "file", "title")}
            for i, kernel in enumerate(kernels)
        ],
    )
    yield (
        KernelPaper,
        [
            {"kernel_name": kernel["name"], "position": i, "paper_id": paper}
            for kernel in kernels
            for i, paper in enumerate(kernel["papers"])
        ],
    )
    yield (
        KernelResult,
        [
            {"kernel_name": kernel["name"], "position": i, "case_name": result["case"], "commit_id": result["commit"]}
            | {key: result[key] for key in ("gpu", "seconds", "share", "gain", "peer", "taken")}
            for kernel in kernels
            for i, result in enumerate(kernel["results"])
        ],
    )
