"""Refusing bad input with words. All functions raise ValueError or TypeError that names the argument and what is
wrong."""

from __future__ import annotations

import torch


def check_same(**tensors: torch.Tensor) -> None:
    """Require one device and one floating-point dtype."""
    (first, reference), *others = tensors.items()
    if not reference.is_floating_point():
        raise TypeError(f"{first} must be floating-point, not {reference.dtype}")
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(f"{name} is on {tensor.device}, {first} on {reference.device}")
        if tensor.dtype != reference.dtype:
            raise TypeError(f"{name} is {tensor.dtype}, {first} is {reference.dtype}")


def check_shape(name: str, tensor: torch.Tensor, *wanted: int | None) -> None:
    """Require a shape; None stands for any size."""
    good = tensor.dim() == len(wanted) and all(w in (None, s) for w, s in zip(wanted, tensor.shape, strict=True))
    if not good:
        words = ", ".join("any" if w is None else str(w) for w in wanted)
        raise ValueError(f"{name} must have shape [{words}], not {list(tensor.shape)}")


def check_integers(device: torch.device, **tensors: torch.Tensor) -> None:
    """Require int32 tensors on one device."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.int32:
            raise TypeError(f"{name} must be int32, not {tensor.dtype}")
        if tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, the data on {device}")


def check_heads(query_heads: int, heads: int) -> int:
    """Return the group size Hq / Hkv; it must be whole."""
    if heads < 1 or query_heads < 1 or query_heads % heads:
        raise ValueError(f"the number of query heads, {query_heads}, must be a multiple of the key heads, {heads}")
    return query_heads // heads


def check_dim(dim: int) -> None:
    """Require a head size that kernels can tile."""
    if dim < 16 or dim & (dim - 1):
        raise ValueError(f"the head size must be a power of two of at least 16, not {dim}")


def check_scale(scale: float | None, dim: int) -> float:
    """Return the factor on the scores, 1 / sqrt(D) if none is given; it must be positive."""
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be positive, not {scale}")
    return dim**-0.5 if scale is None else scale


def rows_of(table: torch.Tensor) -> torch.Tensor:
    """Return a block table whose rows lie in one piece each; the rows themselves may share memory."""
    return table if table.stride(-1) == 1 else table.contiguous()


def check_table(block_table: torch.Tensor, lengths: torch.Tensor, pages: int, page: int) -> None:
    """Require lengths that the block table can hold and used entries within the pool. Reads values: once per step.

    Args:
        block_table: [..., N].
        lengths: [...], broadcast against the leading dimensions of the table.
        pages: pages in the pool.
        page: tokens per page.
    """
    if lengths.numel() == 0:
        raise ValueError("there must be at least one request")
    low, high = int(lengths.min()), int(lengths.max())
    if low < 0:
        raise ValueError(f"lengths must not be negative, one is {low}")
    width = block_table.shape[-1]
    if high > width * page:
        raise ValueError(
            f"a request of {high} tokens needs {-(-high // page)} pages, the block table has {width} columns"
        )
    used = torch.arange(width, device=block_table.device) < ((lengths + page - 1) // page).unsqueeze(-1)
    bad = used & ((block_table < 0) | (block_table >= pages))
    if bool(bad.any()):
        place = tuple(bad.nonzero()[0].tolist())
        value = int(block_table.expand(bad.shape)[place])
        raise ValueError(f"block_table{list(place)} is {value}, outside of the pool of {pages} pages")
