"""The store holds what the entries say, as a normal SQLite file that needs nothing of ours."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest
import sqlalchemy.exc
from datasette.app import Datasette
from sqlalchemy import inspect

from taxonomy.entries import entry, names, out_of_scope
from taxonomy.entries import vocabulary as words
from taxonomy.entries.checks import Checked
from taxonomy.store import kernels, papers, terms
from taxonomy.store.atlas import Atlas
from taxonomy.store.reading import StoreError, read_atlas, search
from taxonomy.store.row import VERSION, Row
from taxonomy.store.writing import build_store


@pytest.fixture
def db(store: Path):
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    yield connection
    connection.close()


def rows(db: sqlite3.Connection, query: str) -> list[tuple]:
    return db.execute(query).fetchall()


def test_it_holds_the_168_papers_of_the_survey(db):
    assert rows(db, "SELECT count(*) FROM paper WHERE survey") == [(168,)]


def test_it_holds_their_209_primary_placements(db):
    query = "SELECT count(*) FROM placement l JOIN paper p ON p.id = l.paper_id WHERE p.survey AND l.role = 'primary'"
    assert rows(db, query) == [(209,)]


def test_unique_papers_per_behavior_are_those_of_the_survey(db):
    """Counted in plain SQL from the tables, not by the views or by our own code."""
    query = """
        SELECT f.behavior_code, count(DISTINCT l.paper_id) FROM placement l JOIN leaf f ON f.code = l.leaf_code
        JOIN paper p ON p.id = l.paper_id WHERE l.role = 'primary' AND p.survey GROUP BY 1"""
    expected = {"kvrm": 52, "kvcc": 51, "mho": 43, "kvs": 22, "hae": 17, "cdo": 13, "ovlp": 11}
    assert dict(rows(db, query)) == expected


def test_the_survey_list_is_carried_over_row_by_row(db):
    """Rows per leaf, as the survey's list had them in August 2026."""
    query = """
        SELECT leaf_code, count(*) FROM placement l JOIN paper p ON p.id = l.paper_id
        WHERE l.role = 'primary' AND p.survey GROUP BY 1"""
    assert dict(rows(db, query)) == {
        "kvs": 22,
        "ovlp": 11,
        "hae/disaggregated-inference": 9,
        "hae/compute-offloading": 8,
        "mho/cross-device-memory-hierarchy": 41,
        "mho/intra-gpu-memory-hierarchy": 2,
        "cdo": 13,
        "kvcc/quantization": 29,
        "kvcc/low-rank-approximation": 7,
        "kvcc/structural-compression": 10,
        "kvcc/codec-based-compression": 5,
        "kvrm/allocation-and-reuse": 20,
        "kvrm/eviction": 32,
    }


def test_views_agree_with_the_python_side(db, atlas):
    by_view = dict(rows(db, "SELECT code, papers FROM behavior_count"))
    assert by_view == {b.code: len(atlas.in_leaves(b.leaves, "primary")) for b in atlas.behaviors.values()}
    by_view = dict(rows(db, "SELECT code, papers FROM leaf_count"))
    assert by_view == {code: len(atlas.in_leaf(code, "primary")) for code in atlas.leaves}
    assert len(rows(db, "SELECT * FROM paper_list")) == len(atlas.papers)
    assert sum(n for (n,) in rows(db, "SELECT papers FROM month_count")) == len(atlas.papers)


def test_it_is_sound(db):
    assert rows(db, "PRAGMA integrity_check") == [("ok",)]
    assert rows(db, "PRAGMA foreign_key_check") == []
    assert rows(db, "PRAGMA user_version") == [(VERSION,)]
    for (view,) in rows(db, "SELECT name FROM sqlite_master WHERE type = 'view'"):
        rows(db, f"SELECT * FROM {view} LIMIT 1")


def test_authors_keep_their_order(db, checked: Checked):
    for paper in checked.papers[::20]:
        query = """SELECT a.name FROM authorship s JOIN author a ON a.id = s.author_id WHERE s.paper_id = ?
                   ORDER BY s.position"""
        assert [name for (name,) in db.execute(query, (paper.id,))] == [author.name for author in paper.entry.authors]


