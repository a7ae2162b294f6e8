"""The YAML reader takes a small, safe part of YAML and knows where everything stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from taxonomy.entries.document import parse_document, read_document


def test_every_scalar_is_text_as_written():
    document = parse_document(b"arxiv: 2402.10750\nyes: no\ndate: 2024-02-05\nn: 0x10\nnull: ~\n", "f")
    assert document.value == {"arxiv": "2402.10750", "yes": "no", "date": "2024-02-05", "n": "0x10", "null": "~"}


def test_places_count_from_one_and_fall_back_to_the_parent():
    document = parse_document(b"a: 1\nb:\n  - x\n  - c: 2\n", "f")
    assert document.place(("b", 1, "c")) == (4, 8)
    assert document.place(("b", 1, "c"), key=True) == (4, 5)
    assert document.place(("b", 1, "missing")) == (4, 5)


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[3].glob("papers/*/*.yaml"))[::7], ids=lambda p: p.stem)
def test_a_plain_yaml_reader_sees_the_same_text(path: Path):
    """Whoever reads an entry with PyYAML must not lose a digit: quotes are where they are needed."""

    def as_text(value: object) -> object:
        if isinstance(value, dict):
            return {key: as_text(item) for key, item in value.items()}
        if isinstance(value, list):
            return [as_text(item) for item in value]
        return str(value).lower() if isinstance(value, bool) else str(value)

    assert as_text(yaml.safe_load(path.read_text(encoding="utf-8"))) == read_document(path, "f").value


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes):
    document = parse_document(data, "f")
    assert document.problems or document.value is None or isinstance(document.value, (str, list, dict))


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,\n \\?0", max_size=60))
def test_what_is_accepted_is_what_yaml_means(text: str):
    """Where we accept a text, libyaml through PyYAML's base loader, which types nothing, reads the same."""
    document = parse_document(text.encode(), "f")
    if not document.problems and document.value is not None:
        assert yaml.load(text, Loader=yaml.CBaseLoader) == document.value


def test_a_missing_file_is_a_problem_not_an_exception(tmp_path: Path):
    assert "cannot be read" in str(read_document(tmp_path / "none.yaml", "none.yaml").problems[0])
