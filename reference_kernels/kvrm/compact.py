"""Compaction after eviction: the kept tokens of every head, gathered into pages of its own, or moved up in place.

Computes
--------
Head h of request b keeps the tokens kept[b, h, 0] < kept[b, h, 1] < … , counts[b, h] of them. For each j below:
    K'[b, h, j] = K[b, h, kept[b, h, j]],   V'[b, h, j] = V[b, h, kept[b, h, j]]
and the kept tokens are all that later steps know of the request. Which ones they are is the method's matter: the
heaviest and the newest (H2O), those that the last queries look at (SnapKV), with budgets that differ by head (Ada-KV).
`compact` reads the shared cache and fills new pages, each owned by one head, so that memory follows the sum of the
counts. `compact_in_place` needs no second pool: since indices ascend, kept[j] >= j, and one program that walks a head
from the front writes only where it has read already. The pages then hold all heads still, so that memory follows the
largest count of a request.

Layout
------
k_pages, v_pages [P, Hkv, S, D] and block_table [B, N] int32 (core/paging.py); kept [B, Hkv, M] int32, ascending in its
first counts[b, h] entries, the rest is never read; counts [B, Hkv] int32. `compact` returns k_pages, v_pages
[P', 1, S, D], block_table [B, Hkv, N'] and lengths [B, Hkv], the form in which paged_decode takes heads of different
length; what remains of a last page is 0. `compact_in_place` returns the same pages with block_table [B, Hkv, N] whose
heads share their pages; the pages of a request behind its largest count may be freed. D is a power of two.

Cost
----
4 C D e bytes for C kept tokens over all heads (K and V, read and written; e bytes per number), and 4 C of indices. One
launch moves K and V. Kept tokens are pieces of D e bytes anywhere in the pool. In place, a head is walked by D / 64
programs at most, or D / 32, one step after the other: few requests do not fill the chip.

Published
---------
No figure quoted: the papers' are of accuracy at a budget and of whole models.

Differs
-------
The papers gather dense tensors with PyTorch; here source and target are paged. Budgets that differ by head save real
memory here, because no page is shared between heads.

:leaf: kvrm/eviction
:papers: h2o, snapkv, ada-kv
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_dim, check_integers, check_same, check_shape, check_table
from reference_kernels.core.device import multiprocessors
from reference_kernels.core.paging import gather, make_cache, pages_needed
from reference_kernels.core.unit import Inputs, MissingPeerError, Outputs, Unit, Work
from reference_kernels.kvrm.ragged_decode import head_budgets


@dataclass(frozen=True)
class Tuning:
    """How the kernels are laid out on the chip."""

    block: int = 32  # tokens per program
    warps: int = 4
    walk: int = 128  # tokens per step of a program that works in place


@dataclass
class Plan:
    """Where the kept tokens go; the same for all layers that keep as many. Tensors are int32 on the device.

    `block_table` [B, Hkv, N']: pages of the new pool, -1 where a head has fewer.
    `items` [I, 3]: of each program, its row (a head of a request), its first token and the tokens that the row keeps.
    """

    block_table: torch.Tensor
    items: torch.Tensor
    pages: int  # that are filled
    tuning: Tuning


def check_kept(kept: torch.Tensor, counts: torch.Tensor, lengths: torch.Tensor, *, empty_heads: bool = False) -> None:
    """Require ascending indices of cached tokens. Reads values: when a method is tried, not in every layer.

    Args:
        kept: [B, Hkv, M] int32.
        counts: [B, Hkv] int32, each at most M.
        lengths: [B] int32, tokens before eviction.
        empty_heads: whether a head may lose all its tokens; its attention is then 0, which no published method means.

    Raises:
        ValueError: a count or an index is out of range, or indices do not ascend.
    """
    if counts.numel() == 0:
        return
    if int(counts.min()) < 0 or int(counts.max()) > kept.shape[-1]:
        raise ValueError(
            f"counts go from {int(counts.min())} to {int(counts.max())}, kept has {kept.shape[-1]} columns"
        )
    lost = (counts == 0) & (lengths[:, None] > 0)
    if not empty_heads and bool(lost.any()):
        request, head = lost.nonzero()[0].tolist()
        raise ValueError(f"head {head} of request {request} keeps nothing: a budget of 0 needs empty_heads=True")
    used = torch.arange(kept.shape[-1], device=kept.device) < counts[..., None]
    for words, bad in (
        ("is outside of its request", used & ((kept < 0) | (kept >= lengths[:, None, None]))),
        ("does not ascend", used[..., 1:] & (kept[..., 1:] <= kept[..., :-1])),
    ):
        if bool(bad.any()):
            request, head, place = bad.nonzero()[0].tolist()
            place += words == "does not ascend"
            value = int(kept[request, head, place])
            raise ValueError(f"kept[{request}, {head}, {place}] is {value}, which {words}")


def make_plan(
    counts: torch.Tensor, page: int, numbers: torch.Tensor | None = None, tuning: Tuning | None = None
) -> Plan:
    """Give every head its pages and cut the work into equal pieces.

    Args:
        counts: [B, Hkv] int32; best on the CPU, since reading them back waits for the GPU.
        page: S.
        numbers: pages to fill, int32, where the new pool is in use by others; 0, 1, … if not given.
        tuning: layout, if not the usual one.

    Raises:
        ValueError: there are too few pages.
    """
    device, counts = counts.device, counts.cpu().long()
    needed = pages_needed(counts, page)
    total = int(needed.sum())
    if numbers is None:
        numbers = torch.arange(total, dtype=torch.int32)
    elif len(numbers) < total:
        raise ValueError(f"the kept tokens need {total} pages, {len(numbers)} are given")
    table = torch.full((*counts.shape, max(int(needed.max()), 1) if needed.numel() else 1), -1, dtype=torch.int32)
    table[torch.arange(table.shape[-1]) < needed[..., None]] = numbers[:total].cpu()
    tuning = tuning or Tuning()
    pieces = pages_needed(needed.flatten() * page, tuning.block)  # whole pages: what remains of the last is set to 0
    row = torch.arange(len(pieces)).repeat_interleave(pieces)
    first = (torch.arange(len(row)) - (pieces.cumsum(0) - pieces)[row]) * tuning.block
    return Plan(
        table.to(device), torch.stack([row, first, counts.flatten()[row]], 1).to(torch.int32).to(device), total, tuning
    )


def compact(
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    kept: torch.Tensor,
    counts: torch.Tensor,
    *,
    plan: Plan | None = None,
    into: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Outputs:
    """Gather the kept tokens into pages owned by one head. Shapes and layout: the module's docstring.

    With a `plan` nothing is read back from the device; without one it is made here, and indices and block table are
    checked. `into` are pools of pages [P', 1, S, D] for keys and values, if not new ones.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices, indices or the block table do not fit.
    """
    batch, heads, page, dim = _check(k_pages, v_pages, block_table, lengths, kept, counts)
    if plan is None:
        check_table(block_table, lengths, len(k_pages), page)
        check_kept(kept, counts, lengths)
        plan = make_plan(counts, page)
    check_shape("the plan's block_table", plan.block_table, batch, heads, None)
    new_k, new_v = into or (k_pages.new_empty(plan.pages, 1, page, dim) for _ in range(2))
    check_same(k_pages=k_pages, new_k=new_k, new_v=new_v)
    check_shape("new_k", new_k, None, 1, page, dim)
    check_shape("new_v", new_v, *new_k.shape)
    if not new_k.is_contiguous() or not new_v.is_contiguous():
        raise ValueError("new pages must be contiguous")
    if len(plan.items):
        _gather[(len(plan.items),)](
            k_pages, v_pages, block_table, kept, plan.items, plan.block_table, new_k, new_v,
            *k_pages.stride()[:3], block_table.stride(0), kept.shape[2], plan.block_table.shape[2],
            HEADS=heads, DIM=dim, PAGE=page, BLOCK=plan.tuning.block, num_warps=plan.tuning.warps,
        )  # fmt: skip
    return {"k_pages": new_k, "v_pages": new_v, "block_table": plan.block_table, "lengths": counts}


def compact_in_place(
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    kept: torch.Tensor,
    counts: torch.Tensor,
    *,
    checked: bool = False,
    tuning: Tuning | None = None,
) -> Outputs:
    """Move the kept tokens of every head to the front of its request's pages.

    With `checked` nothing is read back from the device. No request may share a page with another one, for example with
    one that has the same prompt: the other would lose its tokens.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices, indices or the block table do not fit.
    """
    batch, heads, page, dim = _check(k_pages, v_pages, block_table, lengths, kept, counts)
    tuning = tuning or Tuning()
    if not checked:
        check_table(block_table, lengths, len(k_pages), page)
        check_kept(kept, counts, lengths)
        columns = torch.arange(block_table.shape[1], device=block_table.device)
        held = block_table[columns < pages_needed(lengths, page)[:, None]]
        if len(held.unique()) < len(held):
            raise ValueError("requests share pages: compact them into new ones, or copy the shared pages before")
    width = min(dim, 64)  # heads are cut along D, since order matters within a column only, until they fill the chip
    while width > 32 and batch * heads * (dim // width) < 2 * multiprocessors(k_pages.device):
        width //= 2
    if batch and heads:
        _move_up[(batch * heads, dim // width)](
            k_pages, v_pages, block_table, kept, counts, *k_pages.stride()[:3], block_table.stride(0), kept.shape[2],
            HEADS=heads, WIDTH=width, PAGE=page, BLOCK=tuning.walk, num_warps=tuning.warps,
        )  # fmt: skip
    table = block_table[:, None].expand(batch, heads, -1)
    return {"k_pages": k_pages, "v_pages": v_pages, "block_table": table, "lengths": counts}


def _check(
    k_pages: torch.Tensor, v_pages: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor,
    kept: torch.Tensor, counts: torch.Tensor,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Return B, Hkv, S, D."""
    check_same(k_pages=k_pages, v_pages=v_pages)
    check_shape("k_pages", k_pages, None, None, None, None)
    _, heads, page, dim = k_pages.shape
    check_shape("v_pages", v_pages, *k_pages.shape)
    check_shape("block_table", block_table, None, None)
    batch = len(block_table)
    check_shape("lengths", lengths, batch)
    check_shape("kept", kept, batch, heads, None)
    check_shape("counts", counts, batch, heads)
    check_integers(k_pages.device, block_table=block_table, lengths=lengths, kept=kept, counts=counts)
    check_dim(dim)
    if k_pages.stride(3) != 1 or v_pages.stride() != k_pages.stride():
        raise ValueError("k_pages and v_pages must have the same strides, with contiguous heads of D numbers")
    if not kept.is_contiguous() or not counts.is_contiguous() or block_table.stride(1) != 1:
        raise ValueError("kept, counts and the rows of block_table must be contiguous")
    return batch, heads, page, dim


@triton.jit
def _source(table, kept, places, count, stride_page, stride_token, PAGE: tl.constexpr):
    """Where the kept tokens of these places lie, for one head."""
    live = places < count
    token = tl.load(kept + places, mask=live, other=0)
    page = tl.load(table + token // PAGE, mask=live, other=0)
    return page.to(tl.int64) * stride_page + (token % PAGE) * stride_token


@triton.jit
def _gather(
    k_pages, v_pages, block_table, kept, items, new_table, new_k, new_v,
    stride_page, stride_head, stride_token, stride_request, kept_width, new_width,
    HEADS: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK kept tokens of one head, and zeros behind the last one up to the end of its page."""
    item = items + tl.program_id(0) * 3
    row, first, count = tl.load(item), tl.load(item + 1), tl.load(item + 2)
    places, dims = first + tl.arange(0, BLOCK), tl.arange(0, DIM)
    table = block_table + (row // HEADS).to(tl.int64) * stride_request
    source = _source(table, kept + row.to(tl.int64) * kept_width, places, count, stride_page, stride_token, PAGE)
    source += (row % HEADS).to(tl.int64) * stride_head
    live = (places < count)[:, None]
    keys = tl.load(k_pages + source[:, None] + dims[None, :], mask=live, other=0.0)
    values = tl.load(v_pages + source[:, None] + dims[None, :], mask=live, other=0.0)
    owned = places < (count + PAGE - 1) // PAGE * PAGE
    page = tl.load(new_table + row.to(tl.int64) * new_width + places // PAGE, mask=owned, other=0)
    target = (page.to(tl.int64) * PAGE + places % PAGE)[:, None] * DIM + dims[None, :]
    tl.store(new_k + target, keys, mask=owned[:, None])
    tl.store(new_v + target, values, mask=owned[:, None])


@triton.jit
def _move_up(
    k_pages, v_pages, block_table, kept, counts,
    stride_page, stride_head, stride_token, stride_request, kept_width,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: WIDTH of the D numbers of all kept tokens of one head, from the front.

    Sources of a step lie at its first place or behind (kept[j] >= j), so that no earlier step has written there.
    """
    row = tl.program_id(0)
    count = tl.load(counts + row)
    table = block_table + (row // HEADS).to(tl.int64) * stride_request
    mine = kept + row.to(tl.int64) * kept_width
    column = (row % HEADS).to(tl.int64) * stride_head + tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)[None, :]
    source = _source(table, mine, tl.arange(0, BLOCK), count, stride_page, stride_token, PAGE)
    for first in range(0, count, BLOCK):
        places = first + tl.arange(0, BLOCK)
        live = (places < count)[:, None]
        keys = tl.load(k_pages + source[:, None] + column, mask=live, other=0.0)
        values = tl.load(v_pages + source[:, None] + column, mask=live, other=0.0)
        source = _source(table, mine, places + BLOCK, count, stride_page, stride_token, PAGE)  # while those arrive
        page = tl.load(table + places // PAGE, mask=places < count, other=0)
        target = (page.to(tl.int64) * stride_page + (places % PAGE) * stride_token)[:, None] + column
        tl.debug_barrier()  # a source of this step may be a target of it, in the hands of another thread
        tl.store(k_pages + target, keys, mask=live)
        tl.store(v_pages + target, values, mask=live)


def reference(
    k_pages: torch.Tensor, v_pages: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor,
    kept: torch.Tensor, counts: torch.Tensor,
) -> Outputs:  # fmt: skip
    """The equation, one head at a time; its pages follow one another."""
    page, dim = k_pages.shape[2:]
    needed = pages_needed(counts, page)
    table = torch.full((*counts.shape, max(int(needed.max()), 1)), -1, dtype=torch.int32, device=kept.device)
    new_k, new_v = (pages.new_zeros(int(needed.sum()), 1, page, dim) for pages in (k_pages, v_pages))
    start = 0
    for request, length in enumerate(lengths.tolist()):
        k, v = (gather(pages, block_table[request], length) for pages in (k_pages, v_pages))
        for head, count in enumerate(counts[request].tolist()):
            chosen, end = kept[request, head, :count].long(), start + int(needed[request, head])
            table[request, head, : end - start] = torch.arange(start, end)
            new_k[start:end].view(-1, dim)[:count] = k[head, chosen]
            new_v[start:end].view(-1, dim)[:count] = v[head, chosen]
            start = end
    return {"k_pages": new_k, "v_pages": new_v, "block_table": table, "lengths": counts}


def make_inputs(
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    lengths: list[int],
    heads: int,
    dim: int,
    page: int = 16,
    counts: list[list[int]] | None = None,
    fraction: float = 0.25,
    spread: float = 0.0,
) -> Inputs:
    """Draw a cache and which tokens stay: `counts` [B][Hkv] of them, or budgets of a mean fraction (ragged_decode.py).

    They lie anywhere, which is the worst case for a gather.
    """
    generator = torch.Generator(device).manual_seed(seed)
    sizes = torch.tensor(lengths, dtype=torch.int32)
    k_pages, v_pages, table, sizes = make_cache(sizes, heads, page, dim, dtype=dtype, generator=generator)
    if counts is None:
        budgets = head_budgets(lengths, heads, fraction, spread, seed).to(device)
    else:
        budgets = torch.tensor(counts, dtype=torch.int32, device=device)
    kept = torch.full((*budgets.shape, int(budgets.max())), 1 << 30, dtype=torch.int32, device=device)
    for request, length in enumerate(lengths):
        for head, count in enumerate(budgets[request].tolist()):
            order = torch.randperm(length, generator=generator, device=device, dtype=torch.int64)
            kept[request, head, :count] = order[:count].sort().values
    return {
        "k_pages": k_pages, "v_pages": v_pages, "block_table": table, "lengths": sizes, "kept": kept, "counts": budgets
    }  # fmt: skip


def plan(
    *, k_pages: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor, kept: torch.Tensor,
    counts: torch.Tensor, **_: Any,
) -> Inputs:  # fmt: skip
    """The host's part of a compaction."""
    check_table(block_table, lengths, len(k_pages), k_pages.shape[2])
    check_kept(kept, counts, lengths)
    return {"plan": make_plan(counts, k_pages.shape[2])}


def work(*, k_pages: torch.Tensor, counts: torch.Tensor, **_: Any) -> Work:
    """Every kept key and value once, in both directions; every index once."""
    tokens = int(counts.sum())
    size = 2 * tokens * k_pages.shape[3] * k_pages.element_size()
    return Work(read=size + 4 * tokens, written=size)


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """Bytes per second, both directions together, and how much smaller the cache is, unused slots included."""
    return {
        "GB/s": work(**inputs).moved / seconds / 1e9,
        "times smaller": inputs["k_pages"].numel() / outputs["k_pages"].numel(),
    }


def _index_select(inputs: Inputs) -> Any:
    """PyTorch: two gathers of rows, whose numbers are worked out before."""
    k_pages, counts, kept = (inputs[name] for name in ("k_pages", "counts", "kept"))
    _, heads, page, dim = k_pages.shape
    if bool((counts % page).any()):
        raise MissingPeerError("it needs budgets of whole pages")
    used = torch.arange(kept.shape[2], device=kept.device) < counts[..., None]
    token = kept.long().masked_fill(~used, 0)
    number = inputs["block_table"].long()[:, None].expand(-1, heads, -1).gather(2, token // page)
    head = torch.arange(heads, device=kept.device)[None, :, None]
    rows = ((number * heads + head) * page + token % page)[used]
    new_k, new_v = (k_pages.new_empty(len(rows) // page, 1, page, dim) for _ in range(2))

    def call() -> torch.Tensor:
        torch.index_select(k_pages.view(-1, dim), 0, rows, out=new_k.view(-1, dim))
        torch.index_select(inputs["v_pages"].view(-1, dim), 0, rows, out=new_v.view(-1, dim))
        return new_k

    return call


def _in_place(inputs: Inputs) -> Any:
    """Our other kernel; from the second call on it moves what it has moved before, which takes as long."""
    pools = {name: inputs[name].clone() for name in ("k_pages", "v_pages")}
    compact_in_place(**{**inputs, **pools})

    def call() -> None:
        compact_in_place(**{**inputs, **pools}, checked=True)

    return call


UNIT = Unit(
    kernel=compact,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "odd counts": {"lengths": [17, 1023, 0], "heads": 2, "dim": 64, "counts": [[1, 16], [1023, 15], [0, 0]]},
        "large pages": {"lengths": [100, 70], "heads": 1, "dim": 128, "page": 64, "counts": [[10], [65]]},
        "odd pages": {"lengths": [50], "heads": 3, "dim": 16, "page": 5, "counts": [[7, 50, 33]]},
        "ragged quarter": {"lengths": [400, 33], "heads": 4, "dim": 256, "spread": 0.8},
        "nothing cached": {"lengths": [0], "heads": 1, "dim": 64, "counts": [[0]]},
    },
    benchmarks={
        "B=32 x 8k, a quarter": {"lengths": [8192] * 32, "heads": 8, "dim": 128},
        "B=32 x 8k, a quarter, ragged": {"lengths": [8192] * 32, "heads": 8, "dim": 128, "spread": 0.8},
        "B=1 x 128k, a quarter": {"lengths": [131072], "heads": 8, "dim": 128},
    },
    peers={"PyTorch index_select": _index_select, "in place": _in_place},
    figures=figures,
    output="k_pages",
)
