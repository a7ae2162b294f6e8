"""Exact decode attention over a paged cache, cut into equal pieces of work.

Computes
--------
For every request b and query head i with key head h = i // G:
    out[b, i] = sum_t softmax_t(scale * q[b, i] . k[b, h, t]) v[b, h, t],   lse[b, i] = ln sum_t exp(scale * q . k)
One program reads one piece of one row, a row being one key head of one request, and leaves a state (out, lse) in
fp32; the states of a row are then merged (core/lse.py). Requests of a batch differ in length by orders of magnitude,
so `make_plan` cuts rows into pieces of equal size, chosen so that the programs that run at a time are done first (for
one wave of programs, two, ...), the longest first. The plan is made on the host once per step and used by every layer;
its buffers keep their addresses, so that a captured CUDA graph may be replayed after `Plan.refill`.

Layout
------
q [B, Hq, D]; k_pages, v_pages [P, Hkv, S, D]; block_table [B, N] or [B, Hkv, N] int32; lengths [B] or [B, Hkv] int32
(core/paging.py). A table and a length per head, over pages owned by single heads, give ragged per-head attention with
the same kernel: strides of 0 stand for what is shared. Returns out [B, Hq, D] in q's dtype and lse [B, Hq] in fp32; a
request without tokens gives zeros and -inf. D is a power of two; scores and sums are kept in fp32.

Cost
----
Reads 2 B Hkv T D e bytes (e bytes per number) and does 4 B Hq T D FLOPs: G FLOPs per byte in bf16, far below what a GPU
needs to be bound by arithmetic. The share of the measured read bandwidth is therefore the figure of merit.

Published
---------
FlashInfer reports 29-69 % lower inter-token latency than compiler backends, 28-30 % lower latency at long context and
13-17 % faster parallel generation (its abstract, MLSys 2025); these are end-to-end figures of whole servers.

Differs
-------
FlashInfer searches for the smallest piece with which all work fits into one wave; here several waves compete. Merging
is a second launch, hidden behind the first (programmatic dependent launch), one program for each query head.

:leaf: kvs
:papers: flashinfer
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from reference_kernels.core.checks import (
    check_dim,
    check_heads,
    check_integers,
    check_same,
    check_scale,
    check_shape,
    check_table,
    rows_of,
)
from reference_kernels.core.device import multiprocessors
from reference_kernels.core.lse import LOG2_E, attention
from reference_kernels.core.paging import gather, make_cache
from reference_kernels.core.peers import DECODE_PEERS, forget_poison, timed_only
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
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work


def tuning_for(q: torch.Tensor, rows: torch.Tensor) -> Tuning:
    """Return the fastest of 10 layouts tried on an H100: for long pieces, large tiles; for short ones, many small."""
    size = q.shape[-1] * q.element_size()  # bytes of a key
    if int(rows.sum()) > 1024 * 2 * multiprocessors(q.device):
        return Tuning(block=min(max(32768 // size, 16), 128), warps=4, stages=2)
    return Tuning(block=min(max(8192 // size, 16), 32), warps=2, stages=3)


def make_plan(
    q: torch.Tensor, lengths: torch.Tensor, heads: int, tuning: Tuning | None = None, capacity: int | None = None
) -> Plan:
    """Cut the work of a step.

    Args:
        q: [B, Hq, D], of which shape, dtype and device matter.
        lengths: [B] or [B, Hkv] int32, best on the CPU.
        heads: Hkv.
        tuning: layout, if not the measured one.
        capacity: room for pieces, for a plan that will be refilled (core/pieces.py).
    """
    rows = lengths.cpu() if lengths.dim() == 2 else lengths.cpu().repeat_interleave(heads)
    return plan_rows(rows, tuning or tuning_for(q, rows), q.device, capacity)


def paged_decode(
    q: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    *,
    scale: float | None = None,
    plan: Plan | None = None,
    early: bool = False,
) -> Outputs:
    """Attend from one query per request to its cached tokens. Shapes and layout: the module's docstring.

    With a `plan` nothing is read back from the device; without one it is made here and the block table is checked.
    `early` is for a caller whose last kernel made the block table and let dependents be launched, while q is older: the
    launch is then hidden behind that kernel (core/pieces.py).

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or the block table do not fit.
    """
    check_same(q=q, k_pages=k_pages, v_pages=v_pages)
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    per_head = lengths.dim() == 2
    check_shape("k_pages", k_pages, None, None, None, dim)
    heads = lengths.shape[1] if per_head else k_pages.shape[1]
    pages, owned, page, _ = k_pages.shape
    group = check_heads(query_heads, heads)
    check_dim(dim)
    if owned not in (1, heads):
        raise ValueError(f"pages hold {owned} heads; lengths say that there are {heads}")
    check_shape("v_pages", v_pages, *k_pages.shape)
    check_shape("lengths", lengths, *((batch, heads) if per_head else (batch,)))
    check_shape("block_table", block_table, *((batch, heads, None) if per_head else (batch, None)))
    check_integers(q.device, block_table=block_table, lengths=lengths)
    if plan is None:
        check_table(block_table, lengths, pages, page)
        plan = make_plan(q, lengths, heads)
    if k_pages.stride(3) != 1 or v_pages.stride() != k_pages.stride():
        raise ValueError("k_pages and v_pages must have the same strides, with contiguous heads of D numbers")

    q, block_table = q.contiguous(), rows_of(block_table)
    out, lse = torch.empty_like(q), torch.empty(batch, query_heads, dtype=torch.float32, device=q.device)
    part_out, part_lse = plan.states(batch * heads, group, dim)
    scale = check_scale(scale, dim)
    can = can_launch_early(q.device)
    _read_pieces[(len(plan.items),)](
        q, k_pages, v_pages, block_table, plan.items, out, lse, part_out, part_lse, scale * LOG2_E,
        k_pages.stride(0), k_pages.stride(1) if owned > 1 else 0, k_pages.stride(2),
        block_table.stride(0), block_table.stride(1) if per_head else 0,
        HEADS=heads, GROUP=group, ROWS=max(triton.next_power_of_2(group), 16), DIM=dim, PAGE=page,
        BLOCK=plan.tuning.block, EARLY=can, AFTER=early and can,
        num_warps=plan.tuning.warps, num_stages=plan.tuning.stages, launch_pdl=early and can,
    )  # fmt: skip
    merge(plan, part_out, part_lse, out, lse)
    return {"out": out, "lse": lse}


@triton.jit
def _read_pieces(
    q, k_pages, v_pages, block_table, items, out, lse, part_out, part_lse, scale,
    stride_page, stride_head, stride_token, stride_request, stride_table_head,
    HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr,
    BLOCK: tl.constexpr, EARLY: tl.constexpr, AFTER: tl.constexpr,
):  # fmt: skip
    """One program: the state of the G query heads of one row over one piece of its tokens."""
    row, start, stop, slot = take_piece(items, EARLY)
    if row >= 0:
        table = block_table + (row // HEADS) * stride_request + (row % HEADS) * stride_table_head
        head = (row % HEADS).to(tl.int64) * stride_head
        group, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
        real = group < GROUP
        mine = q + (row * GROUP + group)[:, None] * DIM + dims[None, :]
        query = tl.load(mine, mask=real[:, None], other=0.0)
        if AFTER:
            gdc_wait()  # the block table is now there

        top, total, mean = read_tokens(
            query, k_pages + head, v_pages + head, table, start, stop, scale, stride_page, stride_token,
            ROWS, DIM, PAGE, BLOCK,
        )  # fmt: skip
        mean = mean / tl.where(total > 0, total, 1.0)[:, None]
        store_lse(row, slot, group, top, total, lse, part_lse, GROUP)
        place = group[:, None] * DIM + dims[None, :]
        store_mean(row, slot, place, mean, real[:, None], out, part_out, GROUP, DIM)


@triton.jit
def read_tokens(  # noqa: ANN201
    query, k, v, table, start, stop, scale, stride_page, stride_token,
    ROWS: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the state of ROWS queries over the tokens from `start` to `stop`: top, total [ROWS] and mean [ROWS, DIM].

    `top` is the running maximum, in powers of two; `mean` is still to be divided by `total`.
    """
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mean = tl.zeros([ROWS, DIM], tl.float32)
    whole = start + (stop - start) // BLOCK * BLOCK
    page = pages_of(table, start, stop, PAGE, BLOCK)
    for first in range(start, whole, BLOCK):
        place = places_of(page, first, stride_page, stride_token, PAGE, BLOCK)
        page = pages_of(table, first + BLOCK, stop, PAGE, BLOCK)
        top, total, mean = _read_tile(query, k, v, place, first, stop, scale, top, total, mean, DIM, BLOCK, False)
    if whole < stop:
        page = pages_of(table, whole, stop, PAGE, BLOCK)
        place = places_of(page, whole, stride_page, stride_token, PAGE, BLOCK)
        top, total, mean = _read_tile(query, k, v, place, whole, stop, scale, top, total, mean, DIM, BLOCK, True)
    return top, total, mean


