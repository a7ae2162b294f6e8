from __future__ import annotations

import itertools
import math
import operator
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.kvcc.rotated_codebook import UNIT, code_bytes, decode_attention, instructions
from reference_kernels.kvcc.rotated_codes import (
    Coded,
    borders,
    code_values,
    codebook,
    dequantize,
    hadamard,
    launch_rotation,
    pack,
    quantize,
    random_signs,
    rotate,
    rotate_back,
    sign_sketch,
    sketched_dots,
    unpack,
)

MAX_1960 = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}  # mean squared errors of a unit normal variable
OPERATIONS = {"and": operator.and_, "or": operator.or_, "shr": operator.rshift, "shl": operator.lshift}
BITS = pytest.mark.parametrize("bits", [2, 3, 4])


def signs_of(dim: int, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return random_signs(dim, seed, dtype=dtype, device=device)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_codebook_has_the_textbook_error(bits: int):
    """Integrate (x - c(x))^2 over the density on a fine grid: nothing of the iteration's formulas is used."""
    x = torch.linspace(0, 12, 600_001, dtype=torch.float64)
    nearest = (x[:, None] - torch.tensor(codebook(bits), dtype=torch.float64)).abs().amin(1)
    error = 2 * torch.trapezoid(nearest.square() * torch.exp(-x.square() / 2), x) / math.sqrt(2 * math.pi)
    assert float(error) == pytest.approx(MAX_1960[bits], rel=5e-4)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_codebook_values_are_the_means_of_their_cells(bits: int):
    edges = [0.0, *borders(bits), 12.0]
    for value, (low, high) in zip(codebook(bits), itertools.pairwise(edges), strict=True):
        x = torch.linspace(low, high, 200_001, dtype=torch.float64)
        density = torch.exp(-x.square() / 2)
        mean = torch.trapezoid(x * density, x) / torch.trapezoid(density, x)
        assert float(mean) == pytest.approx(value, abs=1e-9)
    for border, (low, high) in zip(borders(bits), itertools.pairwise(codebook(bits)), strict=True):
        assert border - low == pytest.approx(high - border)


@pytest.mark.parametrize("dim", [64, 128, 256])
def test_rotation_is_orthogonal_and_undone_by_its_inverse(dim: int, device: torch.device):
    signs, eye = signs_of(dim, device, torch.float64), torch.eye(dim, dtype=torch.float64, device=device)
    turned = rotate(eye, signs)
    torch.testing.assert_close(turned @ turned.T, eye, atol=1e-12, rtol=0)
    torch.testing.assert_close(rotate_back(turned, signs), eye, atol=1e-12, rtol=0)
    torch.testing.assert_close(hadamard(hadamard(eye)), eye, atol=1e-12, rtol=0)


def test_hadamard_is_sylvesters_matrix():
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < 64:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    torch.testing.assert_close(hadamard(torch.eye(64, dtype=torch.float64)), matrix / 8, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("rows", "dim"), [(1, 64), (17, 128), (16, 256)])
@pytest.mark.parametrize("back", [False, True])
def test_rotation_kernel_rotates(rows: int, dim: int, back: bool, device: torch.device):
    x, signs = normal(rows, dim).to(device), signs_of(dim, device)
    out = torch.empty_like(x)
    launch_rotation(x, signs, out, back=back)
    torch.testing.assert_close(out, (rotate_back if back else rotate)(x, signs), atol=1e-5, rtol=1e-5)


@BITS
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), dim=st.sampled_from([64, 128, 256]))
def test_packing_round_trips(bits: int, seed: int, dim: int):
    codes = torch.randint(0, 2**bits, (3, dim), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    packed = pack(codes, bits)
    assert packed.shape == (3, bits * dim // 16)
    assert packed.dtype == torch.int16
    assert torch.equal(unpack(packed, bits), codes)


@BITS
@pytest.mark.parametrize("dim", [64, 128])
def test_quantize_takes_the_nearest_value(bits: int, dim: int, device: torch.device):
    x, signs = normal(2, 3, 19, dim).to(device), signs_of(dim, device)
    coded = quantize(x, signs, bits)
    torch.testing.assert_close(coded.norms, torch.linalg.vector_norm(x, dim=-1))
    turned = rotate((x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)).double(), signs.double()) * dim**0.5
    values = code_values(bits, turned)
    distances = (turned.unsqueeze(-1) - values).abs()
    chosen = distances.gather(-1, unpack(coded.codes, bits).long().unsqueeze(-1)).squeeze(-1)
    assert float((chosen - distances.amin(-1)).max()) < 1e-5  # only where two are equally near may it be the other


@BITS
def test_error_of_random_vectors_is_that_of_the_codebook(bits: int, device: torch.device):
    x, signs = normal(1, 1, 2000, 128).to(device), signs_of(128, device)
    error = (dequantize(quantize(x, signs, bits), signs) - x).square().sum() / x.square().sum()
    assert float(error) == pytest.approx(MAX_1960[bits], rel=0.04)


@BITS
def test_loud_channels_do_not_raise_the_error(bits: int, device: torch.device):
    """What the rotation is for: 3 of 128 channels with 20 times the magnitude."""
    x = normal(1, 1, 1000, 128)
    x[..., [5, 77, 100]] *= 20
    signs = signs_of(128, device)
    error = (dequantize(quantize(x.to(device), signs, bits), signs).cpu() - x).square().sum() / x.square().sum()
    assert float(error) < 1.5 * MAX_1960[bits]


@BITS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_zeros_and_extremes_are_coded_without_nan(bits: int, dtype: torch.dtype, device: torch.device):
    x = torch.zeros(1, 1, 4, 64, dtype=dtype, device=device)
    x[0, 0, 1] = 3.5  # constant
    x[0, 0, 2, 7] = torch.finfo(dtype).max
    x[0, 0, 3] = torch.finfo(dtype).tiny
    signs = signs_of(64, device, dtype)
    coded = quantize(x, signs, bits)
    assert bool(torch.isfinite(coded.norms).all())
    restored = dequantize(coded, signs)
    assert bool(torch.isfinite(restored[0, 0, [0, 1, 3]]).all())
    assert bool((restored[0, 0, 0] == 0).all())


def test_norms_beyond_fp16_become_its_largest_number(device: torch.device):
    x = torch.full((1, 1, 1, 64), 60000.0, dtype=torch.float16, device=device)
    assert float(quantize(x, signs_of(64, device, torch.float16), 4).norms) == torch.finfo(torch.float16).max


@BITS
def test_tokens_are_coded_on_their_own(bits: int, device: torch.device):
    x, signs = normal(1, 2, 40, 64).to(device), signs_of(64, device)
    whole, last = quantize(x, signs, bits), quantize(x[:, :, 33:].contiguous(), signs, bits)
    assert torch.equal(whole.codes[:, :, 33:], last.codes)
    assert torch.equal(whole.norms[:, :, 33:], last.norms)


def _run_ptx(text: str, one: int, two: int) -> int:
    """Execute the few instructions that `instructions` uses."""
    registers = {"$1": one, "$2": two}

    def value(name: str) -> int:
        return registers[name] if name in registers else int(name, 0)

    for name, operands in re.findall(r"(\w+)\.[bu]32 ([^;]+);", text.split(".reg .b32 n, t, a, b;")[1]):
        target, *sources = (part.strip() for part in operands.split(","))
        a, b, c = ([value(source) for source in sources] + [0, 0])[:3]
        if name == "prmt":
            both = (a | b << 32).to_bytes(8, "little")
            nibbles = [c >> 4 * i & 15 for i in range(4)]
            assert max(nibbles) < 8, "bit 3 would copy a sign"
            result = int.from_bytes(bytes(both[nibble] for nibble in nibbles), "little")
        else:
            result = (a if name == "mov" else OPERATIONS[name](a, b)) & 0xFFFFFFFF
        registers[target] = result
    return registers["$0"]


@BITS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_assembly_looks_up_what_unpacking_does(bits: int, dtype: torch.dtype):
    """The interpreter cannot run PTX, so it is run by hand here, on every word of one token."""
    dim = 64
    codes = torch.randint(0, 2**bits, (dim,), generator=torch.Generator().manual_seed(bits), dtype=torch.int32)
    words = [int(word) & 0xFFFF for word in pack(codes, bits)]
    wanted = code_values(bits, torch.empty(0, dtype=dtype))[codes.long()].view(torch.int16).int() & 0xFFFF
    table = code_bytes(bits, dtype)
    per_token = dim // 4 if bits == 4 else dim // 8

    def highest(word: int) -> int:  # what the kernel makes of it, see `upper`
        if bits != 3:
            return 0
        high = words[per_token + word % (per_token // 2)]
        return high << 2 & 0xFFFF if word >= per_token // 2 else high

    texts = [instructions(j, bits, table) for j in range(dim // per_token)]
    for word, (j, text) in itertools.product(range(0, per_token, 2), enumerate(texts)):
        found = _run_ptx(text, words[word] | words[word + 1] << 16, highest(word) | highest(word + 1) << 16)
        place = j * per_token + word
        assert found == int(wanted[place]) | int(wanted[place + 1]) << 16, (word, j)


@pytest.mark.parametrize("bits", [2, 4])
def test_attention_comes_closer_with_more_bits(bits: int, device: torch.device):
    shape = {"lengths": [200], "heads": 1, "group": 4, "dim": 64}
    q, k, v = normal(1, 4, 64).to(device), normal(1, 1, 200, 64, seed=1).to(device), normal(1, 1, 200, 64, seed=2)
    v, signs = v.to(device), signs_of(64, device)
    lengths = torch.tensor(shape["lengths"], dtype=torch.int32, device=device)
    out = decode_attention(q, quantize(k, signs, bits), quantize(v, signs, bits), signs, lengths)["out"]
    exact = torch.softmax(q @ k[0].transpose(-1, -2) / 8, -1) @ v[0]
    error = float((out - exact).square().sum() / exact.square().sum())
    assert 0.2 * MAX_1960[bits] < error < 4 * MAX_1960[bits]


def test_sketch_makes_dot_products_unbiased(device: torch.device):
    """Over many projections the mean of the estimate is the dot product; coded alone, it is off by what was rounded."""
    q, x, signs = normal(64, seed=1, dtype=torch.float64), normal(1, 1, 1, 64, seed=2), signs_of(64, device)
    coarse = dequantize(quantize(x.to(device), signs, 2), signs).cpu().double()[0, 0, 0]
    residual = x.double()[0, 0, 0] - coarse
    generator = torch.Generator().manual_seed(0)
    estimates = []
    for _ in range(8000):
        projection = torch.randn(64, 64, generator=generator, dtype=torch.float64)
        estimates.append(q @ coarse + sketched_dots(q, *sign_sketch(residual, projection), projection))
    found = torch.stack(estimates)
    exact = q @ x.double()[0, 0, 0]
    deviation = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean() - exact)) < 4 * deviation
    assert abs(float(q @ coarse - exact)) > 8 * deviation  # or the test could not tell


def test_bits_per_number_are_those_of_the_card(device: torch.device):
    for bits, wanted in ((2, 2.125), (3, 3.125), (4, 4.125)):
        coded = quantize(
            torch.zeros(1, 1, 16, 128, dtype=torch.float16, device=device), signs_of(128, device, torch.float16), bits
        )
        assert 8 * coded.nbytes / (16 * 128) == wanted


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda i: i | {"signs": i["signs"][:64]}, ValueError, "signs must have shape"),
        (lambda i: i | {"signs": i["signs"].half()}, TypeError, "signs is"),
        (lambda i: i | {"q": i["q"][:, :3]}, ValueError, "multiple of the key heads"),
        (lambda i: i | {"q": i["q"].repeat(1, 17, 1)[:, :34]}, ValueError, "at most 16"),
        (lambda i: i | {"lengths": i["lengths"].long()}, TypeError, "lengths must be int32"),
        (lambda i: i | {"lengths": i["lengths"] + 300}, ValueError, "room"),
        (lambda i: i | {"lengths": i["lengths"] - 300}, ValueError, "lengths"),
        (lambda i: i | {"values": Coded(i["values"].codes, i["values"].norms, 3)}, ValueError, "must have the same"),
        (lambda i: i | {"keys": Coded(i["keys"].codes.int(), i["keys"].norms, 2)}, TypeError, "must be int16"),
        (lambda i: i | {"keys": Coded(i["keys"].codes[..., :8], i["keys"].norms, 2)}, ValueError, "codes of keys"),
        (lambda i: i | {"keys": Coded(i["keys"].codes, i["keys"].norms, 5)}, ValueError, "bits"),
        (lambda i: i | {"keys": Coded(i["keys"].codes.mT.contiguous().mT, i["keys"].norms, 2)}, ValueError, "contig"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_words(change, error, words, device: torch.device):
    inputs = UNIT.make_inputs(
        device=device, dtype=torch.float32, seed=0, lengths=[9, 5], heads=2, group=4, dim=128, bits=2
    )
    with pytest.raises(error, match=words):
        decode_attention(**change(inputs))


def test_quantize_refuses_what_it_cannot_code(device: torch.device):
    x, signs = torch.zeros(1, 1, 2, 64, device=device), signs_of(64, device)
    for bits in (1, 5):
        with pytest.raises(ValueError, match="bits"):
            quantize(x, signs, bits)
    with pytest.raises(ValueError, match="at least 64"):
        quantize(x[..., :32], signs[:32], 2)
    with pytest.raises(ValueError, match="power of two"):
        quantize(x[..., :48], signs[:48], 2)
    with pytest.raises(TypeError, match="floating-point"):
        quantize(x.int(), signs, 2)
    with pytest.raises(ValueError, match="shape"):
        quantize(x[0], signs, 2)
    with pytest.raises(ValueError, match="bits must be between"):
        codebook(5)
