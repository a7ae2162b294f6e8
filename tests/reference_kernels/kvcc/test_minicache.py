from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.lse import attention
from reference_kernels.core.pieces import Tuning, plan_rows
from reference_kernels.core.unit import Outputs
from reference_kernels.kvcc.minicache import adjacent_similarity, decode_attention, merge_layers, nbytes, restore
from tests.reference_kernels.conftest import DEVICE

LENGTHS, HEADS, DIM = [40, 9], 2, 32
SHAPE = (2, HEADS, 40, DIM)


def draw(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return [torch.randn(*shape, generator=generator, device=DEVICE) for _ in range(count)]


def lengths() -> torch.Tensor:
    return torch.tensor(LENGTHS, dtype=torch.int32, device=DEVICE)


def live(x: torch.Tensor) -> torch.Tensor:
    """Return the cached tokens of [B, H, T, ...], one after another."""
    return torch.cat([x[b, :, :length].flatten(0, 1) for b, length in enumerate(LENGTHS)])


def assert_restores(merged: Outputs, layer: int, k: torch.Tensor, v: torch.Tensor, **tolerance: float) -> None:
    for found, wanted in zip(restore(**merged, layer=layer), (k, v), strict=True):
        torch.testing.assert_close(live(found), live(wanted), **tolerance)


@pytest.mark.parametrize("factor", [1.0, 0.25, 3.0])
def test_layers_that_differ_in_norm_only_merge_without_loss(factor: float):
    k, v = draw(2)
    merged = merge_layers(k, v, factor * k, factor * v, lengths(), threshold=0.01)
    assert len(merged["kept_k"]) == 0
    assert_restores(merged, 0, k, v, rtol=1e-5, atol=1e-6)
    assert_restores(merged, 1, factor * k, factor * v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1])
def test_t_of_0_or_1_keeps_that_layer(layer: int):
    pair = draw(4)
    merged = merge_layers(*pair, lengths(), threshold=1.0, t=float(layer))
    assert_restores(merged, layer, *pair[2 * layer : 2 * layer + 2], rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.floats(0.01, math.pi - 0.02))
def test_direction_lies_at_t_of_the_way_on_the_arc(t: float, angle: float):
    a, other = draw(2, (1, 1, 3, 16), seed=1)
    a = torch.nn.functional.normalize(a, dim=-1)
    side = torch.nn.functional.normalize(other - (other * a).sum(-1, keepdim=True) * a, dim=-1)
    b = 2 * (math.cos(angle) * a + math.sin(angle) * side)
    size = torch.tensor([3], dtype=torch.int32, device=DEVICE)
    merged = merge_layers(a, a.clone(), b, b.clone(), size, threshold=1.0, t=t)
    wanted = math.cos(t * angle) * a + math.sin(t * angle) * side
    torch.testing.assert_close(merged["k"], wanted, rtol=0, atol=2e-4 if angle > 3 else 1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.48, 0.5, 1.0])
def test_tokens_farther_than_the_threshold_are_kept_exactly_and_no_others(threshold: float):
    k_a, v_a, k_b, v_b = draw(4)
    merged = merge_layers(k_a, v_a, k_b, v_b, lengths(), threshold=threshold)
    angles = [torch.arccos(adjacent_similarity(a.double(), b.double())) / math.pi for a, b in ((k_a, k_b), (v_a, v_b))]
    far = torch.maximum(*angles) > threshold
    for b, length in enumerate(LENGTHS):
        far[b, :, length:] = False
    kept = torch.zeros_like(far)
    rows = torch.arange(2 * HEADS, device=DEVICE).repeat_interleave(merged["kept_start"].diff())
    kept.flatten(0, 1)[rows, merged["kept_at"].long()] = True
    assert torch.equal(kept, far)
    for layer, (k, v) in enumerate(((k_a, v_a), (k_b, v_b))):
        for found, wanted in zip(restore(**merged, layer=layer), (k, v), strict=True):
            assert torch.equal(found[far], wanted[far])
    assert bool(far.any()) == (threshold < 1)


@pytest.mark.parametrize("layer", [0, 1])
def test_threshold_of_0_is_dense_attention(layer: int):
    pair = draw(4)
    (q,) = draw(1, (2, HEADS * 2, DIM), seed=5)
    merged = merge_layers(*pair, lengths(), threshold=0.0)
    found = decode_attention(q, **merged, lengths=lengths(), layer=layer)
    for b, length in enumerate(LENGTHS):
        k, v = (x[b, :, :length] for x in pair[2 * layer : 2 * layer + 2])
        out, lse = attention(q[b], k, v, DIM**-0.5)
        torch.testing.assert_close(found["out"][b], out, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["lse"][b], lse, rtol=1e-4, atol=1e-5)


