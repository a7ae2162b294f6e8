"""`skis build`, `skis site`, `skis export`."""

from __future__ import annotations

import functools
import http.server
import shutil
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from skis import build as builder
from skis.commands.shared import HERE, Root, atlas_at, err, out, stop_call, stop_input
from skis.settings import Atlas
from taxonomy.loading import StoreError, read_atlas
from taxonomy.terms import VocabularyError


def build(root: Root = HERE) -> None:
    """Build the store, the list, the exports and the pages from the entries. All or nothing."""
    atlas = atlas_at(root)
    count = _build(atlas, website=False)
    out.print(f"{count} papers: AWESOME.md, {_shown(atlas, 'data')}, {_shown(atlas, 'pages')}", style="green")


def site(
    serve: Annotated[bool, typer.Option("--serve", help="Show the website at a local address afterwards.")] = False,
    port: Annotated[int, typer.Option(help="Port to serve at.")] = 8000,
    root: Root = HERE,
) -> None:
    """Build everything, and the website from it."""
    atlas = atlas_at(root)
    with err.status("building the website"):
        count = _build(atlas, website=True)
    out.print(f"{count} papers: {_shown(atlas, 'site')}/index.html", style="green")
    if serve:
        _serve(atlas.build / "site", port)


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


def _build(atlas: Atlas, *, website: bool) -> int:
    try:
        return builder.build(atlas, website=website)
    except (VocabularyError, builder.BadEntriesError) as error:
        stop_input(error.problems)
    except builder.WebsiteError as error:
        err.print(str(error), markup=False)
        raise typer.Exit(1) from None
    except (OSError, SQLAlchemyError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        stop_call(f"cannot write: {reason}; nothing was published")


def _shown(atlas: Atlas, name: str) -> str:
    return str((atlas.build / name).relative_to(atlas.root))


def _serve(folder: Path, port: int) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        stop_call(f"cannot serve at port {port}: {error.strerror}")
    out.print(f"http://127.0.0.1:{port}/ (Ctrl-C ends)")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            out.print()
