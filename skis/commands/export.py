"""`skis export`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from skis.commands.shared import HERE, Root, checkout_at, say, stop_call
from taxonomy.exports import EXPORTS, STORE, write_exports
from taxonomy.store.reading import StoreError, read_atlas


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write into; it is made if missing.")],
    root: Root = HERE,
) -> None:
    """Write the exports of the last build into a folder: SQLite, CSV, JSON, BibTeX, CSL-JSON, feeds, data package."""
    checkout = checkout_at(root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atlas = read_atlas(checkout.store)
        shutil.copyfile(checkout.store, folder / STORE)
        write_exports(atlas, folder, checkout.site_url)
    except StoreError as error:
        stop_call(str(error))
    except OSError as error:
        stop_call(f"cannot write into {folder}: {error.strerror}")
    for name in EXPORTS:
        say(str(folder / name))
