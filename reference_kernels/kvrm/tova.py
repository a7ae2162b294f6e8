"""TOVA: the cache is a state of fixed size; what the newest query attends to least leaves it.

Computes
--------
For the last query q of a request and all its tokens t, averaged over all Hq query heads:
    score[t] = 1 / Hq sum_i softmax_t(scale * q[i] . k[i // G])[t]
The budget keeps the same tokens in every head. Run at each decode step with a budget of the cache's size it drops one
token per step; run after the prefill it compresses the prompt.

Layout
------
q [B, Hq, 1, D], the last query of each request; k [B, Hkv, T, D]; lengths [B] int32. Returns scores [B, 1, T] float32
(-inf past the length), kept [B, Hkv, M] int32 (ascending, -1 after the last; all heads alike), counts [B, Hkv] int32.

Cost
----
Reads K once, T Hkv D e bytes, for 2 T Hq D FLOPs: bound by memory. There is only one query per head, so the scores
before the softmax are small (4 Hq T bytes, G / 64 of K for D = 128 in bf16): they are written and read again
to be normalized, instead of reading K twice.

Published
---------
A cache of an eighth in some cases, with results close to the full one (its abstract); the throughput grows 4.8x with
it (abstract of the EMNLP 2024 version, no GPU named).

Differs
-------
Nothing is always kept, as in the authors' code; kvpress always keeps the newest token. Kept indices ascend.

:leaf: kvrm/eviction
:papers: tova
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_shape
from reference_kernels.core.unit import Inputs, MissingPeerError, Outputs, Unit, Work
from reference_kernels.kvrm.attention_mass import attention_weights, check_observed, row_lse
from reference_kernels.kvrm.budget import check_budget, choose, keep_per_head, plan_lengths
from reference_kernels.kvrm.draws import draw_keys, draw_queries

BLOCK = 128  # tokens per program of the second pass


def tova(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, *, scale: float | None = None
) -> Outputs:
    """Score all tokens and keep the same `budget` of them in every head. Shapes: the module's docstring.

    Args:
        q, k, lengths: the module's docstring. Lengths must lie between 0 and T (`check_lengths`, once per step).
        budget: kept tokens.
        scale: factor on the scores, 1 / sqrt(D) if not given.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or the budget is 0.
    """
    check_budget(budget)
    check_observed(q, k, lengths)
    check_shape("q", q, None, None, 1, None)
    batch, heads, tokens, dim = k.shape
    logits = torch.empty(*q.shape[:3], tokens, dtype=torch.float32, device=q.device)
    scale = dim**-0.5 if scale is None else scale
    lse = row_lse(q, k, lengths, scale, logits=logits)
    scores = torch.empty(batch, 1, tokens, dtype=torch.float32, device=q.device)
    query_heads = q.shape[1]
    _mean_weight[(triton.cdiv(tokens, BLOCK), batch)](
        logits, lse, lengths, scores, tokens, query_heads, PADDED=triton.next_power_of_2(query_heads), BLOCK=BLOCK
    )  # fmt: skip
    kept, counts = keep_per_head(scores, lengths, budget)
    return {
        "scores": scores,
        "kept": kept.expand(batch, heads, -1).contiguous(),
        "counts": counts.expand(batch, heads).contiguous(),
    }


@triton.jit
def _mean_weight(
    logits, lse, lengths, scores, tokens, query_heads, PADDED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One program: the mean over all heads of the weights of BLOCK tokens."""
    token, request = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    length = tl.load(lengths + request)
    head = tl.arange(0, PADDED)
    row = request * query_heads + head
    real = head < query_heads
    level = tl.load(lse + row, mask=real & (length > 0), other=0.0)
    live = real[:, None] & (token < length)[None, :]
    score = tl.load(logits + row.to(tl.int64)[:, None] * tokens + token[None, :], mask=live, other=float("-inf"))
    mean = tl.sum(tl.exp(score - level[:, None]), 0) / query_heads
    out = scores + request.to(tl.int64) * tokens + token
    tl.store(out, tl.where(token < length, mean, float("-inf")), mask=token < tokens)


def reference(
    q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, *, scores: torch.Tensor | None = None,
    scale: float | None = None,
) -> Outputs:  # fmt: skip
    """The equation, one request at a time; the choice follows from `scores`, if given."""
    batch, heads, tokens, dim = k.shape
    scale = dim**-0.5 if scale is None else scale
    own = q.new_full((batch, 1, tokens), float("-inf"))
    for i, length in enumerate(lengths.tolist()):
        own[i, 0, :length] = attention_weights(q[i], k[i, :, :length], scale)[:, 0].mean(0)
    kept, counts = choose(own if scores is None else scores, lengths, budget)
    return {"scores": own, "kept": kept.expand(batch, heads, -1), "counts": counts.expand(batch, heads)}


def eager(inputs: Inputs) -> Callable[[], torch.Tensor]:
    """A peer: the dense equation over the batch and torch.topk, for requests of equal length."""
    q, k, budget = inputs["q"], inputs["k"], inputs["budget"]
    if bool((inputs["lengths"] < k.shape[2]).any()):
        raise MissingPeerError("it needs requests of equal length")

    def call() -> torch.Tensor:
        scores = attention_weights(q, k, q.shape[3] ** -0.5).mean(1)  # [B, 1, T]
        torch.topk(scores, min(budget, k.shape[2]), sorted=False)
        return scores

    return call


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: Sequence[int], heads: int, group: int, dim: int,
    budget: int,
) -> Inputs:  # fmt: skip
    """Draw the last query and all keys."""
    generator = torch.Generator(device).manual_seed(seed)
    k, sizes = draw_keys(lengths, heads, dim, dtype=dtype, generator=generator)
    q = draw_queries(len(lengths), heads * group, 1, dim, dtype=dtype, generator=generator)
    return {"q": q, "k": k, "lengths": sizes, "budget": budget}


def work(*, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, budget: int, **_: Any) -> Work:
    """K and q once, scores and kept indices once."""
    tokens, heads = int(lengths.sum()), k.shape[1]
    query_heads, dim = q.shape[1], q.shape[3]
    return Work(
        read=tokens * heads * dim * k.element_size() + q.numel() * q.element_size(),
        written=4 * tokens + 4 * heads * (int(lengths.clamp(max=budget).sum()) + len(lengths)),
        flops=2 * tokens * query_heads * dim,
    )


UNIT = Unit(
    kernel=tova,
    reference=reference,
    make_inputs=make_inputs,
    plan=plan_lengths,
    work=work,
    shapes={
        "odd lengths": {"lengths": [1, 15, 16, 17, 333, 0], "heads": 2, "group": 4, "dim": 64, "budget": 16},
        "one query head per key head": {"lengths": [1023, 2], "heads": 3, "group": 1, "dim": 64, "budget": 100},
        "wide group and head": {"lengths": [130, 65, 3], "heads": 1, "group": 8, "dim": 256, "budget": 1},
        "group of three, budget above the length": {
            "lengths": [40, 1],
            "heads": 2,
            "group": 3,
            "dim": 128,
            "budget": 64,
        },
    },
    benchmarks={
        "B=1 x 128k": {"lengths": [131072], "heads": 8, "group": 4, "dim": 128, "budget": 2048},
        "B=8 x 32k": {"lengths": [32768] * 8, "heads": 8, "group": 4, "dim": 128, "budget": 2048},
    },
    peers={"PyTorch, eager": eager},
    output="scores",
    follows=("scores",),
)
