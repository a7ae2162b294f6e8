"""Choosing the k largest of many scores exactly, in one launch or in two: what SparQ does with its guessed scores.

One program holds a row's values in registers and searches a threshold by counting. More values than fit are selected in
two steps: the k spans of S tokens whose largest scores are the largest, and the k best tokens in those spans.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from reference_kernels.core.pieces import can_launch_early

INFINITY = tl.constexpr(0x7F800000)  # the bits of +inf
NOTHING = tl.constexpr(-2147483648)
MOST = 32768  # values that the registers of one program hold
MOST_WITHIN = 16384  # of spans, whose addresses need registers too
CHUNK = 4096  # values that are scanned at once, when the selected ones are written
LAUNCH = 16384  # values that could be searched in the time of a further launch
SPANS = (1, 2, 4, 8, 16, 32, 64)


def choose_span(room: int, budget: int) -> int:
    """Return how many tokens share a maximum, so that the two selections have least to search together.

    Raises:
        ValueError: whatever the span, one of them has more than a program can hold.
    """
    best, least = 0, 0
    for span in SPANS:
        first, second = _values(room, budget, span)
        cost = first + (second + LAUNCH if span > 1 else 0)
        if first <= MOST and second <= MOST_WITHIN and (not best or cost < least):
            best, least = span, cost
    if not best:
        raise ValueError(f"{budget} of {room} tokens cannot be selected: their product may be {MOST} x {MOST_WITHIN}")
    return best


def _values(room: int, budget: int, span: int) -> tuple[int, int]:
    """Return how many values the two selections hold, powers of two."""
    first = max(triton.next_power_of_2(triton.cdiv(room, span)), 16)
    return first, triton.next_power_of_2(min(budget, triton.cdiv(room, span))) * span if span > 1 else 0


def select_tokens(
    scores: torch.Tensor, maxima: torch.Tensor, lengths: torch.Tensor, budget: int, span: int
) -> torch.Tensor:
    """Return the tokens of the largest scores in ascending order, the lower token winning ties.

    Args:
        scores: [B, Hkv, T] fp32, undefined past the length.
        maxima: [B Hkv, ceil(T / S)] fp32, the largest of each S consecutive scores; not looked at where S is 1.
        lengths: [B] int32.
        budget: k.
        span: S.

    Returns:
        [B, Hkv, min(k, T)] int32, -1 past min(k, length).
    """
    batch, heads, room = scores.shape
    first, second = _values(room, budget, span)
    if first > MOST or second > MOST_WITHIN:
        raise ValueError(f"{budget} of {room} tokens by spans of {span}: {first} and {second} values are too many")
    rows, width = batch * heads, min(budget, room)
    kept = torch.empty(batch, heads, width, dtype=torch.int32, device=scores.device)
    early = can_launch_early(scores.device)
    best = torch.empty(rows, width, dtype=torch.int32, device=scores.device) if span > 1 else kept
    _select[(rows,)](
        maxima if span > 1 else scores, lengths, best, budget, maxima.shape[1] if span > 1 else room, width,
        HEADS=heads, SPAN=span, GROUPS=min(triton.next_power_of_2(budget), first), BLOCK=first, EARLY=early,
        CHUNK=min(first, CHUNK), num_warps=max(first // 1024, 1), launch_pdl=early,
    )  # fmt: skip
    if span > 1:
        _select_within[(rows,)](
            scores, lengths, best, kept, budget, room, width,
            HEADS=heads, SPAN=span, SPANS=second // span, CHUNK=min(second, CHUNK), EARLY=early,
            num_warps=max(second // 1024, 1), launch_pdl=early,
        )  # fmt: skip
    return kept


@triton.jit
def _select(
    values, lengths, best, budget, columns, width,
    HEADS: tl.constexpr, SPAN: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the numbers of the largest values of a row, ascending; one value for SPAN tokens."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0)
    count = (tl.load(lengths + row // HEADS) + SPAN - 1) // SPAN
    wanted = tl.minimum(budget, count)
    number = tl.arange(0, BLOCK)
    there = number < count
    order = _order(tl.load(values + row.to(tl.int64) * columns + number, mask=there, other=0.0), there)
    # GROUPS >= wanted disjoint groups have a maximum each, so at least as many values reach the least of them
    group_max = tl.max(tl.reshape(order, [BLOCK // GROUPS, GROUPS]), 0)
    bound = tl.min(tl.where(tl.arange(0, GROUPS) < count, group_max, INFINITY), 0)
    low, high, room = _threshold(order, bound, wanted)

    mine = best + row.to(tl.int64) * width
    larger, alike = 0, 0
    for first in tl.range(0, count, CHUNK, num_stages=1):  # read again, since a scan needs the registers
        again = first + tl.arange(0, CHUNK)
        part = tl.load(values + row.to(tl.int64) * columns + again, mask=again < count, other=0.0)
        larger, alike = _write(mine, again, _order(part, again < count), low, high, room, wanted, larger, alike)
    if SPAN == 1:  # spans are the next launch's affair, tokens the caller's
        _fill(mine, wanted, width, CHUNK)


@triton.jit
def _select_within(
    scores, lengths, best, kept, budget, room, width,
    HEADS: tl.constexpr, SPAN: tl.constexpr, SPANS: tl.constexpr, CHUNK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: the tokens of the largest scores of a row, looking only into its best spans."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0)
    length = tl.load(lengths + row // HEADS)
    count = tl.minimum(budget, (length + SPAN - 1) // SPAN)
    wanted = tl.minimum(budget, length)
    number = tl.arange(0, SPANS)
    span = tl.load(best + row.to(tl.int64) * width + number, mask=number < count, other=0)
    token = span[:, None] * SPAN + tl.arange(0, SPAN)[None, :]
    there = (number < count)[:, None] & (token < length)
    order = _order(tl.load(scores + row.to(tl.int64) * room + token, mask=there, other=0.0), there)
    # with as many spans as wanted tokens the least of their maxima is a bound, else the least of all is
    span_max = tl.max(order, 1)
    bound = tl.min(tl.where(number < count, span_max, INFINITY), 0)
    if count < wanted:
        bound = tl.min(tl.min(tl.where(there, order, INFINITY), 1), 0)
    low, high, space = _threshold(tl.reshape(order, [SPANS * SPAN]), bound, wanted)

    mine = kept + row.to(tl.int64) * width
    larger, alike = 0, 0
    for first in tl.range(0, count * SPAN, CHUNK, num_stages=1):
        place = first + tl.arange(0, CHUNK)
        again = tl.load(best + row.to(tl.int64) * width + place // SPAN, mask=place < count * SPAN, other=0)
        again = again * SPAN + place % SPAN
        inside = (place < count * SPAN) & (again < length)
        part = tl.load(scores + row.to(tl.int64) * room + again, mask=inside, other=0.0)
        larger, alike = _write(mine, again, _order(part, inside), low, high, space, wanted, larger, alike)
    _fill(mine, wanted, width, CHUNK)


@triton.jit
def _order(values, there):
    """Return integers of the same order as floats, and below that of -inf where there is no value."""
    bits = values.to(tl.int32, bitcast=True)
    return tl.where(there, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits), NOTHING)


@triton.jit
def _threshold(order, bound, wanted):
    """Return `low`, `high` and a number: the `wanted` largest are those from `high`, and so many from `low` to `high`.

    `low` is reached by at least as many values as wanted, `high` by fewer. Two counts in one sum leave a third of what
    lies between them, until as many as wanted reach `low`, or it is the only value left and what lies there ties.
    """
    forced = tl.sum((order >= INFINITY).to(tl.int32), 0)  # they would only widen the search
    highest = tl.max(tl.where(order < INFINITY, order, NOTHING), 0)
    settled = forced >= wanted
    low = tl.where(settled, INFINITY, bound).to(tl.int64)  # 64 bits, since the distance needs 33
    high = tl.where(settled, INFINITY, highest).to(tl.int64) + 1
    reached = tl.where(settled, wanted, -1)
    while (reached != wanted) & (high - low > 1):
        step = tl.maximum((high - low) // 3, 1)
        first, second = low + step, tl.minimum(low + 2 * step, high)
        one = (order >= first.to(tl.int32)).to(tl.int32)  # compared in 32 bits: half the instructions
        two = (order >= second.to(tl.int32)).to(tl.int32)
        both = tl.sum(one + two * 65536, 0)
        one, two = both & 0xFFFF, (both >> 16) & 0xFFFF
        high = tl.where(two >= wanted, high, tl.where(one >= wanted, second, first))
        low = tl.where(two >= wanted, second, tl.where(one >= wanted, first, low))
        reached = tl.where(two >= wanted, two, tl.where(one >= wanted, one, reached))
    low, high = low.to(tl.int32), high.to(tl.int32)
    return low, high, tl.maximum(wanted - tl.sum((order >= high).to(tl.int32), 0), 0)  # NaN may exceed all


@triton.jit
def _write(target, number, order, low, high, room, wanted, larger, alike):
    """Append the chosen numbers of a chunk behind those of `larger` and `alike` values before; return new counts."""
    above = order >= high
    at = (order >= low) & (order < high)
    both = tl.cumsum(above.to(tl.int32) * 65536 + at.to(tl.int32), 0)  # two counts in one scan
    rank = alike + (both & 0xFFFF)
    place = larger + (both >> 16) + tl.minimum(rank, room) - 1
    tl.store(target + place, number, mask=(above | (at & (rank <= room))) & (place < wanted))
    return larger + tl.sum(above.to(tl.int32), 0), alike + tl.sum(at.to(tl.int32), 0)


@triton.jit
def _fill(target, start, stop, CHUNK: tl.constexpr):
    """Write -1 from `start` to `stop`."""
    for first in range(start, stop, CHUNK):
        number = first + tl.arange(0, CHUNK)
        tl.store(target + number, tl.full([CHUNK], -1, tl.int32), mask=number < stop)
