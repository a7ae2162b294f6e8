"""A random rotation and one codebook for all: keys and values coded without calibration, and decoding from the codes.

Computes
--------
Rotation: R x = H (s * x) / sqrt(D), with random signs s and the Hadamard matrix H, H[i, j] = -1 to the number of bits
that i and j share. H / sqrt(D) is symmetric and its own inverse, so R is orthogonal and R^-1 y = s * (H y) / sqrt(D).

Code: whatever x is, the coordinates of sqrt(D) R x / |x| are close to standard normal. So one scalar codebook c of 2^b
values serves every layer, head and channel: that of Lloyd and Max, which has the least mean squared error. A vector is
kept as its norm n and D codes z, and read as x^ = n / sqrt(D) R^-1 c[z].

Attention: R keeps dot products, so the query is rotated once and cached vectors never are. Values are averaged where
they are, in the rotated space, and the mean is rotated back once:

    score_t = scale n_t / sqrt(D)  R q . c[z_t]
    out = R^-1 sum_t softmax_t(score) m_t / sqrt(D)  c[y_t]          (m, y: norm and codes of the values)

Norms multiply scores and weights, not numbers. A number costs little more than its table lookup: its code selects the
two bytes of a 16-bit value by byte permutations (`instructions`). The whole loop, compiled for an H100, takes 2.7, 4.0
and 3.9 instructions per number at 2, 3 and 4 bits, where 4, 6 and 8 take as long as reading the codes. Tokens are the
rows of both matrix products and the query heads of a group the 8 columns, since 16 rows of queries would be mostly
padding; one warp reads 32 tokens at a time.

Layout
------
A code is a sign (its highest bit, 1 for negative) and a magnitude (the others, 0 for the smallest). D is a power of 2.
    codes [B, Hkv, T, b D / 16] int16, norms [B, Hkv, T] in the dtype of keys and values
With J codes in a word and W = D / J, word w of a token holds channel j W + w (j < J) in its bits from 16 / J j up.
- 2 bits: J = 8; 4 bits: J = 4.
- 3 bits: the low two bits lie as for 2 bits. The highest bits fill W / 2 words more: word W + u holds those of words u
  and W / 2 + u, in bits 4 (j // 2) + j % 2 + (2 for u, 0 for W / 2 + u), where they fall beside the low bits.
T is room: `lengths` [B] int32 of the tokens are cached, 0 is allowed. signs [D] of +-1 and q [B, Hq, D] have the same
dtype as the norms; at most 16 query heads share a key head. Returns out [B, Hq, D] in q's dtype and lse [B, Hq] fp32.

Cost
----
Reads 2 B Hkv T (D b / 8 + e) bytes, e bytes per norm: at D = 128 in bf16 2.125, 3.125 or 4.125 bits per number, so 7.5,
5.1 or 3.9 times fewer than bf16, which bounds the gain. 4 B Hq T D FLOPs, as in dense attention; each rotation is
a small launch of its own, of D log2 D sums per query.

Published
---------
TurboQuant, of which this is the form without residual, reports no loss of quality at 3.5 bits per channel and a
marginal one at 2.5 (its abstract). Mean squared errors of the codebooks are textbook (Max 1960): 0.1175, 0.03454 and
0.009497 of the variance at 2, 3 and 4 bits; the tests reproduce them.

Differs
-------
TurboQuant made the combination known for caches; DRIVE and EDEN (rotation and a scale, for gradients), HIGGS (Hadamard
rotation and Gaussian grids, for weights) and AQUA-KV (HIGGS for caches) are earlier forms. The codebook is that of the
normal distribution, not of the Beta distribution that a coordinate of a random unit vector has exactly; they meet as D
grows. The norm is kept as it is, not corrected for that of the codes as in EDEN. Of the papers below, NSNQuant and
VecInfer rotate by Hadamard, too, but code several channels jointly and tame keys first in other ways. QJL's sketch, the
unbiased correction of dot products with what the codes leave over, is `sign_sketch` and `sketched_dots` in
rotated_codes.py, and not part of the fused kernel. There are no pages: a request's cache is contiguous.

:leaf: kvcc/quantization
:papers: turboquant, nsnquant, vecinfer, qjl
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_heads, check_integers, check_same, check_shape
from reference_kernels.core.device import interpreted
from reference_kernels.core.lse import LOG2_E, attention
from reference_kernels.core.pieces import Plan, Tuning, merge, plan_rows, store_lse, store_mean, take_piece
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvcc.rotated_codes import (
    Coded,
    check_bits,
    code_values,
    dequantize,
    launch_rotation,
    quantize,
    random_signs,
)
from reference_kernels.kvcc.split_decode import check_contiguous, check_room
from reference_kernels.kvs.paged_decode import dense_peer


def decode_attention(
    q: torch.Tensor, keys: Coded, values: Coded, signs: torch.Tensor, lengths: torch.Tensor, *,
    scale: float | None = None, plan: Plan | None = None,
) -> Outputs:  # fmt: skip
    """Attend from one query per request to its coded tokens. Shapes and layout: the module's docstring.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or (without a plan) `lengths` exceed the room.
    """
    check_same(q=q, norms_of_keys=keys.norms, norms_of_values=values.norms, signs=signs)
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    check_bits(keys.bits, dim)
    check_shape("signs", signs, dim)
    check_shape("norms of keys", keys.norms, batch, None, None)
    heads, room = keys.norms.shape[1:]
    group = check_heads(query_heads, heads)
    if group > 16:
        raise ValueError(f"at most 16 query heads can share a key head, not {group}")
    if values.bits != keys.bits:
        raise ValueError(f"keys have {keys.bits} bits and values {values.bits}: they must have the same")
    for name, part in (("keys", keys), ("values", values)):
        check_shape(f"norms of {name}", part.norms, batch, heads, room)
        check_shape(f"codes of {name}", part.codes, batch, heads, room, keys.bits * dim // 16)
        if part.codes.dtype != torch.int16 or part.codes.device != q.device:
            raise TypeError(f"codes of {name} must be int16 on {q.device}")
        check_contiguous(**{f"codes of {name}": part.codes, f"norms of {name}": part.norms})
    check_shape("lengths", lengths, batch)
    check_integers(q.device, lengths=lengths)
    if plan is None:
        check_room(lengths, batch, room, q.device)
        plan = make_plan(q, lengths, heads)

    rotated_query, rotated_out = torch.empty_like(q), torch.empty(q.shape, dtype=torch.float32, device=q.device)
    out, lse = torch.empty_like(q), torch.empty(batch, query_heads, dtype=torch.float32, device=q.device)
    part_out, part_lse = plan.states(batch * heads, group, dim)
    launch_rotation(q.contiguous(), signs, rotated_query, back=False)
    _read_pieces[(len(plan.items),)](
        rotated_query, keys.codes, keys.norms, values.codes, values.norms,
        code_table(keys.bits, q.dtype, q.device), plan.items, rotated_out, lse, part_out, part_lse,
        (dim**-0.5 if scale is None else scale) * dim**-0.5 * LOG2_E, room,
        GROUP=group, COLUMNS=_columns(group), DIM=dim, BITS=keys.bits, BLOCK=plan.tuning.block,
        BYTES=None if interpreted() else code_bytes(keys.bits, q.dtype),
        num_warps=plan.tuning.warps, num_stages=plan.tuning.stages,
    )  # fmt: skip
    merge(plan, part_out, part_lse, rotated_out, lse)
    launch_rotation(rotated_out, signs, out, back=True)
    return {"out": out, "lse": lse}


def make_plan(q: torch.Tensor, lengths: torch.Tensor, heads: int, tuning: Tuning | None = None) -> Plan:
    """Cut the work of a step.

    Args:
        q: [B, Hq, D], of which shape and device matter.
        lengths: [B] int32, best on the CPU.
        heads: Hkv.
        tuning: layout, if not the usual one.
    """
    return plan_rows(lengths.cpu().repeat_interleave(heads), tuning or tuning_for(q, heads), q.device)


def tuning_for(q: torch.Tensor, heads: int) -> Tuning:
    """Return 32 tokens per program and as many warps as the D x 8 or 16 sums need registers."""
    group, dim = q.shape[1] // heads, q.shape[2]
    return Tuning(block=32, warps=max(dim * _columns(group) // 1024, 1), stages=4, pieces=12)


def _columns(group: int) -> int:
    return 8 if group <= 8 else 16


@cache
def code_table(bits: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return the value of every code, made once: a copy in every layer would wait for the host."""
    return code_values(bits, torch.empty(0, dtype=dtype, device=device))


