"""Affinities: by hand on small cases, by SQL and by another library on the real store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import comb, cos, pi, sin
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.affinity import THRESHOLD, Affinity, affinity, tanimoto
from analysis.network import isolated, network
from analysis.selection import SURVEY, EmptySelectionError, Selection
from analysis.weights import labels, weights
from taxonomy.store.atlas import Atlas

# C_ij, and C_ii for the diagonal, straight from the definition
IN_SQL = """
WITH w AS (
  SELECT placement.paper_id AS paper, leaf.behavior_code AS behavior,
         MAX(CASE role WHEN 'primary' THEN 1.0 ELSE 0.5 END) AS weight
  FROM placement JOIN leaf ON leaf.code = placement.leaf_code JOIN paper ON paper.id = placement.paper_id
  WHERE paper.survey OR NOT :survey
  GROUP BY 1, 2
)
SELECT a.behavior, b.behavior, SUM(a.weight * b.weight), COUNT(*) FROM w a JOIN w b USING (paper) GROUP BY 1, 2
"""


def test_a_case_by_hand(small: Callable[..., Atlas]):
    atlas = small(
        {
            "a": {"primary": ["hae/disaggregated-inference", "cdo"]},  # C_hae,cdo = 1
            "b": {"primary": ["hae/compute-offloading"], "secondary": ["cdo"]},  # + 0.5
            "c": {"primary": ["cdo"]},
            "d": {"primary": ["kvcc/quantization"], "secondary": ["kvcc/low-rank-approximation"]},
        }
    )
    found = affinity(atlas)
    pair = found.pair("cdo", "hae")
    # C_hae = 1 + 1, C_cdo = 1 + 0.25 + 1, C_both = 1.5
    assert pair.affinity == pytest.approx(1.5 / (2 + 2.25 - 1.5))
    assert [paper.id for paper in pair.papers] == ["a", "b"]
    assert pair.expected == pytest.approx(2 * 3 / 4)
    assert not pair.inside
    assert found.edges == [pair]
    assert isolated(found) == ["kvcc", "kvrm", "kvs", "mho", "ovlp"]
    kvcc = [label.code for label in found.labels].index("kvcc")
    assert found.co_occurrence[kvcc, kvcc] == 1, "two leaves of one behavior are one placement, the weightier"
    assert found.present[kvcc] == 1


def test_leaves_are_columns_of_their_own(small: Callable[..., Atlas]):
    atlas = small({"a": {"primary": ["kvcc/quantization"], "secondary": ["kvcc/low-rank-approximation"]}})
    pair = affinity(atlas, level="leaf").pair("kvcc/quantization", "kvcc/low-rank-approximation")
    assert pair.affinity == pytest.approx(0.5 / (1 + 0.25 - 0.5))
    assert pair.inside


@pytest.mark.parametrize("survey", [False, True])
def test_plain_sql_gives_the_same_coefficients(
    everything: Affinity, of_the_survey: Affinity, store: Path, survey: bool
):
    with sqlite3.connect(store) as connection:
        rows = connection.execute(IN_SQL, {"survey": survey}).fetchall()
    c = {(one, other): value for one, other, value, _ in rows}
    together = {(one, other): count for one, other, _, count in rows}
    found = of_the_survey if survey else everything
    assert found.pairs
    for pair in found.pairs:
        i, j = pair.one.code, pair.other.code
        both = c.get((i, j), 0.0)
        assert pair.affinity == pytest.approx(both / (c[i, i] + c[j, j] - both))
        assert pair.observed == together.get((i, j), 0)
        assert pair.expected == pytest.approx(together[i, i] * together[j, j] / found.count)


def test_significance_is_the_hypergeometric_law(of_the_survey: Affinity):
    """Fisher's two-sided p is the sum over all tables with the same margins that are no likelier."""
    found = of_the_survey
    present = dict(zip([label.code for label in found.labels], found.present, strict=True))
    for pair in found.pairs:
        n, a, b = found.count, present[pair.one.code], present[pair.other.code]
        chance = [comb(a, k) * comb(n - a, b - k) / comb(n, b) for k in range(max(0, a + b - n), min(a, b) + 1)]
        mine = comb(a, pair.observed) * comb(n - a, b - pair.observed) / comb(n, b)
        assert pair.p == pytest.approx(sum(c for c in chance if c <= mine * (1 + 1e-7)), rel=1e-6)


