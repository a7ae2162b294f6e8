from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.lse import attention, merge_states
from reference_kernels.kvcc.think import (
    channel_scores,
    choose_channels,
    decode_attention,
    figures,
    make_inputs,
    prune,
)

HEADS, GROUP, DIM, KEEP = 2, 3, 32, 16
LENGTHS = [50, 7]


def draw(device: torch.device, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def lengths_on(device: torch.device) -> torch.Tensor:
    return torch.tensor(LENGTHS, dtype=torch.int32, device=device)


def test_score_is_the_norm_of_what_the_channel_adds_to_all_scores(device: torch.device):
    lengths = [300, 7]  # several pieces, and one
    window, k = draw(device, 2, HEADS * GROUP, 5, DIM), draw(device, 2, HEADS, 300, DIM, seed=1)
    k[1, :, 7:] = float("nan")  # past the end: must not count
    found = channel_scores(window, k, torch.tensor(lengths, dtype=torch.int32, device=device))
    for b, length in enumerate(lengths):
        for head in range(HEADS):
            queries = window[b, head * GROUP : (head + 1) * GROUP].flatten(0, 1).double()
            parts = queries.T[:, :, None] * k[b, head, :length].double().T[:, None, :]  # [D, queries, tokens]
            torch.testing.assert_close(found[b, head].double(), parts.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([16, 32, 48, 64]))
def test_no_dropped_channel_has_a_higher_score_than_a_kept_one(seed: int, keep: int):
    scores = torch.rand(3, 64, generator=torch.Generator().manual_seed(seed)).mul(20).round()  # with ties
    channels = choose_channels(scores, keep).long()
    assert channels.dtype == torch.int64
    assert (channels.diff(dim=-1) > 0).all()
    kept = torch.zeros(3, 64, dtype=torch.bool).scatter(1, channels, True)
    for row in range(3):
        if keep < 64:
            assert scores[row][kept[row]].min() >= scores[row][~kept[row]].max()


def test_keeping_every_channel_is_dense_attention(device: torch.device):
    q, k, v = (
        draw(device, 2, HEADS * GROUP, DIM),
        draw(device, 2, HEADS, 50, DIM),
        draw(device, 2, HEADS, 50, DIM, seed=2),
    )
    channels = choose_channels(channel_scores(q[:, :, None], k, lengths_on(device)), DIM)
    assert torch.equal(prune(k, channels), k)
    found = decode_attention(q, prune(k, channels), channels, v, lengths_on(device))
    compare(found, q, k, v)


def test_pruning_equals_setting_the_dropped_channels_to_zero(device: torch.device):
    q, k, v = (
        draw(device, 2, HEADS * GROUP, DIM),
        draw(device, 2, HEADS, 50, DIM),
        draw(device, 2, HEADS, 50, DIM, seed=2),
    )
    channels = choose_channels(channel_scores(q[:, :, None], k, lengths_on(device)), KEEP)
    kept = torch.zeros(2, HEADS, DIM, dtype=torch.bool, device=device).scatter(2, channels.long(), True)
    found = decode_attention(q, prune(k, channels), channels, v, lengths_on(device))
    compare(found, q, k * kept[:, :, None], v)


def compare(found: dict[str, torch.Tensor], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    for b, length in enumerate(LENGTHS):
        out, lse = attention(q[b], k[b, :, :length], v[b, :, :length], DIM**-0.5)
        torch.testing.assert_close(found["out"][b], out, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["lse"][b], lse, rtol=1e-4, atol=1e-5)


def test_a_window_with_all_channels_merges_by_its_log_sum_exp(device: torch.device):
    q, k, v = draw(device, 1, HEADS, DIM), draw(device, 1, HEADS, 40, DIM), draw(device, 1, HEADS, 40, DIM, seed=2)
    sizes = torch.tensor([40], dtype=torch.int32, device=device)
    channels = choose_channels(channel_scores(q[:, :, None], k, sizes), KEEP)
    old = torch.tensor([30], dtype=torch.int32, device=device)
    far = decode_attention(q, prune(k, channels), channels, v, old)
    near = attention(q[0], k[0, :, 30:], v[0, :, 30:], DIM**-0.5)
    out, _ = merge_states(torch.stack([far["out"][0], near[0]]), torch.stack([far["lse"][0], near[1]]))
    kept = torch.zeros(HEADS, DIM, dtype=torch.bool, device=device).scatter(1, channels[0].long(), True)
    mixed = torch.cat([k[0, :, :30] * kept[:, None], k[0, :, 30:]], 1)
    torch.testing.assert_close(out, attention(q[0], mixed, v[0], DIM**-0.5)[0], rtol=1e-4, atol=1e-5)


def test_memory_is_really_saved(device: torch.device):
    shape = {"lengths": [64], "heads": 1, "group": 1, "dim": 64, "keep": 32}
    made = make_inputs(device=device, dtype=torch.float16, seed=0, **shape)
    held = sum(made[name].untyped_storage().nbytes() for name in ("k_pruned", "v"))
    assert held == 64 * (32 + 64) * 2
    assert figures(made, {}, 1.0)["memory saved"] == pytest.approx(0.25)


@pytest.mark.parametrize("keep", [0, 8, 24, 80])
def test_keeps_that_do_not_tile_are_refused(keep: int):
    with pytest.raises(ValueError, match="multiple of 16"):
        choose_channels(torch.zeros(64), keep)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lengths": torch.tensor([51, 7], dtype=torch.int32)}, "room of the cache"),
        ({"lengths": torch.tensor([50, 7])}, "int32"),
        ({"channels": torch.full((2, 2, 16), 32, dtype=torch.int32)}, "channels must lie in 0"),
        ({"channels": torch.full((2, 2, 16), -1, dtype=torch.int32)}, "channels must lie in 0"),
        ({"channels": torch.zeros(2, 2, 32, dtype=torch.int32)}, "channels must have shape"),
        ({"k_pruned": torch.zeros(2, 2, 50, 24)}, "multiple of 16"),
        ({"k_pruned": torch.zeros(2, 2, 16, 50).transpose(2, 3)}, "contiguous"),
        ({"v": torch.zeros(2, 2, 50, 64)}, "v must have shape"),
        ({"q": torch.zeros(2, 5, 32)}, "multiple of the key heads"),
        ({"q": torch.zeros(2, 6, 32).half()}, "float16|float32"),
    ],
)
def test_bad_input_is_refused_with_words(change: dict[str, Any], words: str, device: torch.device):
    shape = {"lengths": LENGTHS, "heads": HEADS, "group": GROUP, "dim": DIM, "keep": KEEP}
    good = make_inputs(device=device, dtype=torch.float32, seed=0, **shape)
    bad = {**good, **{name: value.to(device) for name, value in change.items()}}
    with pytest.raises((ValueError, TypeError), match=words):
        decode_attention(**bad)
