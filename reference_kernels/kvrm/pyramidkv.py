"""PyramidKV: SnapKV's choice within each layer, with budgets that fall linearly from the first layer to the last.

Computes
--------
Scores and choice are SnapKV's. Of a mean budget C the window W is kept in all L layers, and layer l keeps beside it
    first - (first - last) l / (L - 1)   tokens,   last = floor((C - W) / beta),   first = 2 (C - W) - last
so that the mean over the layers is C - W. Where `first` exceeds the T - W tokens before the window, it becomes T - W
and last = 2 (C - W) - first. The first half of the layers rounds up and the other half down, so that the sum over all
layers is exactly L (C - W) (`budget.pyramid_budgets`). beta = 1 is flat; the authors' code takes 20.

Layout
------
As for SnapKV: q [B, Hq, W, D], k [B, Hkv, T, D], lengths [B] int32 of one layer; returns scores [B, Hkv, T] float32,
kept [B, Hkv, M] int32 and counts [B, Hkv] int32, M being this layer's budget.

Cost
----
SnapKV's per layer; the budgets are integers computed on the host, once for a model and prompt length. Over all layers
the cache is as large as SnapKV's with budget C.

Published
---------
On par with the full cache on LongBench with 12 % of it, which is 88 % less memory; with 0.7 %, 99.3 % less, up to
20.5 points more accuracy on TREC than other methods (its abstract).

Differs
-------
The authors' code divides the slope by L - 1 as an integer, so its layers sum to more than the budget, and it keeps the
uniform budget for prompts up to 2 (C - W) tokens; here the sum is exact and the rule is one. A batch's T is its longest
request.

:leaf: kvrm/eviction
:papers: pyramidkv
"""

from __future__ import annotations

from typing import Any

import torch

from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvrm import snapkv
from reference_kernels.kvrm.budget import plan_lengths, pyramid_budgets


def pyramidkv(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, layer: int, layers: int, *, beta: int = 20,
    pool: int = 5, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """Score the tokens of one layer and keep its share. Shapes: the module's docstring.

    Args:
        q, k, lengths, pool, scale: see `snapkv.snapkv`.
        budget: C, kept tokens per head in the mean over the layers, the window included.
        layer: l, from 0.
        layers: L.
        beta: steepness, at least 1.

    Raises:
        ValueError, TypeError: as `snapkv.snapkv`, or there is no such layer.
    """
    share = layer_budget(q, k, budget, layer, layers, beta)
    return snapkv.snapkv(q, k, lengths, share, pool=pool, scale=scale)


def layer_budget(q: torch.Tensor, k: torch.Tensor, budget: int, layer: int, layers: int, beta: int) -> int:
    """Return the budget of one layer."""
    if not 0 <= layer < layers:
        raise ValueError(f"there is no layer {layer} of {layers}")
    return pyramid_budgets(budget, layers, k.shape[2], window=q.shape[2], beta=beta)[layer]


def reference(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, layer: int, layers: int, *, beta: int = 20,
    pool: int = 5, scale: float | None = None, scores: torch.Tensor | None = None,
) -> Outputs:  # fmt: skip
    """SnapKV's equation with the layer's budget."""
    share = layer_budget(q, k, budget, layer, layers, beta)
    return snapkv.reference(q, k, lengths, share, scores=scores, pool=pool, scale=scale)


def make_inputs(*, layer: int, layers: int, **shape: Any) -> Inputs:
    """SnapKV's inputs, for one layer of a model."""
    return {**snapkv.make_inputs(**shape), "layer": layer, "layers": layers}


def work(
    *, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, layer: int, layers: int, **_: Any
) -> Work:
    """SnapKV's, with the layer's budget."""
    return snapkv.work(q=q, k=k, lengths=lengths, budget=layer_budget(q, k, budget, layer, layers, 20))


UNIT = Unit(
    kernel=pyramidkv,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan_lengths,
    work=work,
    shapes={
        "first layer": {
            "lengths": [400, 17, 0], "heads": 2, "group": 4, "dim": 64, "window": 8, "budget": 64, "layer": 0,
            "layers": 4,
        },
        "last layer": {
            "lengths": [400, 17, 0], "heads": 2, "group": 4, "dim": 64, "window": 8, "budget": 64, "layer": 3,
            "layers": 4,
        },
        "first layer keeps all": {
            "lengths": [100], "heads": 1, "group": 8, "dim": 128, "window": 5, "budget": 60, "layer": 0, "layers": 3,
        },
    },
    benchmarks={
        "B=1 x 128k, layer 0 of 32": {
            "lengths": [131072], "heads": 8, "group": 4, "dim": 128, "window": 32, "budget": 2048, "layer": 0,
            "layers": 32,
        },
        "B=1 x 128k, layer 31 of 32": {
            "lengths": [131072], "heads": 8, "group": 4, "dim": 128, "window": 32, "budget": 2048, "layer": 31,
            "layers": 32,
        },
    },
    peers={"PyTorch, eager": snapkv.eager},
    figures=snapkv.figures,
    output="scores",
    follows=("scores",),
)  # fmt: skip