@triton.jit
def pages_of(table, first, stop, PAGE: tl.constexpr, BLOCK: tl.constexpr):  # noqa: ANN201
    """Return the pages [BLOCK] of the tokens from `first` on; 0 from `stop` on.

    A loop asks for those of its next tile before it reads this one: else every tile would wait for two round trips.
    """
    tokens = first + tl.arange(0, BLOCK)
    return tl.load(table + tokens // PAGE, mask=tokens < stop, other=0)


@triton.jit
def places_of(page, first, stride_page, stride_token, PAGE: tl.constexpr, BLOCK: tl.constexpr):  # noqa: ANN201
    """Return where the keys of the tokens from `first` on begin [BLOCK], given their pages."""
    return page.to(tl.int64) * stride_page + ((first + tl.arange(0, BLOCK)) % PAGE) * stride_token


@triton.jit
def _read_tile(
    query, k, v, place, first, stop, scale, top, total, mean,
    DIM: tl.constexpr, BLOCK: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Read BLOCK tokens into the running state (top, total, mean); only the LAST tile of a row may be partly empty."""
    live = first + tl.arange(0, BLOCK) < stop
    place = place[:, None] + tl.arange(0, DIM)[None, :]
    keys = tl.load(k + place, mask=live[:, None], other=0.0) if LAST else tl.load(k + place)
    scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
    if LAST:
        scores = tl.where(live[None, :], scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1) * scale)  # scale > 0
    weights = tl.exp2(scores * scale - new_top[:, None])
    fade = tl.exp2(top - new_top)
    values = tl.load(v + place, mask=live[:, None], other=0.0) if LAST else tl.load(v + place)
    total = total * fade + tl.sum(weights, 1)
    mean = tl.dot(weights.to(values.dtype), values, mean * fade[:, None], input_precision="ieee")
    return new_top, total, mean


def reference(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor,
    scale: float | None = None,
) -> Outputs:  # fmt: skip
    """The equation, one request (or one head of one request) at a time."""
    batch, query_heads, dim = q.shape
    scale = dim**-0.5 if scale is None else scale
    rows = block_table.reshape(-1, block_table.shape[-1])  # one per request, or per key head of a request
    queries = q.reshape(len(rows), -1, dim)
    states = [
        attention(queries[i], gather(k_pages, row, length), gather(v_pages, row, length), scale)
        for i, (row, length) in enumerate(zip(rows, lengths.flatten().tolist(), strict=True))
    ]
    out, lse = (torch.stack(part).reshape(batch, query_heads, *part[0].shape[1:]) for part in zip(*states, strict=True))
    return {"out": out, "lse": lse}


def make_inputs(
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    lengths: Any,
    heads: int,
    group: int,
    dim: int,
    page: int = 16,
) -> Inputs:
    """Draw a query and a cache; `lengths` is a list, nested where heads have their own."""
    generator = torch.Generator(device).manual_seed(seed)
    sizes = torch.tensor(lengths, dtype=torch.int32)
    k_pages, v_pages, table, sizes = make_cache(sizes, heads, page, dim, dtype=dtype, generator=generator)
    q = torch.randn(len(lengths), heads * group, dim, dtype=dtype, device=device, generator=generator)
    return {"q": q, "k_pages": k_pages, "v_pages": v_pages, "block_table": table, "lengths": sizes}


def plan(*, q: torch.Tensor, k_pages: torch.Tensor, lengths: torch.Tensor, **_: Any) -> Inputs:
    """The host's part of a step."""
    return {"plan": make_plan(q, lengths, lengths.shape[1] if lengths.dim() == 2 else k_pages.shape[1])}


def work(*, q: torch.Tensor, k_pages: torch.Tensor, lengths: torch.Tensor, **_: Any) -> Work:
    """Every cached key and value once, every query and result once."""
    batch, query_heads, dim = q.shape
    per_row = 1 if lengths.dim() == 2 else k_pages.shape[1]
    tokens = int(lengths.sum()) * per_row  # tokens times key heads
    heads = lengths.shape[1] if lengths.dim() == 2 else k_pages.shape[1]
    size = q.element_size()
    return Work(
        read=2 * tokens * dim * size + q.numel() * size,
        written=q.numel() * size + 4 * batch * query_heads,
        flops=4 * tokens * (query_heads // heads) * dim,
    )


def lognormal_lengths(requests: int, low: int = 16, high: int = 50_000, seed: int = 0) -> list[int]:
    """Return lengths as ragged as those of real traffic: log-normal, clipped."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.exp(torch.randn(requests, generator=generator) * math.log(4) + math.log(2200))
    return draws.clamp(low, high).int().tolist()


def dense_peer(q: torch.Tensor, lengths: torch.Tensor, heads: int, library: str | None = None) -> Callable[[], None]:
    """Return a call that attends from q to as many tokens as `lengths` say, in a full cache of q's dtype.

    It is what other units compare their time with: by `paged_decode`, or by one of its peers, named `library`.
    """
    generator = torch.Generator(q.device).manual_seed(0)
    cache = make_cache(lengths.cpu(), heads, 16, q.shape[2], dtype=q.dtype, generator=generator)
    if library is None:
        cut = make_plan(q, lengths, heads)
        return timed_only(lambda: paged_decode(q, *cache, plan=cut))
    inputs = {"q": q, **dict(zip(("k_pages", "v_pages", "block_table", "lengths"), cache, strict=True))}
    forget_poison(inputs)
    return timed_only(DECODE_PEERS[library](inputs))


UNIT = Unit(
    kernel=paged_decode,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "odd lengths": {"lengths": [1, 15, 16, 17, 1023, 0], "heads": 2, "group": 4, "dim": 128},
        "one query head per key head": {"lengths": [300, 5], "heads": 3, "group": 1, "dim": 64},
        "wide group and head": {"lengths": [65, 130], "heads": 1, "group": 8, "dim": 256, "page": 32},
        "a length per head": {"lengths": [[5, 0, 64], [129, 200, 17]], "heads": 3, "group": 4, "dim": 64},
        "nothing cached": {"lengths": [0], "heads": 1, "group": 1, "dim": 64},
    },
    benchmarks={
        "B=32 x 8k": {"lengths": [8192] * 32, "heads": 8, "group": 4, "dim": 128},
        "B=1 x 128k": {"lengths": [131072], "heads": 8, "group": 4, "dim": 128},
        "B=64 ragged": {"lengths": lognormal_lengths(64), "heads": 8, "group": 4, "dim": 128},
        "B=8 x 1k": {"lengths": [1024] * 8, "heads": 8, "group": 4, "dim": 128},
    },
    peers=DECODE_PEERS,
)
