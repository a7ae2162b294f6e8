"""Puts a finished result in place in one step, so that a failed or killed build leaves the last good one.

Results live in `build/.generations/<name>/`; `build/data`, `build/pages` and `build/site` are links into them. A link
is replaced by renaming a new one over it, which the file system does whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GENERATIONS = ".generations"


@contextmanager
def new_generation(build: Path) -> Iterator[Path]:
    """Yield an empty folder to build in; it is removed if the build fails."""
    parent = build / GENERATIONS
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="g", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def publish(build: Path, generation: Path) -> None:
    """Make `build/<name>` point at each folder of `generation`, then remove what nothing points at any more."""
    for result in sorted(generation.iterdir()):
        _replace_link(build / result.name, result.relative_to(build))
    _remove_unused(build)


def write_atomically(path: Path, text: str) -> None:
    """Write a file beside `path` and rename it over, unless it says the same already."""
    if path.is_file() and path.read_bytes() == text.encode():
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _replace_link(link: Path, target: Path) -> None:
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    with tempfile.TemporaryDirectory(dir=link.parent) as folder:
        temporary = Path(folder) / link.name
        temporary.symlink_to(target)
        temporary.replace(link)


def _remove_unused(build: Path) -> None:
    used = {link.resolve().parent for link in build.iterdir() if link.is_symlink()}
    for folder in (build / GENERATIONS).iterdir():
        if folder.resolve() not in used:
            shutil.rmtree(folder, ignore_errors=True)
