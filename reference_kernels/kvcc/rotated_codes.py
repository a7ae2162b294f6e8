"""The codec of rotated_codebook.py: rotation, Lloyd-Max codebook, packing, and QJL's sketch of what it leaves over.

Equations and the layout of codes are in the docstring of that file.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_dim, check_same, check_shape
from reference_kernels.core.device import interpreted

WIDTHS = (2, 3, 4)


@cache
def codebook(bits: int) -> tuple[float, ...]:
    """Return the 2^(bits - 1) positive values of the Lloyd-Max quantizer of a standard normal variable, ascending.

    Lloyd's iteration: a value is the mean of its cell, a border lies halfway between two values. The density is
    symmetric and so is the result. The mean of the cell (a, b) is (phi(a) - phi(b)) / (Phi(b) - Phi(a)).
    """
    if not 1 <= bits <= 4:
        raise ValueError(f"bits must be between 1 and 4, not {bits}")
    count = 2 ** (bits - 1)
    values = (torch.arange(count, dtype=torch.float64) + 0.5) * (3.0 / count)
    for _ in range(10_000):
        edges = torch.cat([values.new_zeros(1), (values[1:] + values[:-1]) / 2, values.new_tensor([40.0])])
        density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)
        tail = torch.erfc(edges / math.sqrt(2)) / 2  # 1 - Phi, precise where Phi is close to 1
        before, values = values, (density[:-1] - density[1:]) / (tail[:-1] - tail[1:])
        if float((values - before).abs().max()) < 1e-15:
            break
    return tuple(values.tolist())


@cache
def borders(bits: int) -> tuple[float, ...]:
    """Return the 2^(bits - 1) - 1 positive borders between the cells of the codebook."""
    values = codebook(bits)
    return tuple((a + b) / 2 for a, b in itertools.pairwise(values))


def code_values(bits: int, like: torch.Tensor) -> torch.Tensor:
    """Return the value of every code [2^bits], in dtype and place of `like`."""
    positive = torch.tensor(codebook(bits), dtype=torch.float64)
    return torch.cat([positive, -positive]).to(like)


def random_signs(dim: int, seed: int, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Draw the signs [D] of a rotation; the same seed gives the same rotation everywhere."""
    check_dim(dim)
    drawn = torch.randint(0, 2, (dim,), generator=torch.Generator().manual_seed(seed))
    return (drawn * 2 - 1).to(device, dtype)


def hadamard(x: torch.Tensor) -> torch.Tensor:
    """Return H x / sqrt(D) over the last dimension by the fast Walsh-Hadamard transform, D log2 D sums."""
    dim = x.shape[-1]
    check_dim(dim)
    half = 1
    while half < dim:
        a, b = x.unflatten(-1, (-1, 2, half)).unbind(-2)
        x = torch.stack([a + b, a - b], -2).flatten(-3)
        half *= 2
    return x * dim**-0.5


