"""Decode attention over a tree of shared prefixes: what requests share is read once, for all of them.

Computes
--------
Requests hang on a tree whose nodes hold tokens: a request attends to all nodes on its way from the root. A node that n
requests share is one piece of keys and values and n G queries per key head (G query heads share a key head), that is, a
matrix product with n G rows instead of n products with G. Each node leaves a state (out, lse) per query, and the states
of a query are merged (core/lse.py), which equals attention over the concatenated tokens:
    m = max_i s_i,   out = sum_i o_i e^(s_i - m) / sum_i e^(s_i - m),   s = m + ln sum_i e^(s_i - m)
The plan sorts nodes by their number of queries into tiles of 16, 64 or 128 rows and cuts each into pieces of tokens of
equal size. Nodes with few queries are bound by memory and nodes with many by arithmetic, so the classes run beside each
other: each launch begins without waiting for the one before it (programmatic dependent launch).

Layout
------
q [B, Hq, D]; k_pages, v_pages [P, Hkv, S, D] (core/paging.py). Node i is shared by requests first[i] … first[i] +
count[i] - 1 and holds lengths[i] tokens in the pages block_table[i]: first, count, lengths [M] int32, block_table
[M, N] int32. Requests must be sorted so that those below a node are neighbours; a request's own tokens are a node with
count 1. Returns out [B, Hq, D] in q's dtype and lse [B, Hq] fp32; a request without any token gives zeros and -inf.

Cost
----
Reads each node once: 2 Hkv D e sum_i lengths[i] bytes, and does 4 Hq D sum_i count[i] lengths[i] FLOPs, as without
sharing. For B requests with a prefix of P and S own tokens each, attention without sharing reads B (P + S) / (P + B S)
times as much, which bounds the gain until the arithmetic binds, near count G = 266 rows on an H100.

Published
---------
Up to 31x over vLLM's PagedAttention and 26x over FlashInfer without cascade (FlashInfer's blog, 2024-02-02, H100
SXM); CoDec: 1.9x over FlashDecoding in attention with 120.9x less memory access (its abstract).

Measured
--------
One H100, 32k shared by 64 requests of 512 own tokens: 115 us, 0.747 of the floor of 86 us (0.735 to 0.739 when it was
timed less warm); FlashInfer's cascade 610 us, without sharing 1204 us. The prefix alone takes 107 us (320 TFLOP/s of
about 700), the own tokens alone 61 us. Beside each other the own tokens are done after about 90 us and the prefix after
120: it is the prefix that is slow, and it slows by what runs beside it. A tile of 128 rows waits for its own softmax
between its two products. Asking for the next tile's scores before this tile's softmax makes it 98 us alone but, at 176
to 248 registers, 124 us beside the own tokens. Tried besides: 64, 128 and 256 rows, 32 to 128 tokens, 4 to 16 warps, 2
to 5 stages, the own tokens in 15 layouts, streams instead of programmatic launches (127 us).

Differs
-------
ChunkAttention and CoDec group queries inside one kernel; FlashInfer's cascade has levels, each with its own plan. Here
the tree is a list of nodes and every node goes through the tile of `paged_decode`.

:leaf: kvs
:papers: flashinfer, hydragen, codec, chunkattention
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    check_scale,
    check_shape,
    check_table,
    rows_of,
)
from reference_kernels.core.device import multiprocessors
from reference_kernels.core.lse import LN_2, LOG2_E, attention, merge_states
from reference_kernels.core.paging import gather, make_cache
from reference_kernels.core.peers import installed, ragged_table
from reference_kernels.core.pieces import Tuning, can_launch_early, cut, join_states, merge_tile, store_joined
from reference_kernels.core.unit import Inputs, MissingPeerError, Outputs, Unit, Work
from reference_kernels.kvs import paged_decode
from reference_kernels.kvs.paged_decode import read_tokens

# Rows of a tile -> layout, for nodes with at most that many queries (the last one: any number).
TUNINGS = {
    16: Tuning(block=64, warps=4, stages=3, pieces=2),
    64: Tuning(block=64, warps=4, stages=3, pieces=2),
    128: Tuning(block=64, warps=8, stages=3, pieces=1),
}


@dataclass
class Launch:
    """The pieces of all nodes of one class: `items` [I, 6] int32: node, head, first row, first token, end, slot."""

    rows: int
    tuning: Tuning
    items: torch.Tensor


@dataclass
class Plan:
    """Which program reads what, and which states make up each query head.

    `slots` [B Hq, N] int32: where the states of each query head lie among `states` in all, then -1.
    """

    launches: list[Launch]
    slots: torch.Tensor
    states: int


def make_plan(q: torch.Tensor, first: torch.Tensor, count: torch.Tensor, lengths: torch.Tensor, heads: int) -> Plan:
    """Cut the nodes of a step into pieces; first, count, lengths [M] best on the CPU."""
    group = check_heads(q.shape[1], heads)
    first, count, lengths = (x.cpu().long() for x in (first, count, lengths))
    launches, owners, slots, states = [], [], [], 0
    low = 0
    for rows, tuning in TUNINGS.items():
        most = rows if rows != max(TUNINGS) else int(count.max()) * group
        nodes = ((count * group > low) & (count * group <= most) & (lengths > 0)).nonzero().flatten()
        low = rows
        if not len(nodes):
            continue
        tiles = -(-count[nodes] * group // rows)
        node = nodes.repeat_interleave(tiles)
        tile = torch.arange(len(node)) - (tiles.cumsum(0) - tiles).repeat_interleave(tiles)
        tuning = replace(tuning, block=min(tuning.block, max(32768 // (q.shape[2] * q.element_size()), 16)))
        node, tile = node.repeat_interleave(heads), tile.repeat_interleave(heads)
        head = torch.arange(heads).repeat(len(node) // heads)
        pieces, _ = cut(lengths[node], tuning.block, tuning.pieces * multiprocessors(q.device))
        which = pieces[:, 0].long()
        slot = states + torch.arange(len(pieces)) * rows
        items = torch.stack([node[which], head[which], tile[which] * rows, pieces[:, 1], pieces[:, 2], slot], 1)
        row = items[:, 2:3] + torch.arange(rows)  # [I, rows], of the node's queries
        real = row < (count[node[which]] * group)[:, None]
        request = first[node[which]][:, None] + row // group
        owners.append((request * heads * group + head[which][:, None] * group + row % group)[real])
        slots.append((slot[:, None] + torch.arange(rows))[real])
        states += len(pieces) * rows
        launches.append(Launch(rows, tuning, items.to(torch.int32).to(q.device)))
    launches.reverse()  # the widest first: it is bound by arithmetic and the others fill its gaps
    return Plan(launches, _slots_of(owners, slots, q.shape[0] * q.shape[1]).to(q.device), states)


def _slots_of(owners: list[torch.Tensor], slots: list[torch.Tensor], heads: int) -> torch.Tensor:
    """Sort the slots of states by the query heads that own them: [heads, most of one head], -1 past their number."""
    owner, slot = (torch.cat([torch.zeros(0, dtype=torch.long), *parts]) for parts in (owners, slots))
    order = owner.argsort(stable=True)
    owner, slot = owner[order], slot[order]
    counts = torch.bincount(owner, minlength=heads)
    table = torch.full((heads, max(int(counts.max()), 1)), -1, dtype=torch.int32)
    table[owner, torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]] = slot.to(torch.int32)
    return table


def decode_attention(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor,
    first: torch.Tensor, count: torch.Tensor, *, scale: float | None = None, plan: Plan | None = None,
) -> Outputs:  # fmt: skip
    """Attend from one query per request to the nodes above it. Shapes: the module's docstring.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit; without a plan also: a node names requests that do
            not exist, or the block table is out of range.
    """
    check_same(q=q, k_pages=k_pages, v_pages=v_pages)
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    check_shape("k_pages", k_pages, None, None, None, dim)
    check_shape("v_pages", v_pages, *k_pages.shape)
    pool, heads, page, _ = k_pages.shape
    check_dim(dim)
    nodes = len(lengths)
    check_shape("block_table", block_table, nodes, None)
    check_shape("first", first, nodes)
    check_shape("count", count, nodes)
    check_integers(q.device, block_table=block_table, lengths=lengths, first=first, count=count)
    if plan is None:
        check_table(block_table, lengths, pool, page)
        if bool(((first < 0) | (count < 1) | (first + count > batch)).any()):
            raise ValueError(f"first and count must name requests 0 to {batch - 1}, at least one for each node")
        plan = make_plan(q, first, count, lengths, heads)
    q, k_pages, v_pages = q.contiguous(), k_pages.contiguous(), v_pages.contiguous()
    block_table = rows_of(block_table)
    out, lse = torch.empty_like(q), torch.empty(batch, query_heads, dtype=torch.float32, device=q.device)
    part_out = torch.empty(max(plan.states, 1), dim, dtype=torch.float32, device=q.device)
    part_lse = torch.empty(max(plan.states, 1), dtype=torch.float32, device=q.device)

    early = can_launch_early(q.device)
    for number, launch in enumerate(plan.launches):
        _read_pieces[(len(launch.items),)](
            q, k_pages, v_pages, block_table, launch.items, first, count, part_out, part_lse,
            check_scale(scale, dim) * LOG2_E, block_table.stride(0),
            HEADS=heads, GROUP=query_heads // heads, ROWS=launch.rows, DIM=dim, PAGE=page, BLOCK=launch.tuning.block,
            EARLY=early, BESIDE=early and number > 0, launch_pdl=early and number > 0,
            num_warps=launch.tuning.warps, num_stages=launch.tuning.stages,
        )  # fmt: skip
    block, warps = merge_tile(plan.slots.shape[1], dim)
    _merge[(batch * query_heads,)](
        plan.slots, part_out, part_lse, out, lse, plan.slots.shape[1], DIM=dim, BLOCK=block, EARLY=early,
        num_warps=warps, launch_pdl=early,
    )  # fmt: skip
    return {"out": out, "lse": lse}


@triton.jit
def _read_pieces(
    q, k_pages, v_pages, block_table, items, first, count, part_out, part_lse, scale, stride_node,
    HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr,
    BLOCK: tl.constexpr, EARLY: tl.constexpr, BESIDE: tl.constexpr,
):  # fmt: skip
    """One program: the states of up to ROWS queries of a node over one piece of its tokens.

    A launch needs nothing of the one before it and runs BESIDE it. The merge waits for the last launch alone, so that
    the last program of each launch waits for all that came before.
    """
    if EARLY:
        gdc_launch_dependents()
    item = items + tl.program_id(0) * 6
    node, head, low = tl.load(item), tl.load(item + 1), tl.load(item + 2)
    start, stop, slot = tl.load(item + 3), tl.load(item + 4), tl.load(item + 5)
    tile, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
    row = low + tile
    real = row < tl.load(count + node) * GROUP
    heads = ((tl.load(first + node) + row // GROUP) * HEADS + head) * GROUP + row % GROUP
    query = tl.load(q + heads[:, None] * DIM + dims[None, :], mask=real[:, None], other=0.0)
    table = block_table + node * stride_node
    offset = head.to(tl.int64) * (PAGE * DIM)
    top, total, mean = read_tokens(
        query, k_pages + offset, v_pages + offset, table, start, stop, scale, HEADS * PAGE * DIM, DIM,
        ROWS, DIM, PAGE, BLOCK,
    )  # fmt: skip
    state = slot + tile
    tl.store(part_lse + state, (top + tl.log2(total)) * LN_2, mask=real)
    tl.store(part_out + state[:, None] * DIM + dims[None, :], mean / total[:, None], mask=real[:, None])
    if BESIDE and tl.program_id(0) == tl.num_programs(0) - 1:
        gdc_wait()


@triton.jit
def _merge(
    slots, part_out, part_lse, out, lse, width, DIM: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr
):  # fmt: skip
    """One program: merge the states of one query head, BLOCK at a time."""
    head, number = tl.program_id(0), tl.arange(0, BLOCK)
    slot = tl.load(slots + head * width + number, mask=number < width, other=-1)
    if EARLY:
        gdc_wait()
    top, total, mean = join_states(
        slot, slot >= 0, part_out, part_lse, float("-inf"), 0.0, tl.zeros([DIM], tl.float32), DIM
    )
    for first in range(BLOCK, width, BLOCK):
        slot = tl.load(slots + head * width + first + number, mask=first + number < width, other=-1)
        top, total, mean = join_states(slot, slot >= 0, part_out, part_lse, top, total, mean, DIM)
    store_joined(head, top, total, mean, out, lse, DIM)


def reference(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor,
    first: torch.Tensor, count: torch.Tensor, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """One node at a time, all its queries together; states are merged by their definition."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    outs: list[list[torch.Tensor]] = [[torch.zeros_like(row)] for row in q]
    lses: list[list[torch.Tensor]] = [[torch.full_like(row[:, 0], -torch.inf)] for row in q]
    for node, (length, low, number) in enumerate(zip(lengths.tolist(), first.tolist(), count.tolist(), strict=True)):
        k, v = (gather(pages, block_table[node], length) for pages in (k_pages, v_pages))
        out, lse = attention(q[low : low + number].transpose(0, 1), k, v, scale)  # [Hq, n, D]
        for i in range(number):
            outs[low + i].append(out[:, i])
            lses[low + i].append(lse[:, i])
    merged = [merge_states(torch.stack(o), torch.stack(s)) for o, s in zip(outs, lses, strict=True)]
    return {"out": torch.stack([o for o, _ in merged]), "lse": torch.stack([s for _, s in merged])}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, nodes: Any, requests: int, heads: int, group: int, dim: int,
    page: int = 16,
) -> Inputs:  # fmt: skip
    """Draw queries and a tree; `nodes` is a list of (first request, number of requests, tokens)."""
    generator = torch.Generator(device).manual_seed(seed)
    first, count, sizes = torch.tensor(nodes, dtype=torch.int32).T.contiguous()
    k_pages, v_pages, table, lengths = make_cache(sizes, heads, page, dim, dtype=dtype, generator=generator)
    q = torch.randn(requests, heads * group, dim, dtype=dtype, device=device, generator=generator)
    return {
        "q": q, "k_pages": k_pages, "v_pages": v_pages, "block_table": table, "lengths": lengths,
        "first": first.to(device), "count": count.to(device),
    }  # fmt: skip


