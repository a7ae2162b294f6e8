"""Puts a finished build in place by one rename, so that a failed or killed build leaves the last good one.

    build/.generations/<name>/   data, pages, site: what one build made
    build/current                the link that publishes a generation; replacing it is the one rename
    build/data, pages, site      links below `current`, which never change

A build without a website keeps the pages and the site of the last one, by links to its generation. AWESOME.md and
papers/schema.json, which lie outside, are written beside their places before that rename and renamed after it. One
build works at a time; another waits for it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

GENERATIONS = ".generations"
CURRENT = "current"
RESULTS = ("data", "pages", "site")
LOCK = ".lock"


@contextmanager
def only_build(build: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keep other builds out until the end; while another has the lock, say so by `waiting` and wait.

    The system lets go of the lock when its process ends, however it ends.

    Raises:
        NotADirectoryError: `build` is a link: what lies behind it is not ours to replace.
    """
    if build.is_symlink():
        raise NotADirectoryError(f"{build} is a link; builds are published only into a folder of their own")
    build.mkdir(exist_ok=True)
    with (build / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def new_generation(build: Path) -> Iterator[Path]:
    """Yield an empty folder to build in; it is removed if the build fails."""
    parent = build / GENERATIONS
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="g", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def publish(build: Path, generation: Path) -> None:
    """Make `build/current` point at `generation`, then remove the generations that nothing points at any more."""
    for name in RESULTS:
        _keep_last(build, generation, name)
        if (generation / name).exists():
            _link(build / name, Path(CURRENT) / name)
    _link(build / CURRENT, generation.relative_to(build))
    _remove_unused(build)


@contextmanager
def staged(files: dict[Path, str]) -> Iterator[None]:
    """Write each text beside its file; at the end of the block rename them over, or remove them if it fails.

    A file that says the same already is left alone.
    """
    waiting = {path: path.with_name(f".{path.name}.new") for path, text in files.items() if not _says(path, text)}
    try:
        for path, temporary in waiting.items():
            temporary.write_text(files[path], encoding="utf-8", newline="\n")
        yield
        for path, temporary in waiting.items():
            temporary.replace(path)
    finally:
        for temporary in waiting.values():
            temporary.unlink(missing_ok=True)


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _keep_last(build: Path, generation: Path, name: str) -> None:
    """Where this build did not make a result, let its generation refer to the last one that did."""
    last = (build / CURRENT / name).resolve()
    if not (generation / name).exists() and last.is_dir():
        (generation / name).symlink_to(Path(os.path.relpath(last, generation)))


def _link(link: Path, target: Path) -> None:
    """Make `link` point at `target`, replacing another link whole or not at all."""
    if link.is_symlink() and link.readlink() == target:
        return
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link} is in the way: it is not a link that a build made")
    with tempfile.TemporaryDirectory(dir=link.parent, prefix=".link-") as folder:
        temporary = Path(folder) / link.name
        temporary.symlink_to(target)
        temporary.replace(link)


def _remove_unused(build: Path) -> None:
    """Remove every generation but the published one and those that it refers to, and what killed builds left."""
    current = (build / CURRENT).resolve()
    used = {current, *(path.resolve().parent for path in current.iterdir() if path.is_symlink())}
    for folder in (build / GENERATIONS).iterdir():
        if folder.resolve() not in used:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in build.glob(".link-*"):
        shutil.rmtree(folder, ignore_errors=True)
