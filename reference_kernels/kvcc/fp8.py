"""FP8: keys and values as 8-bit floats with a scale per head, and decoding straight from the pages.

Computes
--------
k ~ s_h c with c in e4m3 (1 sign, 4 exponent, 3 mantissa bits) and s_h = max |k| / 448 of a head; values likewise.
Decoding is exact attention over what the codes stand for:
    out = softmax(scale s_h q . c_k) (s_h c_v)
so that both scales leave the loop: one goes to the scores, the other to the result. An e4m3 number, shifted by one bit,
is an fp16 number 256 times too small (the exponent's bias is 7 instead of 15), subnormals included, so two bit
operations and no conversion make fp16 of it. Tokens are the rows of both matrix products, query heads the columns.

Layout
------
k_pages, v_pages [P, Hkv, S, D] float8_e4m3fn, block_table [B, N] int32, lengths [B] int32 (core/paging.py): the plain
paged layout of serving engines. k_scale, v_scale [Hkv] fp32. q [B, Hq, D], D a power of two of at least 32, at most 16
query heads for a key head; returns out [B, Hq, D] in q's dtype and lse [B, Hq] fp32. NaN codes do not survive: there
are none after `quantize`. The kernel reads two codes as one 16-bit word: even channels are one tile, odd ones another.

Cost
----
One byte per number: half of bf16, so the gain is at most 2. 4 B Hq T D FLOPs.

Published
---------
No figure quoted: FP8 caches are an option of every serving engine rather than the claim of one paper. HACK and QServe
name 8-bit caches as the baseline that they go below.

Differs
-------
Engines keep one scale for a tensor; one per head costs nothing here. Queries stay in 16 bits: the tensor cores multiply
fp16, not fp8, so that the only loss is that of the stored codes.

:leaf: kvcc/quantization
:papers: hack, qserve
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import (
    check_dim,
    check_heads,
    check_integers,
    check_scale,
    check_shape,
    check_table,
    rows_of,
)
from reference_kernels.core.device import interpreted
from reference_kernels.core.lse import LOG2_E, attention
from reference_kernels.core.paging import gather, make_cache
from reference_kernels.core.peers import DECODE_PEERS, timed_only
from reference_kernels.core.pieces import (
    Plan,
    Tuning,
    can_launch_early,
    merge,
    plan_rows,
    store_lse,
    store_mean,
    take_piece,
)
from reference_kernels.core.unit import Inputs, Outputs, Peer, Unit, Work
from reference_kernels.kvs.paged_decode import dense_peer, pages_of, places_of

LARGEST = 448.0  # of e4m3
SMALLEST = 1e-30  # a head whose numbers are smaller counts as zeros
TUNING = Tuning(block=32, warps=1, stages=2, pieces=8)


def quantize(pages: torch.Tensor, scale: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize pages [P, Hkv, S, D] to e4m3.

    Args:
        pages: keys or values; NaN in unused slots becomes 0.
        scale: [Hkv] fp32, if known; else the largest magnitude of each head over 448.

    Returns:
        codes [P, Hkv, S, D] float8_e4m3fn and scale [Hkv] fp32 (1 for a head of zeros).

    Raises:
        ValueError: a number is infinite.
    """
    check_shape("pages", pages, None, None, None, None)
    pages = pages.float().nan_to_num(0.0, posinf=torch.inf, neginf=-torch.inf)
    if scale is None:
        largest = pages.abs().amax((0, 2, 3))
        if not bool(torch.isfinite(largest).all()):
            raise ValueError("keys and values must be finite")
        scale = torch.where(largest >= SMALLEST, largest / LARGEST, 1.0)
    scaled = (pages / scale[:, None, None]).clamp(-LARGEST, LARGEST)
    return scaled.to(torch.float8_e4m3fn), scale


