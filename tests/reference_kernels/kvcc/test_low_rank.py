from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.lse import attention
from reference_kernels.core.pieces import Tuning, plan_rows
from reference_kernels.kvcc.low_rank import (
    decode_attention,
    decompose,
    heads_of,
    make_inputs,
    reference,
    rope_table,
    rotate,
    tuning_for,
)

SMALL = {"lengths": [70, 9], "heads": 4, "group": 2, "dim": 32, "share": 2, "k_rank": 32}


def inputs(device: torch.device, **changes: Any) -> dict[str, Any]:
    return make_inputs(device=device, dtype=torch.float32, seed=3, **{**SMALL, **changes})


def test_full_rank_is_dense_attention_in_fp64():
    generator = torch.Generator().manual_seed(0)
    heads, share, dim, tokens = 4, 2, 16, 37
    k, v = (torch.randn(heads, tokens, dim, dtype=torch.float64, generator=generator) for _ in range(2))
    q = torch.randn(1, heads * 2, dim, dtype=torch.float64, generator=generator)
    cos, sin = (table.double() for table in rope_table(tokens, dim))
    latents, ups = zip(*(factors(x, share) for x in (k, v)), strict=True)
    found = reference(q, latents[0], latents[1], ups[0], ups[1], torch.tensor([tokens]), cos, sin)
    out, lse = attention(q[0], rotate(k, cos, sin), v, dim**-0.5)
    torch.testing.assert_close(found["out"][0], out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found["lse"][0], lse, rtol=1e-12, atol=1e-12)


