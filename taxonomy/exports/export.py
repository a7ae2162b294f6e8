"""What an export is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taxonomy.store.atlas import Atlas
from taxonomy.store.row import Words


@dataclass(frozen=True)
class Export:
    """A file that other programs read.

    Args:
        name: of the file.
        label: what it holds, as pages and data package say it.
        media_type: as registered with IANA, or in use.
        write: makes its text from the atlas and the address of the website, which ends in a slash; None for the two
            files that are made otherwise, the store and the data package.
        format: the data package's word for its form; "" for a file that only announces or describes the data.
    """

    name: str
    label: Words
    media_type: str
    write: Callable[[Atlas, str], str] | None = None
    format: str = ""
