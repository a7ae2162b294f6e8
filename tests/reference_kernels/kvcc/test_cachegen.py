"""What CacheGen's codec promises: exact symbols, errors of half a bin, a size near the entropy, a stated bit stream."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_kernels.kvcc.cachegen import (
    SYMBOLS,
    UNIT,
    Encoded,
    Model,
    calibrate,
    count_symbols,
    decode,
    decode_symbols,
    encode,
    entropy_bits,
    graded_levels,
    quantize,
    reference,
)
from tests.reference_kernels.conftest import DEVICE


def draw(layers: int, tokens: int, channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(layers, tokens, channels, generator=generator).cumsum(1) * 0.3
    return (steps * torch.exp(torch.randn(channels, generator=generator))).to(DEVICE)


def packed_case(seed: int = 0, **options: Any) -> tuple[torch.Tensor, Encoded]:
    x = draw(2, 23, 5, seed)
    return x, encode(x, calibrate(x, (15, 7), **{"group": 4, "chunk": 8, "share": 3, **options}))


def push_all(symbols: list[int], tables: list[list[int]]) -> list[int]:
    """An encoder of one stream in plain Python, from the definition: tables[t] are the frequencies at token t."""
    state, words = 1 << 16, []
    for symbol, table in reversed(list(zip(symbols, tables, strict=True))):
        frequency, before = table[symbol], sum(table[:symbol])
        after = state // frequency * 4096 + before + state % frequency
        if after >= 1 << 32:
            words.append(state & 0xFFFF)
            state >>= 16
            after = state // frequency * 4096 + before + state % frequency
        assert 1 << 16 <= after < 1 << 32
        state = after
    return [state >> 16, state & 0xFFFF, *reversed(words)]


def test_the_bit_stream_is_that_of_a_plain_encoder():
    x, packed = packed_case()
    model, symbols = packed.model, quantize(x, packed.model).tolist()
    frequencies = model.frequencies.tolist()
    expected, sizes = [], []
    for layer in range(2):
        for start in range(0, 23, 8):
            for channel in range(5):
                tokens = range(start, min(start + 8, 23))
                tables = [frequencies[layer][int(t % 4 > 0)][channel // 3] for t in tokens]
                stream = push_all([symbols[layer][t][channel] for t in tokens], tables)
                expected += stream
                sizes.append(len(stream))
    assert [word & 0xFFFF for word in packed.words.tolist()] == expected
    assert packed.offsets.diff().tolist() == sizes


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.integers(1, 2),
    tokens=st.integers(1, 20),
    channels=st.sampled_from([1, 7, 64, 129]),
    group=st.integers(2, 10),
    chunk=st.integers(1, 3),
    share=st.sampled_from([1, 5, 128]),
    levels=st.integers(1, 127),
    flat=st.booleans(),
)
def test_symbols_come_back_and_errors_stay_within_half_a_bin(
    layers: int, tokens: int, channels: int, group: int, chunk: int, share: int, levels: int, flat: bool
):
    x = draw(layers, tokens, channels)
    if flat:
        x[..., 0] = 0.0  # a channel without any range
    model = calibrate(x, [levels] * layers, group=group, chunk=group * chunk, share=share)
    packed = encode(x, model)
    packed.validate()
    assert torch.equal(decode_symbols(packed), quantize(x, model))
    anchor = (torch.arange(tokens, device=DEVICE) % group == 0)[:, None]
    bins = torch.where(anchor, model.steps[0][:, None], model.steps[1][:, None])
    rounding = 4 * torch.finfo(torch.float32).eps * x.abs().amax()
    assert bool(((decode(packed) - x).abs() <= bins / 2 + rounding).all())
    if flat:
        assert not decode(packed)[..., 0].any()


def test_size_is_within_three_percent_of_the_entropy():
    x = draw(1, 600, 16)
    packed = encode(x, calibrate(x, (31,), chunk=600))
    ideal = entropy_bits(quantize(x, packed.model), packed.model)
    coded = 8 * (packed.words.nbytes + packed.offsets.nbytes)
    assert ideal < coded < 1.03 * ideal


def test_entropy_of_even_symbols_is_their_logarithm():
    x, packed = packed_case()
    symbols = (torch.arange(2 * 23 * 5, device=DEVICE) % 4).to(torch.uint8).reshape(2, 23, 5)
    model = dataclasses.replace(packed.model, share=5, group=23)
    counts = count_symbols(symbols, model)
    shares = counts[:, 1, 0, :4].double() / counts[:, 1, 0].sum(-1, keepdim=True)
    assert counts.sum() == x.numel()
    assert torch.allclose(shares, torch.full_like(shares, 0.25), atol=0.01)
    assert entropy_bits(symbols, model) == pytest.approx(2 * x.numel(), rel=0.02)


def test_frequencies_sum_to_the_total_and_leave_no_symbol_out():
    model = packed_case()[1].model
    counts = model.frequencies.int()
    assert bool((counts.sum(-1) == 4096).all())
    for layer, levels in enumerate(model.levels):
        for kind, symbols in enumerate((255, 2 * levels + 1)):
            assert bool((counts[layer, kind, :, :symbols] >= 1).all())
            assert not counts[layer, kind, :, symbols:].any()


def test_deeper_layers_have_wider_bins_and_fewer_bits():
    levels = graded_levels(6, first=31, last=7)
    assert levels == (31, 31, 19, 19, 7, 7)
    x = draw(1, 60, 32).expand(3, -1, -1).contiguous()
    model = calibrate(x, levels[::2], chunk=60)
    assert bool((model.steps[1].diff(dim=0) > 0).all())
    sizes = encode(x, model).offsets.diff().reshape(3, -1).sum(1)
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_model_serves_other_data_by_clipping():
    x, packed = packed_case()
    other = 3 * x
    again = encode(other, packed.model)
    assert torch.equal(decode_symbols(again), quantize(other, packed.model))
    fine = packed.model.steps[0][:, None]
    assert torch.equal(decode(again)[:, ::4], (other[:, ::4] / fine + 0.5).floor().clamp(-127, 127) * fine)


def test_longer_chunks_change_the_stream_but_not_the_numbers():
    x, short = packed_case()
    _, long = packed_case(chunk=24)
    assert len(long.words) < len(short.words)
    assert torch.equal(decode(short), decode(long))
    exact = reference(long, long.model.steps.double())["out"]
    assert torch.allclose(exact.float(), decode(long), rtol=1e-6, atol=1e-6)
    assert x.shape == decode(long).shape


def test_size_counts_every_part():
    _, packed = packed_case()
    tables = 2 * (255 + 31) * 2 + 2 * (255 + 15) * 2  # two groups of channels in each of two layers, 2 bytes
    assert packed.model.nbytes == 4 * 2 * 2 * 5 + tables
    assert packed.nbytes == 2 * len(packed.words) + 4 * (2 * 3 * 5 + 1) + packed.model.nbytes


def test_no_tokens_give_nothing():
    model = packed_case()[1].model
    empty = encode(torch.empty(2, 0, 5, device=DEVICE), model)
    empty.validate()
    assert decode(empty).shape == (2, 0, 5)


def test_figures_confirm_the_claims():
    inputs = UNIT.make_inputs(device=DEVICE, dtype=torch.float32, seed=0, layers=1, tokens=40, channels=16, chunk=40)
    found = UNIT.figures(inputs, UNIT.kernel(**inputs), 1.0)  # type: ignore[misc]
    assert found["symbols come back"] == 1.0
    assert found["largest error in bins"] <= 0.5001
    assert found["size over entropy"] > 1.0


def test_bad_input_is_refused():
    x = draw(2, 12, 4)
    model = calibrate(x, (7, 7), chunk=10)
    for arguments, words in (
        ({"levels": (7,)}, "levels must be 2 numbers"),
        ({"levels": (7, 0)}, "levels must be 2 numbers"),
        ({"levels": (7, 128)}, "levels must be 2 numbers"),
        ({"levels": (7, 7), "chunk": 25}, "multiple of the group"),
        ({"levels": (7, 7), "group": 1, "chunk": 4}, "multiple of the group"),
    ):
        with pytest.raises(ValueError, match=words):
            calibrate(x, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be finite"):
        calibrate(torch.where(x > 0, x, float("nan")), (7, 7))
    with pytest.raises(ValueError, match="must not be empty"):
        calibrate(x[:, :0], (7, 7))
    with pytest.raises(TypeError, match="floating-point"):
        calibrate(x.int(), (7, 7))
    with pytest.raises(TypeError, match="float32, float16 or bfloat16"):
        encode(x.double(), model)
    with pytest.raises(ValueError, match="x must have shape"):
        encode(x[..., :3], model)
    with pytest.raises(ValueError, match="contiguous"):
        encode(x.transpose(1, 2).contiguous().transpose(1, 2), model)


def test_corrupt_lengths_are_refused():
    _, packed = packed_case()

    def changed(place: int, value: int) -> Encoded:
        offsets = packed.offsets.clone()
        offsets[place] = value
        return dataclasses.replace(packed, offsets=offsets)

    for broken, words in (
        (changed(3, 1), "stream 2 has"),
        (changed(0, -1), "offsets run from -1|stream 0 has"),
        (dataclasses.replace(packed, words=packed.words[:-1]), "there are"),
        (dataclasses.replace(packed, tokens=30), "offsets must have shape"),
        (dataclasses.replace(packed, tokens=-1), "there cannot be"),
    ):
        with pytest.raises(ValueError, match=words):
            broken.validate()
    with pytest.raises(TypeError, match="words must be"):
        decode(dataclasses.replace(packed, words=packed.words.int()))


def test_lookup_tables_agree_with_the_frequencies():
    model: Model = packed_case()[1].model
    counts = model.frequencies.long()
    slots = model.slots.long()
    assert torch.equal(torch.nn.functional.one_hot(slots, SYMBOLS).sum(-2), counts)
    assert bool((slots.diff(dim=-1) >= 0).all())
    assert torch.equal((model.ranges & 0xFFFF).long(), counts)
    assert torch.equal((model.ranges >> 16).long(), counts.cumsum(-1) - counts)
