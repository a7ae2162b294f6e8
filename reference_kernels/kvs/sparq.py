"""SparQ: guess the scores from a few channels of the keys, then attend exactly to the tokens that they point at.

Computes
--------
A query is close to sparse: a few of its channels make most of a score. For one query head,
    i1  = the r channels of the largest |q|,
    s^  = softmax(scale q[i1] . k[:, i1] / sqrt(|q[i1]|_1 / |q|_1)),        scale = 1 / sqrt(D),
    i2  = the k tokens of the largest s^, the newest `recent` tokens always among them,
    a   = sum of s^ over i2,
    out = a softmax(scale q . k[i2]) v[i2] + (1 - a) mean(v):
what was left out is replaced by the mean of all values, with the weight that it is guessed to have. Query heads that
share a key head choose together, as in the authors' code: |q| is summed over the group before i1, and the logarithms of
s^ (up to a constant: the scaled scores) are summed over the group before i2. Each head keeps its own s^ and a.
Ties go to the lower channel and the lower token. Five launches:
1. Scores: r rows of the channel-major keys are streamed, T cut into equal pieces; each program chooses the channels by
   itself (D^2 comparisons are cheaper than a launch), and leaves the largest score of each span of S tokens.
2. The k spans of the largest maxima. A token outside of them has k larger ones ahead, the maxima of these spans.
3. The k largest of the k S tokens in them. Both selections search for the k-th largest of values that stay in
   registers, T / S and k S of them with S ~ sqrt(T / k), by counts that leave a third of the range at a time; 2 begins
   from a bound (the least of >= k disjoint maxima), 3 from the result of 2. Short contexts have S = 1 and skip 3.
4. Attention over the k tokens. The query with all channels but i1 set to zero rides along as further rows of the same
   product (which has 16 rows anyway), so that the guessed scores of i2 are summed without a further read.
5. The states of pieces are merged, a is the quotient of the sums over i2 and over all, and mean(v) is mixed in.

Layout
------
Contiguous caches with room for T tokens, T a multiple of 16, of which `lengths` [B] int32 are filled (0 allowed):
k, v [B, Hkv, T, D] and k_channels [B, Hkv, D, T], the same keys once more, so that one channel of all tokens is
contiguous. Keys are held twice: 3 D e bytes per token and head instead of 2 D e, 1.5 times the memory of the cache.
v_mean [B, Hkv, D] fp32 is state, carried on by `append`. q [B, Hq, D]. Returns out [B, Hq, D] in q's dtype, coverage
(a) [B, Hq] fp32, channels [B, Hkv, r] and kept [B, Hkv, min(k, T)] int32, both ascending (kept: -1 past its
number), and scores [B, Hkv, T] fp32, the sums that chose the tokens: +inf for the newest `recent`, undefined past the
length.

Cost
----
Reads T r e + 2 k D e + 4 D bytes per key head (and writes a token to all three layouts, 3 D e) where dense attention
reads 2 T D e: at most 2 T D / (T r + 2 k D) faster, 7.1 times for T = 131,072, D = 128, r = 32, k = 2,048. The fp32
scores, 4 T bytes, are written and partly read again from L2. FLOPs: 2 G (T r + 2 k D) per key head. One program
selects for one key head, which bounds T k by 2^29 (k = 4,096 of T = 131,072).

Published
---------
Up to 8 times less attention data transfer (the paper's abstract, ICML 2024).

Differs
-------
Not paged: within a page of 16 tokens a channel of bf16 is a row of 32 bytes, so a paged layout wants pages of 64 tokens
or more, channel-major inside; that changes addresses, not the method. The `recent` tokens count among the k.
The current token is in the cache when the step begins. A length of at most k gives exact attention, a = 1.

:leaf: kvs
:papers: sparq-attention
"""

from __future__ import annotations

from dataclasses import dataclass
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
)
from reference_kernels.core.lse import LN_2, LOG2_E, attention
from reference_kernels.core.pieces import Plan, Tuning, can_launch_early, plan_rows
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvs.paged_decode import dense_peer
from reference_kernels.kvs.token_selection import choose_span, select_tokens

