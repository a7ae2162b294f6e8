"""Quest: attend only to the pages that could matter, found by an upper bound kept for each page.

Computes
--------
A page keeps the smallest and largest value of each channel of its keys, so that no key in it can score higher than
    bound(q, page) = sum_d max(q_d min_d, q_d max_d) = relu(q) . max - relu(-q) . min  >=  q . k    for every k in it,
two matrix products over the digests. Query heads that share a key head choose together: a page's score is the largest
bound of the group. The `pages` best pages of each key head are kept, the newest page always (its keys are the most
recent tokens), and exact attention runs over them:
    out = softmax(scale q . k[kept]) v[kept]
Everything else of the cache is not read in this step; it stays, since another query may want it.
Choosing is one launch of one program per key head, which looks at few of the scores. Each SPAN pages have a peak, their
largest score; the K spans with the largest peaks contain the K best pages (a page outside of them is behind K peaks,
ties included). So it finds the K largest peaks, then the K largest scores below them, each time by narrowing down a
threshold: two counts at a time over what stays in registers, until as many as wanted lie above it.

Layout
------
q [B, Hq, D], k_pages, v_pages [P, Hkv, S, D], block_table [B, N] int32, lengths [B] int32 (core/paging.py);
digests [P, Hkv, 2, D] in the keys' dtype: minimum, then maximum. Returns out [B, Hq, D], lse [B, Hq] fp32, scores
[B, Hkv, N] fp32 (-inf where there is no page, +inf for the newest) and kept [B, Hkv, K] int32: physical pages in the
order of their tokens, -1 past their number. K = min(pages, N).

Cost
----
Reads 2 D e bytes of digest per page and 2 S D e per kept page: B Hkv D e (2 T / S + 2 budget) where dense attention
reads 2 B Hkv D e T, so the gain is at most 2 T / (2 T / S + 2 budget): 12.8 for T = 131,072, S = 16, budget = 2,048.

Published
---------
7.03x faster self-attention and 2.23x lower latency end to end (the authors' README; RTX 4090 and Ada 6000, against
FlashInfer over the full cache).

Measured
--------
One H100, 128k tokens, 2k kept: B=8 137 us, 10.3x over dense attention, 0.81 of the ideal 12.8x (scoring 100 us,
choosing 12, attention 33 on their own; they overlap); B=1 33 us, 5.7x, 0.44. With one request the three steps take 19,
6 and 7 us: reading 34 MB of digests (floor 11 us), choosing (8 programs, one per key head, on 132 multiprocessors), and
reading 8 MB of pages with the merge; latency and not bandwidth decides. Tried: 64 to 256 numbers per warp, spans of 4,
8 and 16, 18 layouts of the scoring, six of the attention, 1 to 6 pieces per multiprocessor.

Differs
-------
The paper has one query head per key head; grouped heads need the rule above. Its top-k is a library's, over all pages.
Pages are chosen for each step anew, in every layer.

:leaf: kvs
:papers: quest
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from reference_kernels.core.checks import (
    check_dim,
    check_heads,
    check_integers,
    check_same,
    check_shape,
    check_table,
    rows_of,
)
from reference_kernels.core.device import multiprocessors
from reference_kernels.core.lse import attention
from reference_kernels.core.paging import gather, pages_needed
from reference_kernels.core.peers import timed_only
from reference_kernels.core.pieces import Plan, can_launch_early
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvs import paged_decode

TILE = 16384  # bytes of minima in a tile of digests
PROGRAMS = 2  # that score on a multiprocessor at once
STAGES = 3  # two tiles of digests in flight
SPAN = 8  # pages that share a peak
NUMBERS = 128  # that a warp of the choosing program searches
MOST = 16384  # pages of a request; the scores of those in the best spans have to fit into one program's registers
SMALLEST, LARGEST = tl.constexpr(-2147483648), tl.constexpr(2147483647)


def make_digests(k_pages: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the digests [P, Hkv, 2, D] of all pages in use; those of others are not defined."""
    pages, heads, _, dim = k_pages.shape
    digests = torch.empty(pages, heads, 2, dim, dtype=k_pages.dtype, device=k_pages.device)
    update_digests(digests, k_pages, block_table, lengths, torch.zeros_like(lengths))
    return digests


