"""What the exponent codec promises: every bit comes back, sizes are exact, noise does not grow, bad input is said."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_kernels.kvcc.exponent_codec import UNIT, Encoded, decode, encode, exponent_entropy, reference
from tests.reference_kernels.conftest import DEVICE


def patterns(kind: str, tokens: int, channels: int, seed: int = 0) -> torch.Tensor:
    """Bits of a tensor [tokens, channels], int16."""
    generator = torch.Generator().manual_seed(seed)
    shape = (tokens, channels)
    noise = torch.randint(-32768, 32768, shape, generator=generator)
    normal = torch.randn(shape, generator=generator).bfloat16().view(torch.int16).int()
    rare = torch.rand(shape, generator=generator) < 0.05
    found = {
        "normal": normal,
        "noise": noise,
        "zeros": noise & 0x8000,  # of either sign
        "subnormal": noise & 0x807F,
        "not finite": noise | 0x7F80,  # infinities and NaN with any payload
        "largest window": (noise & 0x807F) | (254 << 7),
        "one exponent": (noise & 0x807F) | (130 << 7),
        "two far apart": (noise & 0x807F) | torch.where(rare, 3, 250).int() << 7,
        "only escapes in one channel": torch.where(torch.arange(channels) == 0, noise, normal),
        "a few anywhere": torch.where(rare, noise, normal),
        "counting": torch.arange(tokens * channels).reshape(shape),
    }[kind]
    return found.to(torch.int16).to(DEVICE)  # keeps the low 16 bits


KINDS = [
    "normal", "noise", "zeros", "subnormal", "not finite", "largest window", "one exponent", "two far apart",
    "only escapes in one channel", "a few anywhere",
]  # fmt: skip


def encoded_bits(bits: torch.Tensor) -> Encoded:
    return encode(bits.view(torch.bfloat16))


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_comes_back(kind: str):
    bits = patterns(kind, 19, 256)  # one whole unit, and one of three tokens
    packed = encoded_bits(bits)
    packed.validate()
    assert torch.equal(decode(packed).view(torch.int16), bits)
    assert torch.equal(reference(packed)["bits"], bits)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.integers(1, 33),
    pairs=st.sampled_from([1, 2, 3, 6, 12, 64, 96, 128, 160]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
)
def test_any_size_round_trips(tokens: int, pairs: int, kind: str, seed: int):
    bits = patterns(kind, tokens, 2 * pairs, seed)
    packed = encoded_bits(bits)
    packed.validate()
    assert torch.equal(decode(packed).view(torch.int16), bits)


def test_all_patterns_of_16_bits_round_trip():
    bits = patterns("counting", 256, 256)
    assert bits.unique().numel() == 65536
    packed = encoded_bits(bits)
    assert torch.equal(decode(packed).view(torch.int16), bits)
    assert torch.equal(reference(packed)["bits"], bits)


def test_nothing_round_trips():
    assert decode(encode(torch.empty(0, 8, dtype=torch.bfloat16, device=DEVICE))).shape == (0, 8)


@pytest.mark.parametrize(
    "shape", [pytest.param(shape, marks=[pytest.mark.quick] * (shape == "tokens past a unit")) for shape in UNIT.shapes]
)
def test_kernel_and_reference_return_the_source(shape: str):
    inputs = UNIT.make_inputs(device=DEVICE, dtype=torch.bfloat16, seed=1, **UNIT.shapes[shape])
    assert torch.equal(UNIT.kernel(**inputs)["bits"], inputs["source"])
    assert torch.equal(UNIT.reference(**inputs)["bits"], inputs["source"])


def test_normal_values_reach_the_promised_ratio():
    inputs = UNIT.make_inputs(device=DEVICE, dtype=torch.bfloat16, seed=0, tokens=512, channels=64)
    ratio = inputs["source"].nbytes / inputs["encoded"].nbytes
    bound = 16 / (8 + exponent_entropy(inputs["source"]))
    assert ratio > 1.41
    assert ratio > 0.96 * bound


def test_size_follows_from_the_escapes():
    bits = patterns("a few anywhere", 48, 256)  # three whole units side by side in tokens
    packed = encoded_bits(bits)
    offset = ((bits.int() >> 7) & 0xFF) - packed.windows[0].int()
    escapes = ((offset < 0) | (offset > 6)).reshape(3, -1).sum(1)
    steps = (1536 + escapes + 15) // 16
    assert packed.offsets.diff().tolist() == steps.tolist()
    assert packed.payload.nbytes == 16 * int(steps.sum())
    assert packed.nbytes == bits.nbytes // 2 + 256 + packed.payload.nbytes + 4 * 4


def test_windows_have_the_fewest_escapes():
    bits = patterns("two far apart", 100, 32)  # all rows of the block are looked at
    exponents = (bits.int() >> 7) & 0xFF
    low = encoded_bits(bits).windows[0].int()
    held = ((exponents >= low) & (exponents <= low + 6)).sum(0)
    best = torch.stack([((exponents >= s) & (exponents <= s + 6)).sum(0) for s in range(249)]).amax(0)
    assert torch.equal(held, best)


def test_an_outlier_does_not_move_the_window_of_its_channel():
    bits = patterns("normal", 64, 256)
    before = encoded_bits(bits)
    bits[5, :] = 0x7F00  # 1.7e38 in every channel
    after = encoded_bits(bits)
    assert torch.equal(decode(after).view(torch.int16), bits)
    assert after.payload.nbytes <= before.payload.nbytes + 256 + 4 * 16


def test_noise_grows_by_less_than_two_thousandths():
    bits = patterns("noise", 512, 64)
    assert bits.nbytes < encoded_bits(bits).nbytes <= 1.0015 * bits.nbytes + 4


def test_encoding_is_deterministic_to_the_byte():
    bits = patterns("a few anywhere", 20, 256)
    first, second = encoded_bits(bits), encoded_bits(bits)
    for field in ("rest", "windows", "payload", "offsets"):
        assert torch.equal(getattr(first, field), getattr(second, field))


def test_entropy_of_four_equal_exponents_is_two_bits():
    bits = torch.tensor([1, 2, 3, 4], dtype=torch.int16) << 7
    assert exponent_entropy(bits) == pytest.approx(2.0)


def test_bad_input_is_refused():
    x = torch.zeros(4, 8, dtype=torch.bfloat16, device=DEVICE)
    with pytest.raises(TypeError, match="must be bfloat16"):
        encode(x.half())
    with pytest.raises(ValueError, match="x must have shape"):
        encode(x[0])
    with pytest.raises(ValueError, match="even and positive, not 7"):
        encode(x[:, :7].contiguous())
    with pytest.raises(ValueError, match="contiguous"):
        encode(x.T)


def test_parts_that_do_not_fit_are_refused():
    packed = encoded_bits(patterns("normal", 33, 256))
    for change, words in {
        "tokens": (49, "rest must have shape"),
        "channels": (255, "there is no tensor"),
        "windows": (packed.windows[:, :128], "windows must have shape"),
        "offsets": (packed.offsets[:-1], "offsets must have shape"),
        "payload": (packed.payload[None], "payload must have shape"),
    }.items():
        with pytest.raises(ValueError, match=words[1]):
            decode(dataclasses.replace(packed, **{change: words[0]}))
    with pytest.raises(TypeError, match="offsets must be"):
        decode(dataclasses.replace(packed, offsets=packed.offsets.long()))


def test_corrupt_lengths_are_refused():
    packed = encoded_bits(patterns("normal", 33, 256))
    for place, value, words in ((1, 7, "unit 0 has 112 bytes"), (2, 10_000, "unit 1 has"), (0, -1, "0")):
        offsets = packed.offsets.clone()
        offsets[place] = value
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(packed, offsets=offsets).validate()
    with pytest.raises(ValueError, match="offsets run from 0 to"):
        dataclasses.replace(packed, payload=packed.payload[:-4]).validate()
    with pytest.raises(ValueError, match="windows start at 248 at most"):
        dataclasses.replace(packed, windows=torch.full_like(packed.windows, 250)).validate()


def test_corrupt_codes_never_read_past_the_unit():
    packed = encoded_bits(patterns("normal", 16, 256))
    payload = packed.payload.clone()
    payload[:384] = -1  # every number claims to be an escape: 4096 of them, where there is room for a few
    bits = decode(dataclasses.replace(packed, payload=payload)).view(torch.int16)
    placeholders = packed.windows.int() + 7
    assert torch.equal((bits.int() >> 7) & 0xFF, placeholders.expand(16, -1))