def test_false_discovery_rates_follow_benjamini_and_hochberg(everything: Affinity):
    pairs = sorted(everything.pairs, key=lambda pair: pair.p)
    least = 1.0
    for rank, pair in reversed([*enumerate(pairs, 1)]):
        least = min(least, pair.p * len(pairs) / rank)
        assert pair.q == pytest.approx(least)


matrices = st.integers(1, 12).flatmap(
    lambda rows: st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=4), min_size=rows, max_size=rows
    )
)


@given(matrices)
def test_tanimoto_is_that_of_weighted_sets(rows: list[list[float]]):
    matrix = np.array(rows)
    t = tanimoto(matrix.T @ matrix)
    assert np.array_equal(t, t.T)
    assert ((t >= 0) & (t <= 1)).all()
    for i, j in combinations(range(4), 2):
        x, y = matrix[:, i], matrix[:, j]
        union = float(x @ x + y @ y - x @ y)
        assert t[i, j] == pytest.approx(float(x @ y) / union if union else 0)
        assert (t[i, j] == 1) == (bool(x.any()) and np.array_equal(x, y))
    assert [t[i, i] for i in range(4)] == [float(bool(matrix[:, i].any())) for i in range(4)]


@settings(max_examples=25, deadline=None)
@given(matrices)
def test_binary_weights_give_jaccards_coefficient(rows: list[list[float]]):
    matrix = (np.array(rows) > 0).astype(float)
    t = tanimoto(matrix.T @ matrix)
    for i, j in combinations(range(4), 2):
        one, other = set(np.flatnonzero(matrix[:, i])), set(np.flatnonzero(matrix[:, j]))
        assert t[i, j] == pytest.approx(len(one & other) / len(one | other) if one | other else 0)


def test_the_interval_is_that_of_drawn_papers(atlas: Atlas):
    """Another way to draw: choose rows, and compute the coefficient of each draw anew."""
    papers = SURVEY.papers(atlas)
    columns = labels(atlas, "behavior")
    matrix = weights(papers, columns, "behavior")
    random = np.random.default_rng(7)
    codes = [label.code for label in columns]
    i, j = codes.index("hae"), codes.index("cdo")
    draws = []
    for _ in range(2000):
        drawn = matrix[random.integers(0, len(papers), len(papers))]
        draws.append(tanimoto(drawn.T @ drawn)[i, j])
    pair = affinity(atlas, SURVEY, draws=2000).pair("hae", "cdo")
    low, high = np.quantile(draws, [0.025, 0.975])
    assert pair.low == pytest.approx(low, abs=0.03)
    assert pair.high == pytest.approx(high, abs=0.03)
    assert pair.low < pair.affinity < pair.high


def test_same_input_same_numbers(atlas: Atlas, everything: Affinity):
    one, other = everything, affinity(atlas)
    assert np.array_equal(one.samples, other.samples)
    assert one.pairs == other.pairs


def test_the_network_holds_what_reaches_the_threshold(everything: Affinity):
    found = everything
    graph = network(found)
    assert graph.number_of_nodes() == len(found.labels)
    assert {frozenset(edge) for edge in graph.edges} == {
        frozenset((p.one.code, p.other.code)) for p in found.pairs if p.affinity >= THRESHOLD
    }
    assert all(data["inside"] == (data["pair"].one.dimension is data["pair"].other.dimension) for *_, data in
               graph.edges(data=True))  # fmt: skip
    assert nx.number_of_selfloops(graph) == 0
    assert network(replace(found, threshold=1)).number_of_edges() == 0
    assert network(replace(found, threshold=0)).number_of_edges() == comb(len(found.labels), 2)


def test_places_are_on_a_circle_in_the_order_of_the_vocabulary_whatever_the_edges(everything: Affinity):
    places = [(node["x"], node["y"]) for _, node in network(everything).nodes(data=True)]
    turn = 2 * pi / len(everything.labels)
    expected = [(cos(turn * i), sin(turn * i)) for i in range(len(everything.labels))]
    assert np.allclose(places, expected, atol=1e-6)
    bare = network(replace(everything, threshold=1))
    assert [(node["x"], node["y"]) for _, node in bare.nodes(data=True)] == places


def test_a_threshold_or_a_number_of_draws_that_makes_no_sense_is_refused(atlas: Atlas):
    with pytest.raises(ValueError, match="between 0 and 1"):
        affinity(atlas, threshold=1.5)
    with pytest.raises(ValueError, match="needs at least one draw"):
        affinity(atlas, draws=0)


def test_without_papers_there_is_a_clear_message(atlas: Atlas):
    with pytest.raises(EmptySelectionError, match="none of all papers until 1999"):
        affinity(atlas, Selection(until="1999"))
