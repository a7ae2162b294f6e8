"""What decode kernels over contiguous caches share: checks, cutting rows into pieces, and the running softmax.

Their caches are contiguous, [B, H, T, ...] with room for T tokens per request, of which `lengths` [B] are cached. Rows
are cut into pieces and their states merged by core/pieces.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_integers, check_shape
from reference_kernels.core.pieces import Plan, Tuning, plan_rows


def check_room(lengths: torch.Tensor, batch: int, capacity: int, device: torch.device) -> None:
    """Require lengths [B] int32 that fit in the cache. Reads values: once per step."""
    check_shape("lengths", lengths, batch)
    check_integers(device, lengths=lengths)
    if batch == 0:
        raise ValueError("there must be at least one request")
    low, high = int(lengths.min()), int(lengths.max())
    if low < 0 or high > capacity:
        raise ValueError(f"lengths must lie in 0 ... {capacity}, the room of the cache; they lie in {low} ... {high}")


def check_contiguous(**tensors: torch.Tensor) -> None:
    """Require plain row-major tensors, whose addresses the kernels compute from shapes alone."""
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, its strides are {tensor.stride()}")


def make_row_plan(q: torch.Tensor, rows: torch.Tensor, width: int) -> Plan:
    """Cut rows of `rows` [R] tokens, in tiles of about 64 KiB: `width` numbers of q's dtype per token, keys and values
    together."""
    fitting = max(65536 // (width * q.element_size()), 16)
    return plan_rows(rows, Tuning(block=min(1 << (fitting.bit_length() - 1), 128)), q.device)


@triton.jit
def fold(scores, values, factors, top, total, mean):  # noqa: ANN201
    """Fold a tile into the running state of ROWS queries: scores [ROWS, BLOCK] in powers of two, values [BLOCK, D].

    A token's value counts `factors` times, a number or [1, BLOCK]. Scores may all be -inf.
    """
    new_top = tl.maximum(top, tl.max(scores, 1))
    finite = tl.where(new_top == float("-inf"), 0.0, new_top)
    weights = tl.exp2(scores - finite[:, None])
    fade = tl.exp2(top - finite)
    total = total * fade + tl.sum(weights, 1)
    weights = (weights * factors).to(values.dtype)
    return new_top, total, tl.dot(weights, values, mean * fade[:, None], input_precision="ieee")
