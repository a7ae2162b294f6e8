"""Related papers are those with the most alike placements, then those nearest in time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxonomy.store.related import RelatedPapers, tanimoto

weights = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([0.5, 1.0]))


def test_by_hand():
    assert tanimoto({"a": 1, "b": 0.5}, {"a": 1}) == pytest.approx(1 / (1.25 + 1 - 1))
    assert tanimoto({}, {}) == 0


@given(weights, weights)
def test_it_is_symmetric_bounded_and_one_only_for_equals(p: dict[str, float], q: dict[str, float]):
    t = tanimoto(p, q)
    assert t == tanimoto(q, p)
    assert 0 <= t <= 1
    assert (t == 1) == (p == q and bool(p))


def paper(number: int, published: str, *leaves: str) -> dict[str, Any]:
    return {
        "title": f"Paper {number}",
        "authors": ["Ada Lovelace"],
        "published": published,
        "links": {"paper": f"https://example.org/{number}"},
        "placements": [{"leaf": leaf, "role": "primary", "source": "survey"} for leaf in leaves],
        "added": "2026-11-24",
    }


def test_same_placement_first_then_nearest_in_time_and_never_itself(atlas_of):
    atlas = atlas_of(
        {
            "me": paper(0, "2024-05", "kvs"),
            "far": paper(1, "2020-01", "kvs"),
            "near": paper(2, "2024-06", "kvs"),
            "half": paper(3, "2024-05", "kvs", "cdo"),
            "other": paper(4, "2024-05", "ovlp"),
        }
    )
    assert [p.id for p in RelatedPapers(atlas).of(atlas.by_id["me"])] == ["near", "far", "half"]


def test_it_agrees_with_the_plain_definition_on_the_real_papers(atlas):
    """The score of each answer is the best that brute force finds."""
    related = RelatedPapers(atlas)
    leaves = {p.id: {m.leaf.code: m.weight for m in p.placements} for p in atlas.papers}
    for p in atlas.papers[::10]:
        scores = sorted((tanimoto(leaves[p.id], leaves[q.id]) for q in atlas.papers if q is not p), reverse=True)
        found = [tanimoto(leaves[p.id], leaves[q.id]) for q in related.of(p)]
        assert found == pytest.approx([score for score in scores[:6] if score > 0])
