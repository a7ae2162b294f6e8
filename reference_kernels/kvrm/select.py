"""Top-k of long rows as ascending indices: exact, ties to the lower index, nothing read back to the host.

A float's bits, with the lower 31 flipped where it is negative, order as a signed integer; call that a token's key. The
k-th largest key is found one byte at a time: count the keys per value of the byte, descend into the value that holds
the k-th, count the next byte among the keys that match so far. Four passes give the threshold and how many keys equal
to it are kept. Then each chunk of a row tallies what lies above the threshold and at it, and writes its part of the
result to the place that the tallies of earlier chunks imply. Counts are added with integer atomics, whose result has
no order.

Rows [B, H, T] are ranked by themselves, or all heads of a request together (Ada-KV); ties then go to the lower head.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

CHUNK = 4096  # tokens per program
WARPS = 8
BINS = tl.constexpr(256)
PASSES = tl.constexpr(4)
FORCED = tl.constexpr(0x7FFFFFFF)  # above the key of every number


def select(
    scores: torch.Tensor, lengths: torch.Tensor, budget: int, width: int, sinks: int, recent: int, together: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the highest scores. `budget.py` checks what is given here.

    Args:
        scores: [B, H, T] float32, contiguous; those past the length are not looked at.
        lengths: [B] int32.
        budget: kept tokens per head, on average over the heads where they are ranked `together`.
        width: M, as many as one head may keep.
        sinks: first tokens that rank above all scores.
        recent: last tokens that rank above all scores.
        together: rank the heads of a request as one list of H T tokens, of which H budget are kept.

    Returns:
        kept [B, H, M] int32, ascending, -1 after the last, and counts [B, H] int32.
    """
    batch, heads, tokens = scores.shape
    rows, chunks = batch * heads, triton.cdiv(tokens, CHUNK)
    group = heads if together else 1
    device = scores.device
    tables = torch.zeros(PASSES.value, rows // group, BINS.value, dtype=torch.int32, device=device)
    tallies = torch.empty(rows, chunks, 2, dtype=torch.int32, device=device)
    kept = torch.full((batch, heads, width), -1, dtype=torch.int32, device=device)
    counts = torch.empty(batch, heads, dtype=torch.int32, device=device)
    chunk = min(CHUNK, triton.next_power_of_2(max(tokens, 16)))
    launch = {"HEADS": heads, "GROUP": group, "CHUNK": chunk, "num_warps": WARPS}
    given = (scores, lengths, tables, tokens, rows // group, budget, sinks, recent)
    for number in range(PASSES.value):
        _count_bytes[(chunks, rows)](*given, PASS=number, **launch)
    _tally[(chunks, rows)](*given, tallies, **launch)
    padded = triton.next_power_of_2(group * chunks)
    _write[(chunks, rows)](*given, tallies, kept, counts, width, chunks, CHUNKS=padded, **launch)
    return kept, counts


@triton.jit
def _count_bytes(
    scores, lengths, tables, tokens, groups, budget, sinks, recent,
    PASS: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program: count the values of byte PASS among the keys of a chunk that match the threshold's earlier bytes."""
    chunk, row = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + row // HEADS)
    if chunk * CHUNK < length:
        group = row // GROUP
        prefix, _ = _descend(tables, group, groups, tl.minimum(budget, length) * GROUP, PASS)
        key, live = _keys(scores, row, chunk, length, tokens, sinks, recent, CHUNK)
        if PASS == 0:
            digit = (key >> 24) + 128
        else:
            digit = (key >> (24 - 8 * PASS)) & 255
            live = live & ((key >> (32 - 8 * PASS)) == prefix)
        found = tl.histogram(digit, BINS, mask=live)
        place = tables + (PASS * groups + group) * BINS + tl.arange(0, BINS)
        tl.atomic_add(place, found, mask=found > 0, sem="relaxed")


@triton.jit
def _tally(
    scores, lengths, tables, tokens, groups, budget, sinks, recent, tallies,
    HEADS: tl.constexpr, GROUP: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program: how many keys of a chunk lie above the threshold, and how many at it."""
    chunk, row = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + row // HEADS)
    threshold, _ = _descend(tables, row // GROUP, groups, tl.minimum(budget, length) * GROUP, PASSES)
    key, live = _keys(scores, row, chunk, length, tokens, sinks, recent, CHUNK)
    place = tallies + (row * tl.num_programs(0) + chunk) * 2
    tl.store(place, tl.sum((live & (key > threshold)).to(tl.int32), 0))
    tl.store(place + 1, tl.sum((live & (key == threshold)).to(tl.int32), 0))


@triton.jit
def _write(
    scores, lengths, tables, tokens, groups, budget, sinks, recent, tallies, kept, counts, width, chunks,
    CHUNKS: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program: the kept tokens of a chunk, behind those of the row's earlier chunks."""
    chunk, row = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + row // HEADS)
    group = row // GROUP
    threshold, equals = _descend(tables, group, groups, tl.minimum(budget, length) * GROUP, PASSES)

    each = tl.arange(0, CHUNKS)  # the chunks of all rows of the group, in order
    mine = (row % GROUP) * chunks + chunk
    place = tallies + (group * GROUP * chunks + each) * 2
    inside = each < GROUP * chunks
    above, at = tl.load(place, mask=inside, other=0), tl.load(place + 1, mask=inside, other=0)
    earlier = tl.cumsum(at, 0) - at  # keys at the threshold in earlier chunks
    taken = above + tl.minimum(tl.maximum(equals - earlier, 0), at)
    same_row = each // chunks == row % GROUP
    base = tl.sum(tl.where(same_row & (each < mine), taken, 0), 0)
    if chunk == 0:
        tl.store(counts + row, tl.sum(tl.where(same_row, taken, 0), 0))

    key, live = _keys(scores, row, chunk, length, tokens, sinks, recent, CHUNK)
    equal = (live & (key == threshold)).to(tl.int32)
    rank = tl.sum(tl.where(each < mine, at, 0), 0) + tl.cumsum(equal, 0) - equal
    keep = (live & (key > threshold)) | ((equal > 0) & (rank < equals))
    index = base + tl.cumsum(keep.to(tl.int32), 0) - 1
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    tl.store(kept + row.to(tl.int64) * width + index, token, mask=keep & (index < width))


@triton.jit
def _descend(tables, group, groups, wanted, DONE: tl.constexpr):
    """Return the first DONE bytes of the `wanted`-th largest key, and which of the keys that begin so it is."""
    prefix = 0
    bins = tl.arange(0, BINS)
    for number in tl.static_range(DONE):
        found = tl.load(tables + (number * groups + group) * BINS + bins)
        above = tl.sum(found, 0) - tl.cumsum(found, 0)
        here = (above < wanted) & (wanted <= above + found)
        digit = tl.sum(tl.where(here, bins, 0), 0)
        wanted -= tl.sum(tl.where(here, above, 0), 0)
        prefix = digit - 128 if number == 0 else prefix * 256 + digit
    return prefix, wanted


@triton.jit
def _keys(scores, row, chunk, length, tokens, sinks, recent, CHUNK: tl.constexpr):
    """Return the keys of a chunk and which of them belong to tokens."""
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    live = token < length
    score = tl.load(scores + row.to(tl.int64) * tokens + token, mask=live, other=0.0)
    bits = tl.where(score == 0, 0.0, score).to(tl.int32, bitcast=True)  # -0 equals 0
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    forced = (token < sinks) | (token >= length - recent)
    return tl.where(forced, FORCED, key), live
