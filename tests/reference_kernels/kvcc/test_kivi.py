"""KIVI: codes that another quantizer gives too, restored within half a step, and decoded as they are restored."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.pieces import Tuning
from reference_kernels.kvcc import kivi
from reference_kernels.kvcc.kivi import (
    GROUP,
    LARGEST,
    UNIT,
    Quantized,
    decode_attention,
    dequantize_keys,
    dequantize_values,
    make_plan,
    quantize_keys,
    quantize_values,
    unpack,
    words_per_token,
)
from tests.reference_kernels import ptx
from tests.reference_kernels.caches import check_close, draw_tokens, strided, truth
from tests.reference_kernels.conftest import DEVICE

BITS = [2, 3, 4]
DIMS = [64, 128, 256]
QUANTIZE = {"keys": quantize_keys, "values": quantize_values}
DEQUANTIZE = {"keys": dequantize_keys, "values": dequantize_values}
BOTH = pytest.mark.parametrize("which", ["keys", "values"])


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def draw(*shape: int, seed: int = 0, loud: float = 1.0) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * loud).to(DEVICE)


def oracle(tensor: torch.Tensor, bits: int, which: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantize one group after the other: codes [B, H, T, D], and scale and zero of each number, in fp64."""
    codes, scales, zeros = (torch.zeros(tensor.shape, dtype=torch.float64) for _ in range(3))
    tokens, dim = tensor.shape[2:]
    for start in range(0, tokens if which == "keys" else dim, GROUP):
        part = slice(start, start + GROUP)
        place = (..., part, slice(None)) if which == "keys" else (..., part)
        group = tensor[place].float().cpu()
        axis = 2 if which == "keys" else 3
        low, high = group.min(axis, keepdim=True).values, group.max(axis, keepdim=True).values
        zero = low.half().float()
        scale = ((high - zero).double() / (2**bits - 1)).half().float()
        steps = torch.nan_to_num((group - zero) / scale, nan=0.0, posinf=0.0, neginf=0.0)  # a constant group
        even = torch.from_numpy(np.rint(steps.numpy()))  # numpy rounds half to even
        codes[place] = even.clamp(0, 2**bits - 1).double()
        scales[place] = scale.double().expand(group.shape)
        zeros[place] = zero.double().expand(group.shape)
    return codes, scales, zeros


@BOTH
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", DIMS)
def test_codes_are_those_of_another_quantizer(which: str, bits: int, dim: int):
    tensor = draw(2, 2, 64, dim, loud=3.0)
    quantized = QUANTIZE[which](tensor, bits)
    codes, scale, zero = oracle(tensor, bits, which)
    assert torch.equal(unpack(quantized).cpu().double(), codes)
    assert torch.equal(DEQUANTIZE[which](quantized, torch.float64).cpu(), codes * scale + zero)


@BOTH
@pytest.mark.parametrize("bits", BITS)
def test_halves_are_rounded_to_even(which: str, bits: int):
    top = 2**bits - 1
    steps = torch.tensor([0.0, 0.5, 1.5, 2.5, top - 0.5, top], device=DEVICE).repeat(6)[:GROUP]  # scale 1, zero 0
    tensor = steps[:, None].repeat(1, 64) if which == "keys" else steps.repeat(GROUP, 2)
    codes = unpack(QUANTIZE[which](tensor[None, None].contiguous(), bits))
    wanted = [0, 0, 2, 2, round(top - 0.5), top]
    mine = codes[0, 0, :6, 0] if which == "keys" else codes[0, 0, 0, :6]
    assert mine.tolist() == wanted


