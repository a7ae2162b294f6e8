"""Decode over a cache in which every head keeps a number of tokens of its own, in pages of its own.

Computes
--------
For every request b and query head i with key head h = i // G, over the tokens that head h has kept:
    out[b, i] = sum_j softmax_j(scale * q[b, i] . K'[b, h, j]) V'[b, h, j],   j < lengths[b, h]
It is paged_decode (kvs/paged_decode.py) with a table and a length per head: its plan cuts B Hkv rows of any lengths
into pieces of equal work, so that the time follows the sum of the budgets and not the largest. compact.py makes such a
cache. `head_budgets` draws budgets with an exact mean, for tests and benchmarks; `memory` counts what they save.

Layout
------
q [B, Hq, D]; k_pages, v_pages [P', 1, S, D], each page owned by one head; block_table [B, Hkv, N'] and lengths
[B, Hkv] int32 (core/paging.py). Returns out [B, Hq, D] and lse [B, Hq] in fp32, natural logarithm.

Cost
----
Reads 2 D e bytes per kept token of each head (e bytes per number) instead of all: at a mean budget of 1/4 a quarter of
the bytes, whatever the spread. In memory a head's last page has at most S - 1 slots without a token.

Published
---------
No figure quoted: the papers report accuracy at a budget, and times of whole models on other GPUs.

Differs
-------
Budgets are drawn, not chosen by an attention score: this unit is about time and memory at given budgets. Heads that
keep fewer tokens are really smaller here; tools for comparing accuracy often mask instead, which saves nothing.

:leaf: kvrm/eviction
:papers: ada-kv, flashinfer
"""

from __future__ import annotations

from typing import Any

import torch

from reference_kernels.core.checks import check_shape
from reference_kernels.core.paging import make_cache, pages_needed
from reference_kernels.core.pieces import Plan
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvs import paged_decode as dense


def head_budgets(lengths: list[int], heads: int, fraction: float, spread: float, seed: int = 0) -> torch.Tensor:
    """Draw how many tokens each head keeps: round(fraction * length * heads) per request, 1 to length per head.

    Args:
        lengths: [B] tokens of each request; one without tokens has budgets of 0.
        heads: Hkv.
        fraction: mean share that is kept, above 0 and at most 1.
        spread: standard deviation of the logarithm of a head's share; 0 for equal shares.
        seed: of the draw.

    Returns:
        [B, Hkv] int32 on the CPU.

    Raises:
        ValueError: fraction or spread is out of range, or a request is too short for a token in every head.
    """
    if not 0 < fraction <= 1 or spread < 0:
        raise ValueError(f"fraction must be above 0 and at most 1, spread not negative: {fraction} and {spread}")
    generator = torch.Generator().manual_seed(seed)
    budgets = torch.zeros(len(lengths), heads, dtype=torch.int32)
    for row, length in zip(budgets, lengths, strict=True):
        if not length:
            continue
        total = round(fraction * length * heads)
        if total < heads:
            raise ValueError(f"{fraction} of {length} tokens is less than a token per head: a budget of 0 is refused")
        shares = torch.exp(spread * torch.randn(heads, generator=generator, dtype=torch.float64))
        low, high = 0.0, length / float(shares.min())
        for _ in range(80):  # the scale at which shares, cut off at 1 and length, make up the total
            middle = (low + high) / 2
            low, high = (middle, high) if float((middle * shares).clamp(1, length).sum()) < total else (low, middle)
        exact = (high * shares).clamp(1, length)
        whole = exact.floor()
        short = total - int(whole.sum())
        whole[(exact - whole).argsort(descending=True, stable=True)[:short]] += 1
        row.copy_(whole)
    return budgets


def memory(lengths: torch.Tensor, full_lengths: torch.Tensor, page: int) -> dict[str, float]:
    """Compare memory with the full cache; pages of one head, so a shared page of all heads counts Hkv times.

    Args:
        lengths: [B, Hkv] kept tokens.
        full_lengths: [B] tokens before eviction.
        page: S, of both caches.
    """
    kept = int(pages_needed(lengths, page).sum())
    full = int(pages_needed(full_lengths, page).sum()) * lengths.shape[1]
    return {"pages": kept, "pages, dense": full, "times smaller": full / max(kept, 1)}


