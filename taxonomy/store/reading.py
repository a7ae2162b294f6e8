"""Reads a store. The file is opened read-only."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Mapped
from sqlmodel import Session, col, select

from taxonomy.store.atlas import Atlas
from taxonomy.store.kernels import Kernel
from taxonomy.store.papers import OutOfScope, Paper
from taxonomy.store.row import VERSION, Row
from taxonomy.store.search import match_expression
from taxonomy.store.terms import Behavior, Community, Dimension, Leaf, Objective, Venue

RowT = TypeVar("RowT", bound=Row)


class StoreError(Exception):
    """There is no store at the given path, or one of another version."""


@contextmanager
def open_store(path: Path) -> Iterator[Session]:
    """Open a store for reading.

    Raises:
        StoreError: it is missing, or its `user_version` is not the one this code knows.
    """
    if not path.is_file():
        raise StoreError(f"{path} does not exist; `skis build` makes it")
    engine = create_engine(f"sqlite:///file:{path.resolve()}?mode=ro&uri=true")
    try:
        with Session(engine) as session:
            version = session.connection().execute(text("PRAGMA user_version")).scalar_one()
            if version != VERSION:
                raise StoreError(f"{path} has version {version}, not {VERSION}; `skis build` renews it")
            yield session
    finally:
        engine.dispose()


def read_atlas(path: Path) -> Atlas:
    """Read everything: rows with all that they are related to, which live on when the file is closed.

    Raises StoreError as `open_store` does.
    """
    with open_store(path) as session, _no_garbage():

        def every(table: type[RowT], order: Mapped[int]) -> list[RowT]:
            return [*session.exec(select(table).order_by(order))]

        return Atlas(
            dimensions=every(Dimension, col(Dimension.position)),
            behaviors={b.code: b for b in every(Behavior, col(Behavior.position))},
            leaves={leaf.code: leaf for leaf in every(Leaf, col(Leaf.position))},
            objectives={o.code: o for o in every(Objective, col(Objective.position))},
            communities={c.code: c for c in every(Community, col(Community.position))},
            venues={v.code: v for v in every(Venue, col(Venue.position))},
            papers=[*session.exec(select(Paper).order_by(col(Paper.published).desc(), col(Paper.id)))],
            kernels=every(Kernel, col(Kernel.position)),
            out_of_scope=every(OutOfScope, col(OutOfScope.position)),
        )


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keep the garbage collector from walking through ever more rows while they are made: none of them is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def search(path: Path, query: str, limit: int = 20) -> list[str]:
    """Return the ids of the papers that match best. Raises StoreError as `open_store` does."""
    expression = match_expression(query)
    if not expression:
        return []
    statement = text(
        "SELECT p.id FROM paper_search s JOIN paper p ON p.rowid = s.rowid WHERE paper_search MATCH :q"
        " ORDER BY bm25(paper_search, 10, 20, 5, 3, 2, 1, 2), p.id LIMIT :n"
    )
    with open_store(path) as session:
        return list(session.connection().execute(statement, {"q": expression, "n": limit}).scalars())
