"""SnapKV: the end of the prompt decides which of the earlier tokens each head keeps.

Computes
--------
For the last W queries (the window) and the tokens t < T - W before them, per key head with its G query heads:
    a[t] = 1 / (W G) sum_{g, n} softmax_t(scale * q[g, n] . k)[t]      causal softmax over all T keys
    score[t] = 1/5 sum_{|j| <= 2} a[t + j]                              average pooling, a = 0 outside of the prefix
The budget keeps the window and the tokens of highest score. Pooling makes neighbors of an important token be kept as
well; it counts the zeros beyond the edges, as torch's avg_pool1d does by default (stride 1, padding 2).

Layout
------
q [B, Hq, W, D], the last W queries of each request, rotated as in attention; k [B, Hkv, T, D]; lengths [B] int32.
Returns scores [B, Hkv, T] float32 (+inf in the window, -inf past the length), kept [B, Hkv, M] int32 (ascending, -1
after the last) and counts [B, Hkv] int32. A request of W tokens or fewer lies in the window and is kept whole.

Cost
----
At least T Hkv D e bytes (K once) and 2 T W Hq D FLOPs. This kernel does both twice, since a column sum of a softmax
needs the row sums first and the matrix of W Hq T weights is larger than K. With W = 64 and G = 4 each pass has 256
FLOPs per byte in bf16, near the ridge of an H100, and one exponential per 2 D FLOPs. Half of the ceiling is therefore
the most that the figure can show. Scores and the selection move a few times 4 T Hkv bytes more.

Published
---------
3.6x faster generation and 8.2x better use of memory at inputs of 16K tokens, against the unnamed baseline; up to 380K
tokens of context on one A100 of 80 GB (its abstract).

Differs
-------
The paper selects per query head of a model without groups; here the G query heads of a key head are averaged, since
they share its cache (kvpress does the same). No attention matrix is stored. Kept indices ascend.

:leaf: kvrm/eviction
:papers: snapkv
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.unit import Inputs, MissingPeerError, Outputs, Unit, Work
from reference_kernels.kvrm.attention_mass import attention_weights, check_observed, column_mass, row_lse
from reference_kernels.kvrm.budget import check_budget, choose, keep_per_head, plan_lengths
from reference_kernels.kvrm.draws import draw_keys, draw_queries


def snapkv(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, *, pool: int = 5, scale: float | None = None
) -> Outputs:
    """Score all tokens and keep `budget` of each head. Shapes: the module's docstring.

    Args:
        q, k, lengths: the module's docstring. Lengths must lie between 0 and T (`check_lengths`, once per step).
        budget: kept tokens per head, the window of W included.
        pool: width of the average pooling, odd; 1 is none.
        scale: factor on the scores, 1 / sqrt(D) if not given.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or the budget cannot hold the window.
    """
    window = q.shape[2] if q.dim() == 4 else 0
    check_budget(budget, window)
    scores = snapkv_scores(q, k, lengths, pool=pool, scale=scale)
    kept, counts = keep_per_head(scores, lengths, budget, recent=window)
    return {"scores": scores, "kept": kept, "counts": counts}


def snapkv_scores(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, *, pool: int = 5, scale: float | None = None
) -> torch.Tensor:
    """Return the scores alone, for another policy than a budget per head. Arguments: see `snapkv`."""
    group = check_observed(q, k, lengths)
    if pool < 1 or pool % 2 == 0:
        raise ValueError(f"the pooling's width must be odd, not {pool}")
    scale = q.shape[3] ** -0.5 if scale is None else scale
    window, (batch, heads, tokens, _) = q.shape[2], k.shape
    mass = column_mass(q, k, lengths, row_lse(q, k, lengths, scale), scale, weight=1 / (window * group))
    scores = torch.empty_like(mass)
    _pool[(triton.cdiv(tokens, 1024), batch * heads)](
        mass, lengths, scores, tokens, window, HEADS=heads, POOL=pool, BLOCK=1024
    )
    return scores


@triton.jit
def _pool(mass, lengths, scores, tokens, window, HEADS: tl.constexpr, POOL: tl.constexpr, BLOCK: tl.constexpr):
    """One program: average BLOCK tokens' neighborhoods within the prefix; mark the window and the padding."""
    row = tl.program_id(1)
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    length = tl.load(lengths + row // HEADS)
    prefix = length - window
    line = row.to(tl.int64) * tokens
    total = tl.zeros([BLOCK], tl.float32)
    for step in tl.static_range(POOL):
        near = token + step - POOL // 2
        total += tl.load(mass + line + near, mask=(near >= 0) & (near < prefix), other=0.0)
    score = tl.where(token < prefix, total / POOL, tl.where(token < length, float("inf"), float("-inf")))
    tl.store(scores + line + token, score, mask=token < tokens)


def reference(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, *, scores: torch.Tensor | None = None,
    pool: int = 5, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """The equation, one request at a time; the choice follows from `scores`, if given."""
    own = reference_scores(q, k, lengths, pool=pool, scale=scale)
    kept, counts = choose(own if scores is None else scores, lengths, budget, recent=q.shape[2])
    return {"scores": own, "kept": kept, "counts": counts}


def reference_scores(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, *, pool: int = 5, scale: float | None = None
) -> torch.Tensor:
    """The equation of the scores."""
    scale = q.shape[3] ** -0.5 if scale is None else scale
    scores = q.new_full(k.shape[:3], float("-inf"))
    for i, length in enumerate(lengths.tolist()):
        scores[i, :, :length] = _score_dense(q[i], k[i, :, :length], pool, scale)
    return scores


def _score_dense(q: torch.Tensor, k: torch.Tensor, pool: int, scale: float) -> torch.Tensor:
    """Return the scores [..., Hkv, T] of q [..., Hq, W, D] and k [..., Hkv, T, D] without padding."""
    heads, tokens = k.shape[-3:-1]
    prefix = max(tokens - q.shape[-2], 0)
    weights = attention_weights(q, k, scale)[..., :prefix].mean(-2)  # [..., Hq, T - W]
    pooled = torch.nn.functional.avg_pool1d(weights, pool, stride=1, padding=pool // 2) if prefix else weights
    means = pooled.unflatten(-2, (heads, -1)).mean(-2)
    return torch.nn.functional.pad(means, (0, tokens - prefix), value=float("inf"))


def eager(inputs: Inputs) -> Callable[[], torch.Tensor]:
    """A peer: the dense equation over the batch and torch.topk, for requests of equal length."""
    q, k, budget = inputs["q"], inputs["k"], inputs["budget"]
    if bool((inputs["lengths"] < k.shape[2]).any()):
        raise MissingPeerError("it needs requests of equal length")

    def call() -> torch.Tensor:
        scores = _score_dense(q, k, 5, q.shape[3] ** -0.5)
        torch.topk(scores, min(budget, k.shape[2]), sorted=False)
        return scores

    return call


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: Sequence[int], heads: int, group: int, dim: int,
    window: int, budget: int,
) -> Inputs:  # fmt: skip
    """Draw the last `window` queries and all keys."""
    generator = torch.Generator(device).manual_seed(seed)
    k, sizes = draw_keys(lengths, heads, dim, dtype=dtype, generator=generator)
    q = draw_queries(len(lengths), heads * group, window, dim, dtype=dtype, generator=generator)
    return {"q": q, "k": k, "lengths": sizes, "budget": budget}


def work(*, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, **_: Any) -> Work:
    """K and q once, scores and kept indices once; the scores of all query rows once."""
    tokens, heads = int(lengths.sum()), k.shape[1]
    query_heads, window, dim = q.shape[1:]
    return Work(
        read=tokens * heads * dim * k.element_size() + q.numel() * q.element_size(),
        written=4 * tokens * heads + 4 * heads * (int(lengths.clamp(max=budget).sum()) + len(lengths)),
        flops=2 * tokens * query_heads * window * dim,
    )


def figures(inputs: Inputs, outputs: Outputs, _seconds: float) -> dict[str, float]:
    """What becomes of the cache."""
    return {"kept fraction": float(outputs["counts"].sum() / (inputs["lengths"].sum() * inputs["k"].shape[1]))}


UNIT = Unit(
    kernel=snapkv,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan_lengths,
    work=work,
    shapes={
        "odd lengths": {
            "lengths": [1, 15, 16, 17, 333, 0], "heads": 2, "group": 4, "dim": 64, "window": 8, "budget": 16,
        },
        "one query head per key head": {
            "lengths": [1023], "heads": 1, "group": 1, "dim": 64, "window": 32, "budget": 200,
        },
        "wide group and head": {
            "lengths": [130, 65], "heads": 1, "group": 8, "dim": 256, "window": 16, "budget": 40,
        },
        "budget above the length": {
            "lengths": [40, 50], "heads": 2, "group": 2, "dim": 128, "window": 5, "budget": 64,
        },
    },
    benchmarks={
        "B=1 x 128k, W=64": {
            "lengths": [131072], "heads": 8, "group": 4, "dim": 128, "window": 64, "budget": 2048,
        },
        "B=1 x 128k, W=32": {
            "lengths": [131072], "heads": 8, "group": 4, "dim": 128, "window": 32, "budget": 2048,
        },
        "B=8 x 32k, W=32": {
            "lengths": [32768] * 8, "heads": 8, "group": 4, "dim": 128, "window": 32, "budget": 2048,
        },
    },
    peers={"PyTorch, eager": eager},
    figures=figures,
    output="scores",
    follows=("scores",),
)  # fmt: skip
