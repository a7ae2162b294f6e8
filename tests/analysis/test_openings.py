"""Research gaps: what is rarer than under independence, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import pytest

from analysis.openings import KINDS, LEAST, TRIPLES, Kind, openings
from taxonomy.store.atlas import Atlas


def papers_of(*groups: tuple[int, list[str], list[str]]) -> dict[str, dict[str, list[str]]]:
    return {
        f"g{g}n{i}": {"primary": primary, "secondary": secondary}
        for g, (count, primary, secondary) in enumerate(groups)
        for i in range(count)
    }


def test_two_that_never_meet_are_an_opening_and_two_that_always_do_are_none(small: Callable[..., Atlas]):
    atlas = small(papers_of((10, ["kvs"], ["cdo"]), (10, ["kvcc/quantization"], [])))
    found = {opening.key: opening for opening in openings(atlas, "behaviors")}
    assert set(found) == {"kvs+kvcc", "cdo+kvcc"}
    opening = found["kvs+kvcc"]
    assert (opening.observed, opening.expected, opening.ratio) == (0, 10 * 10 / 20, 0)
    assert opening.p == pytest.approx(comb(10, 10) / comb(20, 10)), "no paper in common: one table of all"
    assert opening.nearest == atlas.papers[:3], "all are equally near, so the newest come first"


def test_the_nearest_papers_come_closest_to_all_parts(small: Callable[..., Atlas]):
    papers = papers_of((20, ["kvs"], []), (20, ["kvcc/quantization"], []), (1, ["kvs"], ["kvcc/quantization"]))
    opening = openings(small(papers), "behaviors")[0]
    assert opening.observed == 1
    assert opening.nearest[0].id == "g2n0"


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_real_store_each_opening_is_rarer_than_expected(atlas: Atlas, kind: Kind):
    found = openings(atlas, kind)
    assert found
    assert all(opening.observed < opening.expected >= LEAST for opening in found)
    assert all(0 < opening.p <= opening.q <= 1 for opening in found)
    assert [opening.p for opening in found] == sorted(opening.p for opening in found)
    codes = {len(opening.parts) for opening in found}
    assert codes == {3 if kind in TRIPLES else 2}
    for opening in found:
        for paper in opening.papers:
            mine = {p.leaf.code for p in paper.placements} | {p.leaf.behavior.code for p in paper.placements}
            mine |= {effect.objective.code for effect in paper.effects}
            assert {part.code for part in opening.parts} <= mine


def test_what_is_too_rare_to_be_expected_is_no_finding(small: Callable[..., Atlas]):
    assert openings(small(papers_of((2, ["kvs"], []), (2, ["cdo"], []))), "behaviors") == []


def test_an_unknown_kind_is_refused(atlas: Atlas):
    with pytest.raises(ValueError, match="none of behaviors"):
        openings(atlas, "venues")  # type: ignore[arg-type]