def rotate(x: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Return R x over the last dimension."""
    return hadamard(x * signs)


def rotate_back(x: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Return R^-1 x over the last dimension."""
    return hadamard(x) * signs


@dataclass(frozen=True)
class Coded:
    """Keys or values as codes and norms; see the module's docstring for the layout."""

    codes: torch.Tensor
    norms: torch.Tensor
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(part.numel() * part.element_size() for part in (self.codes, self.norms))


def check_bits(bits: int, dim: int) -> None:
    """Require a width and a head size that can be packed."""
    if bits not in WIDTHS:
        raise ValueError(f"codes have {WIDTHS} bits, not {bits}")
    check_dim(dim)
    if dim < 64:
        raise ValueError(f"the head size must be at least 64, not {dim}: smaller rotations are not close to normal")


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes [..., D] of integers into words [..., b D / 16] int16."""
    check_bits(bits, codes.shape[-1])
    fields, shifts = _low(bits, codes.device)
    lanes = codes.int().unflatten(-1, (fields, -1))  # [..., J, W]
    words = ((lanes & (2 ** (16 // fields) - 1)) << shifts).sum(-2)
    if bits == 3:
        halves = (lanes >> 2).unflatten(-1, (2, -1))  # [..., J, 2, W / 2]
        words = torch.cat([words, (halves << _high(codes.device)).sum((-3, -2))], -1)
    return torch.where(words >= 1 << 15, words - (1 << 16), words).to(torch.int16)


def unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the codes [..., D] int32 of words [..., b D / 16]."""
    fields, shifts = _low(bits, words.device)
    dim = words.shape[-1] * 16 // bits
    words = words.int() & 0xFFFF
    low = words[..., : dim // fields]
    lanes = (low.unsqueeze(-2) >> shifts) & (2 ** (16 // fields) - 1)  # [..., J, W]
    if bits == 3:
        high = words[..., dim // fields :].unsqueeze(-2).unsqueeze(-2)
        lanes = lanes | (((high >> _high(words.device)) & 1) << 2).flatten(-2)
    return lanes.flatten(-2)


def _low(bits: int, device: torch.device) -> tuple[int, torch.Tensor]:
    """Return J and the lowest bit of every field [J, 1]."""
    fields = 4 if bits == 4 else 8
    return fields, torch.arange(0, 16, 16 // fields, device=device)[:, None]


def _high(device: torch.device) -> torch.Tensor:
    """Return the bit of the highest bit of field j of words u and W / 2 + u [J, 2, 1]."""
    j = torch.arange(8, device=device)
    place = 4 * (j // 2) + j % 2
    return torch.stack([place + 2, place], -1).unsqueeze(-1)


def quantize(x: torch.Tensor, signs: torch.Tensor, bits: int) -> Coded:
    """Code keys or values [B, Hkv, T, D]; every token is coded on its own, so appending is coding the new tokens.

    A vector of zeros has norm 0. Norms that are too large for fp16 become its largest number.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or bits do not fit.
    """
    check_same(x=x, signs=signs)
    check_shape("x", x, None, None, None, None)
    *place, dim = x.shape
    check_bits(bits, dim)
    check_shape("signs", signs, dim)
    codes = torch.empty(*place, bits * dim // 16, dtype=torch.int16, device=x.device)
    norms = torch.empty(place, dtype=x.dtype, device=x.device)
    rows = norms.numel()
    block = (1 << 17 if interpreted() else 2048) // dim  # the interpreter is slow per program, not per number
    if rows:
        _quantize[(triton.cdiv(rows, block),)](
            x.contiguous(), signs, codes, norms, rows, torch.finfo(x.dtype).max,
            BORDERS=borders(bits), DIM=dim, BITS=bits, BLOCK=block, num_warps=8,
        )  # fmt: skip
    return Coded(codes, norms, bits)


def dequantize(coded: Coded, signs: torch.Tensor) -> torch.Tensor:
    """Return x^ [B, Hkv, T, D], computed in the dtype of `signs`."""
    values = code_values(coded.bits, signs)[unpack(coded.codes, coded.bits).long()]
    norms = coded.norms.to(signs) * values.shape[-1] ** -0.5
    return rotate_back(values * norms.unsqueeze(-1), signs)


def launch_rotation(x: torch.Tensor, signs: torch.Tensor, out: torch.Tensor, *, back: bool) -> None:
    """Write R x, or R^-1 x, for contiguous x [..., D], into `out`: one launch instead of log2 D."""
    rows, dim = x.numel() // x.shape[-1], x.shape[-1]
    if rows:
        _rotate[(triton.cdiv(rows, 16),)](x, signs, out, rows, DIM=dim, BACK=back, BLOCK=16, num_warps=4)


@triton.jit
def _hadamard(x, ROWS: tl.constexpr, DIM: tl.constexpr):
    """Return H x / sqrt(D) for rows of x [ROWS, D]: pairs at distance 1, 2, 4 ... give their sum and difference."""
    for i in tl.static_range(16):
        if 2**i < DIM:
            pairs = tl.permute(tl.reshape(x, [ROWS, DIM // 2 // 2**i, 2, 2**i]), [0, 1, 3, 2])
            a, b = tl.split(pairs)
            x = tl.reshape(tl.permute(tl.join(a + b, a - b), [0, 1, 3, 2]), [ROWS, DIM])
    return x * (DIM**-0.5)


@triton.jit
def _rotate(x, signs, out, rows, DIM: tl.constexpr, BACK: tl.constexpr, BLOCK: tl.constexpr):
    """One program: R or its inverse of BLOCK vectors."""
    row, dims = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, DIM)
    place = row[:, None] * DIM + dims[None, :]
    vectors = tl.load(x + place, mask=(row < rows)[:, None], other=0.0).to(tl.float32)
    sign = tl.load(signs + dims).to(tl.float32)[None, :]
    rotated = _hadamard(vectors, BLOCK, DIM) * sign if BACK else _hadamard(vectors * sign, BLOCK, DIM)
    tl.store(out + place, rotated.to(out.dtype.element_ty), mask=(row < rows)[:, None])


@triton.jit
def _quantize(
    x, signs, codes, norms, rows, largest,
    BORDERS: tl.constexpr, DIM: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: norms and packed codes of BLOCK vectors."""
    row, dims = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, DIM)
    live = row < rows
    vectors = tl.load(x + row[:, None] * DIM + dims[None, :], mask=live[:, None], other=0.0).to(tl.float32)
    peak = tl.max(tl.abs(vectors), 1)
    peak = tl.where(peak > 0, peak, 1.0)
    vectors = vectors / peak[:, None]  # or squares might leave the range of fp32
    norm = tl.sqrt(tl.sum(vectors * vectors, 1))
    unit = vectors / tl.where(norm > 0, norm, 1.0)[:, None]
    turned = _hadamard(unit * tl.load(signs + dims).to(tl.float32)[None, :], BLOCK, DIM) * (DIM**0.5)
    code = tl.where(turned < 0, 1 << (BITS - 1), 0)
    for i in tl.static_range(2 ** (BITS - 1) - 1):
        code += (tl.abs(turned) >= BORDERS[i]).to(tl.int32)

    J: tl.constexpr = 4 if BITS == 4 else 8
    WORDS: tl.constexpr = DIM // J
    WIDTH: tl.constexpr = 16 // J
    fields = tl.reshape(code, [BLOCK, J, WORDS])
    j, word = tl.arange(0, J), tl.arange(0, WORDS)
    packed = tl.sum((fields & ((1 << WIDTH) - 1)) << (WIDTH * j)[None, :, None], 1)
    place = codes + row[:, None] * (DIM * BITS // 16)
    tl.store(place + word[None, :], packed.to(tl.int16), mask=live[:, None])
    if BITS == 3:
        bit = (4 * (j // 2) + j % 2)[None, :, None] + tl.where(word < WORDS // 2, 2, 0)[None, None, :]
        halves = tl.reshape(tl.sum((fields >> 2) << bit, 1), [BLOCK, 2, WORDS // 2])
        both = tl.sum(halves, 1).to(tl.int16)
        tl.store(place + WORDS + tl.arange(0, WORDS // 2)[None, :], both, mask=live[:, None])
    tl.store(norms + row, tl.minimum(norm * peak, largest).to(norms.dtype.element_ty), mask=live)


def sign_sketch(x: torch.Tensor, projection: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return QJL's sketch of vectors x [..., D]: the signs of P x [..., M] (True where not negative) and norms [...].

    `projection` P [M, D] is drawn from the standard normal distribution. Sketching the residual x - x^ of coded vectors
    gives M bits and a norm with which dot products become unbiased.
    """
    return x @ projection.T >= 0, torch.linalg.vector_norm(x, dim=-1)


def sketched_dots(
    q: torch.Tensor, signs: torch.Tensor, norms: torch.Tensor, projection: torch.Tensor
) -> torch.Tensor:  # fmt: skip
    """Estimate q . x for q [..., D] from the sketch of x: sqrt(pi / 2) / M |x| <P q, sign(P x)>.

    Its expectation over P is q . x: E[p.q sign(p.x)] = sqrt(2 / pi) q.x / |x| for a normal vector p.
    """
    products = ((q @ projection.T) * (signs * 2 - 1)).sum(-1)
    return math.sqrt(math.pi / 2) / len(projection) * norms * products
