"""SparQ: which channels and tokens are chosen, what the choice is worth, and that cutting the work does not matter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_kernels.core.lse import attention
from reference_kernels.core.pieces import Tuning
from reference_kernels.kvs.sparq import (
    UNIT,
    append,
    channel_major,
    decode_attention,
    make_inputs,
    make_plan,
    mean_values,
)
from reference_kernels.kvs.token_selection import SPANS, choose_span, select_tokens


def draw(device: torch.device, **changes: Any) -> dict[str, Any]:
    shape = {"lengths": [200, 77], "heads": 2, "group": 4, "dim": 64, "rank": 16, "budget": 24, "recent": 3}
    return make_inputs(device=device, dtype=torch.float32, seed=3, **{**shape, **changes})


def largest(scores: list[float], count: int) -> list[int]:
    """The definition: sort by score, equal ones by index, keep the first, in ascending order."""
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def maxima(scores: torch.Tensor, lengths: torch.Tensor, span: int) -> torch.Tensor:
    padded = torch.full((*scores.shape[:2], -(-scores.shape[2] // span) * span), -torch.inf, device=scores.device)
    padded[:, :, : scores.shape[2]] = scores
    padded[
        torch.arange(padded.shape[2], device=scores.device) >= lengths[:, None, None].expand(padded.shape)
    ] = -torch.inf
    return padded.unflatten(2, (-1, span)).amax(3).flatten(0, 1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_selected_tokens_are_the_largest_and_lower_ones_win_ties(data: st.DataObject, device: torch.device):
    span = data.draw(st.sampled_from([1, 2, 8]))
    lengths = data.draw(st.lists(st.integers(0, 64), min_size=1, max_size=2))
    budget = data.draw(st.integers(1, 40))
    few = data.draw(st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=6))
    value = st.sampled_from([0.0 if x == 0 else x for x in few])
    rows = [data.draw(st.lists(value, min_size=64, max_size=64)) for _ in lengths]
    scores = torch.tensor(rows, device=device)[:, None]
    sizes = torch.tensor(lengths, dtype=torch.int32, device=device)
    kept = select_tokens(scores, maxima(scores, sizes, span), sizes, budget, span)[:, 0].tolist()
    for row, length, found in zip(rows, lengths, kept, strict=True):
        wanted = largest(row[:length], budget)
        assert found == wanted + [-1] * (min(budget, 64) - len(wanted))


@pytest.mark.parametrize("span", [4, 16])
def test_a_peak_in_one_span_is_selected_whole(device: torch.device, span: int):
    scores = torch.randn(1, 1, 9000, device=device)
    scores[0, 0, 4096 : 4096 + 2 * span] += 100
    sizes = torch.tensor([8999], dtype=torch.int32, device=device)
    kept = select_tokens(scores, maxima(scores, sizes, span), sizes, 2 * span, span)
    assert kept[0, 0].tolist() == list(range(4096, 4096 + 2 * span))


def test_chosen_channels_are_the_largest_of_the_group_and_lower_ones_win_ties(device: torch.device):
    inputs = draw(device, rank=9)
    inputs["q"] = (inputs["q"] * 2).round() / 2  # many ties
    channels = decode_attention(**inputs)["channels"]
    sizes = inputs["q"].abs().unflatten(1, (2, 4)).sum(2)
    for size, found in zip(sizes.flatten(0, 1).tolist(), channels.flatten(0, 1).tolist(), strict=True):
        assert found == largest(size, 9)


def test_kept_tokens_are_the_largest_of_the_scores(device: torch.device):
    inputs = draw(device)
    outputs = decode_attention(**inputs)
    for b, length in enumerate(inputs["lengths"].tolist()):
        for h in range(2):
            scores = outputs["scores"][b, h, :length].tolist()
            assert scores[-3:] == [math.inf] * 3
            assert outputs["kept"][b, h].tolist() == largest(scores, 24)


def test_equal_keys_are_kept_from_the_first_on(device: torch.device):
    inputs = draw(device)
    inputs["k"][:] = inputs["k"][:, :, :1].clone()
    inputs["k_channels"] = channel_major(inputs["k"])
    kept = decode_attention(**inputs)["kept"]
    assert kept[0, 0].tolist() == [*range(21), 197, 198, 199]
    assert kept[1, 1].tolist() == [*range(21), 74, 75, 76]


def test_one_head_follows_the_paper_step_by_step(device: torch.device):
    inputs = draw(device, lengths=[130], heads=1, group=1, recent=0)
    outputs = decode_attention(**inputs)
    q, k, v = (inputs[n].double().cpu().numpy().reshape(-1, 64) for n in ("q", "k", "v"))
    q, k, v = q[0], k[:130], v[:130]
    i1 = np.argsort(-np.abs(q))[:16]
    share = np.abs(q[i1]).sum() / np.abs(q).sum()
    guess = np.exp(k[:, i1] @ q[i1] / np.sqrt(64 * share))
    guess /= guess.sum()
    i2 = np.argsort(-guess)[:24]
    weights = np.exp(k[i2] @ q / np.sqrt(64))
    a = guess[i2].sum()
    out = a * (weights / weights.sum()) @ v[i2] + (1 - a) * v.mean(0)
    assert sorted(i1) == outputs["channels"][0, 0].tolist()
    assert sorted(i2) == outputs["kept"][0, 0].tolist()
    np.testing.assert_allclose(outputs["coverage"].item(), a, rtol=1e-5)
    np.testing.assert_allclose(outputs["out"][0, 0].cpu().numpy(), out, atol=1e-5)


def test_a_budget_of_all_tokens_is_dense_attention(device: torch.device):
    inputs = draw(device, budget=200)
    outputs = decode_attention(**inputs)
    assert (outputs["coverage"] == 1).all()
    for b, length in enumerate(inputs["lengths"].tolist()):
        k, v = inputs["k"][b, :, :length], inputs["v"][b, :, :length]
        torch.testing.assert_close(outputs["out"][b], attention(inputs["q"][b], k, v, 64**-0.5)[0])


def test_with_all_channels_coverage_is_the_true_attention_to_the_kept_tokens(device: torch.device):
    inputs = draw(device, rank=64, lengths=[200])
    outputs = decode_attention(**inputs)
    scores = torch.einsum("hgd,htd->hgt", inputs["q"][0].unflatten(0, (2, 4)), inputs["k"][0, :, :200]) / 8
    torch.testing.assert_close(outputs["scores"][0, :, :197], scores.sum(1)[:, :197])
    mass = scores.softmax(-1).gather(2, outputs["kept"][0].long()[:, None].expand(-1, 4, -1)).sum(-1)
    torch.testing.assert_close(outputs["coverage"][0], mass.flatten())


def test_equal_values_come_back_whatever_is_chosen(device: torch.device):
    inputs = draw(device)
    inputs["v"][:] = 0.75
    inputs["v_mean"][:] = 0.75
    outputs = decode_attention(**inputs)
    assert (outputs["coverage"] < 0.99).any()
    torch.testing.assert_close(outputs["out"], torch.full_like(outputs["out"], 0.75))


def test_a_query_of_zeros_gives_the_mean_of_the_values(device: torch.device):
    inputs = draw(device)
    inputs["q"][:] = 0
    outputs = decode_attention(**inputs)
    torch.testing.assert_close(outputs["coverage"][0], torch.full_like(outputs["coverage"][0], 24 / 200))
    kept = outputs["kept"][0, 0].long()
    wanted = 24 / 200 * inputs["v"][0, 0, kept].mean(0) + 176 / 200 * inputs["v_mean"][0, 0]
    torch.testing.assert_close(outputs["out"][0, 0], wanted)


def test_neither_spans_nor_pieces_change_the_result(device: torch.device):
    inputs = draw(device, lengths=[1500, 3, 700])
    wanted = decode_attention(**inputs)
    for span, block, pieces in ((1, 64, 8), (8, 256, 1), (16, 64, 3)):
        plan = make_plan(
            inputs["q"], inputs["lengths"], 2, inputs["k"].shape[2], 24, span=span, score=Tuning(block, pieces=pieces),
            attend=Tuning(16, pieces=pieces),
        )  # fmt: skip
        found = decode_attention(**inputs, plan=plan)
        assert torch.equal(found["kept"], wanted["kept"])
        torch.testing.assert_close(found["coverage"], wanted["coverage"])
        torch.testing.assert_close(found["out"], wanted["out"])


def test_a_plan_is_refilled_for_other_lengths(device: torch.device):
    inputs = draw(device)
    plan = make_plan(inputs["q"], torch.tensor([10, 0]), 2, inputs["k"].shape[2], 24, capacity=40)
    plan.refill(inputs["lengths"])
    torch.testing.assert_close(decode_attention(**inputs, plan=plan)["out"], decode_attention(**inputs)["out"])


def test_appended_tokens_keep_both_layouts_and_the_mean_in_step(device: torch.device):
    inputs = draw(device, lengths=[5, 0, 16])
    k, v, v_mean, lengths = (inputs[n] for n in ("k", "v", "v_mean", "lengths"))
    lengths -= torch.tensor([2, 0, 7], dtype=torch.int32, device=device)
    v_mean.copy_(mean_values(v, lengths))
    for _ in range(7):
        new = torch.randn(2, 3, 2, 64, device=device)
        append(k, inputs["k_channels"], v, v_mean, lengths, new[0], new[1])
        last = lengths.long() - 1
        assert torch.equal(k[torch.arange(3), :, last], new[0])
        torch.testing.assert_close(v_mean, mean_values(v, lengths))
    assert lengths.tolist() == [10, 7, 16]
    assert torch.equal(inputs["k_channels"].nan_to_num(9), channel_major(k).nan_to_num(9))


def test_broken_keys_of_one_head_harm_no_other(device: torch.device):
    inputs = draw(device)
    wanted = decode_attention(**inputs)
    inputs["k"][0, 0] = inputs["k_channels"][0, 0] = math.nan
    found = decode_attention(**inputs)
    assert found["kept"][0, 0].tolist() == sorted(set(found["kept"][0, 0].tolist()) & set(range(200)))
    for name in ("out", "coverage"):
        assert torch.equal(found[name][0, 4:], wanted[name][0, 4:])
        assert torch.equal(found[name][1], wanted[name][1])


def test_keys_are_held_twice(device: torch.device):
    inputs = draw(device)
    cached = sum(inputs[name].nbytes for name in ("k", "k_channels", "v"))
    assert cached == 1.5 * (inputs["k"].nbytes + inputs["v"].nbytes)


def test_the_ideal_gain_is_that_of_the_docstring():
    assert choose_span(131072, 2048) == 8
    tokens, dim, rank, budget = 131072, 128, 32, 2048
    inputs = {
        "q": torch.empty(1, 32, dim, dtype=torch.float16, device="meta"),
        "k": torch.empty(1, 8, tokens, dim, dtype=torch.float16, device="meta"),
        "lengths": torch.tensor([tokens]), "rank": rank, "budget": budget,
    }  # fmt: skip
    gain = UNIT.figures(inputs, {"coverage": torch.ones(1)}, 1.0)["ideal gain"]
    assert gain == pytest.approx(2 * tokens * dim / (tokens * rank + 2 * budget * dim), rel=1e-3)
    assert gain == pytest.approx(7.1, abs=0.05)


@pytest.mark.parametrize("room", [16, 1024, 16384, 32768, 131072, 1 << 20])
def test_the_span_leaves_no_selection_too_large(room: int):
    for budget in (1, 100, 512):
        assert choose_span(room, budget) in SPANS
    assert room < 131072 or choose_span(room, 512) > 1


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"rank": 0}, ValueError, "rank must lie in 1 ... 64"),
        ({"rank": 65}, ValueError, "rank must lie in 1 ... 64"),
        ({"budget": 0, "recent": 0}, ValueError, "the budget must be positive"),
        ({"recent": 25}, ValueError, "hold the recent tokens"),
        ({"k_channels": torch.zeros(2, 2, 208, 64)}, ValueError, "k_channels must have shape"),
        ({"v": torch.zeros(2, 2, 208, 64).half()}, TypeError, "v is torch.float16"),
        ({"v_mean": torch.zeros(2, 2, 64).half()}, TypeError, "v_mean must be float32"),
        ({"lengths": torch.tensor([209, 1], dtype=torch.int32)}, ValueError, "lengths must lie in 0 ... 208"),
        ({"lengths": torch.tensor([20, 1])}, TypeError, "lengths must be int32"),
        ({"scale": -1.0}, ValueError, "scale must be positive"),
    ],
)
def test_bad_input_is_refused(device: torch.device, change: dict[str, Any], error: type, words: str):
    moved = {n: x.to(device) if isinstance(x, torch.Tensor) else x for n, x in change.items()}
    with pytest.raises(error, match=words):
        decode_attention(**{**draw(device), **moved})


def test_a_cache_of_odd_room_is_refused(device: torch.device):
    inputs = draw(device)
    short = {name: inputs[name][:, :, :200].contiguous() for name in ("k", "v")}
    with pytest.raises(ValueError, match="multiple of 16 tokens, not 200"):
        decode_attention(**{**inputs, **short, "k_channels": channel_major(short["k"])})


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="cannot be selected"):
        choose_span(1 << 20, 1 << 15)