def update_digests(
    digests: torch.Tensor, k_pages: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor, since: torch.Tensor
) -> None:
    """Bring the digests up to date, in place, after tokens `since` [B] … `lengths` [B] were appended."""
    check_same(digests=digests, k_pages=k_pages)
    check_shape("digests", digests, k_pages.shape[0], k_pages.shape[1], 2, k_pages.shape[3])
    check_integers(k_pages.device, block_table=block_table, lengths=lengths, since=since)
    heads, page, dim = k_pages.shape[1:]
    if not digests.is_contiguous() or k_pages.stride(3) != 1:
        raise ValueError("digests must be contiguous, and so must each key of k_pages")
    block_table = rows_of(block_table)
    grid = (block_table.shape[0], block_table.shape[1], heads)
    _digest[grid](
        digests, k_pages, block_table, lengths, since, block_table.stride(0), *k_pages.stride()[:3],
        HEADS=heads, PAGE=page, DIM=dim, ROWS=triton.next_power_of_2(page), num_warps=1,
    )  # fmt: skip


@triton.jit
def _digest(
    digests, k_pages, block_table, lengths, since, stride_request, stride_page, stride_head, stride_token,
    HEADS: tl.constexpr, PAGE: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """One program: the digest of one head of one page, if tokens were added to it."""
    request, number, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + request) - number * PAGE
    if (length > 0) & (tl.load(since + request) - number * PAGE < min(length, PAGE)):
        page = tl.load(block_table + request * stride_request + number).to(tl.int64)
        row, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
        live = (row < PAGE) & (row < length)
        place = page * stride_page + head * stride_head + row[:, None] * stride_token + dims[None, :]
        keys = tl.load(k_pages + place, mask=live[:, None], other=0.0)
        low = tl.min(tl.where(live[:, None], keys.to(tl.float32), float("inf")), 0)
        high = tl.max(tl.where(live[:, None], keys.to(tl.float32), float("-inf")), 0)
        digest = digests + (page * HEADS + head) * 2 * DIM + dims
        tl.store(digest, low.to(digests.dtype.element_ty))
        tl.store(digest + DIM, high.to(digests.dtype.element_ty))


def decode_attention(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, digests: torch.Tensor, block_table: torch.Tensor,
    lengths: torch.Tensor, *, pages: int, scale: float | None = None, plan: Plan | None = None,
) -> Outputs:  # fmt: skip
    """Choose `pages` pages for each key head and attend to them. Shapes: the module's docstring.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, `pages` is below 1, or (without a plan) the block
            table is out of range.
    """
    if pages < 1:
        raise ValueError(f"at least one page must be kept, not {pages}")
    check_same(q=q, k_pages=k_pages, v_pages=v_pages, digests=digests)
    check_shape("q", q, None, None, None)
    batch, _, dim = q.shape
    pool, heads, page, _ = k_pages.shape
    check_shape("digests", digests, pool, heads, 2, dim)
    check_dim(dim)
    check_shape("block_table", block_table, batch, None)
    check_shape("lengths", lengths, batch)
    check_integers(q.device, block_table=block_table, lengths=lengths)
    if plan is None:
        check_table(block_table, lengths, pool, page)
        plan = make_plan(q, lengths, heads, page, pages)
    q, digests, block_table = q.contiguous(), digests.contiguous(), rows_of(block_table)
    scores, peaks = page_scores(q, digests, block_table, lengths, page)
    kept, kept_lengths = select_pages(scores, peaks, block_table, lengths, page, pages)
    result = paged_decode.paged_decode(q, k_pages, v_pages, kept, kept_lengths, scale=scale, plan=plan, early=True)
    return {**result, "scores": scores, "kept": kept}