def ragged_decode(
    q: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    *,
    scale: float | None = None,
    plan: Plan | None = None,
) -> Outputs:
    """Attend from one query per request to what each head has kept. With a `plan` nothing is read back.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or the block table do not fit.
    """
    check_shape("lengths", lengths, None, None)
    return dense.paged_decode(q, k_pages, v_pages, block_table, lengths, scale=scale, plan=plan)


def _run(*, full_lengths: torch.Tensor, **inputs: Any) -> Outputs:
    """Leave out what only the peer and the figures need."""
    return ragged_decode(**inputs)


def reference(*, full_lengths: torch.Tensor, **inputs: Any) -> Outputs:
    """Attention over each head's kept tokens."""
    return dense.reference(**inputs)


def make_inputs(
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    lengths: list[int],
    heads: int,
    group: int,
    dim: int,
    fraction: float = 0.25,
    spread: float = 0.8,
    page: int = 16,
) -> Inputs:
    """Draw a query and a cache of budgets that differ by head; see `head_budgets`."""
    generator = torch.Generator(device).manual_seed(seed)
    budgets = head_budgets(lengths, heads, fraction, spread, seed)
    k_pages, v_pages, table, sizes = make_cache(budgets, heads, page, dim, dtype=dtype, generator=generator)
    q = torch.randn(len(lengths), heads * group, dim, dtype=dtype, device=device, generator=generator)
    full = torch.tensor(lengths, dtype=torch.int32, device=device)
    return {
        "q": q,
        "k_pages": k_pages,
        "v_pages": v_pages,
        "block_table": table,
        "lengths": sizes,
        "full_lengths": full,
    }


def work(*, full_lengths: torch.Tensor, **inputs: Any) -> Work:
    """Every kept key and value once, every query and result once."""
    return dense.work(**inputs)


def figures(inputs: Inputs, _outputs: Outputs, _seconds: float) -> dict[str, float]:
    """What the budgets save."""
    lengths, page, dim = inputs["lengths"], inputs["k_pages"].shape[2], inputs["k_pages"].shape[3]
    counted = memory(lengths, inputs["full_lengths"], page)
    size = 2 * page * dim * inputs["k_pages"].element_size()  # K and V of a page of one head
    return {
        **counted,
        "MB saved": (counted["pages, dense"] - counted["pages"]) * size / 1e6,
        "largest budget / mean": float(lengths.max() / lengths.float().mean()),
    }


UNIT = Unit(
    kernel=_run,
    reference=reference,
    make_inputs=make_inputs,
    plan=dense.plan,
    work=work,
    shapes={
        "odd lengths": {"lengths": [1023, 17, 0, 16], "heads": 2, "group": 4, "dim": 128},
        "one query head per key head": {"lengths": [90, 33], "heads": 4, "group": 1, "dim": 64, "spread": 2.0},
        "wide group and head": {"lengths": [130], "heads": 2, "group": 8, "dim": 256, "page": 32, "fraction": 0.5},
        "everything kept": {"lengths": [65], "heads": 2, "group": 4, "dim": 64, "fraction": 1.0},
    },
    benchmarks={
        "B=32 x 8k, a quarter": {"lengths": [8192] * 32, "heads": 8, "group": 4, "dim": 128},
        "B=32 x 8k, a quarter, equal heads": {
            "lengths": [8192] * 32,
            "heads": 8,
            "group": 4,
            "dim": 128,
            "spread": 0.0,
        },
        "B=1 x 128k, a quarter": {"lengths": [131072], "heads": 8, "group": 4, "dim": 128},
    },
    peers={
        "dense (paged_decode, all tokens)": lambda inputs: dense.dense_peer(
            inputs["q"], inputs["full_lengths"], inputs["lengths"].shape[1]
        ),
    },
    figures=figures,
)
