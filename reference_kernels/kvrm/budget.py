"""Budgets: how many tokens each layer and head keeps, and what is kept whatever its score.

An eviction method is a score [B, H, T] (float32, higher = keep) and one of these policies. All of them return

- `kept` [B, H, M] int32: the kept tokens of each head, ascending, -1 after the last. This is what `compact` takes.
- `counts` [B, H] int32: how many they are.

A budget counts all kept tokens of a head, the always-kept ones included. A request not longer than the budget keeps
everything. Ties go to the lower index, between heads to the lower head. M follows from the budget alone, so that
nothing is read back from the device.
"""

from __future__ import annotations

from typing import Any

import torch

from reference_kernels.core.checks import check_integers, check_shape
from reference_kernels.core.unit import Inputs
from reference_kernels.kvrm.select import select

Kept = tuple[torch.Tensor, torch.Tensor]


def keep_per_head(scores: torch.Tensor, lengths: torch.Tensor, budget: int, *, sinks: int = 0, recent: int = 0) -> Kept:
    """Keep the `budget` best tokens of every head.

    Args:
        scores: [B, H, T] float32; values past a request's length are not looked at.
        lengths: [B] int32, at most T.
        budget: tokens per head.
        sinks: first tokens that are always kept.
        recent: last tokens that are always kept.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit, or the budget cannot hold what is always kept.
    """
    _check(scores, lengths, budget, sinks, recent)
    return select(scores.contiguous(), lengths, budget, min(budget, scores.shape[2]), sinks, recent, together=False)


def keep_across_heads(
    scores: torch.Tensor, lengths: torch.Tensor, budget: int, *, floor: int, sinks: int = 0, recent: int = 0
) -> Kept:
    """Keep the best H * budget tokens of a request, whichever heads they belong to (Ada-KV), `floor` of each at least.

    Args, Raises: as for `keep_per_head`; `budget` is the mean over the heads, `floor` lies between what is always
    kept and the budget.
    """
    _check(scores, lengths, budget, sinks, recent)
    heads, tokens = scores.shape[1:]
    if not max(sinks + recent, 0) <= floor <= budget:
        raise ValueError(f"the floor, {floor}, must lie between {sinks + recent} always kept and the budget, {budget}")
    if floor > sinks + recent:  # the floor's tokens go above all others
        best, _ = select(scores.contiguous(), lengths, floor, min(floor, tokens), sinks, recent, together=False)
        # Padding becomes token 0: a head with less than `floor` tokens keeps all of them anyway.
        scores = scores.scatter(2, best.clamp(min=0).long(), float("inf"))
    width = min(tokens, heads * budget - (heads - 1) * floor)
    return select(scores.contiguous(), lengths, budget, width, sinks, recent, together=True)


def pyramid_budgets(budget: int, layers: int, length: int, *, window: int = 0, beta: int = 20) -> list[int]:
    """Return a budget for each layer, falling linearly with depth, that sum to exactly layers * budget.

    Of budget = base + window, the window is the same in every layer and the base averages over the line from
    2 base - base // beta in the first layer to base // beta in the last. Where the first layer would exceed the prompt
    the line is turned about its middle until it fits. The first half of the layers rounds up, the other half down.

    Args:
        budget: mean tokens per head and layer.
        layers: L.
        length: tokens of the prompt.
        window: always-kept tokens, contained in the budget.
        beta: steepness, at least 1 (flat).
    """
    check_budget(budget, window)
    if layers < 1 or beta < 1 or length < 0:
        raise ValueError(f"layers and beta must be at least 1, length at least 0, not {layers}, {beta}, {length}")
    if budget >= length:
        return [length] * layers
    if layers == 1:
        return [budget]
    base = budget - window
    first = min(2 * base - base // beta, length - window)
    last = 2 * base - first
    steps = layers - 1
    above = [first - (first - last) * layer // steps for layer in range((layers + 1) // 2)]
    below = [last + (first - last) * layer // steps for layer in range(layers // 2)]  # from the last layer upwards
    return [window + tokens for tokens in above + below[::-1]]


def check_budget(budget: int, always: int = 0) -> None:
    """Require a budget of at least one token that holds what is always kept."""
    if budget < 1:
        raise ValueError(f"the budget must be at least one token per head, not {budget}")
    if not 0 <= always <= budget:
        raise ValueError(f"a budget of {budget} tokens per head cannot hold {always} that are always kept")


def check_lengths(lengths: torch.Tensor, longest: int) -> None:
    """Require lengths from 0 to T. Reads values: once per step."""
    if lengths.numel() == 0:
        raise ValueError("there must be at least one request")
    low, high = int(lengths.min()), int(lengths.max())
    if low < 0 or high > longest:
        raise ValueError(f"lengths must lie between 0 and {longest}, they go from {low} to {high}")


def plan_lengths(*, k: torch.Tensor, lengths: torch.Tensor, **_: Any) -> Inputs:
    """The host's part of a step of all methods that score keys: check the lengths."""
    check_lengths(lengths, k.shape[2])
    return {}


def choose(
    scores: torch.Tensor, lengths: torch.Tensor, budget: int, *, sinks: int = 0, recent: int = 0,
    floor: int | None = None,
) -> Kept:  # fmt: skip
    """The specification of both policies in plain PyTorch, by sorting; a `floor` means all heads together."""
    heads, tokens = scores.shape[1:]
    positions = torch.arange(tokens, device=scores.device)
    live = positions < lengths[:, None, None]  # [B, 1, T]
    always = live & ((positions < sinks) | (positions >= lengths[:, None, None] - recent))
    limits = torch.finfo(scores.dtype)
    ranked = scores.clamp(limits.min, limits.max).masked_fill(always, float("inf")).masked_fill(~live, float("-inf"))
    wanted = lengths.clamp(max=budget).long()
    width = min(budget, tokens)
    if floor is not None:
        ranked = ranked.masked_fill(_best(ranked, lengths.clamp(max=floor).long()[:, None]) & live, float("inf"))
        mask = _best(ranked.flatten(1), wanted * heads).view_as(ranked)
        width = min(tokens, heads * budget - (heads - 1) * floor)
    else:
        mask = _best(ranked, wanted[:, None])
    kept = torch.where(mask, positions, tokens).sort(-1).values[..., :width]
    return torch.where(kept < tokens, kept, -1).int(), mask.sum(-1, dtype=torch.int32)


def _best(ranked: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mark the `wanted` [...] largest of [..., T]; ties go to the lower index."""
    order = ranked.argsort(dim=-1, descending=True, stable=True)
    chosen = torch.arange(ranked.shape[-1], device=ranked.device) < wanted.unsqueeze(-1)
    return torch.zeros_like(ranked, dtype=torch.bool).scatter(-1, order, chosen.expand_as(order))


def _check(scores: torch.Tensor, lengths: torch.Tensor, budget: int, sinks: int, recent: int) -> None:
    check_shape("scores", scores, None, None, None)
    if scores.dtype != torch.float32:
        raise TypeError(f"scores must be float32, not {scores.dtype}")
    check_shape("lengths", lengths, scores.shape[0])
    check_integers(scores.device, lengths=lengths)
    if sinks < 0 or recent < 0:
        raise ValueError(f"sinks and recent must not be negative, they are {sinks} and {recent}")
    check_budget(budget, sinks + recent)