def decode_attention(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, k_scale: torch.Tensor, v_scale: torch.Tensor,
    block_table: torch.Tensor, lengths: torch.Tensor, *, scale: float | None = None, plan: Plan | None = None,
) -> Outputs:  # fmt: skip
    """Attend from one query per request to its cached tokens. Shapes: the module's docstring.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or (without a plan) the block table do not fit.
    """
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    check_shape("k_pages", k_pages, None, None, None, dim)
    check_shape("v_pages", v_pages, *k_pages.shape)
    pages, heads, page, _ = k_pages.shape
    if k_pages.dtype != torch.float8_e4m3fn or v_pages.dtype != torch.float8_e4m3fn:
        raise TypeError(f"pages must be float8_e4m3fn, not {k_pages.dtype} and {v_pages.dtype}")
    check_dim(dim)
    group = check_heads(query_heads, heads)
    if dim < 32 or group > 16:
        raise ValueError(f"heads must have at least 32 numbers, not {dim}, and groups at most 16 heads, not {group}")
    check_shape("k_scale", k_scale, heads)
    check_shape("v_scale", v_scale, heads)
    check_shape("lengths", lengths, batch)
    check_shape("block_table", block_table, batch, None)
    check_integers(q.device, block_table=block_table, lengths=lengths)
    if plan is None:
        check_table(block_table, lengths, pages, page)
        plan = make_plan(lengths, heads, q.device)
    q, block_table = q.contiguous(), rows_of(block_table)
    out, lse = torch.empty_like(q), torch.empty(batch, query_heads, dtype=torch.float32, device=q.device)
    part_out, part_lse = plan.states(batch * heads, group, dim)
    columns = 8 if group <= 8 else 16
    _read_pieces[(len(plan.items),)](
        q, k_pages.contiguous().view(torch.int16), v_pages.contiguous().view(torch.int16),
        k_scale, v_scale, block_table, plan.items, out, lse, part_out, part_lse, check_scale(scale, dim) * LOG2_E,
        block_table.stride(0),
        HEADS=heads, GROUP=group, COLUMNS=columns, DIM=dim, PAGE=page, TOKENS=plan.tuning.block,
        ASM=not interpreted(), EARLY=can_launch_early(q.device),
        num_warps=max(plan.tuning.warps, dim * columns // 2048),  # wide heads and groups need more registers
        num_stages=plan.tuning.stages,
    )  # fmt: skip
    merge(plan, part_out, part_lse, out, lse)
    return {"out": out, "lse": lse}


def make_plan(lengths: torch.Tensor, heads: int, device: torch.device, tuning: Tuning = TUNING) -> Plan:
    """Cut the work of a step: `lengths` [B], best on the CPU."""
    return plan_rows(lengths.cpu().repeat_interleave(heads), tuning, device)


@triton.jit
def _read_pieces(
    q, k_words, v_words, k_scale, v_scale, block_table, items, out, lse, part_out, part_lse, scale, stride_request,
    HEADS: tl.constexpr, GROUP: tl.constexpr, COLUMNS: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr,
    TOKENS: tl.constexpr, ASM: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the state of the G query heads of one row over one piece of its tokens."""
    row, start, stop, slot = take_piece(items, EARLY)
    if row >= 0:
        FLOAT: tl.constexpr = tl.float32 if q.dtype.element_ty == tl.float32 else tl.float16
        WORDS: tl.constexpr = DIM // 2
        column, word, token = tl.arange(0, COLUMNS), tl.arange(0, WORDS), tl.arange(0, TOKENS)
        real = (column < GROUP)[None, :]
        head = row % HEADS
        mine = q + (row * GROUP + column)[None, :] * DIM + 2 * word[:, None]
        even = tl.load(mine, mask=real, other=0.0).to(FLOAT)
        odd = tl.load(mine + 1, mask=real, other=0.0).to(FLOAT)
        factor = scale * tl.load(k_scale + head) * 256  # what the codes lack
        top = tl.full([COLUMNS], float("-inf"), tl.float32)
        total = tl.zeros([COLUMNS], tl.float32)
        even_mean = tl.zeros([WORDS, COLUMNS], tl.float32)
        odd_mean = tl.zeros([WORDS, COLUMNS], tl.float32)
        table = block_table + (row // HEADS) * stride_request
        k_words += head * (PAGE * WORDS)
        v_words += head * (PAGE * WORDS)
        page = pages_of(table, start, stop, PAGE, TOKENS)
        for first in range(start, stop, TOKENS):
            live = first + token < stop
            place = places_of(page, first, HEADS * PAGE * WORDS, WORDS, PAGE, TOKENS)
            page = pages_of(table, first + TOKENS, stop, PAGE, TOKENS)
            words = tl.load(k_words + place[:, None] + word[None, :], mask=live[:, None], other=0)
            scores = tl.dot(_codes(words, False, FLOAT, ASM), even, input_precision="ieee")
            scores = tl.dot(_codes(words, True, FLOAT, ASM), odd, scores, input_precision="ieee") * factor
            scores = tl.where(live[:, None], scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, 0))
            weights = tl.exp2(scores - new_top[None, :])
            fade = tl.exp2(top - new_top)
            top = new_top
            total = total * fade + tl.sum(weights, 0)
            weights = weights.to(FLOAT)
            words = tl.load(v_words + place[None, :] + word[:, None], mask=live[None, :], other=0)
            even_mean = tl.dot(
                _codes(words, False, FLOAT, ASM), weights, even_mean * fade[None, :], input_precision="ieee"
            )
            odd_mean = tl.dot(
                _codes(words, True, FLOAT, ASM), weights, odd_mean * fade[None, :], input_precision="ieee"
            )

        factor = tl.load(v_scale + head) * 256 / tl.where(total > 0, total, 1.0)[None, :]
        store_lse(row, slot, column, top, total, lse, part_lse, GROUP)
        place = column[None, :] * DIM + 2 * word[:, None]
        store_mean(row, slot, place, even_mean * factor, real, out, part_out, GROUP, DIM)
        store_mean(row, slot, place + 1, odd_mean * factor, real, out, part_out, GROUP, DIM)


@triton.jit
def _codes(words, ODD: tl.constexpr, FLOAT: tl.constexpr, ASM: tl.constexpr):
    """Return the e4m3 in the high (ODD) or low byte of each word, divided by 256."""
    if ASM and tl.float16 == FLOAT:  # two words at once
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 word, bits;
            shl.b32 word, $1, """
            + ("0" if ODD else "8")
            + """;
            shr.b32 bits, word, 1;
            and.b32 bits, bits, 0x3f803f80;
            lop3.b32 $0, word, 0x80008000, bits, 0xEA;
            }""",
            "=r,r", [words], dtype=tl.float16, is_pure=True, pack=2,
        )  # fmt: skip
    word = words if ODD else words << 8
    bits = (word & -32768) | ((word >> 1) & 0x3F80)
    return bits.to(tl.float16, bitcast=True).to(FLOAT)


def reference(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, k_scale: torch.Tensor, v_scale: torch.Tensor,
    block_table: torch.Tensor, lengths: torch.Tensor, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """Attention over what the codes stand for."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    states = []
    for b, length in enumerate(lengths.tolist()):
        k, v = (
            gather(pages, block_table[b], length).to(q.dtype) * s[:, None, None].to(q.dtype)
            for pages, s in ((k_pages, k_scale), (v_pages, v_scale))
        )
        states.append(attention(q[b], k, v, scale))
    out, lse = (torch.stack(part) for part in zip(*states, strict=True))
    return {"out": out, "lse": lse}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: Any, heads: int, group: int, dim: int,
    page: int = 16,
) -> Inputs:  # fmt: skip
    """Draw a query and a cache, and quantize the cache."""
    generator = torch.Generator(device).manual_seed(seed)
    sizes = torch.tensor(lengths, dtype=torch.int32)
    k, v, table, sizes = make_cache(sizes, heads, page, dim, dtype=torch.float16, generator=generator)
    (k, k_scale), (v, v_scale) = quantize(k), quantize(v)
    q = torch.randn(len(lengths), heads * group, dim, dtype=dtype, device=device, generator=generator)
    return {
        "q": q, "k_pages": k, "v_pages": v, "k_scale": k_scale, "v_scale": v_scale, "block_table": table,
        "lengths": sizes,
    }  # fmt: skip


def plan(*, q: torch.Tensor, k_pages: torch.Tensor, lengths: torch.Tensor, **_: Any) -> Inputs:
    """The host's part of a step."""
    return {"plan": make_plan(lengths, k_pages.shape[1], q.device)}


def work(*, q: torch.Tensor, k_pages: torch.Tensor, lengths: torch.Tensor, **_: Any) -> Work:
    """Every code once, every query and result once."""
    numbers = int(lengths.sum()) * k_pages.shape[1] * q.shape[2]
    size = q.numel() * q.element_size()
    return Work(2 * numbers + size, size + 4 * q.shape[0] * q.shape[1], 4 * numbers * (q.shape[1] // k_pages.shape[1]))


def library_fp8(name: str) -> Peer:
    """FlashInfer's decode over the same codes; its scale is one number, so its result is another one: only timed."""
    return lambda inputs: timed_only(DECODE_PEERS[name](inputs))


def dense(name: str) -> Peer:
    """A library's decode over as many tokens in 16 bits."""
    return lambda inputs: dense_peer(inputs["q"], inputs["lengths"], inputs["k_pages"].shape[1], name)


UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "odd lengths": {"lengths": [1, 15, 16, 17, 323, 0], "heads": 2, "group": 4, "dim": 128},
        "one query head per key head": {"lengths": [100, 5], "heads": 3, "group": 1, "dim": 64},
        "wide group and head": {"lengths": [65, 130], "heads": 1, "group": 16, "dim": 256, "page": 32},
        "nothing cached": {"lengths": [0], "heads": 1, "group": 8, "dim": 64},
    },
    benchmarks={"B=32 x 8k": {"lengths": [8192] * 32, "heads": 8, "group": 4, "dim": 128}},
    peers={
        "FlashInfer, fp8": library_fp8("FlashInfer"),
        "FlashInfer, fp8, tensor cores": library_fp8("FlashInfer, tensor cores"),
        "FlashInfer, bf16, tensor cores": dense("FlashInfer, tensor cores"),
        "SDPA cuDNN, bf16, contiguous": dense("SDPA cuDNN, contiguous"),
    },
)
