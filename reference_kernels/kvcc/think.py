"""ThinK: the key cache without the channels that matter least to the current queries.

Computes
--------
Channel d of key head h of request b is scored from the last W queries of the prompt and all T keys,
    s[d] = |Q_win[:, d]| |K[:, d]|      (Euclidean norms: over W queries x G query heads, and over T tokens),
which is the Frobenius norm of what the channel adds to the scores, Q_win[:, d] K[:, d]^T. The `keep` channels of the
highest scores stay, in ascending order, c = channels[b, h, :]. Decoding gathers the same channels of the query, once
per program, and is otherwise exact: with key head h = i // G of query head i,
    score[t] = scale sum_j q[b, i, c_j] k_pruned[b, h, t, j],    out[b, i] = sum_t softmax_t(score) v[b, h, t].
`channel_scores` reads the keys once, `prune` gathers them, `decode_attention` is the step.

Layout
------
q [B, Hq, D]; k_pruned [B, Hkv, T, keep] and v [B, Hkv, T, D] contiguous, room for T tokens; channels [B, Hkv, keep]
int32; lengths [B] int32, 0 allowed. keep is a multiple of 16 (the tensor cores' tile, and rows of whole 32-byte
sectors), D a power of two. `scale` is that of the whole key, 1 / sqrt(D) unless given. Returns out [B, Hq, D] in q's
dtype and lse [B, Hq] (natural logarithm) in fp32. A new token's key is stored as `prune(k_new, channels)`.

Cost
----
Reads B Hkv T (keep + D) e bytes where dense attention reads 2 B Hkv T D e: keep = 64 of 128 is 3/4 of the cache and at
most 1.33 times faster, keep = 80 is 13/16 and 1.23. FLOPs: 2 B Hq T (keep + D). Bound by bandwidth. The price of a
keep that is no power of two is arithmetic on zeros, not bytes. Scoring reads K once, pruning once more.

Published
---------
More than 20 % less memory than eviction alone; together with KIVI 2.8x less peak memory, baseline not named, and a
batch 5x as large on one GPU where KIVI alone allows 4x (abstract of arXiv version 3; LLaMA3 and Mistral).

Differs
-------
Under grouped query heads the norm of a query channel is taken over all G heads of the group together. No window of
recent keys keeps all its channels here; such a window is a second call (kvs/paged_decode.py) merged by core/lse.py.
Common code for ThinK sets channels to zero and saves no memory; here they are gone. Values are not pruned.

:leaf: kvcc/structural-compression
:papers: think
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_dim, check_heads, check_integers, check_same, check_shape
from reference_kernels.core.device import multiprocessors
from reference_kernels.core.lse import LOG2_E, attention
from reference_kernels.core.pieces import Plan, can_launch_early, merge, store_lse, store_mean, take_piece
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvcc.split_decode import (
    check_contiguous,
    check_room,
    fold,
    make_row_plan,
)
from reference_kernels.kvs.paged_decode import dense_peer


def channel_scores(window: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Score the channels of every key head.

    Args:
        window: [B, Hq, W, D], the last queries of each prompt.
        k: [B, Hkv, T, D].
        lengths: [B] int32, the keys that count.

    Returns:
        [B, Hkv, D] in fp32.
    """
    check_same(k=k, window=window)
    check_shape("k", k, None, None, None, None)
    batch, heads, capacity, dim = k.shape
    check_shape("window", window, batch, None, None, dim)
    check_heads(window.shape[1], heads)
    check_dim(dim)
    check_contiguous(k=k)
    check_room(lengths, batch, capacity, k.device)
    block, rows = max(4096 // dim, 16), batch * heads
    pieces = max(-(-4 * multiprocessors(k.device) // rows), 1)  # 4 programs per multiprocessor, or more
    piece = max(-(-capacity // (pieces * block)), 1) * block
    sums = torch.empty(rows, pieces, dim, dtype=torch.float32, device=k.device)
    _square_sums[(rows, pieces)](
        k, lengths, sums, piece, capacity, HEADS=heads, DIM=dim, BLOCK=block, num_warps=4, num_stages=4
    )
    queries = window.float().square().reshape(batch, heads, -1, dim).sum(2)
    return (queries * sums.sum(1).reshape(batch, heads, dim)).sqrt()


def choose_channels(scores: torch.Tensor, keep: int) -> torch.Tensor:
    """Return the `keep` channels of the highest scores [..., D], ascending, int32 [..., keep]."""
    if keep < 16 or keep % 16 or keep > scores.shape[-1]:
        raise ValueError(f"keep must be a multiple of 16 of at most {scores.shape[-1]}, not {keep}")
    return scores.topk(keep, -1).indices.sort(-1).values.to(torch.int32)


def prune(k: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """Return the chosen channels [B, Hkv, keep] of keys [B, Hkv, T, D] as a contiguous [B, Hkv, T, keep]."""
    check_shape("channels", channels, *k.shape[:2], None)
    return k.gather(3, channels.long()[:, :, None].expand(-1, -1, k.shape[2], -1))


def decode_attention(
    q: torch.Tensor,
    k_pruned: torch.Tensor,
    channels: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    *,
    scale: float | None = None,
    plan: Plan | None = None,
) -> Outputs:
    """Attend from one query per request to pruned keys. Shapes and layout: the module's docstring.

    With a `plan` (`plan(...)["plan"]`) nothing is read back from the device; without one it is made here, and lengths
    and channels are checked.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices, lengths or channels do not fit.
    """
    check_same(q=q, k_pruned=k_pruned, v=v)
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    check_dim(dim)
    check_shape("v", v, batch, None, None, dim)
    _, heads, capacity, _ = v.shape
    group = check_heads(query_heads, heads)
    check_shape("k_pruned", k_pruned, batch, heads, capacity, None)
    keep = k_pruned.shape[3]
    if keep < 16 or keep % 16 or keep > dim:
        raise ValueError(f"k_pruned must have a multiple of 16 of at most {dim} channels, not {keep}")
    check_shape("channels", channels, batch, heads, keep)
    check_shape("lengths", lengths, batch)
    check_integers(q.device, channels=channels, lengths=lengths)
    check_contiguous(k_pruned=k_pruned, v=v, channels=channels)
    if plan is None:
        check_room(lengths, batch, capacity, q.device)
        if int(channels.min()) < 0 or int(channels.max()) >= dim:
            raise ValueError(f"channels must lie in 0 ... {dim - 1}")
        plan = make_row_plan(q, lengths.repeat_interleave(heads), triton.next_power_of_2(keep) + dim)
    out, lse = torch.empty_like(q), torch.empty(batch, query_heads, dtype=torch.float32, device=q.device)
    part_out, part_lse = plan.states(batch * heads, group, dim)
    scale = dim**-0.5 if scale is None else scale
    _read_pieces[(len(plan.items),)](
        q.contiguous(), k_pruned, channels, v, plan.items, out, lse, part_out, part_lse, scale * LOG2_E,
        capacity,
        HEADS=heads, GROUP=group, ROWS=max(triton.next_power_of_2(group), 16), DIM=dim, KEEP=keep,
        WIDE=triton.next_power_of_2(keep), BLOCK=plan.tuning.block, EARLY=can_launch_early(q.device),
        num_warps=plan.tuning.warps, num_stages=plan.tuning.stages,
    )  # fmt: skip
    merge(plan, part_out, part_lse, out, lse)
    return {"out": out, "lse": lse}


@triton.jit
def _square_sums(
    k, lengths, sums, piece, capacity, HEADS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One program: the squares of one piece of one head's keys, summed per channel."""
    row, part = tl.program_id(0), tl.program_id(1)
    dims = tl.arange(0, DIM)
    keys = k + row.to(tl.int64) * capacity * DIM
    stop = tl.minimum(tl.load(lengths + row // HEADS), (part + 1) * piece)
    squares = tl.zeros([BLOCK, DIM], tl.float32)
    for first in range(part * piece, stop, BLOCK):
        tokens = first + tl.arange(0, BLOCK)
        place = tokens[:, None] * DIM + dims[None, :]
        tile = tl.load(keys + place, mask=(tokens < stop)[:, None], other=0.0).to(tl.float32)
        squares += tile * tile
    tl.store(sums + (row * tl.num_programs(1) + part) * DIM + dims, tl.sum(squares, 0))


@triton.jit
def _read_pieces(
    q, k, channels, v, items, out, lse, part_out, part_lse, scale, capacity,
    HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, KEEP: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the state of the G query heads of one row over one piece of its tokens."""
    row, start, stop, slot = take_piece(items, EARLY)
    if row >= 0:
        group, kept, dims = tl.arange(0, ROWS), tl.arange(0, WIDE), tl.arange(0, DIM)
        channel = tl.load(channels + row * KEEP + kept, mask=kept < KEEP, other=0)
        mine = q + (row * GROUP + group)[:, None] * DIM + channel[None, :]
        query = tl.load(mine, mask=(group < GROUP)[:, None] & (kept < KEEP)[None, :], other=0.0)
        keys = k + row.to(tl.int64) * capacity * KEEP
        values = v + row.to(tl.int64) * capacity * DIM

        top = tl.full([ROWS], float("-inf"), tl.float32)  # running maximum, in powers of two
        total = tl.zeros([ROWS], tl.float32)
        mean = tl.zeros([ROWS, DIM], tl.float32)
        for first in range(start, stop, BLOCK):
            tokens = first + tl.arange(0, BLOCK)
            live = tokens < stop
            tokens = tl.minimum(tokens, stop - 1)  # past the end the last token is read again, and weighs nothing
            place = keys + tokens[:, None] * KEEP + kept[None, :]
            if KEEP == WIDE:
                tile = tl.load(place)
            else:
                tile = tl.load(place, mask=(kept < KEEP)[None, :], other=0.0)
            scores = tl.dot(query, tl.trans(tile), input_precision="ieee") * scale
            scores = tl.where(live[None, :], scores, float("-inf"))
            content = tl.load(values + tokens[:, None] * DIM + dims[None, :])
            top, total, mean = fold(scores, content, 1.0, top, total, mean)
        mean = mean / tl.where(total > 0, total, 1.0)[:, None]
        store_lse(row, slot, group, top, total, lse, part_lse, GROUP)
        place = group[:, None] * DIM + dims[None, :]
        store_mean(row, slot, place, mean, (group < GROUP)[:, None], out, part_out, GROUP, DIM)


def reference(
    q: torch.Tensor, k_pruned: torch.Tensor, channels: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor,
    scale: float | None = None,
) -> Outputs:  # fmt: skip
    """The equation, one request at a time."""
    scale = q.shape[2] ** -0.5 if scale is None else scale
    place = channels.long().repeat_interleave(q.shape[1] // channels.shape[1], 1)
    chosen = q.gather(2, place)  # [B, Hq, keep]
    states = [
        attention(chosen[b], k_pruned[b, :, :length], v[b, :, :length], scale)
        for b, length in enumerate(lengths.tolist())
    ]
    return {"out": torch.stack([s[0] for s in states]), "lse": torch.stack([s[1] for s in states])}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: list[int], heads: int, group: int, dim: int,
    keep: int, window: int = 32,
) -> Inputs:  # fmt: skip
    """Draw keys whose channels differ in size by an order of magnitude, and prune them."""
    generator = torch.Generator(device).manual_seed(seed)
    batch, capacity = len(lengths), max(*lengths, 1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, device=device, generator=generator)

    sizes = torch.tensor(lengths, dtype=torch.int32, device=device)
    k, v = draw(batch, heads, capacity, dim), draw(batch, heads, capacity, dim)
    k *= torch.exp(draw(1, heads, 1, dim) - 1)
    channels = choose_channels(channel_scores(draw(batch, heads * group, window, dim), k, sizes), keep)
    k_pruned = prune(k, channels)
    for b, length in enumerate(lengths):  # what belongs to no token must not be read
        k_pruned[b, :, length:] = float("nan")
        v[b, :, length:] = float("nan")
    q = draw(batch, heads * group, dim)
    return {"q": q, "k_pruned": k_pruned, "channels": channels, "v": v, "lengths": sizes}


def plan(*, q: torch.Tensor, k_pruned: torch.Tensor, lengths: torch.Tensor, **_: Any) -> Inputs:
    """The host's part of a step."""
    batch, heads, capacity, keep = k_pruned.shape
    check_room(lengths, batch, capacity, q.device)
    width = triton.next_power_of_2(keep) + q.shape[2]
    return {"plan": make_row_plan(q, lengths.repeat_interleave(heads), width)}


def work(
    *, q: torch.Tensor, k_pruned: torch.Tensor, channels: torch.Tensor, lengths: torch.Tensor, **_: Any
) -> Work:  # fmt: skip
    """Every pruned key and every value once, every query and result once."""
    batch, query_heads, dim = q.shape
    heads, keep = channels.shape[1:]
    tokens, size = int(lengths.sum()) * heads, q.element_size()
    return Work(
        read=tokens * (keep + dim) * size + q.numel() * size + 4 * channels.numel(),
        written=q.numel() * size + 4 * batch * query_heads,
        flops=2 * tokens * (query_heads // heads) * (keep + dim),
    )


def figures(inputs: Inputs, _outputs: Outputs, seconds: float) -> dict[str, float]:
    """Return the share of the cache that is saved, and the rate at which the rest is read."""
    dim, keep = inputs["q"].shape[2], inputs["k_pruned"].shape[3]
    return {
        "key channels pruned": 1 - keep / dim,
        "memory saved": 1 - (keep + dim) / (2 * dim),
        "gain at most": 2 * dim / (keep + dim),
        "GB/s": work(**inputs).moved / seconds / 1e9,
    }


UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "odd lengths": {"lengths": [1, 15, 16, 17, 1023, 0], "heads": 2, "group": 4, "dim": 128, "keep": 80},
        "half, one query head per key head": {"lengths": [300, 5], "heads": 3, "group": 1, "dim": 64, "keep": 32},
        "wide group and head": {"lengths": [65, 130], "heads": 1, "group": 8, "dim": 256, "keep": 144},
        "one row": {"lengths": [700], "heads": 1, "group": 4, "dim": 128, "keep": 16},
        "all channels kept": {"lengths": [129], "heads": 2, "group": 4, "dim": 64, "keep": 64},
    },
    benchmarks={
        "B=32 x 8k, 64 of 128": {"lengths": [8192] * 32, "heads": 8, "group": 4, "dim": 128, "keep": 64},
        "B=32 x 8k, 80 of 128": {"lengths": [8192] * 32, "heads": 8, "group": 4, "dim": 128, "keep": 80},
        "B=1 x 128k, 64 of 128": {"lengths": [131072], "heads": 8, "group": 4, "dim": 128, "keep": 64},
    },
    peers={"dense bf16": lambda inputs: dense_peer(inputs["q"], inputs["lengths"], inputs["v"].shape[1])},
    figures=figures,
)
