"""Trends: every paper is counted in its month and year, and trends end where affinity stands."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.affinity import THRESHOLD, affinity
from analysis.selection import Selection
from analysis.timeline import affinity_trends, combinations_by_age, months, years
from taxonomy.store.atlas import Atlas


def test_months_without_papers_are_there_too(small: Callable[..., Atlas]):
    papers = {
        "a": {"published": "2023-11"},
        "b": {"published": "2024-02-29", "primary": ["cdo", "hae/compute-offloading"]},
    }
    found = months(small(papers))
    assert [month.month for month in found] == ["2023-11", "2023-12", "2024-01", "2024-02"]
    assert [len(month.papers) for month in found] == [1, 0, 0, 1]
    assert found[3].by_behavior == {"kvs": 0, "ovlp": 0, "hae": 1, "mho": 0, "cdo": 1, "kvcc": 0, "kvrm": 0}


def test_all_papers_are_counted_once(atlas: Atlas, store: Path):
    with sqlite3.connect(store) as connection:
        by_month = dict(connection.execute("SELECT substr(published, 1, 7), COUNT(*) FROM paper GROUP BY 1"))
        code = dict(
            connection.execute(
                "SELECT year, COUNT(kind) FROM paper LEFT JOIN link ON paper_id = id AND kind = 'code' GROUP BY 1"
            )
        )
        venues = dict(connection.execute("SELECT year, COUNT(venue_code) FROM paper GROUP BY 1"))
    assert {month.month: len(month.papers) for month in months(atlas) if month.papers} == by_month
    assert {year.year: year.with_code for year in years(atlas)} == code
    assert {year.year: sum(year.by_community.values()) for year in years(atlas)} == venues
    assert sum(year.preprints for year in years(atlas)) == len(atlas.papers) - sum(venues.values())


def test_a_trend_is_the_affinity_until_then(atlas: Atlas):
    ends, trends = affinity_trends(atlas)
    assert ends == sorted(set(ends))
    for index in (0, len(ends) // 2, len(ends) - 1):
        then = affinity(atlas, Selection(until=ends[index]), draws=1)
        for trend in trends:
            assert trend.values[index] == pytest.approx(then.pair(trend.one.code, trend.other.code).affinity)
    strong = {frozenset((t.one.code, t.other.code)) for t in trends}
    today = affinity(atlas, draws=1)
    assert {frozenset((p.one.code, p.other.code)) for p in today.edges} <= strong
    assert all(max(trend.values) >= THRESHOLD for trend in trends)


def test_a_combination_is_as_old_as_its_first_paper(small: Callable[..., Atlas]):
    papers = {
        "late": {"published": "2025-01", "secondary": ["cdo"]},
        "early": {"published": "2024-01", "secondary": ["cdo"]},
        "other": {"published": "2025-06", "secondary": ["ovlp"]},
    }
    found = combinations_by_age(small(papers))
    assert [(c.one.code, c.other.code, c.first.id, c.papers) for c in found] == [
        ("kvs", "ovlp", "other", 1),
        ("kvs", "cdo", "early", 2),
    ]
