"""H2O: keep the tokens that have gathered most attention so far (heavy hitters) and the most recent ones.

Computes
--------
With the running sum s of a key head and N new queries (a block of the prefill, or one decode step):
    s[t] += 1 / G sum_{g, n} softmax_t(scale * q[g, n] . k)[t]      causal, over the keys that each query sees
The budget keeps its half of most recent tokens, and of the earlier ones those of largest s. What is kept takes its sum
along (`follow`), so that the next call goes on from there.

Layout
------
q [B, Hq, N, D], the last N queries; k [B, Hkv, T, D] with their keys at the end; lengths [B] int32; mass [B, Hkv, T]
float32, the running sums, 0 for the new tokens; lse [B, Hq, N] float32, the natural log-sum-exp of the queries' rows,
which the attention kernel returns (without it K is read twice). Returns scores [B, Hkv, T] float32, the new sums, -inf
past the length; kept [B, Hkv, M] int32 (ascending, -1 after the last) and counts [B, Hkv] int32.

Cost
----
Reads K once, T Hkv D e bytes, and does 2 N T Hq D FLOPs. A decode step with lse is bound by memory: it costs half of
what attention itself reads. A block of N G > 256 query rows per key head is bound by arithmetic and streams K once for
each 256 rows.

Published
---------
Up to 1.9x lower latency at the same batch size (its abstract). Throughput with 20 % heavy hitters, OPT-6.7B and
OPT-30B on a T4: up to 29x that of DeepSpeed Zero-Inference and of Accelerate, up to 3x that of FlexGen; on an A100 with
a larger batch 2.3x that of FlexGen (its section 5.2).

Differs
-------
The paper has one cache per query head; here the G query heads of a key head share one, so their weights are averaged,
and the sums of a head add up to the number of queries seen. No attention matrix is stored. Kept indices ascend.

:leaf: kvrm/eviction
:papers: h2o
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from reference_kernels.core.checks import check_same, check_shape
from reference_kernels.core.unit import Inputs, MissingPeerError, Outputs, Unit, Work
from reference_kernels.kvrm.attention_mass import attention_weights, check_observed, column_mass, row_lse
from reference_kernels.kvrm.budget import check_budget, choose, keep_per_head, plan_lengths
from reference_kernels.kvrm.draws import draw_keys, draw_queries


def h2o(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, mass: torch.Tensor, budget: int, *,
    lse: torch.Tensor | None = None, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """Add what N queries attend to and keep `budget` tokens of each head. Shapes: the module's docstring.

    Args:
        q, k, lengths: the module's docstring. Lengths must lie between 0 and T (`check_lengths`, once per step).
        mass: the sums so far; not changed.
        budget: kept tokens per head, half of them (rounded down) the most recent.
        lse: of the new rows, if known.
        scale: factor on the scores, 1 / sqrt(D) if not given.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or the budget is 0.
    """
    check_budget(budget)
    check_observed(q, k, lengths)
    check_shape("mass", mass, *k.shape[:3])
    live = torch.arange(k.shape[2], device=k.device) < lengths[:, None, None]
    scores = accumulate(torch.where(live, mass, float("-inf")), q, k, lengths, lse=lse, scale=scale)
    kept, counts = keep_per_head(scores, lengths, budget, recent=budget // 2)
    return {"scores": scores, "kept": kept, "counts": counts}


def accumulate(
    mass: torch.Tensor, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, *, lse: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:  # fmt: skip
    """Add what N queries attend to, in place, for steps that evict nothing. Arguments: see `h2o`."""
    group = check_observed(q, k, lengths)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if lse is None:
        lse = row_lse(q, k, lengths, scale)
    return column_mass(q, k, lengths, lse, scale, weight=1 / group, into=mass)


def follow(scores: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return the sums of the kept tokens [B, Hkv, M], in the order of the compacted cache; 0 behind the last."""
    check_same(scores=scores)
    check_shape("kept", kept, *scores.shape[:2], None)
    return torch.where(kept >= 0, scores.gather(2, kept.clamp(min=0).long()), 0.0)