def test_everything_of_a_full_entry_arrives(atlas_of, sample):
    paper = atlas_of({"sample": sample}).papers[0]
    assert (paper.title, paper.published) == (sample["title"], "2024-05-06")
    assert [author.name for author in paper.authors] == sample["authors"]
    assert (paper.venue_label, paper.summary.zh, paper.read) == ("ICML 2024", "少存一些，略有代价。", "full-text")
    assert paper.links["arxiv"].url == "https://arxiv.org/abs/2405.12345"
    first, second = paper.placements
    assert (first.leaf.code, first.role, first.technique.zh, first.why) == (
        "kvcc/quantization",
        "primary",
        "每个数两比特",
        "The abstract says so",
    )
    assert (second.leaf.code, second.role, second.note) == ("kvs", "secondary", "Only in the appendix")
    gain, share = paper.effects[0].gains
    assert (share.factor, share.percent, share.amount) == (None, 37.5, "37.5 %")
    assert (gain.percent, gain.amount) == (None, "2.6×")
    assert (gain.factor, gain.kind, gain.against, gain.setting, gain.up_to) == (
        2.6,
        "peak memory, lower",
        "fp16",
        "7B",
        True,
    )
    assert paper.evaluation == {"models": ["Llama-2-7B"], "hardware": ["A100"], "baselines": ["fp16"]}
    assert {t.trait.code: t.value for t in paper.traits} == {
        "key": "per-channel",
        "bits": "2",
        "outliers": "kept apart",
    }


def every_row(atlas: Atlas) -> list[Row]:
    """Every row that can be reached from an atlas."""
    found: dict[int, Row] = {}
    heads = (atlas.dimensions, atlas.behaviors.values(), atlas.leaves.values(), atlas.objectives.values())
    waiting = [*chain(*heads, atlas.communities.values(), atlas.venues.values(), atlas.papers, atlas.kernels)]
    while waiting:
        row = waiting.pop()
        if id(row) not in found:
            found[id(row)] = row
            for name in inspect(type(row)).relationships.keys():  # noqa: SIM118 (a mapping by attribute)
                value = getattr(row, name)
                waiting += (
                    [value]
                    if isinstance(value, Row)
                    else [*(value.values() if isinstance(value, dict) else value or ())]
                )
    return [*found.values()]


def test_rows_live_on_without_the_file_with_all_that_they_are_related_to(atlas: Atlas, db):
    """Each is one object, wherever it is reached from, and every row of every table is there."""
    found = every_row(atlas)
    for table in {type(row) for row in found}:
        keys = [inspect(row).identity for row in found if type(row) is table]
        assert len(keys) == len(set(keys)), table
        assert len(keys) == rows(db, f"SELECT count(*) FROM {table.__tablename__}")[0][0], table
    reached = {type(row) for row in found}
    tables = {table for module in (terms, papers, kernels) for table in vars(module).values() if is_table(table)}
    assert tables - reached == {papers.Authorship, papers.OutOfScope, kernels.KernelPaper}


def is_table(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Row) and hasattr(thing, "__table__")


OF_PAPERS = {"aliases", "authors", "venue", "links", "placements", "effects", "evaluation", "traits"}


@pytest.mark.parametrize(
    ("part", "table", "elsewhere"),
    [
        (
            entry.Entry,
            papers.Paper,
            {"aliases", "authors", "venue", "links", "placements", "effects", "evaluation", "traits"},
        ),
        (entry.Placement, papers.Placement, set()),
        (entry.Effect, papers.Effect, {"gains"}),
        (entry.Gain, papers.Gain, set()),
        (names.Person, papers.Author, set()),
        (out_of_scope.OutOfScope, papers.OutOfScope, {"arxiv", "paper"}),
        (words.Dimension, terms.Dimension, set()),
        (words.Behavior, terms.Behavior, set()),
        (words.Leaf, terms.Leaf, set()),
        (words.Objective, terms.Objective, set()),
        (words.Trait, terms.Trait, {"values", "many"}),
        (words.TraitGroup, terms.TraitGroup, {"traits"}),
        (words.Community, terms.Community, set()),
        (words.Venue, terms.Venue, set()),
    ],
)
def test_every_field_of_a_file_has_its_column(part, table, elsewhere):
    """`elsewhere` are fields that have a table of their own, or that the store does not hold."""
    columns = table.model_fields.keys()
    for name in part.model_fields.keys() - elsewhere:
        assert {name, f"{name}_code", f"{name}_en", f"{name}_light"} & columns, name


