"""Which papers are looked at: dates known to the month or the day, every level of the taxonomy, clear refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis import load
from analysis.selection import EmptySelectionError, Selection
from taxonomy.store.atlas import Atlas


@pytest.fixture(scope="module")
def three(small: Callable[..., Atlas]) -> Atlas:
    return small(
        {
            "month": {"published": "2024-05", "primary": ["kvs"], "survey": True},
            "day": {"published": "2024-05-20", "primary": ["kvcc/quantization"], "secondary": ["cdo"]},
            "later": {"published": "2025-01-02", "primary": ["kvcc/low-rank-approximation"]},
        }
    )


def ids(atlas: Atlas, selection: Selection) -> set[str]:
    return {paper.id for paper in selection.papers(atlas)}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"month", "day", "later"}),
        ({"until": "2024"}, {"month", "day"}),
        ({"until": "2024-05"}, {"month", "day"}),
        ({"until": "2024-05-10"}, {"month"}),
        ({"until": "2024-05-20"}, {"month", "day"}),
        ({"since": "2024-05-21"}, {"month", "later"}),
        ({"since": "2025"}, {"later"}),
        ({"since": "2024-05", "until": "2024-12"}, {"month", "day"}),
        ({"survey": True}, {"month"}),
        ({"ids": frozenset({"day", "unknown"})}, {"day"}),
        ({"term": "structural"}, {"day", "later"}),
        ({"term": "kvcc"}, {"day", "later"}),
        ({"term": "kvcc/quantization"}, {"day"}),
        ({"term": "cdo"}, {"day"}),
        ({"term": "temporal", "survey": True}, {"month"}),
    ],
)
def test_conditions(three: Atlas, given, found: set[str]):
    assert ids(three, Selection(**given)) == found


def test_what_is_asked_for_is_named_when_nothing_is_left(three: Atlas):
    asked = Selection(until="2024-04", since="2023", term="kvs", survey=True)
    with pytest.raises(EmptySelectionError, match="none of the survey's papers in kvs since 2023 until 2024-04"):
        asked.papers(three)


def test_an_unknown_term_is_refused_with_the_nearest(three: Atlas):
    with pytest.raises(
        ValueError, match=r"'kvcc/quantisation' is not in the taxonomy \(did you mean kvcc/quantization"
    ):
        Selection(term="kvcc/quantisation").papers(three)


def test_a_missing_store_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="`skis build` makes it"):
        load(tmp_path / "skis.db")
