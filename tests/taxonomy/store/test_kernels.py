"""The store tells of the kernels what they say of themselves, and the build refuses what the atlas does not have."""

from __future__ import annotations

import copy
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from taxonomy.entries.checks import Checked
from taxonomy.store.kernels import check_kernels
from taxonomy.store.reading import read_atlas
from taxonomy.store.writing import build_store

MEASURED = {
    "gpu": "Made-up GPU",
    "case": "B=1",
    "seconds": 2e-4,
    "share": 0.8125,
    "gain": 1.5,
    "peer": "dense",
    "taken": "2026-11-24T08:20:31Z",
    "commit": "c0ffee",
}
WRONG = MEASURED | {"case": "B=2", "seconds": None, "share": None, "gain": None, "peer": None, "commit": None}
KERNEL = {
    "name": "kivi",
    "file": "reference_kernels/kvcc/kivi.py",
    "leaf": "kvcc/quantization",
    "title": "A title",
    "papers": ["kivi", "gear"],
    "results": [MEASURED, WRONG],
}


@pytest.fixture
def kernel() -> dict[str, Any]:
    return copy.deepcopy(KERNEL)


@pytest.fixture
def path(vocabulary, checked: Checked, kernel, tmp_path: Path) -> Path:
    other = kernel | {"name": "bare", "papers": [], "results": []}
    build_store(tmp_path / "skis.db", vocabulary, checked.papers, [kernel, other])
    return tmp_path / "skis.db"


RENAMED = {"case": "case_name", "commit": "commit_id"}  # words that SQL has for itself


def test_the_tables_hold_what_the_rows_say(path: Path):
    db = sqlite3.connect(path)
    assert db.execute("SELECT * FROM kernel ORDER BY position").fetchall() == [
        ("kivi", 0, "reference_kernels/kvcc/kivi.py", "kvcc/quantization", "A title"),
        ("bare", 1, "reference_kernels/kvcc/kivi.py", "kvcc/quantization", "A title"),
    ]
    query = "SELECT kernel_name, p.title FROM kernel_paper k JOIN paper p ON p.id = k.paper_id ORDER BY k.position"
    assert [(name, title[:4]) for name, title in db.execute(query)] == [("kivi", "KIVI"), ("kivi", "GEAR")]
    columns = "case_name, seconds, share, gain, peer, taken, commit_id"
    assert db.execute(f"SELECT {columns} FROM kernel_result ORDER BY position").fetchall() == [
        ("B=1", 2e-4, 0.8125, 1.5, "dense", "2026-11-24T08:20:31Z", "c0ffee"),
        ("B=2", None, None, None, None, "2026-11-24T08:20:31Z", None),
    ]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()


def test_python_reads_them_as_they_were(path: Path):
    atlas = read_atlas(path)
    first, second = atlas.kernels
    assert (first.name, first.leaf.code, first.title) == ("kivi", "kvcc/quantization", "A title")
    assert [paper.id for paper in first.papers] == ["kivi", "gear"]
    for result, given in zip(first.results, (MEASURED, WRONG), strict=True):
        facts = result.model_dump(exclude={"kernel_name", "position"})
        assert facts == {RENAMED.get(key, key): value for key, value in given.items()}
    assert list(first.by_gpu) == ["Made-up GPU"]
    assert (second.papers, second.results) == ([], [])
    assert atlas.kernels_by_paper == {"kivi": [first], "gear": [first]}
    assert atlas.kernels_by_leaf == {"kvcc/quantization": [first, second]}


def test_the_same_kernels_give_the_same_bytes(path: Path, vocabulary, checked: Checked, kernel):
    again = path.with_name("again.db")
    build_store(again, vocabulary, checked.papers, [kernel, kernel | {"name": "bare", "papers": [], "results": []}])
    assert again.read_bytes() == path.read_bytes()


def test_kernels_that_the_atlas_knows_are_well(vocabulary, checked: Checked, kernel):
    assert check_kernels([kernel], vocabulary, checked.papers) == []


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"leaf": "kvcc/quantisation"}, ['leaf: "kvcc/quantisation" is not a leaf (did you mean kvcc/quantization?)']),
        ({"leaf": "kvcc"}, ['leaf: "kvcc" is not a leaf']),
        (
            {"papers": ["kivy", "kivi", "kivi"]},
            ['papers: there is no paper "kivy" (did you mean kivi?)', 'papers: "kivi" is named 2 times'],
        ),
    ],
)
def test_what_the_atlas_does_not_have_is_a_problem(vocabulary, checked: Checked, kernel, changes, messages):
    problems = [str(problem) for problem in check_kernels([kernel | changes], vocabulary, checked.papers)]
    assert problems == [f"reference_kernels/kvcc/kivi.py:1:1: {message}" for message in messages]


def test_two_kernels_of_one_name_are_a_problem(vocabulary, checked: Checked, kernel):
    other = kernel | {"file": "reference_kernels/kvs/kivi.py"}
    assert [str(problem) for problem in check_kernels([kernel, other], vocabulary, checked.papers)] == [
        'reference_kernels/kvcc/kivi.py:1:1: there are 2 kernels named "kivi"',
        'reference_kernels/kvs/kivi.py:1:1: there are 2 kernels named "kivi"',
    ]


def test_taxonomy_does_not_import_the_kernels(root: Path):
    for path in (root / "taxonomy").rglob("*.py"):
        assert "import reference_kernels" not in path.read_text("utf-8")
        assert "from reference_kernels" not in path.read_text("utf-8")
