"""Where the file of an entry lies: `papers/<year>/<id>.yaml`, a plain file in plain folders."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from taxonomy.entries.document import NOT_PLAIN
from taxonomy.entries.problem import Problem, shown

ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MAX_ID = 60
# Names that a page or a Windows disk needs for itself.
RESERVED_IDS = frozenset(
    ["index", "con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))]
)
YEAR = re.compile(r"[0-9]{4}")

OUT_OF_PLACE = "is not in its place: an entry is papers/<year>/<id>.yaml"


def entry_files(root: Path, own: Collection[str]) -> tuple[list[Path], list[Problem]]:
    """Return the entries below `root/papers` in order of path, and a problem for whatever else lies there.

    `own` are the files of `papers/` itself that are no entries. No link is followed. Names that begin with a dot are
    passed over.
    """
    found: list[Path] = []
    problems: list[Problem] = []
    for path, wrong in _walk(root / "papers", own):
        if wrong:
            problems.append(Problem(path.relative_to(root).as_posix(), 1, 1, "", wrong))
        else:
            found.append(path)
    return found, problems


def bad_id(text: str) -> str:
    """Say what is wrong with an id, or ""."""
    if ID.fullmatch(text) and len(text) <= MAX_ID and text not in RESERVED_IDS:
        return ""
    return f"has a bad id {shown(text)}: an id is at most {MAX_ID} small letters, digits and single hyphens"


def _walk(papers: Path, own: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Yield what lies in `papers` and in its folders, each with what is wrong with its place, or ""."""
    if papers.is_symlink():
        yield papers, "is a link; papers/ is a folder of the repository"
        return
    try:
        for item in _items(papers):
            path = papers / item.name
            if item.is_dir(follow_symlinks=False):
                yield from _of_a_year(path)
            elif not item.is_file(follow_symlinks=False):
                yield path, NOT_PLAIN
            elif item.name not in own:
                yield path, OUT_OF_PLACE
    except OSError as error:
        yield papers, _unreadable(error)


def _of_a_year(folder: Path) -> Iterator[tuple[Path, str]]:
    try:
        for item in _items(folder):
            path = folder / item.name
            if not item.is_file(follow_symlinks=False):
                yield path, OUT_OF_PLACE if item.is_dir(follow_symlinks=False) else NOT_PLAIN
            elif not YEAR.fullmatch(folder.name) or path.suffix != ".yaml":
                yield path, OUT_OF_PLACE
            else:
                yield path, bad_id(path.stem)
    except OSError as error:
        yield folder, _unreadable(error)


def _items(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as items:
        return sorted((item for item in items if not item.name.startswith(".")), key=lambda item: item.name)


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"