def test_pieces_in_which_every_token_is_kept_apart_count_for_nothing():
    shape = (1, 1, 256, 32)
    pair = draw(4, shape)
    (q,) = draw(1, (1, 1, 32), seed=5)
    size = torch.tensor([256], dtype=torch.int32, device=DEVICE)
    merged = merge_layers(*pair, size, threshold=0.0)
    plan = plan_rows(torch.tensor([512]), Tuning(block=16, pieces=16), DEVICE)
    found = decode_attention(q, **merged, lengths=size, layer=1, plan=plan)
    torch.testing.assert_close(found["out"][0], attention(q[0], pair[2][0], pair[3][0], 32**-0.5)[0])


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_opposite_and_zero_vectors_give_numbers(t: float):
    k, v = draw(2)
    b_k, b_v = -k, -2 * v
    b_k[:, :, ::3] = 0
    k[:, :, ::6] = 0
    merged = merge_layers(k, v, b_k, b_v, lengths(), threshold=1.0, t=t)
    for layer in (0, 1):
        for x in restore(**merged, layer=layer):
            assert live(x).isfinite().all()
        (q,) = draw(1, (2, HEADS, DIM), seed=5)
        assert decode_attention(q, **merged, lengths=lengths(), layer=layer)["out"].isfinite().all()
    nearer = (v, b_v)[round(t + 1e-9)]
    assert_restores(merged, round(t + 1e-9), restore(**merged, layer=round(t + 1e-9))[0], nearer, rtol=1e-4, atol=1e-5)


def test_memory_is_that_of_one_layer_two_norms_and_the_list():
    half = [x.half() for x in draw(4)]
    merged = merge_layers(*half, lengths(), threshold=0.5)
    count = len(merged["kept_k"])
    assert 0 < count < sum(LENGTHS) * HEADS
    tokens = 2 * HEADS * 40
    assert nbytes(merged) == 2 * tokens * (DIM * 2 + 2 * 4) + count * (2 * DIM * 2 + 4) + 4 * (2 * HEADS + 1)
    all_merged = merge_layers(*half, lengths(), threshold=1.0)
    assert nbytes(all_merged) < 0.65 * 4 * tokens * DIM * 2  # heads of 32: norms weigh more than in the card


def test_similarity_tells_layers_that_fit_from_layers_that_do_not():
    a, b = draw(2, (1, 2, 50, 64))
    torch.testing.assert_close(adjacent_similarity(a, 3 * a), torch.ones(1, 2, 50, device=DEVICE))
    assert abs(float(adjacent_similarity(a, b).mean())) < 0.05


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 1.5}, "threshold must lie"),
        ({"threshold": 0.5, "t": -0.1}, "t and threshold"),
        ({"threshold": float("nan")}, "threshold must lie"),
        ({"threshold": 0.5, "v_b": torch.zeros(2, 2, 39, 32)}, "v_b must have shape"),
        ({"threshold": 0.5, "k_b": torch.zeros(SHAPE).half()}, "float16"),
        ({"threshold": 0.5, "k_b": torch.zeros(2, 2, 32, 40).transpose(2, 3)}, "contiguous"),
        ({"threshold": 0.5, "lengths": torch.tensor([41, 0], dtype=torch.int32)}, "room of the cache"),
    ],
)
def test_layers_that_do_not_fit_are_refused(change: dict[str, Any], words: str):
    good = dict(zip(("k_a", "v_a", "k_b", "v_b"), draw(4), strict=True), lengths=lengths())
    moved = {name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for name, value in change.items()}
    with pytest.raises((ValueError, TypeError), match=words):
        merge_layers(**{**good, **moved})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer": 2}, "layer must be 0 or 1"),
        ({"q": torch.zeros(2, 3, 32)}, "multiple of the key heads"),
        ({"k_norms": torch.zeros(1, 2, 2, 40)}, "k_norms must have shape"),
        ({"kept_start": torch.zeros(4, dtype=torch.int32)}, "kept_start must have shape"),
        ({"lengths": torch.tensor([41, 0], dtype=torch.int32)}, "room of the cache"),
    ],
)
def test_bad_input_is_refused_with_words(change: dict[str, Any], words: str):
    merged = merge_layers(*draw(4), lengths(), threshold=0.5)
    good = {"q": draw(1, (2, 2, 32))[0], **merged, "lengths": lengths(), "layer": 1}
    moved = {name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for name, value in change.items()}
    with pytest.raises((ValueError, TypeError), match=words):
        decode_attention(**{**good, **moved})