def factors(x: torch.Tensor, share: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor [H, T, D] at full rank, group by group, into latents [1, N, T, R] and U [H, R, D]."""
    pairs = [
        decompose(group.transpose(0, 1).flatten(1), min(x.shape[1], share * x.shape[2])) for group in x.split(share)
    ]
    return torch.stack([down for down, _ in pairs])[None], torch.cat([heads_of(up, share) for _, up in pairs])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_error_of_a_rank_is_the_discarded_singular_values(rows: int, columns: int, data: st.DataObject):
    rank = data.draw(st.integers(1, min(rows, columns)))
    matrix = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(rows + columns))
    down, up = decompose(matrix, rank)
    discarded = torch.linalg.svdvals(matrix)[rank:]
    torch.testing.assert_close((matrix - down @ up).square().sum(), discarded.square().sum(), rtol=1e-9, atol=1e-18)
    assert (down.shape, up.shape) == ((rows, rank), (rank, columns))


def test_whitening_minimizes_the_error_of_what_is_cached():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 24, dtype=torch.float64, generator=generator) * torch.linspace(0.1, 5, 24)
    weight = torch.randn(24, 32, dtype=torch.float64, generator=generator)

    def error(whitening: torch.Tensor | None) -> float:
        down, up = decompose(weight, 8, whitening)
        return float((x @ weight - x @ down @ up).square().sum())

    best = float(torch.linalg.svdvals(x @ weight)[8:].square().sum())  # no factors of rank 8 can do better
    assert error(x.T @ x) == pytest.approx(best, rel=1e-9)
    assert error(None) > 1.05 * best


def test_heads_of_takes_the_columns_of_each_head():
    up = torch.arange(2 * 6).reshape(2, 6)
    assert heads_of(up, 3)[1].tolist() == [[2, 3], [8, 9]]


def test_rotation_is_multiplication_by_a_unit_complex_number():
    x = torch.randn(3, 11, 16, dtype=torch.float64)
    cos, sin = (table.double() for table in rope_table(11, 16))
    turned = torch.complex(*x.chunk(2, -1)) * torch.complex(cos, sin)
    torch.testing.assert_close(rotate(x, cos, sin), torch.cat([turned.real, turned.imag], -1))
    angle = 7 * 10_000.0 ** (-2 * 3 / 16)
    assert float(cos[7, 3]) == pytest.approx(torch.tensor(angle).cos().item(), abs=1e-6)


def test_absorbing_the_query_equals_rebuilding_keys_that_are_not_rotated(device: torch.device):
    given_ = inputs(device)
    still = {**given_, "cos": torch.ones_like(given_["cos"]), "sin": torch.zeros_like(given_["sin"])}
    absorbed = {name: value for name, value in given_.items() if name not in ("cos", "sin")}
    for name, found in decode_attention(**absorbed).items():
        torch.testing.assert_close(found, decode_attention(**still)[name], rtol=1e-5, atol=1e-5)


def test_absorbing_is_wrong_where_keys_rotate(device: torch.device):
    given_ = inputs(device)
    absorbed = {name: value for name, value in given_.items() if name not in ("cos", "sin")}
    difference = decode_attention(**given_)["lse"] - decode_attention(**absorbed)["lse"]
    assert float(difference.abs().max()) > 1e-2


def test_up_projection_of_values_may_be_left_to_the_output_projection(device: torch.device):
    given_ = inputs(device, k_rank=32, v_rank=48)
    mean = decode_attention(**{**given_, "u_v": None})["out"]
    assert mean.shape == (2, 8, 48)
    projected = torch.einsum("bhgr,hrd->bhgd", mean.unflatten(1, (4, 2)), given_["u_v"]).flatten(1, 2)
    torch.testing.assert_close(projected, decode_attention(**given_)["out"], rtol=1e-5, atol=1e-5)


def test_a_table_in_fp32_serves_halves_too(device: torch.device):
    given_ = make_inputs(device=device, dtype=torch.float16, seed=3, **SMALL)
    wide = {**given_, "cos": given_["cos"].float(), "sin": given_["sin"].float()}
    torch.testing.assert_close(decode_attention(**given_)["out"], decode_attention(**wide)["out"])


@pytest.mark.parametrize("pieces", [1, 16])
def test_pieces_do_not_change_the_result(pieces: int, device: torch.device):
    given_ = inputs(device, lengths=[200])
    rows = given_["lengths"].repeat_interleave(2)
    plan = plan_rows(rows, Tuning(block=16, pieces=pieces, stages=1), device)
    found, wanted = decode_attention(**given_, plan=plan), reference(**given_)
    torch.testing.assert_close(found["out"], wanted["out"], rtol=1e-4, atol=1e-5)


def test_tiles_fit_in_shared_memory_or_are_refused():
    q = torch.empty(1, 32, 128, dtype=torch.bfloat16)
    for rank in (16, 80, 128, 256, 512):
        tuning = tuning_for(q, rank, rank, True)
        wide = 1 << (rank - 1).bit_length()
        assert (tuning.stages * wide * 128 + tuning.block * wide) * 2 <= 200 << 10
        assert tuning_for(q, rank, rank, False).block >= 16
    with pytest.raises(ValueError, match="smaller groups"):
        tuning_for(q, 1024, 128, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lengths": torch.tensor([71, 9], dtype=torch.int32)}, "room of the cache"),
        ({"lengths": torch.tensor([-1, 9], dtype=torch.int32)}, "room of the cache"),
        ({"lengths": torch.tensor([70, 9])}, "int32"),
        ({"sin": None}, "together"),
        ({"cos": torch.zeros(69, 16), "sin": torch.zeros(69, 16)}, "70 rows"),
        ({"cos": torch.zeros(70, 16).half(), "sin": torch.zeros(70, 16).half()}, "fp32"),
        ({"u_k": torch.zeros(4, 16, 32)}, "u_k must have shape"),
        ({"u_v": torch.zeros(2, 32, 32)}, "u_v must have shape"),
        ({"u_k": torch.zeros(3, 32, 32)}, "multiple of the key heads"),
        ({"u_k": torch.zeros(8, 32, 32).half()}, "float16"),
        ({"v_latent": torch.zeros(2, 2, 70, 24)}, "multiple of 16"),
        ({"k_latent": torch.zeros(2, 2, 32, 70).transpose(2, 3)}, "contiguous"),
        ({"k_latent": torch.zeros(2, 3, 70, 32), "v_latent": torch.zeros(2, 3, 70, 32)}, "groups of equal size"),
    ],
)
def test_bad_input_is_refused_with_words(change: dict[str, Any], words: str, device: torch.device):
    moved = {name: value.to(device) if value is not None else None for name, value in change.items()}
    bad = {**inputs(device), **moved}
    if "u_v" not in change:
        bad["u_v"] = None
    with pytest.raises((ValueError, TypeError), match=words):
        decode_attention(**bad)


@pytest.mark.parametrize("rank", [0, 5])
def test_impossible_ranks_are_refused(rank: int):
    with pytest.raises(ValueError, match="rank must lie"):
        decompose(torch.zeros(4, 7), rank)
