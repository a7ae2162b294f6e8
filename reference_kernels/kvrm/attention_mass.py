"""How much attention each key receives: column sums of softmax(q K^T), of which no row is ever stored.

The softmax runs along the row, the sum along the column, so K is read twice: `row_lse` finds the log-sum-exp of every
row, `column_mass` recomputes the scores, turns them into weights with it and adds them up per key. Who has the LSE
already (an attention kernel returns it) needs the second pass alone. SnapKV, H2O and TOVA are built from these two.

Layout: the last N queries q [B, Hq, N, D] of each request, keys k [B, Hkv, T, D], lengths [B] int32; query n stands at
position length - N + n and sees the keys up to itself (queries before position 0 see none). The N * G query rows that
share a key head are one operand of a matrix product, so that K is read once for all of them. As in flash decoding each
key head's tokens are cut into pieces, one per program, so that one long request fills the chip. The second pass runs
from the end to the beginning, since the end is what the first left in L2. A batch's pieces follow from T; lengths are
not read back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_dim, check_heads, check_integers, check_same, check_shape
from reference_kernels.core.device import multiprocessors
from reference_kernels.core.lse import LN_2, LOG2_E


@dataclass(frozen=True)
class Tuning:
    """How the two passes are laid out on the chip."""

    rows: int  # query rows per program, a power of two
    block: int  # tokens per tile, a power of two
    warps: int = 4
    stages: int = 3  # tiles in flight
    registers: int | None = None  # per thread at most
    pieces: int = 4  # programs per multiprocessor to aim at

    @classmethod
    def of(cls, q: torch.Tensor, group: int) -> Tuning:
        """Return a layout: at most 64 KiB of queries; tiles of 16 KiB beside many rows, of 32 KiB beside few; at most
        16,384 scores at a time. Then two programs fit a multiprocessor: one's exponentials hide the other's products.
        """
        line = q.shape[3] * q.element_size()
        rows = min(triton.next_power_of_2(q.shape[2] * group), 65536 // line, 256)
        rows = max(rows, 16, triton.next_power_of_2(group))
        block = max(min((32768 if rows <= 32 else 16384) // line, 16384 // rows, 128), 16)
        large = rows * block >= 16384
        return cls(rows, block, warps=8 if large else 4, registers=128 if large else None)


def check_observed(q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, scale: float = 1.0) -> int:
    """Require queries, keys and lengths that fit together and a positive scale; return the group size G."""
    check_same(q=q, k=k)
    check_shape("q", q, None, None, None, None)
    batch, query_heads, queries, dim = q.shape
    check_shape("k", k, batch, None, None, dim)
    check_shape("lengths", lengths, batch)
    check_integers(q.device, lengths=lengths)
    check_dim(dim)
    if queries < 1 or k.shape[2] < 1:
        raise ValueError(f"there must be queries and keys, not {queries} and {k.shape[2]}")
    if not scale > 0:
        raise ValueError(f"the scale of the scores must be positive, not {scale}")
    if k.stride(3) != 1:
        raise ValueError("the D numbers of a key must be contiguous")
    return check_heads(query_heads, k.shape[1])


def row_lse(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, scale: float, *, logits: torch.Tensor | None = None,
    tuning: Tuning | None = None,
) -> torch.Tensor:  # fmt: skip
    """Return ln sum_t exp(scale * q . k) [B, Hq, N] in fp32 over the keys that each query sees; -inf where none.

    Args:
        q, k, lengths: the module's docstring.
        scale: factor on the scores, positive.
        logits: [B, Hq, N, T] float32, receives scale * q . k, -inf where a key is not seen. Worth it for few rows: 8 N
            G bytes per token and key head to write and read again, where a second pass over K costs D e.
        tuning: layout, if not the default.
    """
    group = check_observed(q, k, lengths, scale)
    tuning = tuning or Tuning.of(q, group)
    batch, heads, tokens, dim = k.shape
    blocks = triton.cdiv(q.shape[2], tuning.rows // group)
    pieces = _pieces(batch * heads * blocks, tokens, tuning, q.device)
    part = torch.empty(pieces, *q.shape[:3], dtype=torch.float32, device=q.device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    _read_rows[(blocks, pieces, batch * heads)](
        q.contiguous(), k, lengths, part, part if logits is None else logits, scale,
        k.stride(0), k.stride(1), k.stride(2), tokens, q.shape[2],
        HEADS=heads, GROUP=group, ROWS=tuning.rows, DIM=dim, BLOCK=tuning.block, KEEP=logits is not None,
        num_warps=tuning.warps, num_stages=tuning.stages, maxnreg=tuning.registers,
    )  # fmt: skip
    _merge_pieces[(triton.cdiv(lse.numel(), 32),)](
        part, lse, lse.numel(), pieces, PIECES=triton.next_power_of_2(pieces), BLOCK=32
    )
    return lse


def column_mass(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, lse: torch.Tensor, scale: float, *, weight: float = 1.0,
    into: torch.Tensor | None = None, tuning: Tuning | None = None,
) -> torch.Tensor:  # fmt: skip
    """Return the attention weights summed over the N G query rows of a key head, times `weight`, [B, Hkv, T] in fp32.

    Args:
        q, k, lengths: the module's docstring.
        lse: [B, Hq, N] float32, natural, of `row_lse` or of an attention kernel.
        scale: factor on the scores, positive.
        weight: factor on the sums.
        into: a running sum to add to, in place. Without it slots past the length keep what memory held.
        tuning: layout, if not the default.
    """
    group = check_observed(q, k, lengths, scale)
    tuning = tuning or Tuning.of(q, group)
    batch, heads, tokens, dim = k.shape
    check_shape("lse", lse, *q.shape[:3])
    mass = torch.empty(batch, heads, tokens, dtype=torch.float32, device=q.device) if into is None else into
    check_shape("into", mass, batch, heads, tokens)
    check_same(lse=lse, into=mass)
    pieces = _pieces(batch * heads, tokens, tuning, q.device)
    for first in range(0, q.shape[2], tuning.rows // group):  # more rows than a program holds: K is streamed again
        _sum_columns[(pieces, batch * heads)](
            q.contiguous(), k, lengths, lse.contiguous(), mass, scale * LOG2_E, weight,
            k.stride(0), k.stride(1), k.stride(2), tokens, q.shape[2], first,
            HEADS=heads, GROUP=group, ROWS=tuning.rows, DIM=dim, BLOCK=tuning.block,
            ADD=first > 0 or into is not None,
            num_warps=tuning.warps, num_stages=tuning.stages, maxnreg=tuning.registers,
        )  # fmt: skip
    return mass


def _pieces(rows: int, tokens: int, tuning: Tuning, device: torch.device) -> int:
    """Return into how many pieces each of `rows` rows of work is cut."""
    return min(triton.cdiv(tuning.pieces * multiprocessors(device), rows), triton.cdiv(tokens, tuning.block))


@triton.jit
def _read_rows(
    q, k, lengths, part, logits, scale, stride_request, stride_head, stride_token, tokens, queries,
    HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """One program: the LSE, base 2, of some queries' rows over one piece of one key head's tokens."""
    first_query, piece, row = tl.program_id(0) * (ROWS // GROUP), tl.program_id(1), tl.program_id(2)
    query, place, real = _rows(row, first_query, queries, GROUP, ROWS)
    rows = tl.load(q + place[:, None] * DIM + tl.arange(0, DIM)[None, :], mask=real[:, None], other=0.0)
    length = tl.load(lengths + row // HEADS)
    position = length - queries + query
    start, clear, stop = _piece(piece, tl.num_programs(1), length, length - queries + first_query + 1, BLOCK)
    if not KEEP:  # nothing to do where none of these queries sees a key
        stop = tl.minimum(stop, length - queries + first_query + ROWS // GROUP)
    keys = k + (row // HEADS).to(tl.int64) * stride_request + (row % HEADS).to(tl.int64) * stride_head
    line = logits + place[:, None] * tokens

    scale2 = scale * 1.4426950408889634
    top = tl.full([ROWS], float("-inf"), tl.float32)  # running maximum, in powers of two
    total = tl.zeros([ROWS], tl.float32)
    for first in range(start, clear, BLOCK):
        token, tile = _tile(keys, first, stop, stride_token, DIM, BLOCK, False)
        scores = tl.dot(rows, tl.trans(tile), input_precision="ieee")
        if KEEP:
            tl.store(line + token[None, :], scores * scale, mask=real[:, None])
        new_top = tl.maximum(top, tl.max(scores, 1) * scale2)
        total = total * tl.exp2(top - new_top) + tl.sum(tl.exp2(scores * scale2 - new_top[:, None]), 1)
        top = new_top
    for first in range(clear, stop, BLOCK):
        token, tile = _tile(keys, first, stop, stride_token, DIM, BLOCK, True)
        scores = tl.dot(rows, tl.trans(tile), input_precision="ieee")
        seen = (token[None, :] <= position[:, None]) & (token < stop)[None, :]
        scores = tl.where(seen, scores, float("-inf"))
        if KEEP:
            tl.store(line + token[None, :], scores * scale, mask=real[:, None] & (token < stop)[None, :])
        new_top = tl.maximum(top, tl.max(scores, 1) * scale2)
        base = tl.where(new_top == float("-inf"), 0.0, new_top)  # a query that has seen nothing yet
        total = total * tl.exp2(top - base) + tl.sum(tl.exp2(scores * scale2 - base[:, None]), 1)
        top = new_top
    lse = top + tl.log2(tl.where(total > 0, total, 1.0))
    tl.store(part + piece.to(tl.int64) * tl.num_programs(2) * GROUP * queries + place, lse, mask=real)


@triton.jit
def _merge_pieces(part, lse, rows, pieces, PIECES: tl.constexpr, BLOCK: tl.constexpr):
    """One program: the natural LSE of BLOCK rows from those of their pieces, base 2."""
    row, piece = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PIECES)
    mask = (piece < pieces)[:, None] & (row < rows)[None, :]
    logs = tl.load(part + piece[:, None] * rows + row[None, :], mask=mask, other=float("-inf"))
    top = tl.max(logs, 0)
    total = tl.sum(tl.exp2(logs - tl.where(top == float("-inf"), 0.0, top)[None, :]), 0)
    merged = top + tl.log2(tl.where(total > 0, total, 1.0))
    tl.store(lse + row, merged * LN_2, mask=row < rows)


@triton.jit
def _sum_columns(
    q, k, lengths, lse, mass, scale, weight, stride_request, stride_head, stride_token, tokens, queries, first_query,
    HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr,
    ADD: tl.constexpr,
):  # fmt: skip
    """One program: the weights that one piece of one key head's tokens gets from ROWS query rows, summed per token."""
    piece, row = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    query, place, real = _rows(row, first_query, queries, GROUP, ROWS)
    rows = tl.load(q + place[:, None] * DIM + tl.arange(0, DIM)[None, :], mask=real[:, None], other=0.0)
    level = tl.load(lse + place, mask=real, other=float("inf")) * 1.4426950408889634  # rows of padding weigh nothing
    length = tl.load(lengths + row // HEADS)
    position = length - queries + query
    start, clear, stop = _piece(piece, tl.num_programs(0), length, length - queries + first_query + 1, BLOCK)
    if ADD:  # nothing to add where none of these queries sees a key
        stop = tl.minimum(stop, length - queries + first_query + ROWS // GROUP)
    keys = k + (row // HEADS).to(tl.int64) * stride_request + (row % HEADS).to(tl.int64) * stride_head
    out = mass + row.to(tl.int64) * tokens

    # Tokens lie along the rows of the product, so that a token's sum stays within a few threads.
    for first in range(start, clear, BLOCK):
        token, tile = _tile(keys, first, stop, stride_token, DIM, BLOCK, False)
        scores = tl.dot(tile, tl.trans(rows), input_precision="ieee")
        sums = tl.sum(tl.exp2(scores * scale - level[None, :]), 1) * weight
        if ADD:
            sums += tl.load(out + token)
        tl.store(out + token, sums)
    for first in range(clear, stop, BLOCK):
        token, tile = _tile(keys, first, stop, stride_token, DIM, BLOCK, True)
        scores = tl.dot(tile, tl.trans(rows), input_precision="ieee")
        seen = token[:, None] <= position[None, :]
        sums = tl.sum(tl.where(seen, tl.exp2(scores * scale - level[None, :]), 0.0), 1) * weight
        if ADD:
            sums += tl.load(out + token, mask=token < stop, other=0.0)
        tl.store(out + token, sums, mask=token < stop)


@triton.jit
def _rows(row, first_query, queries, GROUP: tl.constexpr, ROWS: tl.constexpr):
    """Return each row's query, its place in [B, Hq, N], and whether it exists. The G heads of a query are neighbors."""
    number = tl.arange(0, ROWS)
    query = first_query + number // GROUP
    real = (number < ROWS // GROUP * GROUP) & (query < queries)
    return query, (row * GROUP + number % GROUP).to(tl.int64) * queries + query, real


@triton.jit
def _piece(piece, pieces, length, seen, BLOCK: tl.constexpr):
    """Return a piece's first token, the end of its whole tiles below `seen`, and its end."""
    share = tl.cdiv(tl.cdiv(length, BLOCK), pieces) * BLOCK
    start = tl.minimum(piece * share, length)
    stop = tl.minimum(start + share, length)
    return start, start + tl.maximum(tl.minimum(stop, seen) - start, 0) // BLOCK * BLOCK, stop


@triton.jit
def _tile(keys, first, stop, stride_token, DIM: tl.constexpr, BLOCK: tl.constexpr, LAST: tl.constexpr):
    """Return the tokens from `first` on and their keys; only a LAST tile may reach past `stop`."""
    token = first + tl.arange(0, BLOCK)
    place = keys + token.to(tl.int64)[:, None] * stride_token + tl.arange(0, DIM)[None, :]
    return token, tl.load(place, mask=(token < stop)[:, None], other=0.0) if LAST else tl.load(place)


def attention_weights(q: torch.Tensor, k: torch.Tensor, scale: float, lse: torch.Tensor | None = None) -> torch.Tensor:
    """The specification: the causal attention matrix [..., Hq, N, T] of the last N queries, dense.

    Args:
        q: [..., Hq, N, D].
        k: [..., Hkv, T, D], all of them tokens.
        scale: factor on the scores.
        lse: [..., Hq, N] to normalize by instead of the true one.
    """
    heads, tokens = k.shape[-3:-1]
    rows = q.unflatten(-3, (heads, -1)).flatten(-3, -2)  # [..., Hkv, G N, D]
    scores = (rows @ k.transpose(-1, -2) * scale).unflatten(-2, (-1, q.shape[-2])).flatten(-4, -3)
    position = torch.arange(q.shape[-2], device=q.device) + tokens - q.shape[-2]
    hidden = torch.arange(tokens, device=q.device) > position[:, None]
    scores = scores.masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, -1) if lse is None else torch.exp(scores - lse.unsqueeze(-1))
    return weights.masked_fill(hidden, 0.0)
