"""Coupled quantization: several channels share one code of a learnt codebook, and decoding straight from the codes.

Computes
--------
Channels of keys (and of values) depend on each other, so that c of them together have less entropy than c times one.
The c channels of group g of head h are therefore replaced by the nearest of K = 2^b centroids, z being its number:
    z[t, g] = argmin_j |x[t, g c : g c + c] - C[h, g, j]|^2   (the lower j, if two are as near)
    x^[t, g c : g c + c] = C[h, g, z[t, g]]
that is b / c bits per number: 1 for 8 channels and 256 centroids, 2 for 4. Centroids are learnt by k-means (`fit`).

Keys need no centroids when decoding, only what they contribute to a dot product, and that is a table of the query:
    A[g, j, i] = scale q_i[g c : g c + c] . C_k[h, g, j] for the query heads i of h
    score_i[t] = sum_g A[g, z[t, g], i]
One lookup brings the contributions of c channels to the scores of all G query heads, which lie beside each other.
Values: out_i = sum_t softmax_t(score_i) C_v[h, g, y[t, g]]; centroids are gathered and multiplied by tensor cores.
The other way, collecting the weight of every code and multiplying the codebook once at the end, is less arithmetic, but
it adds into addresses that depend on data, in shared memory, which Triton does not offer.

Layout
------
q [B, Hq, D]; k_codes, v_codes [B, Hkv, D / 4c, T] int32: byte j of word w is the code of group 4 w + j. Tokens are
innermost, because neighboring lanes take neighboring tokens of one group: so they look into the same small table.
k_book, v_book [Hkv, D / c, K, c] in q's dtype; c and K are powers of two, c up to D / 4, K up to 256. T is room:
lengths [B] int32 of the tokens are cached, 0 is allowed. At most 16 query heads share a key head. Returns out [B, Hq,
D] in q's dtype and lse [B, Hq] in fp32.

Cost
----
Reads 2 B Hkv T D / c bytes of codes: 16 times fewer than bf16 at c = 8, 8 times at c = 4. Codebooks are few bytes in
all, 2 Hkv D K e, but a row looks into D K e bytes of values and D / c K G e of tables: 64 and 64 KiB at D = 128, K =
256, c = 4, G = 4 in bf16, about what the L1 of a multiprocessor holds. Expect lookups to bound it, not bytes: there is
one for c keys and one for c values, and those of a warp hit up to 16 (c = 4) or 32 (c = 8) different lines of L1. The
loop, compiled for an H100, takes 4.0 (c = 4) or 2.6 (c = 8) instructions per number. Tables cost 2 B Hq D K FLOPs a
step.

Published
---------
1.4-3.5x the throughput of an uncompressed cache (CQ's abstract, NeurIPS 2024), stored with as little as 1 bit per
channel, which is c = 8 with 256 centroids here.

Measured
--------
One H100, B=32 x 8k, bf16 peer 360 us: 203 us with 8 channels (1 bit), 1.77x of 16x; 273 us with 4 channels (2 bits),
1.32x of 8x. Lookups bound it, as expected: 3.3e12 and 4.9e12 in a second, at 0.11 and 0.16 of the read bandwidth.

Differs
-------
Codebooks come from plain k-means, started by k-means++, with every vector of the same weight. Keys are taken as they
are given, before or after RoPE. CommVQ's codebooks are additive and commute with RoPE, of which nothing is here. VQ-LLM
generates kernels that spread codebook entries over registers, shared and global memory; here L1 decides. A code is a
byte, however few centroids there are. There are no pages: a request's cache is contiguous.

:leaf: kvcc/quantization
:papers: cq, vq-llm
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_dim, check_heads, check_integers, check_same, check_shape
from reference_kernels.core.device import interpreted
from reference_kernels.core.lse import LOG2_E, attention
from reference_kernels.core.pieces import Plan, Tuning, merge, plan_rows, store_lse, store_mean, take_piece
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvcc.split_decode import check_contiguous, check_room
from reference_kernels.kvs.paged_decode import dense_peer


def fit(x: torch.Tensor, channels: int, centroids: int = 256, *, iterations: int = 20, seed: int = 0) -> torch.Tensor:
    """Learn the codebook [Hkv, D / c, K, c] of calibration vectors x [N, Hkv, D] by k-means, in fp32.

    It starts by k-means++: each centroid is drawn among the vectors with a probability in proportion to the squared
    distance from those drawn before. A centroid that has lost all its vectors moves to one far from its own centroid.

    Raises:
        ValueError: shapes do not fit, or there are fewer vectors than centroids.
    """
    check_shape("x", x, None, None, None)
    count, heads, dim = x.shape
    _check_book(dim, channels, centroids)
    if count < centroids:
        raise ValueError(f"{centroids} centroids cannot be learnt from {count} vectors")
    generator = torch.Generator(x.device).manual_seed(seed)
    books = [
        _fit_head(x[:, head].float().unflatten(-1, (-1, channels)).transpose(0, 1), centroids, iterations, generator)
        for head in range(heads)
    ]
    return torch.stack(books)


def _fit_head(points: torch.Tensor, centroids: int, iterations: int, generator: torch.Generator) -> torch.Tensor:
    """Return the codebook [M, K, c] of points [M, N, c]."""
    groups, count, channels = points.shape
    book = points.new_empty(groups, centroids, channels)
    gap = points.new_ones(groups, count)  # squared distance from the nearest centroid so far
    for j in range(centroids):
        chance = torch.where(gap.sum(1, keepdim=True) > 0, gap, 1.0)  # all vectors are centroids already: any will do
        drawn = torch.multinomial(chance, 1, generator=generator)
        book[:, j] = points.gather(1, drawn.unsqueeze(-1).expand(-1, -1, channels)).squeeze(1)
        away = (points - book[:, j : j + 1]).square().sum(-1)
        gap = away if j == 0 else torch.minimum(gap, away)
    for _ in range(iterations):
        gap, nearest = torch.cdist(points, book).min(-1)
        sums = torch.zeros_like(book, dtype=torch.float64)  # fp64: a GPU adds in any order
        sums.scatter_add_(1, nearest.unsqueeze(-1).expand_as(points), points.double())
        sizes = torch.zeros_like(book[..., 0]).scatter_add_(1, nearest, torch.ones_like(gap))
        rank = ((sizes == 0).cumsum(1) - 1).clamp(min=0)  # the empty ones take the farthest vectors in turn
        far = gap.argsort(1, descending=True).gather(1, rank).unsqueeze(-1).expand_as(book)
        means = (sums / sizes.clamp(min=1).unsqueeze(-1)).float()
        book = torch.where((sizes == 0).unsqueeze(-1), points.gather(1, far), means)
    return book


def encode(x: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """Return the words [B, Hkv, D / 4c, T] int32 of keys or values [B, Hkv, T, D]: the nearest centroid, exactly.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit.
    """
    check_same(x=x, book=book)
    check_shape("x", x, None, None, None, None)
    batch, heads, tokens, dim = x.shape
    check_shape("book", book, heads, None, None, None)
    groups, centroids, channels = book.shape[1:]
    _check_book(dim, channels, centroids)
    check_shape("book", book, heads, dim // channels, centroids, channels)
    words = torch.empty(batch, heads, groups // 4, tokens, dtype=torch.int32, device=x.device)
    if words.numel():
        block = 512 if interpreted() else 16  # the interpreter is slow per program, not per number
        _encode[(triton.cdiv(tokens, block), groups // 4, batch * heads)](
            x.contiguous(), book.contiguous(), words, tokens, HEADS=heads, GROUPS=groups, CENTROIDS=centroids,
            CHANNELS=channels, BLOCK=block, num_warps=4,
        )  # fmt: skip
    return words


def unpack(words: torch.Tensor) -> torch.Tensor:
    """Return the codes [..., D / c, T] of words [..., D / 4c, T]."""
    shifts = torch.arange(0, 32, 8, device=words.device)[:, None]
    return ((words.unsqueeze(-2) >> shifts) & 255).flatten(-3, -2)


def decode(words: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """Return x^ [B, Hkv, T, D] of words [B, Hkv, D / 4c, T]."""
    heads, groups = torch.arange(book.shape[0], device=book.device), torch.arange(book.shape[1], device=book.device)
    chosen = book[heads[:, None, None], groups[:, None], unpack(words).long()]  # [B, Hkv, D / c, T, c]
    return chosen.transpose(2, 3).flatten(3)


def _check_book(dim: int, channels: int, centroids: int) -> None:
    check_dim(dim)
    if channels < 1 or channels & (channels - 1) or 4 * channels > dim:
        raise ValueError(f"the channels that share a code must be a power of two up to {dim // 4}, not {channels}")
    if not 2 <= centroids <= 256 or centroids & (centroids - 1):
        raise ValueError(f"the centroids must be a power of two between 2 and 256, not {centroids}")


def decode_attention(
    q: torch.Tensor, k_codes: torch.Tensor, v_codes: torch.Tensor, k_book: torch.Tensor, v_book: torch.Tensor,
    lengths: torch.Tensor, *, scale: float | None = None, plan: Plan | None = None,
) -> Outputs:  # fmt: skip
    """Attend from one query per request to its coded tokens. Shapes and layout: the module's docstring.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or (without a plan) `lengths` exceed the room.
    """
    check_same(q=q, k_book=k_book, v_book=v_book)
    check_shape("q", q, None, None, None)
    batch, query_heads, dim = q.shape
    check_shape("k_book", k_book, None, None, None, None)
    heads, groups, centroids, channels = k_book.shape
    _check_book(dim, channels, centroids)
    check_shape("k_book", k_book, heads, dim // channels, centroids, channels)
    check_shape("v_book", v_book, *k_book.shape)
    group = check_heads(query_heads, heads)
    if group > 16:
        raise ValueError(f"at most 16 query heads can share a key head, not {group}")
    check_shape("k_codes", k_codes, batch, heads, groups // 4, None)
    check_shape("v_codes", v_codes, *k_codes.shape)
    check_integers(q.device, k_codes=k_codes, v_codes=v_codes, lengths=lengths)
    check_contiguous(k_codes=k_codes, v_codes=v_codes, k_book=k_book, v_book=v_book)
    check_shape("lengths", lengths, batch)
    room = k_codes.shape[3]
    if plan is None:
        check_room(lengths, batch, room, q.device)
        plan = make_plan(q, lengths, k_book)

    out, lse = torch.empty_like(q), torch.empty(batch, query_heads, dtype=torch.float32, device=q.device)
    part_out, part_lse = plan.states(batch * heads, group, dim)
    columns = triton.next_power_of_2(group)
    tables = torch.empty(batch * heads, groups, centroids, columns, dtype=q.dtype, device=q.device)
    _make_tables[(batch * heads, groups)](
        q.contiguous(), k_book, tables, (dim**-0.5 if scale is None else scale) * LOG2_E,
        HEADS=heads, GROUP=group, COLUMNS=columns, GROUPS=groups, CENTROIDS=centroids, CHANNELS=channels, num_warps=4,
    )  # fmt: skip
    _read_pieces[(len(plan.items),)](
        tables, k_codes, v_codes, v_book, plan.items, out, lse, part_out, part_lse, room,
        HEADS=heads, GROUP=group, COLUMNS=columns, GROUPS=groups, CENTROIDS=centroids, CHANNELS=channels,
        BLOCK=plan.tuning.block, num_warps=plan.tuning.warps, num_stages=plan.tuning.stages,
    )  # fmt: skip
    merge(plan, part_out, part_lse, out, lse)
    return {"out": out, "lse": lse}


def make_plan(q: torch.Tensor, lengths: torch.Tensor, book: torch.Tensor, tuning: Tuning | None = None) -> Plan:
    """Cut the work of a step.

    Args:
        q: [B, Hq, D], of which the device matters.
        lengths: [B] int32, best on the CPU.
        book: a codebook, of which the shape matters.
        tuning: layout, if not the usual one.
    """
    return plan_rows(lengths.cpu().repeat_interleave(book.shape[0]), tuning or tuning_for(book), q.device)


def tuning_for(book: torch.Tensor) -> Tuning:
    """Return 32 lookups per thread and tile. Registers leave a multiprocessor to one program, whose tables then stay in
    its L1; stages beyond 1 would copy what is looked up into shared memory."""
    return Tuning(block=min(max(8192 // book.shape[1], 32), 256), warps=8, stages=1, pieces=2)


@triton.jit
def _encode(
    x, book, words, tokens,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, CENTROIDS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the codes of BLOCK tokens for the four groups of channels of a word."""
    token, word, row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1), tl.program_id(2).to(tl.int64)
    live, centroid = token < tokens, tl.arange(0, CENTROIDS)
    packed = tl.zeros([BLOCK], tl.int32)
    for j in tl.static_range(4):
        group = word * 4 + j
        vectors = x + (row * tokens + token) * (GROUPS * CHANNELS) + group * CHANNELS
        choices = book + ((row % HEADS * GROUPS + group) * CENTROIDS + centroid) * CHANNELS
        distance = tl.zeros([BLOCK, CENTROIDS], tl.float32)
        for i in tl.static_range(CHANNELS):
            here, there = tl.load(vectors + i, mask=live, other=0.0), tl.load(choices + i)
            step = here.to(tl.float32)[:, None] - there.to(tl.float32)[None, :]
            distance += step * step
        packed |= tl.argmin(distance, 1, tie_break_left=True) << (8 * j)
    tl.store(words + (row * (GROUPS // 4) + word) * tokens + token, packed, mask=live)


@triton.jit
def _make_tables(
    q, book, tables, scale,
    HEADS: tl.constexpr, GROUP: tl.constexpr, COLUMNS: tl.constexpr, GROUPS: tl.constexpr, CENTROIDS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """One program: the products of every centroid of a group with the query heads of a row, in powers of two."""
    row, group = tl.program_id(0), tl.program_id(1)
    column, centroid = tl.arange(0, COLUMNS), tl.arange(0, CENTROIDS)
    queries = q + (row * GROUP + column) * (GROUPS * CHANNELS) + group * CHANNELS
    choices = book + ((row % HEADS * GROUPS + group) * CENTROIDS + centroid) * CHANNELS
    products = tl.zeros([CENTROIDS, COLUMNS], tl.float32)
    for i in tl.static_range(CHANNELS):
        query = tl.load(queries + i, mask=column < GROUP, other=0.0).to(tl.float32) * scale
        products += tl.load(choices + i).to(tl.float32)[:, None] * query[None, :]
    place = ((row.to(tl.int64) * GROUPS + group) * CENTROIDS + centroid[:, None]) * COLUMNS + column[None, :]
    tl.store(tables + place, products.to(tables.dtype.element_ty))


@triton.jit
def _bytes(words, CENTROIDS: tl.constexpr):
    """Return the codes [N, 4 M] of words [N, M]."""
    codes = (words[:, :, None] >> (8 * tl.arange(0, 4))[None, None, :]) & (CENTROIDS - 1)
    return tl.reshape(codes, [words.shape[0], words.shape[1] * 4])


@triton.jit
def _read_pieces(
    tables, k_codes, v_codes, v_book, items, out, lse, part_out, part_lse, room,
    HEADS: tl.constexpr, GROUP: tl.constexpr, COLUMNS: tl.constexpr, GROUPS: tl.constexpr, CENTROIDS: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the state of the G query heads of one row over one piece of its tokens."""
    row, start, stop, slot = take_piece(items, False)
    if row >= 0:
        DIM: tl.constexpr = GROUPS * CHANNELS
        column, channel, group, token = (
            tl.arange(0, COLUMNS), tl.arange(0, CHANNELS), tl.arange(0, GROUPS), tl.arange(0, BLOCK),
        )  # fmt: skip
        dims = tl.arange(0, DIM)
        # where a group's table begins, and the number in an entry
        table = tables + row.to(tl.int64) * (GROUPS * CENTROIDS * COLUMNS)
        table_place = group[None, :, None] * (CENTROIDS * COLUMNS) + column[None, None, :]
        book = v_book + row % HEADS * (GROUPS * CENTROIDS * CHANNELS)
        book_place = group[None, :, None] * (CENTROIDS * CHANNELS) + channel[None, None, :]
        top = tl.full([COLUMNS], float("-inf"), tl.float32)  # running maximum, in powers of two
        total = tl.zeros([COLUMNS], tl.float32)
        mean = tl.zeros([DIM, COLUMNS], tl.float32)
        WORDS: tl.constexpr = GROUPS // 4
        base = (row.to(tl.int64) * WORDS + tl.arange(0, WORDS)[None, :]) * room + token[:, None]
        there = (start + token < stop)[:, None]
        k_next, v_next = tl.load(k_codes + base + start, mask=there), tl.load(v_codes + base + start, mask=there)
        for first in range(start, stop, BLOCK):
            live = first + token < stop
            k_code, v_code = _bytes(k_next, CENTROIDS), _bytes(v_next, CENTROIDS)
            then = first + BLOCK  # the next words are under way while these are looked up
            there = (then + token < stop)[:, None]
            k_next = tl.load(k_codes + base + then, mask=there)
            v_next = tl.load(v_codes + base + then, mask=there)
            shares = tl.load(table + k_code[:, :, None] * COLUMNS + table_place)  # [BLOCK, D / c, COLUMNS]
            scores = tl.where(live[:, None], tl.sum(shares.to(tl.float32), 1), float("-inf"))
            values = tl.load(book + v_code[:, :, None] * CHANNELS + book_place)  # [BLOCK, D / c, c]
            values = tl.trans(tl.reshape(values, [BLOCK, DIM]))
            new_top = tl.maximum(top, tl.max(scores, 0))
            weights = tl.exp2(scores - new_top[None, :])
            fade = tl.exp2(top - new_top)
            total = total * fade + tl.sum(weights, 0)
            top = new_top
            mean = tl.dot(values, weights.to(values.dtype), mean * fade[None, :], input_precision="ieee")

        mean = mean / tl.where(total > 0, total, 1.0)[None, :]
        store_lse(row, slot, column, top, total, lse, part_lse, GROUP)
        place = column[None, :] * DIM + dims[:, None]
        store_mean(row, slot, place, mean, (column < GROUP)[None, :], out, part_out, GROUP, DIM)


def reference(
    q: torch.Tensor, k_codes: torch.Tensor, v_codes: torch.Tensor, k_book: torch.Tensor, v_book: torch.Tensor,
    lengths: torch.Tensor, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """Attention over the centroids that the codes stand for."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    states = []
    for b, length in enumerate(lengths.tolist()):
        k, v = (
            decode(words[b : b + 1, :, :, :length], book)[0] for words, book in ((k_codes, k_book), (v_codes, v_book))
        )
        states.append(attention(q[b], k, v, scale))
    out, lse = (torch.stack(part) for part in zip(*states, strict=True))
    return {"out": out, "lse": lse}


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: Any, heads: int, group: int, dim: int,
    channels: int, centroids: int = 256, room: int = 0, calibration: int = 1024,
) -> Inputs:  # fmt: skip
    """Draw keys and values whose channels depend on each other, learn codebooks from some and code the others."""
    generator = torch.Generator(device).manual_seed(seed)
    room = max(room, *lengths, 1)
    groups = dim // channels
    inputs: Inputs = {"q": torch.randn(len(lengths), heads * group, dim, device=device, generator=generator).to(dtype)}
    for name in ("k", "v"):
        mixing = torch.randn(heads, groups, channels, channels, device=device, generator=generator) / channels**0.5

        def draw(tokens: int, mixing: torch.Tensor = mixing) -> torch.Tensor:
            independent = torch.randn(heads, groups, tokens, channels, device=device, generator=generator)
            return (independent @ mixing).transpose(1, 2).flatten(2)[None].to(dtype)  # [1, Hkv, T, D]

        book = fit(draw(max(calibration, centroids))[0].transpose(0, 1), channels, centroids, iterations=5, seed=seed)
        inputs[f"{name}_book"] = book.to(dtype)
        inputs[f"{name}_codes"] = torch.cat([encode(draw(room), inputs[f"{name}_book"]) for _ in lengths])
    sizes = torch.tensor(lengths, dtype=torch.int32, device=device)
    return {**inputs, "lengths": sizes}


def plan(*, q: torch.Tensor, k_book: torch.Tensor, lengths: torch.Tensor, **_: Any) -> Inputs:
    """The host's part of a step."""
    return {"plan": make_plan(q, lengths, k_book)}


def work(*, q: torch.Tensor, k_book: torch.Tensor, lengths: torch.Tensor, **_: Any) -> Work:
    """The codes of every cached token and both codebooks once, every query and result once."""
    batch, query_heads, dim = q.shape
    heads, groups, centroids = k_book.shape[:3]
    tokens, size = int(lengths.sum()) * heads, q.element_size()
    return Work(
        read=2 * tokens * groups + (2 * k_book.numel() + q.numel()) * size,
        written=q.numel() * size + 4 * batch * query_heads,
        flops=query_heads * (2 * batch * dim * centroids) + tokens * query_heads // heads * (groups + 2 * dim),
    )


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """Bits per number, what they bound the gain over 16 bits to, and lookups per second."""
    channels = inputs["k_book"].shape[3]
    lookups = 2 * int(inputs["lengths"].sum()) * inputs["k_book"].shape[0] * inputs["k_book"].shape[1]
    return {
        "bits per number": 8 / channels,
        "bound of the gain over 16 bits": 2.0 * channels,
        "lookups per second": lookups / seconds,
    }


SMALL = {"calibration": 64}
BENCH = {"lengths": [8192] * 32, "heads": 8, "group": 4, "dim": 128}
UNIT = Unit(
    kernel=decode_attention,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "4 channels, odd lengths": {
            "lengths": [1, 15, 0, 17, 300], "heads": 2, "group": 4, "dim": 64, "channels": 4, "centroids": 64, **SMALL,
        },
        "8 channels, 256 centroids": {
            "lengths": [33, 160], "heads": 1, "group": 8, "dim": 128, "channels": 8, "room": 200, **SMALL,
        },
        "one query head": {
            "lengths": [129], "heads": 2, "group": 1, "dim": 64, "channels": 8, "centroids": 16, **SMALL,
        },
        "three query heads": {
            "lengths": [40], "heads": 1, "group": 3, "dim": 64, "channels": 4, "centroids": 16, **SMALL,
        },
        "2 channels, large head": {
            "lengths": [70], "heads": 1, "group": 4, "dim": 256, "channels": 2, "centroids": 16, **SMALL,
        },
    },
    benchmarks={
        "8 channels, B=32 x 8k": {**BENCH, "channels": 8},
        "4 channels, B=32 x 8k": {**BENCH, "channels": 4},
    },
    peers={
        "paged decode, 16 bits": lambda inputs: dense_peer(inputs["q"], inputs["lengths"], inputs["k_book"].shape[0])
    },
    figures=figures,
)  # fmt: skip
