"""Random caches for the units of this folder: contiguous keys of requests of different length."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def draw_keys(
    lengths: Sequence[int], heads: int, dim: int, *, dtype: torch.dtype, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return k [B, Hkv, T, D], NaN past each request's length, and lengths [B] int32, T being the longest."""
    device = generator.device
    k = torch.empty(len(lengths), heads, max(*lengths, 1), dim, dtype=dtype, device=device)
    for request, length in zip(k, lengths, strict=True):
        request.normal_(generator=generator)
        request[:, length:] = float("nan")
    return k, torch.tensor(lengths, dtype=torch.int32, device=device)


def draw_queries(
    batch: int, heads: int, queries: int, dim: int, *, dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    """Return q [B, Hq, N, D]."""
    return torch.randn(batch, heads, queries, dim, dtype=dtype, device=generator.device, generator=generator)
