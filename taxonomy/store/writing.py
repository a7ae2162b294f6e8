"""Builds the store: one SQLite file with every word, paper and kernel, made anew each time.

The same vocabulary, entries and kernels give the same bytes (no clock, no random order).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, insert, text
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import SQLModel

from taxonomy.entries.checks import EntryFile
from taxonomy.entries.out_of_scope import OutOfScope
from taxonomy.entries.vocabulary import Vocabulary
from taxonomy.store.kernels import KernelRow, kernel_rows
from taxonomy.store.mapping import Rows, out_of_scope_rows, paper_rows, vocabulary_rows
from taxonomy.store.row import VERSION
from taxonomy.store.search import spaced
from taxonomy.store.views import SEARCH_TABLE, VIEWS


def build_store(
    path: Path,
    vocabulary: Vocabulary,
    papers: Sequence[EntryFile],
    kernels: Sequence[KernelRow] = (),
    out_of_scope: Sequence[OutOfScope] = (),
) -> None:
    """Write the store to `path`, which must not exist.

    The entries must have passed `check_papers`, the kernels `check_kernels`, what is out of scope `check_out_of_scope`.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, OSError: the file cannot be written or a constraint is broken; it is then
            incomplete and must not be used.
    """
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _prepare)
    with engine.connect() as connection:
        _create(connection)
        with connection.begin():
            filled: Iterable[Rows] = (
                *vocabulary_rows(vocabulary),
                *paper_rows(vocabulary, papers),
                *kernel_rows(kernels),
                *out_of_scope_rows(out_of_scope),
            )
            for table, rows in filled:
                if rows:
                    connection.execute(insert(table), rows)
            _index(connection)
    engine.dispose()


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.executescript("PRAGMA foreign_keys = ON; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF")


def _create(connection: Connection) -> None:
    with connection.begin():
        for table in SQLModel.metadata.sorted_tables:
            connection.execute(CreateTable(table))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):  # a set: its own order is random
                connection.execute(CreateIndex(index))
        connection.execute(text(SEARCH_TABLE))
        for name, select in VIEWS.items():
            connection.execute(text(f"CREATE VIEW {name} AS {select}"))
        connection.execute(text(f"PRAGMA user_version = {VERSION}"))


def _index(connection: Connection) -> None:
    """Fill the full-text table from the others."""
    select = text("""
        SELECT p.rowid, p.title, p.summary_en AS summary,
               coalesce(p.name, '') || ' ' || coalesce(
                   (SELECT group_concat(title, ' ') FROM alias WHERE paper_id = p.id), '') AS name,
               (SELECT authors FROM paper_list WHERE id = p.id) AS authors,
               (SELECT group_concat(technique_en, ' ') FROM placement WHERE paper_id = p.id) AS techniques,
               (SELECT group_concat(f.label_en || ' ' || b.acronym, ' ') FROM placement l
                JOIN leaf f ON f.code = l.leaf_code JOIN behavior b ON b.code = f.behavior_code
                WHERE l.paper_id = p.id) AS labels,
               coalesce(p.summary_zh, '') || ' ' || (
                   SELECT group_concat(f.label_zh || ' ' || coalesce(l.technique_zh, ''), ' ') FROM placement l
                   JOIN leaf f ON f.code = l.leaf_code WHERE l.paper_id = p.id) AS zh
        FROM paper p ORDER BY p.id""")
    rows = [dict(row) | {"zh": spaced(row["zh"] or "")} for row in connection.execute(select).mappings()]
    if rows:
        columns = "rowid, title, name, authors, techniques, summary, labels, zh"
        values = ", ".join(f":{column}" for column in columns.split(", "))
        connection.execute(text(f"INSERT INTO paper_search({columns}) VALUES ({values})"), rows)  # noqa: S608 (constants)
    connection.execute(text("INSERT INTO paper_search(paper_search) VALUES ('optimize')"))
