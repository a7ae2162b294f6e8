"""Reported numbers: all of them, "up to" apart from the rest, costs apart from gains."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.gains import reported, spreads
from taxonomy.store.atlas import Atlas


def test_up_to_stays_apart_and_costs_and_percentages_out(small: Callable[..., Atlas]):
    def gains(*items: tuple[str, float, bool]) -> dict[str, list[dict[str, object]]]:
        return {"throughput": [{which: value, "kind": "throughput, higher", "up_to": up} for which, value, up in items]}

    atlas = small(
        {
            "a": {"effects": gains(("factor", 2.0, False), ("factor", 9.0, True), ("factor", 0.8, False))},
            "b": {"effects": gains(("factor", 4.0, False), ("percent", 40, False))},
        }
    )
    found = {spread.up_to: spread for spread in spreads(atlas)}
    assert found[False].factors == [2, 4]
    assert (found[False].median, found[False].papers) == (3, 2)
    assert found[True].factors == [9]
    assert found[True].quartiles == (9, 9)
    assert len(reported(atlas)) == 5


def test_every_number_of_the_store_is_reported(atlas: Atlas, store: Path):
    query = "SELECT COUNT(*) FROM gain JOIN placement USING (paper_id) WHERE role = 'primary'"
    with sqlite3.connect(store) as connection:
        assert len(reported(atlas)) == connection.execute(query).fetchone()[0]


def test_quartiles_are_numpys(atlas: Atlas):
    for spread in spreads(atlas):
        assert spread.quartiles == pytest.approx(tuple(np.quantile(spread.factors, [0.25, 0.75])))
        assert spread.median == pytest.approx(float(np.median(spread.factors)))