def plan(
    *, q: torch.Tensor, k_pages: torch.Tensor, lengths: torch.Tensor, first: torch.Tensor, count: torch.Tensor, **_: Any
) -> Inputs:
    """The host's part of a step."""
    return {"plan": make_plan(q, first, count, lengths, k_pages.shape[1])}


def work(*, q: torch.Tensor, k_pages: torch.Tensor, lengths: torch.Tensor, count: torch.Tensor, **_: Any) -> Work:
    """Every node once, for all its queries."""
    dim, size = q.shape[2], q.element_size()
    read = 2 * int(lengths.sum()) * k_pages.shape[1] * dim * size
    flops = 4 * q.shape[1] * dim * int((lengths.long() * count).sum())
    return Work(read + q.numel() * size, q.numel() * size, flops)


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """How often attention without sharing would read the cache, and the rate of the arithmetic."""
    lengths, count = inputs["lengths"].long(), inputs["count"]
    return {
        "ideal gain": float((lengths * count).sum() / lengths.sum()),
        "TFLOP/s": work(**inputs).flops / seconds / 1e12,
    }


def without_sharing(inputs: Inputs) -> Any:
    """Our paged decode, each request with a block table of its own over the shared pages (two levels only)."""
    table, lengths = _flat_tables(inputs)
    flat = {name: inputs[name] for name in ("q", "k_pages", "v_pages")} | {"block_table": table, "lengths": lengths}
    planned = {**flat, **paged_decode.plan(**flat)}
    return lambda: paged_decode.paged_decode(**planned)["out"]