def reference(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, mass: torch.Tensor, budget: int, *,
    lse: torch.Tensor | None = None, scores: torch.Tensor | None = None, scale: float | None = None,
) -> Outputs:  # fmt: skip
    """The equation, one request at a time; the choice follows from `scores`, if given."""
    scale = q.shape[3] ** -0.5 if scale is None else scale
    own = torch.full_like(mass, float("-inf"))
    for i, length in enumerate(lengths.tolist()):
        new = _gathered(q[i], k[i, :, :length], scale, None if lse is None else lse[i])
        own[i, :, :length] = mass[i, :, :length] + new
    kept, counts = choose(own if scores is None else scores, lengths, budget, recent=budget // 2)
    return {"scores": own, "kept": kept, "counts": counts}


def _gathered(q: torch.Tensor, k: torch.Tensor, scale: float, lse: torch.Tensor | None) -> torch.Tensor:
    """Return what N queries add to the sums, [..., Hkv, T]."""
    weights = attention_weights(q, k, scale, lse).sum(-2)  # [..., Hq, T]
    return weights.unflatten(-2, (k.shape[-3], -1)).mean(-2)


def eager(inputs: Inputs) -> Callable[[], torch.Tensor]:
    """A peer: the dense equation over the batch and torch.topk, for requests of equal length."""
    q, k, mass, budget = (inputs[name] for name in ("q", "k", "mass", "budget"))
    if bool((inputs["lengths"] < k.shape[2]).any()):
        raise MissingPeerError("it needs requests of equal length")

    def call() -> torch.Tensor:
        scores = mass + _gathered(q, k, q.shape[3] ** -0.5, inputs["lse"])
        torch.topk(scores, min(budget, k.shape[2]), sorted=False)
        return scores

    return call


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: Sequence[int], heads: int, group: int, dim: int,
    queries: int, budget: int, lse: bool = True,
) -> Inputs:  # fmt: skip
    """Draw queries, keys and the sums of earlier queries (log-normal), and find the LSE of the new ones if asked to."""
    generator = torch.Generator(device).manual_seed(seed)
    k, sizes = draw_keys(lengths, heads, dim, dtype=dtype, generator=generator)
    q = draw_queries(len(lengths), heads * group, queries, dim, dtype=dtype, generator=generator)
    mass = torch.randn(k.shape[:3], device=device, generator=generator).exp()
    for sums, length in zip(mass, lengths, strict=True):
        sums[:, max(length - queries, 0) :] = 0  # the new tokens
        sums[:, length:] = float("nan")
    rows = [_lse_dense(q[i].float(), k[i, :, :length].float()) for i, length in enumerate(lengths)] if lse else []
    known = torch.stack(rows) if lse else None
    return {"q": q, "k": k, "lengths": sizes, "mass": mass, "budget": budget, "lse": known}


def _lse_dense(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return the natural LSE [Hq, N] of one request, head by head."""
    position = torch.arange(q.shape[1], device=q.device) + k.shape[1] - q.shape[1]
    hidden = torch.arange(k.shape[1], device=q.device) > position[:, None]
    group = q.shape[0] // k.shape[0]
    scores = ((q[i] @ k[i // group].T * q.shape[2] ** -0.5).masked_fill(hidden, float("-inf")) for i in range(len(q)))
    return torch.stack([torch.logsumexp(row, -1) for row in scores])


def work(*, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, **_: Any) -> Work:
    """K, q and the old sums once, new sums and kept indices once; the product of each query with the keys it sees."""
    tokens, heads = int(lengths.sum()), k.shape[1]
    query_heads, queries, dim = q.shape[1:]
    new = lengths.clamp(max=queries)
    seen = int((new * lengths - new * (new - 1) // 2).sum())
    return Work(
        read=tokens * heads * (dim * k.element_size() + 4) + q.numel() * q.element_size(),
        written=4 * tokens * heads + 4 * heads * (int(lengths.clamp(max=budget).sum()) + len(lengths)),
        flops=2 * seen * query_heads * dim,
    )


UNIT = Unit(
    kernel=h2o,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan_lengths,
    work=work,
    shapes={
        "odd lengths, one query": {
            "lengths": [1, 15, 16, 17, 333, 0], "heads": 2, "group": 4, "dim": 64, "queries": 1, "budget": 16,
        },
        "a whole prompt": {
            "lengths": [130, 65, 3], "heads": 1, "group": 4, "dim": 128, "queries": 130, "budget": 33,
        },
        "the LSE is not known": {
            "lengths": [300, 10], "heads": 1, "group": 8, "dim": 256, "queries": 16, "budget": 50, "lse": False,
        },
        "one query head per key head": {
            "lengths": [1023], "heads": 3, "group": 1, "dim": 64, "queries": 20, "budget": 1,
        },
    },
    benchmarks={
        "B=1 x 128k, one query": {
            "lengths": [131072], "heads": 8, "group": 4, "dim": 128, "queries": 1, "budget": 2048,
        },
        "B=8 x 32k, one query": {
            "lengths": [32768] * 8, "heads": 8, "group": 4, "dim": 128, "queries": 1, "budget": 2048,
        },
        "B=1 x 32k, block of 256": {
            "lengths": [32768], "heads": 8, "group": 4, "dim": 128, "queries": 256, "budget": 2048,
        },
    },
    peers={"PyTorch, eager": eager},
    output="scores",
    follows=("scores",),
)  # fmt: skip
