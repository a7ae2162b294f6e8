"""Caches written and read without the package's own code: what tests of decode kernels compare with."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

Pages = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def draw_tokens(
    lengths: Sequence[int],
    heads: int,
    dim: int,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> list[torch.Tensor]:
    """Draw the keys (or values) [Hkv, T, D] of some requests."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(heads, n, dim, generator=generator).to(dtype).to(device) for n in lengths]


def paginate(
    keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], page: int, *, seed: int = 0, spare: int = 2
) -> Pages:
    """Write requests [H, T, D] into pages in random order, and say which.

    Returns:
        k_pages, v_pages [P, H, S, D], NaN wherever no token is, and the table [requests, N], -1 where no page is.
    """
    heads, _, dim = keys[0].shape
    counts = [-(-k.shape[1] // page) for k in keys]
    free = list(range(sum(counts) + spare))
    random.Random(seed).shuffle(free)
    k_pages, v_pages = (keys[0].new_full((len(free), heads, page, dim), torch.nan) for _ in range(2))
    table = torch.full((len(keys), max(*counts, 1)), -1, dtype=torch.int32, device=keys[0].device)
    for i, parts in enumerate(zip(keys, values, strict=True)):
        for number in range(counts[i]):
            place = free.pop()
            table[i, number] = place
            for pages, part in zip((k_pages, v_pages), parts, strict=True):
                tokens = part[:, number * page : (number + 1) * page]
                pages[place, :, : tokens.shape[1]] = tokens
    return k_pages, v_pages, table


def truth(
    q: torch.Tensor, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], scale: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention of q [B, Hq, D] over each request's tokens by PyTorch's own function, in fp64: out and lse."""
    outs, lses = [], []
    for query, k, v in zip(q.double(), keys, values, strict=True):
        group = len(query) // len(k)
        wide_k, wide_v = (part.double().repeat_interleave(group, 0) for part in (k, v))
        scores = torch.einsum("hd,htd->ht", query, wide_k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        lses.append(scores.exp().sum(-1).log())
        attended = torch.nn.functional.scaled_dot_product_attention(query[:, None], wide_k, wide_v, scale=scale)
        outs.append(attended[:, 0] if k.shape[1] else torch.zeros_like(query))
    return torch.stack(outs), torch.stack(lses)


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same numbers in another order of memory: the first two dimensions swapped."""
    result = tensor.transpose(0, 1).contiguous().transpose(0, 1)
    assert not result.is_contiguous()
    return result


def check_close(
    result: dict[str, torch.Tensor], wanted: tuple[torch.Tensor, torch.Tensor], tolerance: float = 1e-5
) -> None:
    """Require out and lse to be what is wanted, and nowhere NaN."""
    for name, part in zip(("out", "lse"), wanted, strict=True):
        torch.testing.assert_close(result[name].double(), part, rtol=tolerance, atol=tolerance)
