"""`skis build`."""

from __future__ import annotations

import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from skis import build as builder
from skis.commands.shared import HERE, Root, checkout_at, err, say, stop_call, stop_input
from skis.settings import Checkout
from taxonomy.entries.vocabulary import VocabularyError


def build(root: Root = HERE) -> None:
    """Check the entries, and build the store, the list and the exports from them. All or nothing."""
    checkout = checkout_at(root)
    count = run_build(checkout, website=False)
    say(f"{count} papers: AWESOME.md, {built(checkout, 'data')}", style="green")


def run_build(checkout: Checkout, *, website: bool) -> int:
    """Build, and return the number of papers; or stop with what is wrong."""
    try:
        return builder.build(
            checkout, website=website, waiting=lambda: say("another build is at work; waiting", to=err)
        )
    except (VocabularyError, builder.BadEntriesError) as error:
        stop_input(error.problems)
    except builder.WebsiteError as error:
        for line in str(error).splitlines():
            say(line, to=err)
        raise typer.Exit(1) from None
    except (OSError, SQLAlchemyError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        stop_call(f"cannot write: {reason}; nothing was published")


def built(checkout: Checkout, name: str) -> str:
    """Return where a result lies, as a person sees it from the checkout's folder."""
    return str((checkout.build / name).relative_to(checkout.root))