def _flat_tables(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    page = inputs["k_pages"].shape[2]
    rows: list[list[int]] = [[] for _ in inputs["q"]]
    sizes = [0] * len(rows)
    parts = [inputs[name].tolist() for name in ("block_table", "lengths", "first", "count")]
    for table, length, first, count in zip(*parts, strict=True):
        for b in range(first, first + count):
            if sizes[b] % page:
                raise MissingPeerError("a shared node that ends within a page cannot be flattened")
            rows[b] += table[: -(-length // page)]
            sizes[b] += length
    widest = max(map(len, rows))
    device = inputs["q"].device
    flat = torch.tensor([row + [-1] * (widest - len(row)) for row in rows], dtype=torch.int32, device=device)
    return flat, torch.tensor(sizes, dtype=torch.int32, device=device)


def flashinfer_cascade(inputs: Inputs) -> Any:
    """FlashInfer's cascade of two levels: one prefix for all, then every request's own tokens."""
    flashinfer = installed("flashinfer", "flashinfer-python")
    q, k, v = inputs["q"], inputs["k_pages"], inputs["v_pages"]
    batch = q.shape[0]
    if inputs["count"].tolist() != [batch] + [1] * batch:
        raise MissingPeerError("it is given only trees of two levels")
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device=q.device)
    wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(2, workspace, "HND")
    levels = [
        ragged_table(inputs["block_table"][part], inputs["lengths"][part], k.shape[2])
        for part in (slice(1), slice(1, None))
    ]
    queries = [torch.tensor([0, batch]), torch.arange(batch + 1)]
    wrapper.plan(
        [x.to(torch.int32).to(q.device) for x in queries], *([level[i] for level in levels] for i in range(3)),
        q.shape[1], k.shape[1], q.shape[2], k.shape[2], q_data_type=q.dtype,
    )  # fmt: skip
    return lambda: wrapper.run(q, (k, v))


UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "prefix and own tokens": {
            "nodes": [(0, 5, 100), (0, 1, 17), (1, 1, 0), (2, 1, 1), (3, 1, 16), (4, 1, 33)], "requests": 5,
            "heads": 2, "group": 4, "dim": 64,
        },
        "tree of three levels": {
            "nodes": [(0, 7, 65), (0, 3, 15), (3, 4, 31), (0, 1, 9), (1, 1, 16), (5, 1, 129)], "requests": 7,
            "heads": 1, "group": 4, "dim": 128,
        },
        "many queries": {
            "nodes": [(0, 35, 130), (3, 20, 40), (7, 1, 3)], "requests": 35, "heads": 1, "group": 4, "dim": 64
        },
        "no prefix, and nothing": {"nodes": [(1, 1, 70)], "requests": 2, "heads": 2, "group": 1, "dim": 256},
    },
    benchmarks={
        "32k shared, 64 x 512 own": {
            "nodes": [(0, 64, 32768)] + [(i, 1, 512) for i in range(64)], "requests": 64, "heads": 8, "group": 4,
            "dim": 128,
        },
        "8k shared, 16 x 2k own": {
            "nodes": [(0, 16, 8192)] + [(i, 1, 2048) for i in range(16)], "requests": 16, "heads": 8, "group": 4,
            "dim": 128,
        },
    },
    peers={"FlashInfer cascade": flashinfer_cascade, "without sharing, ours": without_sharing},
    figures=figures,
)  # fmt: skip