@cache
def code_bytes(bits: int, dtype: torch.dtype) -> tuple[int, int, int, int] | None:
    """Return the low bytes of 8 values of 16 bits in two words, then the high bytes in two words; None for fp32.

    For 4 bits these are the 8 magnitudes; the 4 values of 2 bits come twice.
    """
    if dtype.itemsize != 2:
        return None
    values = code_values(bits, torch.empty(0, dtype=dtype)).repeat(2)[:8]
    low, high = values.view(torch.uint8).view(8, 2).T.tolist()
    a, b, c, d = (int.from_bytes(part[n : n + 4], "little") for part in (low, high) for n in (0, 4))
    return a, b, c, d


@triton.jit
def _read_pieces(
    q, k_codes, k_norms, v_codes, v_norms, table, items, out, lse, part_out, part_lse, scale, room,
    GROUP: tl.constexpr, COLUMNS: tl.constexpr, DIM: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
    BYTES: tl.constexpr,
):  # fmt: skip
    """One program: the state of the G query heads of one row over one piece of its tokens, in the rotated space."""
    row, start, stop, slot = take_piece(items, False)
    if row >= 0:
        J: tl.constexpr = 4 if BITS == 4 else 8  # codes in a word
        WORDS: tl.constexpr = DIM // J
        STRIDE: tl.constexpr = DIM * BITS // 16
        PADDED: tl.constexpr = WORDS if WORDS >= 16 else 16  # tensor cores want at least 16
        column, word, token = tl.arange(0, COLUMNS), tl.arange(0, PADDED), tl.arange(0, BLOCK)
        exists = word < WORDS
        upper = word >= WORDS // 2
        high_word = WORDS + word % (WORDS // 2)
        real = exists[:, None] & (column < GROUP)[None, :]
        mine = q + (row * GROUP + column)[None, :] * DIM + word[:, None]
        queries: tl.tuple = ()
        means: tl.tuple = ()
        for j in tl.static_range(J):
            queries += (tl.load(mine + j * WORDS, mask=real, other=0.0),)
            means += (tl.zeros([PADDED, COLUMNS], tl.float32),)
        top = tl.full([COLUMNS], float("-inf"), tl.float32)  # running maximum, in powers of two
        total = tl.zeros([COLUMNS], tl.float32)

        base = row.to(tl.int64) * room
        for first in range(start, stop, BLOCK):
            live = first + token < stop
            # too few bytes for the pipeline, so they are asked for long before they are needed
            k_norm = tl.load(k_norms + base + first + token, mask=live, other=0.0)
            v_norm = tl.load(v_norms + base + first + token, mask=live, other=0.0)
            ours = k_codes + (base + first) * STRIDE + token[:, None] * STRIDE
            mask = live[:, None] & exists[None, :]
            words = tl.load(ours + word[None, :], mask=mask, other=0)
            high = words
            if BITS == 3:
                high = tl.load(ours + high_word[None, :], mask=mask, other=0)
                high = tl.where(upper[None, :], high << 2, high)
            scores = tl.zeros([BLOCK, COLUMNS], tl.float32)
            for j in tl.static_range(J):
                keys = _look_up(words, high, table, j, BITS, BYTES)
                scores = tl.dot(keys, queries[j], scores, input_precision="ieee")
            scores = tl.where(live[:, None], scores * (k_norm.to(tl.float32) * scale)[:, None], float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, 0))
            weights = tl.exp2(scores - new_top[None, :])
            fade = tl.exp2(top - new_top)
            total = total * fade + tl.sum(weights, 0)
            top = new_top
            weights = (weights * v_norm.to(tl.float32)[:, None]).to(q.dtype.element_ty)
            # values: rows are channels; ldmatrix transposes the words
            ours = v_codes + (base + first) * STRIDE + token[None, :] * STRIDE
            mask = live[None, :] & exists[:, None]
            words = tl.load(ours + word[:, None], mask=mask, other=0)
            high = words
            if BITS == 3:
                high = tl.load(ours + high_word[:, None], mask=mask, other=0)
                high = tl.where(upper[:, None], high << 2, high)
            new_means: tl.tuple = ()
            for j in tl.static_range(J):
                values = _look_up(words, high, table, j, BITS, BYTES)
                new_means += (tl.dot(values, weights, means[j] * fade[None, :], input_precision="ieee"),)
            means = new_means

        inverse = DIM**-0.5 / tl.where(total > 0, total, 1.0)
        store_lse(row, slot, column, top, total, lse, part_lse, GROUP)
        for j in tl.static_range(J):
            place = column[None, :] * DIM + word[:, None] + j * WORDS
            store_mean(row, slot, place, means[j] * inverse[None, :], real, out, part_out, GROUP, DIM)


