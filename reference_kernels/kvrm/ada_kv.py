"""Ada-KV: the heads of a layer share one budget, and those whose attention is spread out get more of it.

Computes
--------
With the scores of any method (SnapKV's here), a mean budget C per head, a window W and a safeguard alpha:
    floor = W + floor(alpha (C - W))
    every head keeps its window and its best tokens up to `floor`; the best of all others fill the layer up to Hkv C
Scores of different heads are compared as they are: attention weights, which sum to one per query in every head. Heads
thus differ in length, counts[b, h] in floor … Hkv C - (Hkv - 1) floor, while their sum is Hkv C (or all there is).

Layout
------
q [B, Hq, W, D], the last W queries; k [B, Hkv, T, D]; lengths [B] int32. Returns scores [B, Hkv, T] float32, kept
[B, Hkv, M] int32 (ascending, -1 after the last, M as many as one head may get) and counts [B, Hkv] int32: what a ragged
compaction and a decode kernel with a length per head take.

Cost
----
SnapKV's, and a second selection over all heads of a request together. `keep_across_heads` alone reads 4 T Hkv bytes of
scores six times for each of its two selections; both are small beside K.

Published
---------
Its abstract states no number: a substantial improvement over existing methods on 29 datasets. A figure of the
authors' README has 429K tokens of context in about 80 GB instead of 37K, which the method that it divides reaches too.

Differs
-------
The authors mix budgets: a head gets alpha C + (1 - alpha) times its share of the joint top Hkv C, rounded, so that
the sum is only about Hkv C. Here the floor is kept first and the rest is ranked jointly (as kvpress does): the sum is
exact. kvpress masks the dropped keys inside a full cache; kept and counts are for a cache that becomes smaller.
SnapKV's average pooling is used, the authors' code defaults to max pooling.

:leaf: kvrm/eviction
:papers: ada-kv
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvrm import snapkv
from reference_kernels.kvrm.budget import check_budget, choose, keep_across_heads, plan_lengths


def ada_kv(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, *, alpha: float = 0.2, pool: int = 5,
    scale: float | None = None,
) -> Outputs:  # fmt: skip
    """Score all tokens and keep `budget` of each head in the mean. Shapes: the module's docstring.

    Args:
        q, k, lengths, pool, scale: see `snapkv.snapkv`.
        budget: C, kept tokens per head in the mean over the heads, the window included.
        alpha: share of the budget that no head loses, from 0 to 1 (SnapKV).

    Raises:
        ValueError, TypeError: as `snapkv.snapkv`, or alpha is out of range.
    """
    window = q.shape[2] if q.dim() == 4 else 0
    floor = head_floor(budget, window, alpha)
    scores = snapkv.snapkv_scores(q, k, lengths, pool=pool, scale=scale)
    kept, counts = keep_across_heads(scores, lengths, budget, floor=floor, recent=window)
    return {"scores": scores, "kept": kept, "counts": counts}


def head_floor(budget: int, window: int, alpha: float) -> int:
    """Return how many tokens every head keeps at least."""
    check_budget(budget, window)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    return window + int(alpha * (budget - window))


def reference(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, *, alpha: float = 0.2, pool: int = 5,
    scale: float | None = None, scores: torch.Tensor | None = None,
) -> Outputs:  # fmt: skip
    """SnapKV's equation; the choice over all heads follows from `scores`, if given."""
    own = snapkv.reference_scores(q, k, lengths, pool=pool, scale=scale)
    window = q.shape[2]
    kept, counts = choose(
        own if scores is None else scores, lengths, budget, recent=window, floor=head_floor(budget, window, alpha)
    )
    return {"scores": own, "kept": kept, "counts": counts}


def eager(inputs: Inputs) -> Callable[[], torch.Tensor]:
    """A peer: SnapKV's dense equation, the joint choice as two calls of torch.topk."""
    score = snapkv.eager(inputs)
    window, tokens, budget = inputs["q"].shape[2], inputs["k"].shape[2], inputs["budget"]
    floor = head_floor(budget, window, inputs.get("alpha", 0.2))

    def call() -> torch.Tensor:
        scores = score()
        best = torch.topk(scores, min(floor, tokens), sorted=False).indices
        ranked = scores.scatter(2, best, float("inf")).flatten(1)
        torch.topk(ranked, min(budget, tokens) * scores.shape[1], sorted=False)
        return scores

    return call


def make_inputs(*, alpha: float = 0.2, spread: bool = False, **shape: Any) -> Inputs:
    """SnapKV's inputs; with `spread`, queries grow from head to head, so that attention becomes more concentrated."""
    inputs = snapkv.make_inputs(**shape)
    if spread:
        heads = inputs["q"].shape[1]
        inputs["q"] *= torch.linspace(0.25, 2, heads, device=inputs["q"].device)[:, None, None].to(inputs["q"].dtype)
    return {**inputs, "alpha": alpha}


def work(*, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, **_: Any) -> Work:
    """SnapKV's: as many tokens are kept."""
    return snapkv.work(q=q, k=k, lengths=lengths, budget=budget)


def figures(inputs: Inputs, outputs: Outputs, seconds: float) -> dict[str, float]:
    """What becomes of the cache, and how uneven the heads are."""
    counts = outputs["counts"].double()
    return {**snapkv.figures(inputs, outputs, seconds), "largest head / mean": float(counts.max() / counts.mean())}


UNIT = Unit(
    kernel=ada_kv,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan_lengths,
    work=work,
    shapes={
        "odd lengths": {
            "lengths": [1, 15, 16, 17, 333, 0], "heads": 2, "group": 4, "dim": 64, "window": 8, "budget": 16,
        },
        "heads of different concentration": {
            "lengths": [300, 90], "heads": 4, "group": 1, "dim": 64, "window": 8, "budget": 40, "spread": True,
        },
        "no safeguard": {
            "lengths": [200], "heads": 3, "group": 2, "dim": 128, "window": 16, "budget": 30, "spread": True,
            "alpha": 0.0,
        },
        "budget above the length": {
            "lengths": [40, 50], "heads": 2, "group": 2, "dim": 128, "window": 5, "budget": 64,
        },
    },
    benchmarks={
        "B=1 x 128k, W=32": {
            "lengths": [131072], "heads": 8, "group": 4, "dim": 128, "window": 32, "budget": 2048, "spread": True,
        },
        "B=8 x 32k, W=32": {
            "lengths": [32768] * 8, "heads": 8, "group": 4, "dim": 128, "window": 32, "budget": 2048, "spread": True,
        },
    },
    peers={"PyTorch, eager": eager},
    figures=figures,
    output="scores",
    follows=("scores",),
)  # fmt: skip