ALIGNED = 16  # tokens; rows of k_channels must begin at addresses that allow wide loads
SCORE = Tuning(block=256, warps=4, stages=4, pieces=2)


@dataclass
class SparqPlan:
    """How a step is cut: the tokens to be scored, the tokens to attend to, and how many tokens share a maximum."""

    score: Plan
    attend: Plan
    budget: int
    span: int

    def refill(self, lengths: torch.Tensor) -> None:
        """Plan for other lengths [B] of as many requests, in the same buffers."""
        rows = lengths.cpu().repeat_interleave((len(self.score.parts) - 1) // len(lengths))
        self.score.refill(rows)
        self.attend.refill(rows.clamp(max=self.budget))


def make_plan(
    q: torch.Tensor, lengths: torch.Tensor, heads: int, room: int, budget: int, *, span: int | None = None,
    score: Tuning = SCORE, attend: Tuning | None = None, capacity: int | None = None,
) -> SparqPlan:  # fmt: skip
    """Plan a step.

    Args:
        q: [B, Hq, D], of which dtype, device and D matter.
        lengths: [B] int32, best on the CPU.
        heads: Hkv.
        room: T, the tokens that the cache has room for.
        budget: k.
        span: S, if not the one of least work.
        score: layout of the first launch; its block is a multiple of the span.
        attend: layout of the fourth.
        capacity: room for pieces, for a plan that will be refilled (core/pieces.py).

    Raises:
        ValueError: lengths do not fit in the cache, or so many tokens cannot be selected.
    """
    low, high = (int(lengths.min()), int(lengths.max())) if lengths.numel() else (-1, -1)
    if low < 0 or high > room:
        raise ValueError(f"lengths must lie in 0 ... {room}, the room of the cache; they lie in {low} ... {high}")
    tile = 8192 // (q.shape[-1] * q.element_size())
    attend = attend or Tuning(block=min(max(tile, 16), 32), warps=2, stages=3)
    rows = lengths.cpu().repeat_interleave(heads)
    return SparqPlan(
        plan_rows(rows, score, q.device, capacity),
        plan_rows(rows.clamp(max=budget), attend, q.device, capacity),
        budget,
        span or choose_span(room, budget),
    )


def channel_major(k: torch.Tensor) -> torch.Tensor:
    """Return keys [B, Hkv, T, D] once more as [B, Hkv, D, T]."""
    return k.transpose(2, 3).contiguous()


def mean_values(v: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the mean [B, Hkv, D] fp32 of the first `lengths` [B] of the values [B, Hkv, T, D]; 0 for none."""
    means = [
        v[b, :, :length].mean(1, dtype=torch.float32) if length else torch.zeros_like(v[b, :, 0], dtype=torch.float32)
        for b, length in enumerate(lengths.tolist())
    ]
    return torch.stack(means)


def append(
    k: torch.Tensor, k_channels: torch.Tensor, v: torch.Tensor, v_mean: torch.Tensor, lengths: torch.Tensor,
    k_new: torch.Tensor, v_new: torch.Tensor,
) -> None:  # fmt: skip
    """Add one token per request, k_new and v_new [B, Hkv, D], in place to both layouts, the mean and the lengths."""
    check_shape("k_new", k_new, *k.shape[:2], k.shape[3])
    check_shape("v_new", v_new, *k_new.shape)
    request, place = torch.arange(len(lengths), device=lengths.device), lengths.long()
    k[request, :, place] = k_new
    k_channels[request, :, :, place] = k_new
    v[request, :, place] = v_new
    lengths += 1
    v_mean += (v_new.float() - v_mean) / lengths[:, None, None]


def decode_attention(
    q: torch.Tensor, k: torch.Tensor, k_channels: torch.Tensor, v: torch.Tensor, v_mean: torch.Tensor,
    lengths: torch.Tensor, *, rank: int, budget: int, recent: int = 0, scale: float | None = None,
    plan: SparqPlan | None = None,
) -> Outputs:  # fmt: skip
    """Choose `budget` tokens by `rank` channels and attend to them. Shapes and layout: the module's docstring.

    With a `plan` nothing is read back from the device; without one it is made here and the lengths are checked.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or numbers do not fit.
    """
    check_same(q=q, k=k, k_channels=k_channels, v=v)
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    check_dim(dim)
    check_shape("k", k, batch, None, None, dim)
    _, heads, room, _ = k.shape
    group = check_heads(query_heads, heads)
    check_shape("v", v, *k.shape)
    check_shape("k_channels", k_channels, batch, heads, dim, room)
    check_shape("v_mean", v_mean, batch, heads, dim)
    if v_mean.dtype != torch.float32 or v_mean.device != q.device:
        raise TypeError(f"v_mean must be float32 on {q.device}, not {v_mean.dtype} on {v_mean.device}")
    check_shape("lengths", lengths, batch)
    check_integers(q.device, lengths=lengths)
    for name, tensor in (("k", k), ("k_channels", k_channels), ("v", v), ("v_mean", v_mean)):
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, its strides are {tensor.stride()}")
    if room % ALIGNED or not room:
        raise ValueError(f"the cache must have room for a multiple of {ALIGNED} tokens, not {room}")
    if not 1 <= rank <= dim:
        raise ValueError(f"rank must lie in 1 ... {dim}, the head size, not {rank}")
    if budget < 1 or not 0 <= recent <= budget:
        raise ValueError(f"the budget must be positive and hold the recent tokens; they are {budget} and {recent}")
    if plan is None:
        plan = make_plan(q, lengths, heads, room, budget)
    if plan.budget != budget:
        raise ValueError(f"the plan is for a budget of {plan.budget} tokens, not {budget}")
    scale = check_scale(scale, dim) * LOG2_E
    rows, device = batch * heads, q.device
    early = can_launch_early(device)
    q = q.contiguous()

    def new(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    scores, maxima = new(batch, heads, room), new(rows, triton.cdiv(room, plan.span))
    channels, used = new(batch, heads, rank, dtype=torch.int32), new(rows, dim, dtype=torch.int8)
    factors, guessed = new(rows, group), new(len(plan.score.items) + rows, 2, group)
    _score[(len(plan.score.items),)](
        q, k_channels, plan.score.items, lengths, scores, maxima, channels, used, factors, guessed, scale, recent, room,
        maxima.shape[1], len(plan.score.items),
        HEADS=heads, GROUP=group, ROWS=max(triton.next_power_of_2(group), 16), DIM=dim, PART=min(dim, 32), RANK=rank,
        LANES=max(triton.next_power_of_2(rank), 16), BLOCK=plan.score.tuning.block, SPAN=plan.span, EARLY=early,
        num_warps=plan.score.tuning.warps, num_stages=plan.score.tuning.stages,
    )  # fmt: skip

    kept = select_tokens(scores, maxima, lengths, budget, plan.span)

    part_out = new(len(plan.attend.items) + rows, group, dim)
    part_sums = new(len(plan.attend.items) + rows, 2, 2, group)
    half = max(triton.next_power_of_2(group), 8)
    _attend[(len(plan.attend.items),)](
        q, k, v, plan.attend.items, kept, used, factors, part_out, part_sums, scale, room, kept.shape[2],
        len(plan.attend.items),
        GROUP=group, HALF=half, DIM=dim, BLOCK=plan.attend.tuning.block, EARLY=early,
        num_warps=plan.attend.tuning.warps, num_stages=plan.attend.tuning.stages, launch_pdl=early,
    )  # fmt: skip

    out, coverage = torch.empty_like(q), new(batch, query_heads)
    _mix[(rows, group)](
        plan.score.parts, plan.attend.parts, guessed, part_out, part_sums, v_mean, lengths, out, coverage, budget,
        len(plan.score.items), len(plan.attend.items),
        HEADS=heads, GROUP=group, DIM=dim, BLOCK=32, EARLY=early, num_warps=4, launch_pdl=early,
    )  # fmt: skip
    return {"out": out, "coverage": coverage, "channels": channels, "kept": kept, "scores": scores}


@triton.jit
def _score(
    q, k_channels, items, lengths, scores, maxima, channels, used, factors, guessed, scale, recent, room, spans, spare,
    HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, PART: tl.constexpr,
    RANK: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr, SPAN: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: guessed scores of one piece of one row, the maxima of its spans, and its sum of powers per head."""
    if EARLY:
        gdc_launch_dependents()
    item = items + tl.program_id(0) * 4
    row, start, stop, slot = tl.load(item), tl.load(item + 1), tl.load(item + 2), tl.load(item + 3)
    if row >= 0:
        # channels: those with fewer than RANK before them; a part at a time, which registers hold
        dims, lane, member = tl.arange(0, DIM), tl.arange(0, LANES), tl.arange(0, ROWS)
        real = member < GROUP
        mine = q + row * GROUP * DIM
        rival = _sizes(mine, dims, GROUP, DIM)
        channel = tl.zeros([LANES], tl.int32)  # ascending, so that a sum over them is the one over D with zeros between
        found = 0
        whole = tl.zeros([ROWS], tl.float32)  # |q|_1 of each head
        for part in tl.range(0, DIM, PART, num_stages=1):
            mid = part + tl.arange(0, PART)
            size = _sizes(mine, mid, GROUP, DIM)
            wins = rival[:, None] > size[None, :]
            wins = wins | ((rival[:, None] == size[None, :]) & (dims[:, None] < mid[None, :]))
            before = tl.sum(wins.to(tl.int32), 0)
            chosen = (before < RANK).to(tl.int32)
            place = tl.where(chosen != 0, found + tl.cumsum(chosen, 0) - 1, -1)
            channel += tl.sum(tl.where(place[:, None] == lane[None, :], mid[:, None], 0), 0)
            found += tl.sum(chosen, 0)
            full = tl.load(mine + member[:, None] * DIM + mid[None, :], mask=real[:, None], other=0.0)
            whole += tl.sum(tl.abs(full.to(tl.float32)), 1)
            if start == 0:
                tl.store(used + row * DIM + mid, chosen.to(tl.int8))

        # the query there, and what its scores are scaled by
        at = mine + member[:, None] * DIM + channel[None, :]
        query = tl.load(at, mask=real[:, None] & (lane < RANK)[None, :], other=0.0)
        share = tl.sum(tl.abs(query.to(tl.float32)), 1)
        some = share > 0  # a head without these channels scores 0 everywhere
        factor = scale * tl.sqrt_rn(tl.where(some, tl.div_rn(whole, tl.where(some, share, 1.0)), 1.0))
        if start == 0:
            tl.store(channels + row * RANK + lane, channel, mask=lane < RANK)
            tl.store(factors + row * GROUP + member, factor, mask=real)

        # stream these channels
        top = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        newest = tl.load(lengths + row // HEADS) - recent
        limit = (stop + 15) // 16 * 16  # known to be a multiple of 16, so that the mask leaves loads wide
        start = tl.multiple_of(start, BLOCK)  # pieces are whole tiles
        base = k_channels + (row.to(tl.int64) * DIM + channel)[:, None] * room
        my_scores = scores + row.to(tl.int64) * room
        my_maxima = maxima + row.to(tl.int64) * spans
        for first in range(start, stop, BLOCK):
            token = first + tl.arange(0, BLOCK)
            live = token < stop
            inside = (token < limit)[None, :]
            if RANK < LANES:
                inside = inside & (lane < RANK)[:, None]
            keys = tl.load(base + token[None, :], mask=inside, other=0.0)  # [LANES, BLOCK]
            score = tl.dot(query, keys, input_precision="ieee") * factor[:, None]
            joint = tl.sum(score, 0) * LN_2
            score = tl.where(live[None, :], score, float("-inf"))
            new_top = tl.maximum(top, tl.max(score, 1))
            total = total * tl.exp2(top - new_top) + tl.sum(tl.exp2(score - new_top[:, None]), 1)
            top = new_top
            joint = tl.where(joint == 0, 0.0, joint)  # -0 ties with 0
            joint = tl.where(live, tl.where(token >= newest, float("inf"), joint), float("-inf"))
            tl.store(my_scores + token, joint, mask=live)
            if SPAN > 1:
                span = first // SPAN + tl.arange(0, BLOCK // SPAN)
                largest = tl.max(tl.reshape(joint, [BLOCK // SPAN, SPAN]), 1)
                tl.store(my_maxima + span, largest, mask=span * SPAN < stop)
        state = tl.where(slot < 0, spare + row, slot)
        tl.store(guessed + state * 2 * GROUP + member, top, mask=real)
        tl.store(guessed + (state * 2 + 1) * GROUP + member, total, mask=real)


@triton.jit
def _sizes(q, dims, GROUP: tl.constexpr, DIM: tl.constexpr):
    """Return |q| of channels, summed over the group always in the same order, so that equal sums compare equal."""
    size = tl.abs(tl.load(q + dims).to(tl.float32))
    for member in tl.static_range(1, GROUP):
        size += tl.abs(tl.load(q + member * DIM + dims).to(tl.float32))
    return size


@triton.jit
def _attend(
    q, k, v, items, kept, used, factors, part_out, part_sums, scale, room, width, spare,
    GROUP: tl.constexpr, HALF: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the state of the query heads of one row over a piece of its kept tokens, exact and guessed."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    item = items + tl.program_id(0) * 4
    row, start, stop, slot = tl.load(item), tl.load(item + 1), tl.load(item + 2), tl.load(item + 3)
    if row >= 0:
        line, dims = tl.arange(0, 2 * HALF), tl.arange(0, DIM)
        member, guess = line % HALF, line // HALF  # the second half has the chosen channels only
        real = member < GROUP
        query = tl.load(q + (row * GROUP + member)[:, None] * DIM + dims[None, :], mask=real[:, None], other=0.0)
        seen = tl.load(used + row * DIM + dims) != 0
        query = tl.where((guess == 0)[:, None] | seen[None, :], query, 0.0).to(query.dtype)
        factor = tl.load(factors + row * GROUP + member, mask=real & (guess == 1), other=0.0)
        factor = tl.where(guess == 0, scale, factor)[:, None]
        keys_of, values_of = k + row.to(tl.int64) * room * DIM, v + row.to(tl.int64) * room * DIM
        mine = kept + row.to(tl.int64) * width

        top = tl.full([2 * HALF], float("-inf"), tl.float32)  # in powers of two
        total = tl.zeros([2 * HALF], tl.float32)
        mean = tl.zeros([2 * HALF, DIM], tl.float32)
        for first in range(start, stop, BLOCK):
            number = first + tl.arange(0, BLOCK)
            live = number < stop
            token = tl.load(mine + number, mask=live, other=0)  # past the end token 0, which weighs nothing
            place = token[:, None] * DIM + dims[None, :]
            keys = tl.load(keys_of + place)
            values = tl.load(values_of + place)
            score = tl.dot(query, tl.trans(keys), input_precision="ieee") * factor
            score = tl.where(live[None, :], score, float("-inf"))
            new_top = tl.maximum(top, tl.max(score, 1))
            weights = tl.exp2(score - new_top[:, None])
            fade = tl.exp2(top - new_top)
            total = total * fade + tl.sum(weights, 1)
            mean = tl.dot(weights.to(values.dtype), values, mean * fade[:, None], input_precision="ieee")
            top = new_top

        mean = mean / tl.where(total > 0, total, 1.0)[:, None]
        state = tl.where(slot < 0, spare + row, slot)
        sums = part_sums + (state * 2 + guess) * 2 * GROUP + member
        tl.store(sums, top, mask=real)
        tl.store(sums + GROUP, total, mask=real)
        places = part_out + (state * GROUP + member)[:, None] * DIM + dims[None, :]
        tl.store(places, mean, mask=(real & (guess == 0))[:, None])


@triton.jit
def _mix(
    score_parts, attend_parts, guessed, part_out, part_sums, v_mean, lengths, out, coverage, budget, score_spare,
    attend_spare,
    HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: merge the states of one query head and add the mean of the values for what was left out."""
    if EARLY:
        gdc_wait()
    row, member = tl.program_id(0), tl.program_id(1)
    head, dims = row * GROUP + member, tl.arange(0, DIM)
    begin, end = tl.load(score_parts + row), tl.load(score_parts + row + 1)
    whole_row = begin == end  # not cut: its only state lies behind those of the pieces
    begin, end = tl.where(whole_row, score_spare + row, begin), tl.where(whole_row, score_spare + row + 1, end)
    all_top, all_total = float("-inf"), 0.0
    for first in range(begin, end, BLOCK):
        slots = first + tl.arange(0, BLOCK)
        sums = guessed + slots * 2 * GROUP + member
        all_top, all_total, _, _ = _fold(sums, slots < end, all_top, all_total, GROUP)

    begin, end = tl.load(attend_parts + row), tl.load(attend_parts + row + 1)
    whole_row = begin == end
    begin, end = tl.where(whole_row, attend_spare + row, begin), tl.where(whole_row, attend_spare + row + 1, end)
    kept_top, kept_total, top, total = float("-inf"), 0.0, float("-inf"), 0.0
    mean = tl.zeros([DIM], tl.float32)
    for first in range(begin, end, BLOCK):
        slots = first + tl.arange(0, BLOCK)
        live = slots < end
        sums = part_sums + slots * 4 * GROUP + member
        states = part_out + (slots * GROUP + member)[:, None] * DIM + dims[None, :]
        states = tl.load(states, mask=live[:, None], other=0.0)
        kept_top, kept_total, _, _ = _fold(sums + 2 * GROUP, live, kept_top, kept_total, GROUP)
        top, total, weights, fade = _fold(sums, live, top, total, GROUP)
        mean = mean * fade + tl.sum(weights[:, None] * states, 0)

    length = tl.load(lengths + row // HEADS)
    share = tl.minimum(tl.div_rn(kept_total, all_total) * tl.exp2(kept_top - all_top), 1.0)
    share = tl.where(length > budget, share, 1.0)  # else nothing is left out
    rest = tl.load(v_mean + row * DIM + dims, mask=length > budget, other=0.0)
    tl.store(coverage + head, share)
    result = share * (mean / tl.where(total > 0, total, 1.0)) + (1 - share) * rest
    tl.store(out + head * DIM + dims, result.to(out.dtype.element_ty))


@triton.jit
def _fold(sums, live, top, total, GROUP: tl.constexpr):
    """Fold sums of powers of two, 2^top total, into a running one; they may all be empty. Return weights and fade."""
    tops = tl.load(sums, mask=live, other=float("-inf"))
    totals = tl.load(sums + GROUP, mask=live, other=0.0)
    new_top = tl.maximum(top, tl.max(tops, 0))
    finite = tl.where(new_top == float("-inf"), 0.0, new_top)
    weights = totals * tl.exp2(tops - finite)
    fade = tl.exp2(top - finite)
    return new_top, total * fade + tl.sum(weights, 0), weights, fade


def reference(
    q: torch.Tensor, k: torch.Tensor, k_channels: torch.Tensor, v: torch.Tensor, v_mean: torch.Tensor,
    lengths: torch.Tensor, rank: int, budget: int, recent: int = 0, scale: float | None = None,
    channels: torch.Tensor | None = None, kept: torch.Tensor | None = None,
) -> Outputs:  # fmt: skip
    """The equations, one key head of one request at a time; `channels` and `kept` replace the reference's choices."""
    batch, query_heads, dim = q.shape
    heads = k.shape[1]
    scale = dim**-0.5 if scale is None else scale
    out, coverage = torch.zeros_like(q), torch.ones(batch, query_heads, dtype=q.dtype, device=q.device)
    for b, length in enumerate(lengths.tolist()):
        for h in range(heads):
            if not length:
                continue
            mine = slice(h * query_heads // heads, (h + 1) * query_heads // heads)
            query, size = q[b, mine], q[b, mine].abs()  # [G, D]
            best = channels[b, h].long() if channels is not None else size.sum(0).topk(rank).indices
            share = size[:, best].sum(1) / size.sum(1)  # [G]
            factor = torch.where(share > 0, scale / share.sqrt(), scale)
            scores = query[:, best] @ k_channels[b, h, best, :length] * factor[:, None]  # [G, T]
            if kept is None:
                joint = scores.sum(0)
                joint[max(length - recent, 0) :] = torch.inf
                tokens = joint.topk(min(budget, length)).indices
            else:
                tokens = kept[b, h, : min(budget, length)].long()
            a = scores.softmax(1)[:, tokens].sum(1)
            exact, _ = attention(query, k[b, h : h + 1, tokens], v[b, h : h + 1, tokens], scale)
            out[b, mine] = a[:, None] * exact + (1 - a)[:, None] * v_mean[b, h].to(q.dtype)
            coverage[b, mine] = a
    return {"out": out, "coverage": coverage}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: list[int], heads: int, group: int, dim: int,
    rank: int, budget: int, recent: int = 0,
) -> Inputs:  # fmt: skip
    """Draw queries with a few large channels, and a cache; what is past a length is NaN."""
    generator = torch.Generator(device).manual_seed(seed)
    batch, room = len(lengths), max(-(-max(lengths) // ALIGNED), 1) * ALIGNED

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, device=device, generator=generator)

    k, v = draw(batch, heads, room, dim), draw(batch, heads, room, dim)
    sizes = torch.tensor(lengths, dtype=torch.int32, device=device)
    v_mean = mean_values(v, sizes)
    for b, length in enumerate(lengths):
        k[b, :, length:] = float("nan")
        v[b, :, length:] = float("nan")
    q = draw(batch, heads, group, dim) * torch.exp(draw(batch, heads, 1, dim) / 2)  # a group agrees on what is large
    return {
        "q": q.flatten(1, 2), "k": k, "k_channels": channel_major(k), "v": v, "v_mean": v_mean, "lengths": sizes,
        "rank": rank, "budget": budget, "recent": recent,
    }  # fmt: skip


def plan(*, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, **_: Any) -> Inputs:
    """The host's part of a step."""
    return {"plan": make_plan(q, lengths, k.shape[1], k.shape[2], budget)}


def work(
    *, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, rank: int, budget: int, **_: Any
) -> Work:  # fmt: skip
    """The chosen channels of all keys, the kept tokens, the means, queries and results."""
    heads, dim = k.shape[1], k.shape[3]
    size, group = q.element_size(), q.shape[1] // heads
    tokens, attended = int(lengths.sum()) * heads, int(lengths.clamp(max=budget).sum()) * heads
    read = tokens * rank * size + 2 * attended * dim * size + 4 * len(lengths) * heads * dim + q.numel() * size
    return Work(read, q.numel() * size, 2 * group * (tokens * rank + 2 * attended * dim))


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """The gain over dense attention that the bytes allow, and the share of the guessed attention that is kept."""
    q, k = inputs["q"], inputs["k"]
    whole = 2 * int(inputs["lengths"].sum()) * k.shape[1] * k.shape[3] * q.element_size()
    return {"ideal gain": whole / work(**inputs).read, "coverage": float(outputs["coverage"].mean())}


UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "odd lengths": {
            "lengths": [1, 15, 16, 17, 1023, 0], "heads": 2, "group": 4, "dim": 128, "rank": 32, "budget": 64,
            "recent": 16,
        },
        "one query head per key head": {
            "lengths": [300, 5], "heads": 3, "group": 1, "dim": 64, "rank": 20, "budget": 33
        },
        "wide group and head": {
            "lengths": [65, 130], "heads": 1, "group": 8, "dim": 256, "rank": 64, "budget": 100, "recent": 100
        },
        "two levels": {
            "lengths": [33001], "heads": 1, "group": 4, "dim": 64, "rank": 16, "budget": 200, "recent": 3
        },
        "one token of one channel": {
            "lengths": [700], "heads": 1, "group": 16, "dim": 64, "rank": 1, "budget": 1
        },
        "nothing cached": {"lengths": [0], "heads": 1, "group": 1, "dim": 64, "rank": 8, "budget": 4, "recent": 2},
    },
    benchmarks={
        f"B={batch} x 128k, r=32, k=2048": {
            "lengths": [131072] * batch, "heads": 8, "group": 4, "dim": 128, "rank": 32, "budget": 2048, "recent": 64
        }
        for batch in (1, 8)
    },
    peers={"dense, ours": lambda inputs: dense_peer(inputs["q"], inputs["lengths"], inputs["k"].shape[1])},
    follows=("channels", "kept"),
    figures=figures,
)  # fmt: skip
