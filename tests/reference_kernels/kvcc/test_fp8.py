"""FP8: torch's own cast of the scaled numbers, and attention over what the codes stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.pieces import Tuning
from reference_kernels.kvcc import fp8
from reference_kernels.kvcc.fp8 import UNIT, decode_attention, make_plan, quantize
from tests.reference_kernels import ptx
from tests.reference_kernels.caches import check_close, draw_tokens, paginate, strided, truth
from tests.reference_kernels.conftest import DEVICE

E4M3 = torch.float8_e4m3fn


def draw(*shape: int, seed: int = 0, loud: float = 1.0) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * loud).to(DEVICE)


def same(codes: torch.Tensor, wanted: torch.Tensor) -> bool:
    return codes.dtype == wanted.dtype == E4M3 and torch.equal(codes.view(torch.uint8), wanted.view(torch.uint8))


@given(
    loud=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 999),
    dtype=st.sampled_from([torch.float32, torch.float16]),
)
@settings(max_examples=30, deadline=None)
def test_codes_are_torchs_cast_of_the_scaled_numbers(loud: float, seed: int, dtype: torch.dtype):
    pages = draw(3, 2, 4, 16, seed=seed, loud=loud).to(dtype)
    codes, scale = quantize(pages)
    assert scale.dtype == torch.float32
    for head in range(2):
        mine = pages[:, head].float()
        assert float(scale[head]) == pytest.approx(float(mine.abs().max()) / 448, rel=1e-6)
        assert same(codes[:, head], (mine / scale[head]).clamp(-448, 448).to(E4M3))
        if loud >= 1:
            assert float(codes[:, head].float().abs().max()) == 448, "the whole range is used"


def test_what_the_codes_stand_for_is_within_half_a_step():
    pages = draw(4, 2, 16, 64, loud=5.0)
    codes, scale = quantize(pages)
    restored = codes.double() * scale.double()[:, None, None]
    steps = torch.maximum(pages.double().abs() * 2**-4, scale.double()[:, None, None] * 2**-10)  # 3 bits, or subnormal
    assert ((restored - pages.double()).abs() <= steps * 1.0001).all()


def test_a_head_of_zeros_has_scale_1_and_a_scale_is_one_heads_alone():
    pages = draw(2, 3, 4, 16)
    pages[:, 1] = 0
    pages[:, 2] *= 1000
    codes, scale = quantize(pages)
    assert float(scale[1]) == 1.0
    assert (codes[:, 1].float() == 0).all()
    assert float(scale[2]) > 100 * float(scale[0])


def test_unused_slots_become_zeros_and_decide_no_scale():
    pages = draw(2, 1, 4, 16)
    poisoned = pages.clone()
    poisoned[1, :, 2:] = torch.nan
    pages[1, :, 2:] = 0
    assert torch.equal(quantize(poisoned)[1], quantize(pages)[1])
    assert same(quantize(poisoned)[0], quantize(pages)[0])


def test_a_given_scale_is_used_and_what_it_cannot_hold_is_clamped():
    pages = torch.tensor([1.0, 448.0, 449.0, -1e9], device=DEVICE).reshape(1, 1, 1, 4)
    codes, scale = quantize(pages, torch.tensor([0.5], device=DEVICE))
    assert codes.float().flatten().tolist() == [2.0, 448.0, 448.0, -448.0]
    assert float(scale) == 0.5


def cache(
    lengths: list[int], heads: int, group: int, dim: int, page: int = 16, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, Any], list[torch.Tensor], list[torch.Tensor]]:
    """Return arguments for `decode_attention`, and keys and values after dequantization; unused codes are NaN."""
    tokens = [draw_tokens(lengths, heads, dim, device=DEVICE, seed=i) for i in range(2)]
    scales = [(torch.arange(1, heads + 1, device=DEVICE) * factor).float() for factor in (0.013, 0.021)]
    codes = [
        [quantize(part.unsqueeze(0), scale)[0][0] for part in parts]
        for parts, scale in zip(tokens, scales, strict=True)
    ]
    pages = paginate(*[[part.float() for part in parts] for parts in codes], page)
    k, v = (
        [part.double() * scale.double()[:, None, None] for part in parts]
        for parts, scale in zip(codes, scales, strict=True)
    )
    arguments = {
        "q": draw(len(lengths), heads * group, dim, seed=9).to(dtype), "k_pages": pages[0].to(E4M3),
        "v_pages": pages[1].to(E4M3), "k_scale": scales[0], "v_scale": scales[1], "block_table": pages[2],
        "lengths": torch.tensor(lengths, dtype=torch.int32, device=DEVICE),
    }  # fmt: skip
    return arguments, k, v


@pytest.mark.parametrize(
    ("lengths", "heads", "group", "dim"),
    [([1, 15, 16, 17], 2, 1, 64), ([40, 0], 2, 4, 128), ([33], 1, 8, 32), ([20], 1, 16, 256), ([5, 70], 3, 5, 64)],
)
def test_decode_is_attention_over_what_the_codes_stand_for(lengths: list[int], heads: int, group: int, dim: int):
    arguments, k, v = cache(lengths, heads, group, dim)
    assert torch.isnan(arguments["k_pages"].float()).any(), "unused slots hold NaN codes"
    check_close(decode_attention(**arguments), truth(arguments["q"], k, v))


def test_fp16_is_within_its_rounding():
    arguments, k, v = cache([17, 40], 2, 4, 64, dtype=torch.float16)
    result = decode_attention(**arguments)
    assert result["out"].dtype == torch.float16
    check_close(result, truth(arguments["q"], k, v), 4e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_code_is_read_as_what_it_is(dtype: torch.dtype):
    every = torch.arange(256, dtype=torch.uint8, device=DEVICE)
    every[(every & 0x7F) == 0x7F] = 0  # NaN: there are none after `quantize`
    for order in (every, every.roll(1)):  # in even and in odd channels
        values = order.view(E4M3).reshape(1, 1, 1, 256)
        pages = torch.zeros(1, 1, 16, 256, device=DEVICE).to(E4M3)
        pages[:, :, :1] = values
        table = torch.zeros(1, 1, dtype=torch.int32, device=DEVICE)
        one = torch.ones(1, device=DEVICE)
        out = decode_attention(draw(1, 1, 256).to(dtype), pages, pages, one, one, table, table[0] + 1)["out"]
        assert torch.equal(out.flatten().float(), values.flatten().float())


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("page", [1, 5, 64])
def test_neither_pages_nor_pieces_change_the_result(pieces: int, page: int):
    arguments, k, v = cache([150, 3], 1, 2, 64, page)
    plan = make_plan(arguments["lengths"], 1, DEVICE, Tuning(block=32, warps=1, pieces=pieces))
    check_close(decode_attention(**arguments, plan=plan), truth(arguments["q"], k, v))


def test_nothing_gives_zeros_and_minus_infinity():
    result = decode_attention(**cache([0, 5], 1, 2, 64)[0])
    assert (result["out"][0] == 0).all()
    assert (result["lse"][0] == -torch.inf).all()


def test_the_scale_is_a_factor_on_the_scores():
    arguments, k, v = cache([30], 1, 2, 64)
    check_close(decode_attention(**arguments, scale=0.4), truth(arguments["q"], k, v, 0.4))


def test_a_cache_takes_half_of_bf16():
    pages = draw(3, 2, 16, 64)
    assert quantize(pages)[0].untyped_storage().nbytes() * 2 == pages.to(torch.bfloat16).untyped_storage().nbytes()
    inputs = UNIT.make_inputs(device=DEVICE, dtype=torch.float16, seed=0, lengths=[10, 33], heads=2, group=4, dim=64)
    assert UNIT.work(**inputs).read == 2 * 43 * 2 * 64 + 2 * 8 * 64 * 2


@pytest.mark.parametrize("name", ["q", "block_table"])
def test_strided_arguments_are_read_as_what_they_are(name: str):
    arguments, k, v = cache([100, 70], 2, 2, 64)
    result = decode_attention(**arguments | {name: strided(arguments[name])})
    check_close(result, truth(arguments["q"], k, v))


def refused(error: type[Exception], match: str, **changes: Any) -> None:
    arguments = cache([20, 40], 2, 2, 64)[0]
    with pytest.raises(error, match=match):
        decode_attention(**arguments | changes)


def codes(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, device=DEVICE).to(E4M3)


def test_what_does_not_fit_is_refused():
    refused(ValueError, "q must have shape", q=draw(2, 64))
    refused(ValueError, "k_pages must have shape", k_pages=codes(7, 2, 16, 32))
    refused(ValueError, "v_pages must have shape", v_pages=codes(7, 2, 8, 64))
    refused(TypeError, "pages must be float8_e4m3fn, not torch.float32", k_pages=draw(7, 2, 16, 64))
    refused(TypeError, "pages must be float8_e4m3fn", v_pages=draw(7, 2, 16, 64).to(torch.float8_e5m2))
    refused(ValueError, "must be a multiple of the key heads", q=draw(2, 3, 64))
    refused(ValueError, "groups at most 16 heads, not 17", q=draw(2, 34, 64))
    refused(ValueError, r"k_scale must have shape \[2\]", k_scale=draw(1))
    refused(ValueError, r"v_scale must have shape \[2\]", v_scale=draw(3))
    ints = torch.zeros(2, 3, dtype=torch.int32, device=DEVICE)
    refused(ValueError, r"lengths must have shape \[2\]", lengths=ints)
    refused(TypeError, "block_table must be int32", block_table=ints.long())
    refused(ValueError, "outside of the pool of 7 pages", block_table=ints + 7)
    refused(ValueError, "needs 4 pages", lengths=ints[:, 0] + 49)


@pytest.mark.parametrize(("dim", "match"), [(48, "power of two"), (16, "at least 32 numbers, not 16")])
def test_head_sizes_that_do_not_tile_are_refused(dim: int, match: str):
    refused(ValueError, match, q=draw(2, 4, dim), k_pages=codes(7, 2, 16, dim), v_pages=codes(7, 2, 16, dim))


@pytest.mark.parametrize("odd", [False, True])
def test_the_gpus_instructions_restore_every_code(odd: bool, monkeypatch: pytest.MonkeyPatch):
    """For all 65536 words in either half of a register: the e4m3 of the odd (high) or even (low) byte, over 256."""
    caught: list[Any] = []
    monkeypatch.setattr(tl, "inline_asm_elementwise", lambda *args, **kwargs: caught.append((args, kwargs)))
    fp8._codes.fn("words", odd, tl.float16, True)
    ((text, constraints, inputs), options) = caught[0]
    assert (constraints, inputs) == ("=r,r", ["words"])
    assert (options["dtype"], options["pack"]) == (tl.float16, 2)

    words = np.arange(1 << 16, dtype=np.uint32)
    other = np.random.default_rng(0).permutation(words)
    found = ptx.halves(ptx.run(text, ptx.packed(words, other)))
    for half, mine in enumerate((words, other)):
        byte = (mine >> 8 if odd else mine & 255).astype(np.uint8)
        wanted = torch.from_numpy(byte).view(E4M3).double().numpy()
        there = ~np.isnan(wanted)
        assert there.sum() == 254 * 256
        assert np.array_equal(found[there, half].astype(np.float64) * 256, wanted[there])
        signs = np.signbit(found[there, half])
        assert np.array_equal(signs, byte[there] > 127), "zero keeps its sign"


@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_infinite_numbers_are_refused(value: float):
    pages = torch.ones(1, 2, 4, 32)
    pages[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match="must be finite"):
        quantize(pages)


def test_a_head_of_vanishing_numbers_counts_as_zeros():
    codes, scale = quantize(torch.full((1, 1, 4, 32), 1e-44))
    assert not codes.float().any()
    assert scale.tolist() == [1.0]
