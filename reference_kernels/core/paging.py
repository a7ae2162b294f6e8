"""The paged layout of the cache.

- `k_pages`, `v_pages` [P, Hkv, S, D]: P pages of S tokens; within a page the heads lie behind one another, so that one
  head's part of a page is one contiguous piece (FlashInfer calls this HND).
- `block_table` [B, N] int32: the pages of each request in order; entries past its length are never read.
- `lengths` [B] int32: cached tokens of each request; 0 is allowed.
- Caches with a length per head use `block_table` [B, Hkv, N], `lengths` [B, Hkv] and pages owned by one head, [P, 1,
  S, D].
"""

from __future__ import annotations

import torch


def pages_needed(lengths: torch.Tensor, page: int) -> torch.Tensor:
    """Return how many pages of `page` tokens hold `lengths` tokens."""
    return (lengths + page - 1) // page


def gather(pages: torch.Tensor, table: torch.Tensor, length: int) -> torch.Tensor:
    """Return one request's tokens, contiguous [H, T, D], from pages [P, H, S, D] and its row of the table [N]."""
    used = table[: -(-length // pages.shape[2])].long()
    return pages[used].transpose(0, 1).flatten(1, 2)[:, :length]


def make_cache(
    lengths: torch.Tensor, heads: int, page: int, dim: int, *, dtype: torch.dtype, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a random cache whose pages lie in random order; every slot that belongs to no token is NaN.

    Args:
        lengths: [B] or [B, H] int32 on the CPU; with two dimensions every page belongs to one head.
        heads: Hkv.
        page: tokens per page.
        dim: D.
        dtype: of keys and values.
        generator: decides numbers and place.

    Returns:
        k_pages, v_pages [P, Hkv or 1, S, D], block_table [B, (H,) N] int32 and lengths, on the generator's device.
    """
    device = generator.device
    counts = pages_needed(lengths, page)
    per_head = lengths.dim() == 2
    total, widest = int(counts.sum()), max(int(counts.max()), 1)
    order = torch.randperm(max(total, 1), generator=generator, device=device, dtype=torch.int64)[:total].to(torch.int32)
    used = torch.arange(widest) < counts.unsqueeze(-1)  # [B, (H,) N]
    table = torch.full(used.shape, -1, dtype=torch.int32, device=device)
    table[used.to(device)] = order
    filled = torch.zeros(max(total, 1), page, dtype=torch.bool, device=device)
    fill = (lengths.unsqueeze(-1) - torch.arange(widest) * page).clamp(0, page)[used].to(device)
    filled[order.long()] = torch.arange(page, device=device) < fill.unsqueeze(-1)

    def draw() -> torch.Tensor:
        pages = torch.empty(max(total, 1), 1 if per_head else heads, page, dim, dtype=dtype, device=device)
        for piece, live in zip(pages.split(4096), filled.split(4096), strict=True):
            piece.normal_(generator=generator)
            piece.masked_fill_(~live[:, None, :, None], float("nan"))
        return pages

    return draw(), draw(), table, lengths.to(device)
