"""Cards are read from docstrings alone: a file with one is a unit, any other is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reference_kernels import registry
from reference_kernels.registry import Card, card, cards, load, read_cards

pytestmark = pytest.mark.quick

TEXT = '''"""Sample: keeps less.

Computes
--------
out = softmax(q k) v
    indented

Layout
------
q [B, Hq, D].

With two paragraphs: and a colon.

:leaf: kvcc/quantization
:papers: kivi,  qserve
"""

import a_module_that_does_not_exist
'''

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Point the registry at an empty package; write files into it."""
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    cards.cache_clear()

    def into(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    yield into
    cards.cache_clear()


def test_a_docstring_is_a_card(write: Write):
    write("kvcc/sample.py", TEXT)
    assert cards() == (
        Card(
            name="sample",
            module="reference_kernels.kvcc.sample",
            leaf="kvcc/quantization",
            papers=("kivi", "qserve"),
            title="Sample: keeps less.",
            sections={
                "Computes": "out = softmax(q k) v\n    indented",
                "Layout": "q [B, Hq, D].\n\nWith two paragraphs: and a colon.",
            },
        ),
    )
    assert cards()[0].behavior == "kvcc"


def test_a_file_without_a_card_is_ignored(write: Write):
    write("kvs/nothing.py", "")
    write("kvs/plain.py", '"""A helper: no fields."""\n')
    write("kvs/papers.py", '"""A helper.\n\n:papers: kivi\n"""\n')
    write("kvs/code.py", 'FIELDS = """\n:leaf: kvs\n:papers: kivi\n"""\n')
    write("core/lse.py", TEXT)
    write("kvs/notes.txt", TEXT)
    write("sample.py", TEXT)
    assert cards() == ()


def test_a_leaf_may_be_a_behavior_and_papers_may_be_missing(write: Write):
    write("kvs/sample.py", '"""Title.\n\nCost\n----\nNone.\n\n:leaf: kvs\n"""\n')
    (found,) = cards()
    assert (found.leaf, found.behavior, found.papers, found.sections) == ("kvs", "kvs", (), {"Cost": "None."})


def test_a_card_without_sections_has_none(write: Write):
    write("kvs/sample.py", '"""Title.\n\n:leaf: kvs\n:papers: quest\n"""\n')
    assert cards()[0].sections == {}


def test_a_copy_that_lies_elsewhere_can_be_read(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write("kvs/sample.py", TEXT)
    monkeypatch.undo()
    assert [found.file for found in read_cards(tmp_path)] == ["reference_kernels/kvs/sample.py"]


def test_units_come_by_behavior_and_then_by_name(write: Write):
    for name in ("kvrm/a", "kvcc/z", "kvcc/b", "kvs/m", "ovlp/x"):
        write(f"{name}.py", TEXT)
    assert [found.name for found in cards()] == ["m", "x", "b", "z", "a"]


def test_a_unit_may_lie_in_a_folder_of_its_own(write: Write):
    write("kvs/serving/sample.py", TEXT)
    assert cards()[0].module == "reference_kernels.kvs.serving.sample"
    assert cards()[0].name == "sample"


def test_a_card_is_found_by_name(write: Write):
    write("kvs/one.py", TEXT)
    write("kvs/two.py", TEXT)
    assert card("two").module == "reference_kernels.kvs.two"
    for unknown in ("three", "kvs/one", ""):
        with pytest.raises(KeyError, match=unknown or "''"):
            card(unknown)


def test_loading_imports_the_unit():
    module = load("paged_decode")
    assert module.__name__ == "reference_kernels.kvs.paged_decode"
    assert module.UNIT.kernel is module.paged_decode


def test_every_unit_loads_what_a_unit_needs():
    for found in cards():
        unit = load(found.name).UNIT
        assert unit.shapes, found.name
        assert unit.output, found.name
