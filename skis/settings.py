"""The checkout that a command works on, and the addresses that it is published under."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MARKS = ("mkdocs.yml", "taxonomy")


class NoCheckoutError(Exception):
    """The folder is not, and is not inside, a checkout of the atlas."""


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository on disk."""

    root: Path
    site_url: str
    repository: str

    @property
    def build(self) -> Path:
        """Folder of everything that a build makes and git ignores."""
        return self.root / "build"

    @property
    def vocabulary(self) -> Path:
        """Folder of the vocabulary's files."""
        return self.root / "taxonomy" / "vocabulary"

    @property
    def kernels(self) -> Path:
        """Folder of the reference kernels; a checkout may be without."""
        return self.root / "reference_kernels"

    @property
    def store(self) -> Path:
        """The store of the last good build."""
        return self.build / "data" / "skis.db"


class _Reader(yaml.SafeLoader):
    """Reads mkdocs.yml for its plain values; tags of Python objects mean nothing here."""


_Reader.add_multi_constructor("", lambda *_: None)


def find_checkout(start: Path) -> Checkout:
    """Return the checkout that holds `start`. Raises NoCheckoutError when there is none."""
    for folder in (start.resolve(), *start.resolve().parents):
        if all((folder / mark).exists() for mark in MARKS):
            config: dict[str, Any] = yaml.load((folder / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Reader)  # noqa: S506
            site_url = config["site_url"].rstrip("/") + "/"
            return Checkout(folder, site_url, config["extra"]["repository"].rstrip("/"))
    raise NoCheckoutError(f"{start} is not inside a checkout of the atlas (no {' and '.join(MARKS)} found)")
