"""Cutting ragged work into equal pieces, and merging what the pieces leave: the plan/run split of decode attention.

A row is one key head of one request. One program reads one piece of one row and leaves a state (out, lse) in fp32
(core/lse.py); rows that were not cut are written directly. The plan is made on the host once per step and used by every
layer; its buffers keep their addresses and sizes, so that a captured CUDA graph may be replayed after `Plan.refill`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from reference_kernels.core.device import multiprocessors


@dataclass(frozen=True)
class Tuning:
    """How a decode kernel is laid out on the chip."""

    block: int  # tokens per tile
    warps: int = 4
    stages: int = 3  # tiles in flight; an indirect page lookup costs one
    pieces: int = 2  # pieces of work per multiprocessor that the plan aims at


@dataclass
class Plan:
    """Which program reads which tokens. All tensors are int32 on the device, of fixed size.

    `items` [capacity, 4]: row, first token, end, slot of the partial state (-1: the row is whole, write the result). A
    spare item has row -1. `parts` [R + 1]: the partial states of row r lie in slots parts[r] … parts[r + 1].
    """

    items: torch.Tensor
    parts: torch.Tensor
    tuning: Tuning
    pieces: int  # at most, besides one per row

    def refill(self, rows: torch.Tensor) -> None:
        """Plan for other lengths [R] of as many rows, in the same buffers."""
        items, parts = cut(rows.flatten().cpu(), self.tuning.block, self.pieces)
        if parts.shape != self.parts.shape:
            raise ValueError(f"the plan is for {len(self.parts) - 1} rows, not {len(parts) - 1}")
        self.items.copy_(items)
        self.parts.copy_(parts)

    def states(self, group: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Allocate the partial states: out [capacity, G, D] and lse [capacity, G], fp32."""
        shape = (len(self.items), group)
        device = self.items.device
        return torch.empty(*shape, dim, dtype=torch.float32, device=device), torch.empty(shape, device=device)


def plan_rows(rows: torch.Tensor, tuning: Tuning, device: torch.device) -> Plan:
    """Cut rows of `rows` [R] tokens; best on the CPU, since reading them back waits for the GPU."""
    pieces = tuning.pieces * multiprocessors(device)
    items, parts = cut(rows.flatten().cpu(), tuning.block, pieces)
    return Plan(items.to(device), parts.to(device), tuning, pieces)


def cut(rows: torch.Tensor, block: int, pieces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut rows of `rows` [R] tokens into at most R + pieces pieces of whole tiles, the longest first.

    Returns:
        items and parts, as in `Plan`, on the CPU.
    """
    rows = rows.long()
    piece = max(-(-int(rows.sum()) // (pieces * block)), 1) * block
    counts = ((rows + piece - 1) // piece).clamp(min=1)  # an empty row still needs its zeros written
    even = (rows + counts * block - 1) // (counts * block) * block  # tokens per piece of each row
    counts = ((rows + even - 1) // even.clamp(min=1)).clamp(min=1)  # rounding to tiles may have saved a piece
    row = torch.arange(len(rows)).repeat_interleave(counts)
    first = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]  # number of the piece within its row
    start = first * even[row]
    stop = torch.minimum(start + even[row], rows[row])
    split = counts > 1
    parts = torch.cat([torch.zeros(1, dtype=torch.long), torch.where(split, counts, 0).cumsum(0)])
    slot = torch.where(split[row], parts[:-1][row] + first, -1)
    items = torch.stack([row, start, stop, slot], 1)
    items = items[(stop - start).argsort(descending=True, stable=True)]
    spare = torch.full((len(rows) + pieces - len(items), 4), -1, dtype=torch.long)
    return torch.cat([items, spare]).to(torch.int32), parts.to(torch.int32)


def merge(plan: Plan, part_out: torch.Tensor, part_lse: torch.Tensor, out: torch.Tensor, lse: torch.Tensor) -> None:
    """Merge the partial states of all rows that were cut, into out [R * G, D] and lse [R * G]."""
    group, dim = part_out.shape[1:]
    rows = len(plan.parts) - 1
    _merge[(rows, group)](plan.parts, part_out, part_lse, out, lse, GROUP=group, DIM=dim, BLOCK=32, num_warps=4)


@triton.jit
def _merge(parts, part_out, part_lse, out, lse, GROUP: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr):
    """One program: merge the states of one query head, BLOCK at a time."""
    row, member = tl.program_id(0), tl.program_id(1)
    begin, end = tl.load(parts + row), tl.load(parts + row + 1)
    if begin < end:
        dims = tl.arange(0, DIM)
        top = float("-inf")
        total = 0.0
        mean = tl.zeros([DIM], tl.float32)
        for first in range(begin, end, BLOCK):
            slots = first + tl.arange(0, BLOCK)
            live = slots < end
            place = slots * GROUP + member
            logs = tl.load(part_lse + place, mask=live, other=float("-inf"))
            states = tl.load(part_out + place[:, None] * DIM + dims[None, :], mask=live[:, None], other=0.0)
            new_top = tl.maximum(top, tl.max(logs, 0))
            weights = tl.exp(logs - new_top)
            fade = tl.exp(top - new_top)
            total = total * fade + tl.sum(weights, 0)
            mean = mean * fade + tl.sum(weights[:, None] * states, 0)
            top = new_top
        head = row * GROUP + member
        tl.store(lse + head, top + tl.log(total))
        tl.store(out + head * DIM + dims, (mean / total).to(out.dtype.element_ty))
