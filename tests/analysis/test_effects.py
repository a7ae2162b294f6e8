"""The matrix of behaviors and objectives: by hand, and by plain SQL on the real store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.effects import effects
from taxonomy.store.atlas import Atlas

GAIN = [{"factor": 2, "kind": "memory, lower"}]
IN_SQL = """
WITH about AS (
  SELECT DISTINCT leaf.behavior_code AS behavior, paper_id FROM placement JOIN leaf ON leaf.code = leaf_code
  WHERE role = 'primary'
)
SELECT behavior, objective_code, SUM(effect = 'direct'), SUM(effect = 'indirect'),
       SUM(EXISTS (SELECT 1 FROM gain WHERE gain.paper_id = effect.paper_id
                   AND gain.objective_code = effect.objective_code))
FROM about JOIN effect USING (paper_id) GROUP BY 1, 2
"""


def test_a_case_by_hand(small: Callable[..., Atlas]):
    papers = {
        "a": {"primary": ["kvcc/quantization"], "effects": {"gpu-memory": GAIN, "quality": "indirect"}},
        "b": {"primary": ["kvcc/quantization"], "effects": {"gpu-memory": GAIN, "quality": "indirect"}},
        "c": {"primary": ["kvcc/low-rank-approximation"], "effects": {"gpu-memory": GAIN, "quality": "direct"}},
        "d": {"primary": ["kvs"], "secondary": ["kvcc/quantization"], "effects": {"gpu-memory": "indirect"}},
    }
    table = effects(small(papers))
    memory = table.cells["kvcc", "gpu-memory"]
    assert (memory.kind, memory.share, memory.star) == ("direct", 1, True)
    quality = table.cells["kvcc", "quality"]
    assert (quality.kind, quality.share, quality.star) == ("indirect", 0, False)
    assert {paper.id for paper in quality.papers} == {"a", "b", "c"}
    assert [paper.id for paper in quality.direct] == ["c"]
    assert table.cells["kvs", "gpu-memory"].kind == "indirect", "what a paper also does is not what it is about"
    assert table.cells["mho", "energy"].kind == "none"
    assert table.rows == {"kvs": 1, "ovlp": 0, "hae": 0, "mho": 0, "cdo": 0, "kvcc": 3, "kvrm": 0}
    assert table.columns["gpu-memory"] == 4
    assert table.columns["quality"] == 3


@pytest.mark.parametrize(("gaining", "star"), [(6, False), (7, True)])
def test_a_star_needs_seven_of_ten(small: Callable[..., Atlas], gaining: int, star: bool):
    papers = {f"p{i}": {"effects": {"throughput": GAIN if i < gaining else "direct"}} for i in range(10)}
    assert effects(small(papers)).cells["kvs", "throughput"].star == star


def test_plain_sql_counts_the_same(atlas: Atlas, store: Path):
    with sqlite3.connect(store) as connection:
        rows = {(b, o): counts for b, o, *counts in connection.execute(IN_SQL)}
    table = effects(atlas)
    for key, cell in table.cells.items():
        assert [len(cell.direct), len(cell.indirect), len(cell.reporting)] == rows.get(key, [0, 0, 0])
