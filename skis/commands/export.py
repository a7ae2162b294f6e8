"""`skis export`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from skis import build as builder
from skis.commands.shared import HERE, Root, atlas_at, out, stop_call
from taxonomy.store.reading import StoreError, read_atlas


def export(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if missing.")],
    root: Root = HERE,
) -> None:
    """Write the exports of the last build into a folder: SQLite, CSV, JSON, BibTeX, CSL-JSON, feeds, data package."""
    atlas = atlas_at(root)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        content = read_atlas(atlas.store)
        shutil.copyfile(atlas.store, folder / atlas.store.name)
        builder.export(content, folder, atlas.site_url)
    except StoreError as error:
        stop_call(str(error))
    for path in sorted(folder.iterdir()):
        out.print(str(path), markup=False)