@triton.jit
def _look_up(words, high, table, J: tl.constexpr, BITS: tl.constexpr, BYTES: tl.constexpr):
    """Return the values of the J-th codes of 16-bit words."""
    if BYTES is not None:
        return tl.inline_asm_elementwise(
            instructions(J, BITS, BYTES), "=r,r,r", [words, high], table.dtype.element_ty, is_pure=True, pack=2
        )
    WIDTH: tl.constexpr = 4 if BITS == 4 else 2
    code = (words.to(tl.int32) >> (WIDTH * J)) & ((1 << WIDTH) - 1)
    if BITS == 3:
        code |= ((high.to(tl.int32) >> (4 * (J // 2) + 2 + J % 2)) & 1) << 2
    return tl.load(table + code)


@triton.constexpr_function
def instructions(j: int, bits: int, table: tuple[int, int, int, int]) -> str:
    """Return PTX that looks up the j-th codes of two words ($1, of 3 bits with $2) at once: two values of 16 bits ($0).

    `prmt` picks bytes of two registers by the nibbles of a third. So codes are put into nibbles; two prmt look up the
    low and the high bytes of four values, and a third puts those of two of them side by side. What several j have in
    common is done once: the assembler sees to it.
    """
    if bits == 4:
        nibble, lines = j, ["and.b32 n, $1, 0x77777777;"]
    else:
        nibble, lines = j // 2, [f"shr.b32 n, $1, {j % 2 * 2};", "and.b32 n, n, 0x33333333;"]
    if bits == 2:
        lines += ["or.b32 n, n, 0x44444444;"]  # of two equal tables the second, which can be part of the instruction
    if bits == 3:
        lines += [f"shr.b32 t, $2, {j % 2};", "and.b32 t, t, 0x44444444;", "or.b32 n, n, t;"]
    first = [f"{part:#x}" if bits > 2 else "n" for part in (table[0], table[2])]
    lines += [
        "prmt.b32 n, n, n, 0x3120;",  # the low bytes of both words, then the high bytes
        f"shr.b32 n, n, {nibble // 2 * 16};",
        f"prmt.b32 a, {first[0]}, {table[1]:#x}, n;",
        f"prmt.b32 b, {first[1]}, {table[3]:#x}, n;",
        f"prmt.b32 a, a, b, {0x7351 if nibble % 2 else 0x6240:#x};",
    ]
    if bits == 4:
        lines += [f"shl.b32 t, $1, {12 - 4 * j};", "and.b32 t, t, 0x80008000;", "or.b32 a, a, t;"]
    return "{ .reg .b32 n, t, a, b; " + " ".join(lines) + " mov.b32 $0, a; }"


def reference(
    q: torch.Tensor, keys: Coded, values: Coded, signs: torch.Tensor, lengths: torch.Tensor, scale: float | None = None
) -> Outputs:  # fmt: skip
    """Attention over what the codes stand for, rotated back."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    states = []
    for b, length in enumerate(lengths.tolist()):
        k, v = (
            dequantize(Coded(part.codes[b, :, :length], part.norms[b, :, :length], part.bits), signs)
            for part in (keys, values)
        )
        states.append(attention(q[b], k, v, scale))
    out, lse = (torch.stack(part) for part in zip(*states, strict=True))
    return {"out": out, "lse": lse}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: Any, heads: int, group: int, dim: int, bits: int,
    room: int = 0,
) -> Inputs:  # fmt: skip
    """Draw keys with a few loud channels and values without, and code them; norms past `lengths` are NaN."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, generator=generator)

    room = max(room, *lengths, 1)
    signs = random_signs(dim, seed, dtype=dtype, device=device)
    loud = 1 + 9 * (torch.rand(heads, 1, dim, device=device, generator=generator) < 0.05)
    parts: tuple[list[Coded], list[Coded]] = [], []
    for length in lengths:  # one request at a time: the originals need 8 times the memory of the codes
        for part, factor in zip(parts, (loud, torch.ones_like(loud)), strict=True):
            coded = quantize((draw(1, heads, room, dim) * factor).to(dtype), signs, bits)
            coded.norms[:, :, length:] = float("nan")
            part.append(coded)
    keys, values = (
        Coded(torch.cat([coded.codes for coded in part]), torch.cat([coded.norms for coded in part]), bits)
        for part in parts
    )
    q = draw(len(lengths), heads * group, dim).to(dtype)
    sizes = torch.tensor(lengths, dtype=torch.int32, device=device)
    return {"q": q, "keys": keys, "values": values, "signs": signs, "lengths": sizes}


def plan(*, q: torch.Tensor, keys: Coded, lengths: torch.Tensor, **_: Any) -> Inputs:
    """The host's part of a step."""
    return {"plan": make_plan(q, lengths, keys.norms.shape[1])}


def work(*, q: torch.Tensor, keys: Coded, signs: torch.Tensor, lengths: torch.Tensor, **_: Any) -> Work:
    """Codes and norms of every cached token once, every query and result once."""
    batch, query_heads, dim = q.shape
    heads = keys.norms.shape[1]
    tokens, size = int(lengths.sum()) * heads, q.element_size()
    return Work(
        read=2 * tokens * (dim * keys.bits // 8 + size) + (q.numel() + dim) * size,
        written=q.numel() * size + 4 * batch * query_heads,
        flops=4 * tokens * (query_heads // heads) * dim,
    )


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """Bits per number with norms, and what they bound the gain over 16 bits to."""
    keys = inputs["keys"]
    bits = 8 * keys.nbytes / (keys.norms.numel() * inputs["q"].shape[-1])
    return {"bits per number": bits, "bound of the gain over 16 bits": 16 / bits}


BENCH = {"lengths": [8192] * 32, "heads": 8, "group": 4, "dim": 128}
UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "2 bits, odd lengths": {"lengths": [1, 15, 0, 17, 200], "heads": 2, "group": 4, "dim": 128, "bits": 2},
        "3 bits, wide group": {"lengths": [33, 160], "heads": 2, "group": 8, "dim": 128, "bits": 3},
        "4 bits, one query head": {"lengths": [16, 0, 257], "heads": 2, "group": 1, "dim": 128, "bits": 4, "room": 300},
        "2 bits, small head": {"lengths": [65], "heads": 1, "group": 4, "dim": 64, "bits": 2},
        "3 bits, small head": {"lengths": [40], "heads": 1, "group": 2, "dim": 64, "bits": 3},
        "4 bits, large head": {"lengths": [70], "heads": 1, "group": 16, "dim": 256, "bits": 4},
    },
    benchmarks={f"{bits} bits, B=32 x 8k": {**BENCH, "bits": bits} for bits in (2, 3, 4)},
    peers={
        "paged decode, 16 bits": lambda inputs: dense_peer(
            inputs["q"], inputs["lengths"], inputs["keys"].norms.shape[1]
        )
    },
    figures=figures,
)
