"""Write new keys and values into the pages of the cache, in one launch.

Computes
--------
For every new token n with slot s = slots[n] >= 0 and every key head h:
    k_pages[s // S, h, s % S] = k[n, h],   v_pages[s // S, h, s % S] = v[n, h]
A slot of -1 skips the token: padding of a captured CUDA graph, or a token whose keys and values are there already. All
other slots of the pages keep what they hold.

Layout
------
k, v [N, Hkv, D] of any strides with contiguous heads of D numbers, such as slices of one projection; k_pages, v_pages
[P, Hkv, S, D] (core/paging.py), changed in place; slots [N] int32, slot = page * S + offset, as block_allocator.py
gives them. D is a power of two.

Cost
----
4 N Hkv D e bytes: each number of K and V is read once and written once (e bytes per number). A program moves one head
of BLOCK tokens: the D numbers of a token are one piece of D e bytes on both sides, and tokens that follow one another
in a page are one piece on the target's side.

Published
---------
No figure quoted: papers give figures of whole servers.

Differs
-------
Slots instead of FlashInfer's request numbers, positions and page lists: one load finds the place. Keys and values are
loaded before their slots are known, so that no load waits for another; skipped tokens are read for nothing.

:leaf: kvrm/allocation-and-reuse
:papers: pagedattention, flashinfer
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_dim, check_integers, check_same, check_shape
from reference_kernels.core.paging import pages_needed
from reference_kernels.core.peers import installed
from reference_kernels.core.unit import Inputs, MissingPeerError, Outputs, Peer, Unit, Work

BLANK = -3.0  # what make_inputs fills the pages with, so that the reference knows what stood in them


@dataclass(frozen=True)
class Tuning:
    """How the kernel is laid out on the chip."""

    block: int = 16  # tokens per program
    warps: int = 4


def check_slots(slots: torch.Tensor, pages: int, page: int) -> None:
    """Require slots of the pool or -1, none of them twice. Reads values: once per step.

    Raises:
        ValueError: a slot is outside, or two tokens want the same.
    """
    if slots.numel() == 0:
        return
    if int(slots.min()) < -1 or int(slots.max()) >= pages * page:
        raise ValueError(
            f"slots go from {int(slots.min())} to {int(slots.max())}; the pool has 0 … {pages * page - 1}, -1 skips"
        )
    real = slots[slots >= 0]
    if len(real.unique()) < len(real):
        raise ValueError("two tokens have the same slot: which of them would stay is undefined")


def append_kv(
    k: torch.Tensor,
    v: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    slots: torch.Tensor,
    *,
    checked: bool = False,
    tuning: Tuning | None = None,
) -> Outputs:
    """Write tokens into their slots and return the pages. Shapes and layout: the module's docstring.

    With `checked` nothing is read back from the device: `check_slots` was called for this step.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices, strides or slots do not fit.
    """
    check_same(k=k, v=v, k_pages=k_pages, v_pages=v_pages)
    check_shape("k_pages", k_pages, None, None, None, None)
    pages, heads, page, dim = k_pages.shape
    check_shape("v_pages", v_pages, *k_pages.shape)
    check_shape("k", k, None, heads, dim)
    check_shape("v", v, *k.shape)
    check_shape("slots", slots, len(k))
    check_integers(k.device, slots=slots)
    check_dim(dim)
    if any(tensor.stride(-1) != 1 for tensor in (k, v, k_pages, v_pages)):
        raise ValueError("k, v, k_pages and v_pages must have contiguous heads of D numbers")
    if k_pages.stride() != v_pages.stride():
        raise ValueError("k_pages and v_pages must have the same strides")
    if not checked:
        check_slots(slots, pages, page)
    if len(k) and heads:
        tuning = tuning or Tuning()
        _write[(triton.cdiv(len(k), tuning.block) * heads,)](
            k, v, k_pages, v_pages, slots, len(k), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
            *k_pages.stride()[:3], slots.stride(0),
            HEADS=heads, DIM=dim, PAGE=page, BLOCK=tuning.block, num_warps=tuning.warps,
        )  # fmt: skip
    return {"k_pages": k_pages, "v_pages": v_pages}


@triton.jit
def _write(
    k, v, k_pages, v_pages, slots, count, stride_k, stride_k_head, stride_v, stride_v_head,
    stride_page, stride_head, stride_offset, stride_slot,
    HEADS: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: one head of BLOCK tokens. Neighbors take the other heads of these tokens, which lie beside."""
    head = tl.program_id(0) % HEADS
    tokens, dims = (tl.program_id(0) // HEADS) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, DIM)
    real = tokens < count
    far = tokens.to(tl.int64)[:, None]
    keys = tl.load(k + far * stride_k + head * stride_k_head + dims[None, :], mask=real[:, None])
    values = tl.load(v + far * stride_v + head * stride_v_head + dims[None, :], mask=real[:, None])
    slot = tl.load(slots + tokens.to(tl.int64) * stride_slot, mask=real, other=-1)
    place = (slot // PAGE).to(tl.int64) * stride_page + head.to(tl.int64) * stride_head + (slot % PAGE) * stride_offset
    target = place[:, None] + dims[None, :]
    tl.store(k_pages + target, keys, mask=slot[:, None] >= 0)
    tl.store(v_pages + target, values, mask=slot[:, None] >= 0)


def reference(
    k: torch.Tensor, v: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, slots: torch.Tensor
) -> Outputs:
    """The equation, into pages as blank as those of `make_inputs`: what else the kernel changed is seen."""
    page = k_pages.shape[2]
    real = (slots >= 0).nonzero()[:, 0]
    where = slots[real].long()
    outputs = {}
    for name, new, pages in (("k_pages", k, k_pages), ("v_pages", v, v_pages)):
        result = torch.full_like(pages, BLANK)
        result.transpose(1, 2)[where // page, where % page] = new[real]  # [N, Hkv, D]
        outputs[name] = result
    return outputs


def make_inputs(
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    new: list[int],
    heads: int,
    dim: int,
    cached: int = 0,
    page: int = 16,
    skip: int = 0,
) -> Inputs:
    """Draw `new` [B] tokens for requests that have `cached` tokens each, on pages in random order.

    Every `skip`-th token is padding (0: none). K and V are slices of one projection of queries, keys and values.
    """
    generator = torch.Generator(device).manual_seed(seed)
    counts = pages_needed(torch.tensor(new) + cached, page).tolist()
    order = torch.randperm(max(sum(counts), 1), generator=generator, device=device).split(
        [*counts, *[1] * (not sum(counts))]
    )
    slots = [
        own[positions // page] * page + positions % page
        for own, positions in zip(order, (torch.arange(cached, cached + n, device=device) for n in new), strict=False)
    ]
    slot = torch.cat(slots).to(torch.int32)
    if skip:
        slot[::skip] = -1
    projected = torch.randn(len(slot), 3, heads, dim, dtype=dtype, device=device, generator=generator)
    k_pages, v_pages = (
        torch.full((max(sum(counts), 1), heads, page, dim), BLANK, dtype=dtype, device=device) for _ in range(2)
    )
    return {"k": projected[:, 1], "v": projected[:, 2], "k_pages": k_pages, "v_pages": v_pages, "slots": slot}


def plan(*, k_pages: torch.Tensor, slots: torch.Tensor, **_: Any) -> Inputs:
    """The host's part of a step."""
    check_slots(slots, k_pages.shape[0], k_pages.shape[2])
    return {"checked": True}


def work(*, k: torch.Tensor, slots: torch.Tensor, **_: Any) -> Work:
    """Every number of the tokens that are not skipped once, in both directions; every slot once."""
    size = 2 * int((slots >= 0).sum()) * k.shape[1] * k.shape[2] * k.element_size()
    return Work(read=size + 4 * len(slots), written=size)


def figures(inputs: Inputs, _outputs: Outputs, seconds: float) -> dict[str, float]:
    """Bytes per second, both directions together."""
    return {"GB/s": work(**inputs).moved / seconds / 1e9}


def _index_put(inputs: Inputs) -> Any:
    """PyTorch: two assignments by index, with page numbers and offsets worked out before."""
    if bool((inputs["slots"] < 0).any()):
        raise MissingPeerError("it cannot skip tokens")
    page = inputs["k_pages"].shape[2]
    where = inputs["slots"].long()
    number, offset = where // page, where % page
    k_pages, v_pages = (torch.full_like(inputs[name], BLANK) for name in ("k_pages", "v_pages"))

    def call() -> torch.Tensor:
        k_pages.transpose(1, 2)[number, offset] = inputs["k"]
        v_pages.transpose(1, 2)[number, offset] = inputs["v"]
        return k_pages

    return call


def _flashinfer(inputs: Inputs) -> Any:
    """FlashInfer's append: the whole pool is one request, so that a slot is a position in it."""
    flashinfer = installed("flashinfer", "flashinfer-python")
    if bool((inputs["slots"] < 0).any()):
        raise MissingPeerError("it cannot skip tokens")
    k_pages, v_pages = (torch.full_like(inputs[name], BLANK) for name in ("k_pages", "v_pages"))
    pages, _, page, _ = k_pages.shape
    request = torch.zeros_like(inputs["slots"])
    numbers = torch.arange(pages, dtype=torch.int32, device=k_pages.device)
    indptr = torch.tensor([0, pages], dtype=torch.int32, device=k_pages.device)
    last = torch.tensor([page], dtype=torch.int32, device=k_pages.device)

    def call() -> torch.Tensor:
        flashinfer.append_paged_kv_cache(
            inputs["k"], inputs["v"], request, inputs["slots"], (k_pages, v_pages), numbers, indptr, last, "HND"
        )
        return k_pages

    return call


PEERS: dict[str, Peer] = {"PyTorch index_put": _index_put, "FlashInfer append": _flashinfer}

UNIT = Unit(
    kernel=append_kv,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan,
    work=work,
    shapes={
        "odd lengths": {"new": [1, 15, 16, 17, 1023, 0], "heads": 2, "dim": 64},
        "one token each": {"new": [1] * 7, "cached": 21, "heads": 3, "dim": 128},
        "padding": {"new": [33, 5], "cached": 3, "heads": 1, "dim": 256, "skip": 3},
        "all padding": {"new": [9], "heads": 2, "dim": 16, "page": 1, "skip": 1},
        "nothing new": {"new": [0], "heads": 1, "dim": 64},
    },
    benchmarks={
        "prefill, 64k tokens": {"new": [65536], "heads": 8, "dim": 128},
        "chunks of 256 for 32 requests": {"new": [256] * 32, "cached": 1000, "heads": 8, "dim": 128},
        "decode, B=256": {"new": [1] * 256, "cached": 1000, "heads": 8, "dim": 128},
    },
    peers=PEERS,
    figures=figures,
    output="k_pages",
)