def make_plan(q: torch.Tensor, lengths: torch.Tensor, heads: int, page: int, pages: int) -> Plan:
    """Plan the attention of a step: how many tokens are kept follows from the lengths [B] alone."""
    kept = _kept_lengths(lengths.cpu(), page, pages)
    return paged_decode.make_plan(q, kept, heads)


def _kept_lengths(lengths: torch.Tensor, page: int, pages: int) -> torch.Tensor:
    """Return the tokens that are kept: the newest page is among them, and it alone may be partly filled."""
    dropped = (pages_needed(lengths, page) - pages).clamp(min=0)
    return (lengths - dropped * page).to(torch.int32)


def page_scores(
    q: torch.Tensor, digests: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor, page: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the score of every page [B, Hkv, N] fp32, the largest bound of the group, unscaled; and peaks.

    Peaks [B, Hkv, ceil(N / SPAN)] fp32 are the largest of SPAN scores in a row, the newest page's left out.
    """
    batch, _, dim = q.shape
    heads, columns = digests.shape[1], block_table.shape[1]
    group = check_heads(q.shape[1], heads)
    scores = torch.empty(batch, heads, columns, dtype=torch.float32, device=q.device)
    peaks = torch.empty(batch, heads, triton.cdiv(columns, SPAN), dtype=torch.float32, device=q.device)
    block = min(max(TILE // (dim * digests.element_size()), 16), 64)  # pages in a tile
    tiles = triton.cdiv(columns, block)
    programs = max(PROGRAMS * multiprocessors(q.device) // (batch * heads), 1)  # of each row, as many as run at once
    each = triton.cdiv(tiles, programs)
    _score[(triton.cdiv(tiles, each), heads, batch)](
        q.contiguous(), digests, block_table, lengths, scores, peaks, columns, block_table.stride(0), each * block,
        HEADS=heads, GROUP=group, ROWS=max(triton.next_power_of_2(group), 16), DIM=dim, PAGE=page, BLOCK=block,
        SPAN=SPAN, EARLY=can_launch_early(q.device), num_warps=4, num_stages=STAGES,
    )  # fmt: skip
    return scores, peaks


@triton.jit
def _score(
    q, digests, block_table, lengths, scores, peaks, columns, stride_request, each,
    HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr,
    BLOCK: tl.constexpr, SPAN: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the scores of `each` pages for one key head of one request."""
    if EARLY:
        gdc_launch_dependents()
    head, request = tl.program_id(1), tl.program_id(2)
    begin = tl.program_id(0) * each
    number = begin + tl.arange(0, BLOCK)
    table = block_table + request * stride_request
    page = tl.load(table + number, mask=number < columns, other=0)
    last = (tl.load(lengths + request) + PAGE - 1) // PAGE - 1
    member, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
    row = request * HEADS + head
    real = (member < GROUP)[:, None]
    query = tl.load(q + (row * GROUP + member)[:, None] * DIM + dims[None, :], mask=real, other=0.0)
    positive = tl.maximum(query, 0.0).to(query.dtype)
    negative = tl.minimum(query, 0.0).to(query.dtype)
    mine = scores + row.to(tl.int64) * columns
    my_peaks = peaks + row.to(tl.int64) * tl.cdiv(columns, SPAN)
    for first in range(begin, min(begin + each, columns), BLOCK):
        number = first + tl.arange(0, BLOCK)
        there = number <= last
        digest = digests + (page.to(tl.int64) * HEADS + head)[:, None] * (2 * DIM) + dims[None, :]
        # page numbers are read a tile ahead: then digests wait for no other load, and more of them are in flight
        page = tl.load(table + number + BLOCK, mask=number + BLOCK < columns, other=0)
        low = tl.load(digest, mask=there[:, None], other=0.0)
        high = tl.load(digest + DIM, mask=there[:, None], other=0.0)
        bounds = tl.dot(positive, tl.trans(high), input_precision="ieee")
        bounds = tl.dot(negative, tl.trans(low), bounds, input_precision="ieee")
        score = tl.max(tl.where(real, bounds, float("-inf")), 0)
        score = tl.where(number < last, score, float("-inf"))
        peak = tl.max(tl.reshape(score, [BLOCK // SPAN, SPAN]), 1)
        tl.store(mine + number, tl.where(number == last, float("inf"), score), mask=number < columns)
        span = first // SPAN + tl.arange(0, BLOCK // SPAN)
        tl.store(my_peaks + span, peak, mask=span * SPAN < columns)


def select_pages(
    scores: torch.Tensor, peaks: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor, page: int, pages: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the best `pages` pages of every head, earlier pages winning ties. Scores and peaks: `page_scores`.

    Returns:
        kept [B, Hkv, min(pages, N)] int32, physical pages in the order of their tokens, -1 past their number; and the
        number of tokens in them [B, Hkv] int32.
    """
    batch, heads, columns = scores.shape
    if columns > MOST:
        raise ValueError(f"at most {MOST} pages of a request can be scored, not {columns}: take larger pages")
    kept = torch.empty(batch, heads, min(pages, columns), dtype=torch.int32, device=scores.device)
    kept_lengths = torch.empty(batch, heads, dtype=torch.int32, device=scores.device)
    spans = triton.cdiv(columns, SPAN)
    block = max(triton.next_power_of_2(spans), 16)
    best = max(triton.next_power_of_2(min(pages, spans)), 2)
    early = can_launch_early(scores.device)
    _select[(batch * heads,)](
        scores, peaks, block_table, lengths, kept, kept_lengths, columns, pages, kept.shape[2], block_table.stride(0),
        HEADS=heads, PAGE=page, SPAN=SPAN, SPANS=block, BEST=best, EARLY=early,
        num_warps=max(min(max(block, best * SPAN) // NUMBERS, 16), 1), launch_pdl=early,
    )  # fmt: skip
    return kept, kept_lengths


@triton.jit(do_not_specialize=["columns", "stride_request"])  # loads by fours would be rearranged for the stores
def _select(
    scores, peaks, block_table, lengths, kept, kept_lengths, columns, pages, width, stride_request,
    HEADS: tl.constexpr, PAGE: tl.constexpr, SPAN: tl.constexpr, SPANS: tl.constexpr, BEST: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the best pages of one head, by the best spans."""
    row = tl.program_id(0)
    table = block_table + (row // HEADS) * stride_request
    length = tl.load(lengths + row // HEADS)  # this and the table are older than the scores
    count = (length + PAGE - 1) // PAGE
    newest = tl.load(table + count - 1, mask=count > 0, other=-1)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()  # not earlier: programs of the next kernel would occupy SMs while the scores are made
    mine = kept + row.to(tl.int64) * width
    others = tl.maximum(count - 1, 0)  # all but the newest page, which is kept anyway and is the last
    wanted = tl.minimum(pages - 1, others)

    spans = (others + SPAN - 1) // SPAN
    best = tl.minimum(wanted, spans)
    span = tl.arange(0, SPANS)
    there = span < spans
    peak = tl.load(peaks + row.to(tl.int64) * tl.cdiv(columns, SPAN) + span, mask=there, other=0.0)
    order = _order(peak, there)
    lowest, highest = tl.min(tl.where(there, order, LARGEST), 0), tl.max(order, 0)
    low, high, room = _threshold(order, lowest, highest, spans, best)
    _write(mine, span, order, low, high, room, best)  # for the moment, to be read by other threads
    tl.debug_barrier()

    place = tl.arange(0, BEST * SPAN)
    span = tl.load(mine + place // SPAN, mask=place < best * SPAN, other=0)
    number = span * SPAN + place % SPAN
    there = (place < best * SPAN) & (number < others)
    score = tl.load(scores + row.to(tl.int64) * columns + number, mask=there, other=0.0)
    page = tl.load(table + number, mask=there, other=0)
    order = _order(score, there)
    reached = -1  # not counted: at least as many as wanted, if as many spans reach `low`
    if spans < wanted:
        low, reached = tl.min(tl.where(there, order, LARGEST), 0), others
    low, high, room = _threshold(order, low, highest, reached, wanted)
    _write(mine, page, order, low, high, room, wanted)

    tl.store(mine + wanted, newest, mask=count > 0)
    for first in range(tl.minimum(pages, count), width, BEST * SPAN):  # mostly never
        tl.store(mine + first + place, tl.full([BEST * SPAN], -1, tl.int32), mask=first + place < width)
    tl.store(kept_lengths + row, length - (others - wanted) * PAGE)


@triton.jit
def _order(values, there):
    """Return integers of the same order as floats, and below all of them where there is no value."""
    bits = (values + 0.0).to(tl.int32, bitcast=True)  # -0 becomes 0
    return tl.where(there, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits), SMALLEST)


@triton.jit
def _threshold(order, low, highest, reached, wanted):
    """Return `low`, `high` and a number: the `wanted` largest are those from `high`, and so many from `low` to `high`.

    `reached` values are at least `low`, no fewer than wanted. Two counts in one sum leave a third of what lies between,
    until as many as wanted reach `low`, or it is the only value left and what lies there ties.
    """
    left = (highest + 1).to(tl.uint32, bitcast=True) - low.to(tl.uint32, bitcast=True)  # values from low to high
    over = 0  # reach `high`, fewer than wanted
    while (reached != wanted) & (left > 1):
        step = tl.maximum(left // 3, 1)
        first = low + step.to(tl.int32, bitcast=True)
        second = first + step.to(tl.int32, bitcast=True)
        both = tl.sum((order >= first).to(tl.int32) + (order >= second).to(tl.int32) * 65536, 0)
        one, two = both & 0xFFFF, both >> 16
        over = tl.where(two >= wanted, over, tl.where(one >= wanted, two, one))
        reached = tl.where(two >= wanted, two, tl.where(one >= wanted, one, reached))
        low = tl.where(two >= wanted, second, tl.where(one >= wanted, first, low))
        left = tl.where(two >= wanted, left - 2 * step, step)
    return low, low + left.to(tl.int32, bitcast=True), wanted - over


@triton.jit
def _write(target, value, order, low, high, room, wanted):
    """Write the values chosen by `_threshold` one after another; of those that tie, the first."""
    above = order >= high
    at = (order >= low) & (order < high)
    both = tl.cumsum(above.to(tl.int32) * 65536 + at.to(tl.int32), 0)  # two counts in one scan
    rank = both & 0xFFFF
    place = (both >> 16) + tl.minimum(rank, room) - 1
    tl.store(target + place, value, mask=(above | (at & (rank <= room))) & (place < wanted))  # NaN exceeds all


def reference(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, digests: torch.Tensor, block_table: torch.Tensor,
    lengths: torch.Tensor, pages: int, scale: float | None = None, kept: torch.Tensor | None = None,
) -> Outputs:  # fmt: skip
    """The equations, one head of one request at a time; `kept` replaces the reference's own choice."""
    batch, query_heads, dim = q.shape
    heads, page = k_pages.shape[1:3]
    scale = dim**-0.5 if scale is None else scale
    width = min(pages, block_table.shape[1])
    scores = torch.full((batch, heads, block_table.shape[1]), -torch.inf, dtype=q.dtype, device=q.device)
    chosen = torch.full((batch, heads, width), -1, dtype=torch.int32, device=q.device)
    queries = q.unflatten(1, (heads, -1))
    states = []
    for b, length in enumerate(lengths.tolist()):
        count = -(-length // page)
        for h in range(heads):
            low, high = digests[block_table[b, :count].long(), h].unbind(1)  # [count, D]
            bounds = torch.maximum(queries[b, h, :, None] * low, queries[b, h, :, None] * high).sum(-1)  # [G, count]
            if count:
                scores[b, h, :count] = bounds.amax(0)
                scores[b, h, count - 1] = torch.inf
            best = scores[b, h, :count].topk(min(pages, count)).indices.sort().values
            chosen[b, h, : len(best)] = block_table[b, best]
            table = (chosen if kept is None else kept)[b, h, : len(best)]
            size = length - (count - len(best)) * page
            k, v = (gather(pool[:, h : h + 1], table, size) for pool in (k_pages, v_pages))
            states.append(attention(queries[b, h], k, v, scale))
    out, lse = (torch.stack(part).reshape(batch, query_heads, *part[0].shape[1:]) for part in zip(*states, strict=True))
    return {"out": out, "lse": lse, "scores": scores}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: Any, heads: int, group: int, dim: int, pages: int,
    page: int = 16,
) -> Inputs:  # fmt: skip
    """Draw a query and a cache with its digests."""
    inputs = paged_decode.make_inputs(
        device=device, dtype=dtype, seed=seed, lengths=lengths, heads=heads, group=group, dim=dim, page=page
    )
    digests = make_digests(inputs["k_pages"], inputs["block_table"], inputs["lengths"])
    return {**inputs, "digests": digests, "pages": pages}


def plan(*, q: torch.Tensor, k_pages: torch.Tensor, lengths: torch.Tensor, pages: int, **_: Any) -> Inputs:
    """The host's part of a step."""
    return {"plan": make_plan(q, lengths, k_pages.shape[1], k_pages.shape[2], pages)}


def work(*, q: torch.Tensor, k_pages: torch.Tensor, lengths: torch.Tensor, pages: int, **_: Any) -> Work:
    """All digests, the kept pages, queries and results."""
    heads, page, dim = k_pages.shape[1:]
    count = int(pages_needed(lengths, page).sum()) * heads
    tokens = int(_kept_lengths(lengths, page, pages).sum()) * heads
    size, group = q.element_size(), q.shape[1] // heads
    flops = 4 * group * dim * (count + tokens)
    return Work(2 * dim * size * (count + tokens) + q.numel() * size, q.numel() * size, flops)


def dense(inputs: Inputs) -> Any:
    """Attention over the whole cache, by `paged_decode`; it computes something else and is only timed."""
    whole = {name: inputs[name] for name in ("q", "k_pages", "v_pages", "block_table", "lengths")}
    planned = {**whole, **paged_decode.plan(**whole)}
    return timed_only(lambda: paged_decode.paged_decode(**planned))


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """The gain over dense attention that the bytes allow."""
    whole = {name: inputs[name] for name in ("q", "k_pages", "v_pages", "block_table", "lengths")}
    return {"ideal gain": paged_decode.work(**whole).read / work(**inputs).read}


UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "odd lengths": {"lengths": [1, 15, 16, 17, 200, 0], "heads": 2, "group": 4, "dim": 128, "pages": 3},
        "one page": {"lengths": [100], "heads": 2, "group": 1, "dim": 64, "pages": 1},
        "budget above length": {"lengths": [65, 30], "heads": 1, "group": 8, "dim": 64, "pages": 9},
        "large pages": {"lengths": [300], "heads": 1, "group": 4, "dim": 256, "pages": 4, "page": 32},
        "many pages": {"lengths": [2047], "heads": 1, "group": 2, "dim": 64, "pages": 17, "page": 4},
    },
    benchmarks={
        f"B={batch} x 128k, 2k kept": {
            "lengths": [131072] * batch, "heads": 8, "group": 4, "dim": 128, "pages": 128
        }
        for batch in (1, 8)
    },
    peers={"dense, ours": dense},
    follows=("kept",),
    figures=figures,
)  # fmt: skip
