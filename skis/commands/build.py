"""`skis build`."""

from __future__ import annotations

import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from skis import build as builder
from skis.commands.shared import HERE, Root, atlas_at, err, out, stop_call, stop_input
from skis.settings import Atlas
from taxonomy.entries.vocabulary import VocabularyError


def build(root: Root = HERE) -> None:
    """Build the store, the list, the exports and the pages from the entries. All or nothing."""
    atlas = atlas_at(root)
    count = run_build(atlas, website=False)
    out.print(f"{count} papers: AWESOME.md, {built(atlas, 'data')}, {built(atlas, 'pages')}", style="green")


def run_build(atlas: Atlas, *, website: bool) -> int:
    """Build, and return the number of papers; or stop with what is wrong."""
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


def built(atlas: Atlas, name: str) -> str:
    """Return where a result lies, as a person sees it from the atlas's folder."""
    return str((atlas.build / name).relative_to(atlas.root))
