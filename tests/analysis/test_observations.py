"""Observations: each verdict can come out either way, and follows the figures that are shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from analysis.challenges import challenges
from analysis.claims import claims
from analysis.observations import observations
from analysis.published import Difference, compare, figure_papers, published
from analysis.selection import Selection
from taxonomy.store.atlas import Atlas

GAIN = [{"factor": 2, "kind": "any, lower"}]


def group(name: str, count: int, **given: object) -> dict[str, dict[str, object]]:
    return {f"{name}{i}": {"survey": True, **given} for i in range(count)}


def verdict(atlas: Atlas, code: str) -> str:
    return observations(atlas, codes=[code])[code].today.verdict


def test_o1_needs_structure_to_be_largest_and_to_save_memory(small: Callable[..., Atlas]):
    structural = group("s", 12, primary=["kvcc/quantization"], effects={"gpu-memory": GAIN})
    temporal = group("t", 11, primary=["kvs"], effects={"gpu-memory": "indirect"})
    assert verdict(small(structural | temporal), "O1") == "holds"
    more = group("m", 5, primary=["ovlp"])
    assert verdict(small(structural | temporal | more), "O1") == "no longer holds"
    assert verdict(small(temporal), "O1") == "inconclusive"


def test_o2_falls_when_tail_latency_is_reported(small: Callable[..., Atlas]):
    temporal = group("t", 10, primary=["kvs"], effects={"mean-latency": "direct"})
    others = group("s", 10, primary=["kvcc/quantization"], effects={"gpu-memory": "direct"})
    assert verdict(small(temporal | others), "O2") == "holds"
    rivals = group("c", 10, primary=["cdo"], effects={"throughput": "direct"})
    assert verdict(small(temporal | others | rivals), "O2") == "inconclusive"
    idle = group("i", 30, primary=["kvs"])
    assert verdict(small(temporal | others | rivals | idle), "O2") == "no longer holds"
    tails = group("l", 5, primary=["kvs"], effects={"mean-latency": "direct", "tail-latency": GAIN})
    assert verdict(small(temporal | others | tails), "O2") == "no longer holds"


def test_o3_needs_overlapping_beside_placement(small: Callable[..., Atlas]):
    io = {"interconnect-io": "direct"}
    others = group("s", 20, primary=["kvcc/quantization"])
    pairing = group("m", 10, primary=["mho/cross-device-memory-hierarchy"], secondary=["ovlp"], effects=io)
    assert verdict(small(pairing | others), "O3") == "holds"
    alone = group("m", 10, primary=["mho/cross-device-memory-hierarchy"], effects=io)
    assert verdict(small(alone | others), "O3") == "no longer holds"


def test_o4_falls_when_energy_is_not_the_rarest(small: Callable[..., Atlas]):
    effects = dict.fromkeys(
        ("mean-latency", "tail-latency", "throughput", "gpu-memory", "interconnect-io", "quality"), GAIN
    )
    others = group("o", 18, effects=effects)
    energy = group("e", 2, effects={"energy": "indirect"})
    assert verdict(small(others | energy), "O4") == "holds"
    assert verdict(small(others | group("e", 5, effects={"energy": "indirect"})), "O4") == "no longer holds"
    rarer = {code: effect for code, effect in effects.items() if code != "tail-latency"}
    assert verdict(small(group("o", 18, effects=rarer) | energy), "O4") == "no longer holds"
    assert verdict(small(energy), "O4") == "inconclusive"


def test_o5_is_told_only_when_the_rarest_share_is_clear(small: Callable[..., Atlas]):
    leaves = ["kvs", "ovlp", "hae/compute-offloading", "mho/cross-device-memory-hierarchy", "cdo", "kvcc/quantization"]

    def atlas(touching: int) -> Atlas:
        papers: dict[str, dict[str, object]] = {}
        for n, leaf in enumerate([*leaves, "kvrm/eviction"]):
            papers |= group(f"q{n}n", touching, primary=[leaf], effects={"quality": "indirect"})
            papers |= group(f"n{n}n", 40 - touching, primary=[leaf])
        return small(papers)

    assert verdict(atlas(30), "O5") == "holds"
    assert verdict(atlas(8), "O5") == "inconclusive"
    assert verdict(atlas(0), "O5") == "no longer holds"


def test_o6_is_told_only_when_the_draws_agree(small: Callable[..., Atlas]):
    both = group("b", 20, primary=["hae/disaggregated-inference", "cdo"])
    rest = group("r", 20, primary=["kvcc/quantization"])
    assert verdict(small(both | rest), "O6") == "holds"
    rival = group("o", 20, primary=["mho/cross-device-memory-hierarchy", "ovlp"])
    assert verdict(small(both | rest | rival), "O6") == "inconclusive"
    loose = group("c", 60, primary=["cdo"])
    assert verdict(small(both | rest | rival | loose), "O6") == "no longer holds"


def test_o7_falls_when_compression_finds_partners(small: Callable[..., Atlas]):
    alone = group("q", 30, primary=["kvcc/quantization"])
    rest = group("r", 30, primary=["kvrm/eviction"])
    assert verdict(small(alone | rest), "O7") == "holds"
    both = group("b", 30, primary=["kvcc/quantization", "kvrm/eviction"])
    assert verdict(small(alone | rest | both), "O7") == "no longer holds"


def test_on_the_real_store_every_observation_has_figures_and_a_reason_in_both_languages(atlas: Atlas):
    all_found = observations(atlas)
    assert [*all_found] == [f"O{i}" for i in range(1, 8)]
    for code, observation in all_found.items():
        assert observation.code == code
        for finding in (observation.today, observation.survey):
            assert finding
            assert finding.figures
            assert finding.reason.en
            assert finding.reason.zh
            assert "{" not in finding.reason.en + finding.reason.zh
    of_the_survey = observations(atlas, Selection(survey=True))
    assert {code: o.today for code, o in of_the_survey.items()} == {code: o.survey for code, o in all_found.items()}


def test_a_claim_finds_its_check_by_its_code_wherever_it_stands(
    small: Callable[..., Atlas], monkeypatch: pytest.MonkeyPatch
):
    atlas = small(group("s", 12, primary=["kvcc/quantization"], effects={"gpu-memory": GAIN}))
    before = observations(atlas), challenges(atlas)

    def reordered(part: str) -> dict[str, Any]:
        return dict(reversed(claims(part).items()))

    for name in ("analysis.observations", "analysis.challenges"):
        monkeypatch.setattr(import_module(name), "claims", reordered)
    assert next(iter(observations(atlas))) == "O7"
    assert (observations(atlas), challenges(atlas)) == before


def test_only_the_observations_asked_for_are_checked(small: Callable[..., Atlas]):
    atlas = small({"a": {}})
    assert [*observations(atlas, codes=["O4", "O1"])] == ["O4", "O1"]
    with pytest.raises(KeyError, match="O8"):
        observations(atlas, codes=["O8"])


def test_challenges_name_the_papers_that_work_on_them(atlas: Atlas):
    by_code = challenges(atlas)
    assert [*by_code] == [f"C{i}" for i in range(1, 7)]
    assert all(
        any(e.objective.code == "energy" and e.effect == "direct" for e in paper.effects)
        for paper in by_code["C2"].papers
    )
    assert all({"hae", "cdo"} <= {p.leaf.behavior.code for p in paper.placements} for paper in by_code["C4"].papers)
    assert by_code["C6"].papers == []


@pytest.fixture(scope="module")
def compared(atlas: Atlas) -> list[Difference]:
    return compare(atlas)


class TestWhatTheSurveyPrinted:
    def test_its_papers_are_placed_as_in_its_figure(self, atlas: Atlas):
        for leaf, papers in published()["papers"].items():
            for paper in papers:
                assert leaf in {p.leaf.code for p in atlas.by_id[paper].primary}, f"{paper} in {leaf}"
                assert atlas.by_id[paper].survey

    @pytest.mark.parametrize(
        "what", ["strongest pair", "behaviors without an edge", "HAE–CDO", "OVLP–HAE", "OVLP–MHO", "KVS–KVRM"]
    )
    def test_what_we_reproduce(self, compared: list[Difference], what: str):
        assert next(d for d in compared if d.what.en == what).agrees

    def test_every_printed_number_is_compared(self, atlas: Atlas, compared: list[Difference]):
        rows = compared
        assert len({row.what for row in rows}) == len(rows)
        assert sum(row.kind in ("star", "kind") for row in rows) == 7 * 7
        assert sum(row.kind == "density" for row in rows) == 7 + 7
        for row in rows:
            for said in (row.what, row.printed, row.figure, row.listed, row.why):
                assert said.en
                assert said.zh
                assert not re.search("[\u4e00-\u9fff]", said.en)
        assert len(figure_papers().papers(atlas)) == 116