@BOTH
@given(
    bits=st.sampled_from(BITS), loud=st.sampled_from([1e-3, 1.0, 50.0, 500.0]),
    shift=st.sampled_from([0.0, 3.0, -400.0]), seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_no_number_is_off_by_more_than_half_a_step(which: str, bits: int, loud: float, shift: float, seed: int):
    tensor = draw(1, 1, 32, 64, seed=seed, loud=loud) + shift
    quantized = QUANTIZE[which](tensor, bits)
    _, scale, zero = oracle(tensor, bits, which)
    error = (DEQUANTIZE[which](quantized, torch.float64).cpu() - tensor.double().cpu()).abs()
    # the scale is rounded to fp16 (11 bits), so the highest code may lie a little below the maximum; so may the zero
    slack = (2**bits - 1) * scale * 2**-11 + (2**bits - 1) * 2**-25 + zero.abs() * 2**-11
    assert (error <= scale / 2 + slack).all()


@BOTH
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -3.5, LARGEST, -LARGEST, 2.0**-24])
def test_a_constant_group_is_restored_exactly(which: str, bits: int, value: float):
    tensor = draw(1, 2, 64, 64)
    if which == "keys":
        tensor[0, 1, 32:, 5] = value
        place = (0, 1, slice(32, 64), 5)
    else:
        tensor[0, 1, 7, 32:] = value
        place = (0, 1, 7, slice(32, 64))
    for dtype in (torch.float64, torch.float32, torch.float16):
        restored = DEQUANTIZE[which](QUANTIZE[which](tensor, bits), dtype)
        assert (restored[place] == value).all()
        assert torch.isfinite(restored).all()


@BOTH
@pytest.mark.parametrize("bits", BITS)
def test_the_largest_numbers_are_kept_and_larger_ones_refused(which: str, bits: int):
    tensor = draw(1, 1, 32, 64)
    tensor[0, 0, 3, 4] = LARGEST
    restored = DEQUANTIZE[which](QUANTIZE[which](tensor, bits), torch.float64)
    assert torch.isfinite(restored).all()
    assert abs(float(restored[0, 0, 3, 4]) / LARGEST - 1) < 2**-10
    for value in (LARGEST + 1.0, -LARGEST - 1.0, 1e30, torch.inf, -torch.inf):
        tensor[0, 0, 3, 4] = value
        with pytest.raises(ValueError, match=f"at most {LARGEST}"):
            QUANTIZE[which](tensor, bits)


@BOTH
@pytest.mark.parametrize("bits", BITS)
def test_the_widest_group_is_finite(which: str, bits: int):
    tensor = draw(1, 1, 32, 64)
    tensor[0, 0, :, 0], tensor[0, 0, 0, :] = -LARGEST, -LARGEST
    tensor[0, 0, 1, 0] = LARGEST
    quantized = QUANTIZE[which](tensor, bits)
    assert torch.isfinite(DEQUANTIZE[which](quantized, torch.float64)).all()
    scale, zero = quantized.params.float().unbind(-2)
    assert torch.isfinite((zero - 16 * scale).half()).all()  # what the kernel adds instead of the zero


@BOTH
def test_nan_is_refused(which: str):
    tensor = draw(1, 1, 32, 64)
    tensor[0, 0, 3, 4] = torch.nan
    with pytest.raises(ValueError, match=f"at most {LARGEST}"):
        QUANTIZE[which](tensor, 4)


@given(bits=st.sampled_from(BITS), dim=st.sampled_from(DIMS), seed=st.integers(0, 9999))
@settings(max_examples=40, deadline=None)
def test_packing_round_trips(bits: int, dim: int, seed: int):
    codes = torch.randint(0, 2**bits, (1, 2, 32, dim), generator=torch.Generator().manual_seed(seed))
    codes[0, :, 0], codes[0, :, 1] = 0, 2**bits - 1  # scale 1 and zero 0 in every channel
    restored = unpack(quantize_keys(codes.float().to(DEVICE), bits))
    assert torch.equal(restored.cpu(), codes.int())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", [64, 128])