def test_a_family_name_of_more_words_is_given(atlas_of, sample):
    sample["authors"] = [{"given": "Vincent", "family": "Van Gogh"}, "Di Wu", "Ludwig van Beethoven"]
    paper = atlas_of({"sample": sample}).papers[0]
    assert [(a.name, a.given, a.family) for a in paper.authors] == [
        ("Vincent Van Gogh", "Vincent", "Van Gogh"),
        ("Di Wu", "Di", "Wu"),
        ("Ludwig van Beethoven", "Ludwig", "van Beethoven"),
    ]


def test_foreign_keys_are_enforced_while_it_is_built(atlas_of, sample):
    sample["placements"][0]["leaf"] = "kvcc/unknown"
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        atlas_of({"sample": sample})


def test_the_same_entries_give_the_same_bytes(vocabulary, checked, tmp_path):
    for name in ("a.db", "b.db"):
        build_store(tmp_path / name, vocabulary, checked.papers)
    assert (tmp_path / "a.db").read_bytes() == (tmp_path / "b.db").read_bytes()


def test_a_missing_store_and_one_of_another_version_are_refused(tmp_path, store):
    with pytest.raises(StoreError, match="does not exist"):
        read_atlas(tmp_path / "none.db")
    old = tmp_path / "old.db"
    old.write_bytes(store.read_bytes())
    connection = sqlite3.connect(old)
    connection.execute("PRAGMA user_version = 0")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="version 0"):
        read_atlas(old)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("kivi", "kivi"),
        ("Inigo Goiri", "splitwise"),
        ("PagedAttention", "pagedattention"),
        ("attention sink", "streamingllm"),
        ("无损压缩", "splitzip"),
        ("前缀树 KV", "chunkattention"),
        ("residual quantiz", "gear"),
    ],
)
def test_search_finds_in_both_languages(store, query, expected):
    assert expected in search(store, query)


@pytest.mark.parametrize(
    "query", ['"', "AND", "a OR", "NEAR(", "*", "title:", "-x", "'; DROP TABLE paper; --", "()", ""]
)
def test_what_people_type_is_never_syntax(store, query):
    """Marks mean nothing: the words alone find the same."""
    assert search(store, query) == search(store, re.sub(r"\W+", " ", query))


def test_datasette_serves_and_searches_it(store, tmp_path):
    from taxonomy.exports.datasette import datasette_metadata

    async def ask(path: str) -> dict:
        app = Datasette([str(store)], metadata=json.loads(datasette_metadata()))
        response = await app.client.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    found = asyncio.run(ask("/skis/paper.json?_search=pagedattention&_shape=array"))
    fields = "p.title, a.title, p.name, p.summary_en, p.summary_zh, m.technique_en, m.technique_zh"
    plain = f"""
        SELECT p.id, {fields} FROM paper p
        LEFT JOIN alias a ON a.paper_id = p.id LEFT JOIN placement m ON m.paper_id = p.id"""
    with closing(sqlite3.connect(store)) as connection:
        rows = list(connection.execute(plain))
    word = re.compile(r"(?<![A-Za-z0-9])pagedattention(?![A-Za-z0-9])", re.IGNORECASE)
    expected = {paper for paper, *texts in rows if any(word.search(words) for words in texts if words)}
    assert {row["id"] for row in found} == expected
    assert {"pagedattention", "vattention"} <= expected  # the latter names it in its title
    assert asyncio.run(ask("/-/metadata.json"))["license_url"].startswith("https://creativecommons.org/")
