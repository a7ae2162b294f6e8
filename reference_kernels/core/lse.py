"""Merging attention over disjoint sets of keys by their log-sum-exp (natural logarithm; FlashInfer's is base 2).

A state is (out, lse): out [..., D] the softmax-weighted mean of the values, lse [...] = ln sum_i exp(score_i). The
state of no keys is (0, -inf). Merging is associative and commutative, and merging all parts equals dense attention.
"""

from __future__ import annotations

import torch
import triton.language as tl

LOG2_E = 1.4426950408889634  # kernels work in powers of two: scores are scaled by it,
LN_2 = tl.constexpr(0.6931471805599453)  # and a logarithm is brought back by this


def merge_states(outs: torch.Tensor, lses: torch.Tensor, dim: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge states stacked along `dim` of `lses` [...] and of `outs` [..., D] (the same dimension, counted from 0).

    Returns:
        out [..., D] and lse [...] without that dimension.
    """
    if dim < 0:
        raise ValueError(f"dim counts from the front, not {dim}")
    lse = torch.logsumexp(lses, dim)
    weights = torch.exp(lses - lse.unsqueeze(dim)).nan_to_num(0.0)  # -inf - -inf: all parts are empty
    return (weights.unsqueeze(-1) * outs).sum(dim), lse


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense attention of grouped query heads, the plain definition.

    Args:
        q: [Hq, D] or [Hq, N, D], Hq a multiple of Hkv; query head i reads key head i // (Hq / Hkv).
        k: [Hkv, T, D].
        v: [Hkv, T, Dv].
        scale: factor on the scores, usually 1 / sqrt(D).

    Returns:
        out [Hq, (N,) Dv] and lse [Hq, (N)]; zeros and -inf where T is 0.
    """
    heads, dim = k.shape[0], q.shape[-1]
    grouped = q.reshape(heads, -1, dim)  # [Hkv, G(*N), D]
    scores = torch.einsum("hgd,htd->hgt", grouped, k) * scale
    lse = torch.logsumexp(scores, -1)
    weights = torch.exp(scores - lse.unsqueeze(-1)) if k.shape[1] else scores
    out = torch.einsum("hgt,htd->hgd", weights, v)
    return out.reshape(*q.shape[:-1], v.shape[-1]), lse.reshape(q.shape[:-1])