def test_channels_lie_where_the_layout_says(bits: int, dim: int):
    """Word w holds channel j W + w in its bits b j ..., of 2 and 4 bits rotated; words share one of `high`."""
    width, words = 4 if bits == 4 else 2, words_per_token(dim, bits)
    for channel in (0, 1, words - 1, words, 2 * words + 3, dim - 1):
        codes = torch.zeros(1, 1, 32, dim, device=DEVICE)
        codes[0, 0, 1] = 2**bits - 1  # so that the scale is 1
        codes[0, 0, 2, channel] = 2**bits - 1
        quantized = quantize_keys(codes, bits)
        j, w = divmod(channel, words)
        wanted = torch.zeros(words, dtype=torch.int32)
        code = (2**width - 1) << (width * j + (0 if bits == 3 else 2))
        wanted[w] = code & 0xFFFF | code >> 16
        assert torch.equal(quantized.codes[0, 0, 2].int().cpu() & 0xFFFF, wanted)
        assert (quantized.high is not None) == (bits == 3)
        if quantized.high is not None:
            shared = torch.zeros(words // 2, dtype=torch.int32)
            shared[w % (words // 2)] = 1 << (2 * (j % 4) + j // 4 + 8 * (w // (words // 2)))
            assert torch.equal(quantized.high[0, 0, 2].int().cpu() & 0xFFFF, shared)


@BOTH
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", DIMS)
def test_memory_is_b_plus_one_sixteenths_of_bf16(which: str, bits: int, dim: int):
    tensor = draw(2, 3, 64, dim)
    quantized = QUANTIZE[which](tensor, bits)
    dense = tensor.numel() * 2
    assert quantized.nbytes * 16 == dense * (bits + 1)
    parts = [part for part in (quantized.codes, quantized.high, quantized.params) if part is not None]
    assert quantized.nbytes == sum(part.untyped_storage().nbytes() for part in parts)


def test_figures_say_bits_per_number():
    for bits in BITS:
        inputs = UNIT.make_inputs(
            device=DEVICE, dtype=torch.float32, seed=0, quantized=[32], tail=[1], heads=1, group=1, dim=64, bits=bits
        )
        assert UNIT.figures(inputs, {}, 1.0) == {"bits per number": bits + 1}


def case(
    quantized: list[int],
    tail: list[int],
    heads: int,
    group: int,
    dim: int,
    bits: int,
    dtype: torch.dtype = torch.float32,
    room: int = 0,
) -> tuple[dict[str, Any], list[torch.Tensor], list[torch.Tensor]]:
    """Return arguments for `decode_attention`, and the keys and values of each request after dequantization."""
    capacity, window = max(quantized) + room, max(*tail, 1)
    keys = quantize_keys(draw(len(quantized), heads, capacity, dim, seed=1, loud=2.0), bits)
    values = quantize_values(draw(len(quantized), heads, capacity, dim, seed=2), bits)
    nothing = draw(len(quantized), heads, 0, dim).double()
    restored = [
        f(x, torch.float64) if capacity else nothing for f, x in ((dequantize_keys, keys), (dequantize_values, values))
    ]
    tails, wanted = [], []
    for i, dense in enumerate(restored):
        newest = torch.full((len(tail), heads, window, dim), torch.nan, dtype=dtype, device=DEVICE)
        for b, tokens in enumerate(draw_tokens(tail, heads, dim, device=DEVICE, dtype=dtype, seed=i + 5)):
            newest[b, :, : tail[b]] = tokens
        tails.append(newest)
        wanted.append(
            [
                torch.cat([dense[b, :, :n], newest[b, :, :m]], 1)
                for b, (n, m) in enumerate(zip(quantized, tail, strict=True))
            ]
        )
    arguments = {
        "q": draw(len(quantized), heads * group, dim, seed=3).to(dtype), "keys": keys, "values": values,
        "quantized": ints(*quantized), "k_tail": tails[0], "v_tail": tails[1], "tail": ints(*tail),
    }  # fmt: skip
    return arguments, *wanted


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("heads", "group", "dim"), [(2, 4, 64), (1, 1, 128)])
def test_decode_is_attention_over_what_the_codes_stand_for(bits: int, heads: int, group: int, dim: int):
    arguments, k, v = case([64, 0, 32], [5, 17, 0], heads, group, dim, bits)
    check_close(decode_attention(**arguments), truth(arguments["q"], k, v), 2e-5)


@pytest.mark.parametrize(("bits", "group", "dim"), [(2, 8, 128), (3, 12, 64), (4, 16, 256), (2, 3, 256)])
def test_wide_groups_and_heads_too(bits: int, group: int, dim: int):
    arguments, k, v = case([32], [33], 1, group, dim, bits)
    check_close(decode_attention(**arguments), truth(arguments["q"], k, v), 2e-5)


@pytest.mark.parametrize("bits", BITS)
def test_fp16_is_within_its_rounding(bits: int):
    arguments, k, v = case([64], [9], 1, 4, 64, bits, torch.float16)
    result = decode_attention(**arguments)
    assert result["out"].dtype == torch.float16
    check_close(result, truth(arguments["q"], k, v), 2e-2)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("room", [0, 32])
def test_only_a_tail(bits: int, room: int):
    arguments, k, v = case([0, 0], [1, 40], 2, 2, 64, bits, room=room)
    assert arguments["keys"].codes.shape[2] == room
    check_close(decode_attention(**arguments), truth(arguments["q"], k, v), 2e-5)


@BOTH
@pytest.mark.parametrize("bits", BITS)
def test_no_tokens_are_restored_as_none(which: str, bits: int):
    assert DEQUANTIZE[which](QUANTIZE[which](draw(1, 2, 0, 64), bits)).shape == (1, 2, 0, 64)


@pytest.mark.parametrize("bits", BITS)
def test_only_quantized_tokens(bits: int):
    arguments, k, v = case([96, 32], [0, 0], 1, 2, 64, bits)
    check_close(decode_attention(**arguments), truth(arguments["q"], k, v), 2e-5)


def test_nothing_gives_zeros_and_minus_infinity():
    result = decode_attention(**case([32, 0], [1, 0], 1, 2, 64, 4)[0])
    assert (result["out"][1] == 0).all()
    assert (result["lse"][1] == -torch.inf).all()
    assert torch.isfinite(result["lse"][0]).all()


@pytest.mark.parametrize("bits", BITS)
def test_tokens_past_the_counts_are_not_read(bits: int):
    arguments, k, v = case([96, 32, 64], [3, 8, 0], 1, 2, 64, bits)
    for part in (arguments["keys"], arguments["values"]):
        part.params[1, :, 1:] = torch.nan
    check_close(decode_attention(**arguments), truth(arguments["q"], k, v), 2e-5)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("block", [GROUP, 2 * GROUP])
def test_the_cut_does_not_change_the_result(bits: int, pieces: int, block: int):
    arguments, k, v = case([160, 32], [5, 0], 1, 2, 64, bits)
    layout = dataclasses.replace(kivi.TUNINGS[bits], block=block, pieces=pieces)
    plan = make_plan(arguments["quantized"], 1, bits, DEVICE, layout)
    check_close(decode_attention(**arguments, plan=plan), truth(arguments["q"], k, v), 2e-5)


def test_a_refilled_plan_serves_the_next_step():
    arguments, k, v = case([96, 0], [5, 2], 2, 2, 64, 4)
    layout = Tuning(block=GROUP, warps=1, pieces=2)
    plan = make_plan(ints(32, 64), 2, 4, DEVICE, layout)
    fresh = make_plan(arguments["quantized"], 2, 4, DEVICE, layout)
    plan.items = torch.cat([plan.items, plan.items.new_full((20, 4), -1)])
    plan.refill(arguments["quantized"].repeat_interleave(2))
    result, wanted = decode_attention(**arguments, plan=plan), decode_attention(**arguments, plan=fresh)
    assert all(torch.equal(result[name], wanted[name]) for name in wanted)
    check_close(result, truth(arguments["q"], k, v), 2e-5)


def test_the_scale_is_a_factor_on_the_scores():
    arguments, k, v = case([32], [5], 1, 2, 64, 4)
    check_close(decode_attention(**arguments, scale=0.3), truth(arguments["q"], k, v, 0.3), 2e-5)


def test_more_bits_are_closer_to_the_original():
    tensor = draw(1, 2, 64, 64)
    errors = [float((dequantize_keys(quantize_keys(tensor, bits)) - tensor).square().mean()) for bits in BITS]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


@pytest.mark.parametrize("name", ["q", "k_tail", "v_tail"])
def test_strided_arguments_are_read_as_what_they_are(name: str):
    arguments, k, v = case([64, 64], [5, 40], 2, 2, 64, 4)
    result = decode_attention(**arguments | {name: strided(arguments[name])})
    check_close(result, truth(arguments["q"], k, v), 2e-5)


@pytest.mark.parametrize("bits", [0, 1, 5, 8])
def test_other_bits_are_refused(bits: int):
    for quantize in QUANTIZE.values():
        with pytest.raises(ValueError, match=f"KIVI has 2, 3 or 4 bits, not {bits}"):
            quantize(draw(1, 1, 32, 64), bits)


@BOTH
def test_what_cannot_be_quantized_is_refused(which: str):
    quantize = QUANTIZE[which]
    for tokens in (1, 31, 33):
        with pytest.raises(ValueError, match=f"only whole groups of 32 tokens can be quantized, not {tokens} tokens"):
            quantize(draw(1, 1, tokens, 64), 4)
    for dim in (96, 32):
        with pytest.raises(ValueError, match="head size must be"):
            quantize(draw(1, 1, 32, dim), 4)
    with pytest.raises(ValueError, match=r"must have shape \[any, any, any, any\]"):
        quantize(draw(1, 32, 64), 4)
    with pytest.raises(TypeError, match="must be floating-point"):
        quantize(torch.zeros(1, 1, 32, 64, dtype=torch.int32), 4)


def refused(error: type[Exception], match: str, **changes: Any) -> None:
    arguments = case([64, 32], [3, 5], 2, 2, 64, 4)[0]
    with pytest.raises(error, match=match):
        decode_attention(**arguments | changes)


def other(bits: int = 4, batch: int = 2, heads: int = 2, tokens: int = 64, dim: int = 64) -> Quantized:
    return quantize_keys(draw(batch, heads, tokens, dim), bits)


def test_caches_that_do_not_fit_are_refused():
    refused(ValueError, "q must have shape", q=draw(2, 64))
    refused(ValueError, "codes of keys must have shape", keys=other(batch=3))
    refused(ValueError, "codes of keys must have shape", keys=other(dim=128))
    refused(ValueError, "must be a multiple of the key heads", q=draw(2, 3, 64))
    refused(ValueError, "at most 16 query heads can share a key head, not 17", q=draw(2, 34, 64))
    refused(ValueError, "keys and values must have the same bits and shape", keys=other(bits=2))
    refused(ValueError, "keys and values must have the same bits and shape", keys=other(tokens=96))
    third = {"keys": other(bits=3), "values": quantize_values(draw(2, 2, 64, 64), 2)}  # their words have one shape
    refused(ValueError, "keys and values must have the same bits and shape", **third)
    refused(ValueError, "parameters of values must have shape", values=other())
    refused(ValueError, "parameters of keys must have shape", keys=quantize_values(draw(2, 2, 64, 64), 4))
    refused(ValueError, "k_tail must have shape", k_tail=draw(2, 1, 5, 64))
    refused(ValueError, "v_tail must have shape", v_tail=draw(2, 2, 4, 64))
    refused(
        TypeError, "the tail is torch.float16 and torch.float32, q is torch.float32", k_tail=draw(2, 2, 5, 64).half()
    )
    refused(TypeError, "the tail is torch.float32 and torch.float32, q is torch.float16", q=draw(2, 4, 64).half())


def test_impossible_counts_are_refused():
    for bad in (33, 1, 96):
        refused(ValueError, "must count whole groups of 32 of the 64 tokens", quantized=ints(64, bad))
    refused(ValueError, "tail what is there", tail=ints(6, 0))
    refused(TypeError, "quantized must be int32", quantized=torch.zeros(2, dtype=torch.int64, device=DEVICE))
    refused(TypeError, "tail must be int32", tail=torch.zeros(2, dtype=torch.int64, device=DEVICE))


@pytest.mark.parametrize("changes", [{"quantized": (-32, 64)}, {"tail": (-1, 5)}])
def test_negative_counts_are_refused(changes: dict[str, tuple[int, ...]]):
    refused(ValueError, "must count", **{name: ints(*values) for name, values in changes.items()})


def test_two_scales_lie_before_two_zeros():
    tensor = draw(1, 1, 32, 64)
    params = quantize_keys(tensor, 4).params[0, 0, 0]
    assert torch.equal(params[:, 1].flatten(), tensor[0, 0].amin(0).half())
    params = quantize_values(tensor, 4).params[0, 0, 0]  # [D / 32, 16, 2, 2]
    assert torch.equal(params[1, :, 1].flatten(), tensor[0, 0, :, 32:].amin(1).half())


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("bits", "j"), [(bits, j) for bits in BITS for j in range(4 if bits == 4 else 8)])
def test_the_gpus_instructions_restore_every_code_of_every_word(bits: int, j: int, exact: bool):
    """c s + z rounded once to fp16, or c s + z of a zero that was rounded once more, for all words in either half."""
    text = kivi._instructions(j, bits, exact)
    words = np.arange(1 << 16, dtype=np.uint32)
    generator = np.random.default_rng(0)
    both = [words, generator.permutation(words)]
    turned = [half if bits == 3 else half >> 2 | half << 14 & 0xFFFF for half in both]
    codes = [half >> (2 * j) & 3 if bits < 4 else half >> (4 * j) & 15 for half in turned]
    high = [generator.permutation(words) for _ in range(2)] if bits == 3 else []
    for upper in (False, True):  # the half of the lanes: the other load gave zeros
        numbers = codes
        planes = []
        if bits == 3:
            place = 2 * (j % 4) + j // 4 + 8 * upper
            numbers = [code | (half >> place & 1) << 2 for code, half in zip(codes, high, strict=True)]
            planes = [ptx.packed(*high), np.zeros_like(words)]
            planes = planes[::-1] if upper else planes
        counted = [number.astype(np.float16) for number in numbers]
        for loud in (0.0, 1.0, 1e-7, 300.0):  # 0: the codes themselves; some scales are subnormal
            shape = 1 << 16
            scales = [np.abs(generator.standard_normal(shape) * loud).astype(np.float16) for _ in range(2)]
            zeros = [(generator.standard_normal(shape) * 900 * loud).clip(-4096, 4096).astype(np.float16) for _ in "ab"]
            if not loud:
                scales = [np.ones(shape, np.float16)] * 2
            pairs = [ptx.packed(*(x.view(np.uint16) for x in pair)) for pair in (scales, zeros)]
            found = ptx.halves(ptx.run(text, ptx.packed(*both), *pairs, *planes))
            for half in range(2):
                wanted = ptx.fma(counted[half], scales[half], zeros[half])
                if exact or not loud:
                    assert np.array_equal(found[:, half], wanted)
                else:
                    scale, zero = scales[half].astype(np.float64), zeros[half].astype(np.float64)
                    slack = 2.0**-11 * (2 * np.abs(zero) + (16 + counted[half]) * scale + 16 * scale) + 2.0**-24
                    exactly = counted[half] * scale + zero
                    assert (np.abs(found[:, half] - exactly) <= slack).all()


def test_neighboring_parameters_are_taken_where_neighbors_share_a_register(compiled: dict[str, Any]):
    lines = compiled["kivi"]["reference_kernels.kvcc.kivi._read_pieces"]["assembly"]
    assert lines
    for line in lines:
        layouts = re.findall(r"dot_op<{opIdx = (\d), parent = #\w+, kWidth = (\d)}>", line)
        assert set(layouts) == {("0", "2")}, line
