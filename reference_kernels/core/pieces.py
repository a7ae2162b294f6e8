"""Cutting ragged work into equal pieces, and merging what the pieces leave: the plan/run split of decode attention.

A row is one key head of one request. One program reads one piece of one row and leaves a state (out, lse) in fp32
(core/lse.py); rows that were not cut are written directly. The plan is made on the host once per step and used by every
layer; its buffers keep their addresses and sizes, so that a captured CUDA graph may be replayed after `Plan.refill`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from reference_kernels.core.device import multiprocessors
from reference_kernels.core.lse import LN_2

WAVES = 4  # of programs, at most


@dataclass(frozen=True)
class Tuning:
    """How a decode kernel is laid out on the chip."""

    block: int  # tokens per tile
    warps: int = 4
    stages: int = 3  # tiles in flight; an indirect page lookup costs one
    pieces: int = 2  # programs that a multiprocessor runs at once; the plan cuts the work into as many equal pieces


@dataclass
class Plan:
    """Which program reads which tokens. All tensors are int32 on the device, of fixed size.

    `items` [capacity, 4]: row, first token, end, slot of the partial state (-1: the row is whole, write the result). A
    spare item has row -1. `parts` [R + 1]: the partial states of row r lie in slots parts[r] … parts[r + 1].
    """

    items: torch.Tensor
    parts: torch.Tensor
    tuning: Tuning
    pieces: int  # programs at a time

    def refill(self, rows: torch.Tensor) -> None:
        """Plan for other lengths [R] of as many rows, in the same buffers.

        Raises:
            ValueError: another number of rows, or more pieces than the plan has room for.
        """
        items, parts = cut(rows.flatten().cpu(), self.tuning.block, self.pieces)
        if parts.shape != self.parts.shape:
            raise ValueError(f"the plan is for {len(self.parts) - 1} rows, not {len(parts) - 1}")
        self.items.copy_(_padded(items, len(self.items)))
        self.parts.copy_(parts)

    def states(self, rows: int, group: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Allocate the partial states: out [capacity, G, D] and lse [capacity, G], fp32.

        Raises:
            ValueError: the plan is not for `rows` rows.
        """
        if len(self.parts) - 1 != rows:
            raise ValueError(f"the plan is for {len(self.parts) - 1} rows, not for {rows}")
        shape = (len(self.items), group)
        device = self.items.device
        return torch.empty(*shape, dim, dtype=torch.float32, device=device), torch.empty(shape, device=device)


def plan_rows(rows: torch.Tensor, tuning: Tuning, device: torch.device, capacity: int | None = None) -> Plan:
    """Cut rows of `rows` [R] tokens; best on the CPU, since reading them back waits for the GPU.

    A plan that will be refilled needs room: `capacity` pieces, R + WAVES * tuning.pieces * multiprocessors at most.
    """
    pieces = tuning.pieces * multiprocessors(device)
    items, parts = cut(rows.flatten().cpu(), tuning.block, pieces)
    return Plan(_padded(items, capacity or len(items)).to(device), parts.to(device), tuning, pieces)


def _padded(items: torch.Tensor, capacity: int) -> torch.Tensor:
    if len(items) > capacity:
        raise ValueError(f"the work falls into {len(items)} pieces, the plan has room for {capacity}")
    return torch.cat([items, items.new_full((capacity - len(items), 4), -1)])


def cut(rows: torch.Tensor, block: int, pieces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut rows of `rows` [R] tokens into pieces of whole tiles, the longest first; `pieces` programs run at a time.

    Returns:
        items and parts, as in `Plan`, on the CPU.
    """
    rows = rows.long()
    counts = -(-rows // _piece(rows, block, pieces))
    counts = counts.clamp(min=1)  # an empty row still needs its zeros written
    even = (rows + counts * block - 1) // (counts * block) * block  # tokens per piece of each row
    row = torch.arange(len(rows)).repeat_interleave(counts)
    first = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]  # number of the piece within its row
    start = first * even[row]
    stop = torch.minimum(start + even[row], rows[row])
    split = counts > 1
    parts = torch.cat([torch.zeros(1, dtype=torch.long), torch.where(split, counts, 0).cumsum(0)])
    slot = torch.where(split[row], parts[:-1][row] + first, -1)
    items = torch.stack([row, start, stop, slot], 1)
    items = items[(stop - start).argsort(descending=True, stable=True)]
    return items.to(torch.int32), parts.to(torch.int32)


def _piece(rows: torch.Tensor, block: int, slots: int) -> int:
    """Return the size of pieces, in whole tiles, with which `slots` programs at a time are done first.

    For one wave of programs, two, ... the smallest size that does not need more; each piece costs two tiles to begin.
    """
    best, least = block, math.inf
    for waves in range(1, WAVES + 1):
        low, high = 1, max(-(-int(rows.max()) // block), 1)  # in tiles
        while low < high:
            middle = (low + high) // 2
            if int((-(-rows // (middle * block))).sum()) <= waves * slots:
                high = middle
            else:
                low = middle + 1
        needed = -(-int((-(-rows // (low * block))).sum()) // slots)  # waves; more than allowed with too many rows
        if needed * (low + 2) < least:
            best, least = low * block, needed * (low + 2)
    return best


def merge(plan: Plan, part_out: torch.Tensor, part_lse: torch.Tensor, out: torch.Tensor, lse: torch.Tensor) -> None:
    """Merge the partial states of all rows that were cut, into out [R * G, D] and lse [R * G]."""
    group, dim = part_out.shape[1:]
    rows = len(plan.parts) - 1
    early = can_launch_early(out.device)
    block, warps = merge_tile(-(-len(plan.items) // max(rows, 1)), dim)
    _merge[(rows, group)](
        plan.parts, part_out, part_lse, out, lse, GROUP=group, DIM=dim, BLOCK=block, EARLY=early, num_warps=warps,
        launch_pdl=early,
    )  # fmt: skip


def merge_tile(states: int, dim: int) -> tuple[int, int]:
    """Return how many states a program that merges about `states` of D numbers should read at once, and its warps.

    The merge is a few microseconds of latency: all states are asked for at once, and few of them need no second warp.
    """
    block = min(max(triton.next_power_of_2(states), 8), 64)
    return block, min(max(block * dim // 2048, 1), 8)


def can_launch_early(device: torch.device) -> bool:
    """Whether a kernel may be launched before the one that it depends on has ended (Hopper and later).

    The first kernel says `gdc_launch_dependents()`, the second waits for its end by `gdc_wait()`: the launch is hidden.
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


@triton.jit
def _merge(
    parts, part_out, part_lse, out, lse,
    GROUP: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: merge the states of one query head, BLOCK at a time."""
    row, member = tl.program_id(0), tl.program_id(1)
    begin, end = tl.load(parts + row), tl.load(parts + row + 1)
    if EARLY:
        gdc_wait()
    if begin < end:
        top = float("-inf")
        total = 0.0
        mean = tl.zeros([DIM], tl.float32)
        for first in range(begin, end, BLOCK):
            slots = first + tl.arange(0, BLOCK)
            place = slots * GROUP + member
            top, total, mean = join_states(place, slots < end, part_out, part_lse, top, total, mean, DIM)
        store_joined(row * GROUP + member, top, total, mean, out, lse, DIM)


@triton.jit
def join_states(place, live, part_out, part_lse, top, total, mean, DIM: tl.constexpr):  # noqa: ANN201
    """Join the partial states at `place` [N], where `live`, to a running one; any of them may be that of no keys."""
    dims = tl.arange(0, DIM)
    logs = tl.load(part_lse + place, mask=live, other=float("-inf"))
    states = tl.load(part_out + place[:, None] * DIM + dims[None, :], mask=live[:, None], other=0.0)
    new_top = tl.maximum(top, tl.max(logs, 0))
    finite = tl.where(new_top == float("-inf"), 0.0, new_top)
    weights = tl.exp(logs - finite)
    fade = tl.exp(top - finite)
    return new_top, total * fade + tl.sum(weights, 0), mean * fade + tl.sum(weights[:, None] * states, 0)


@triton.jit
def store_joined(head, top, total, mean, out, lse, DIM: tl.constexpr):  # noqa: ANN201
    """Write what was joined as the result of a query head."""
    tl.store(lse + head, top + tl.log(total))
    mean = mean / tl.where(total > 0, total, 1.0)
    tl.store(out + head * DIM + tl.arange(0, DIM), mean.to(out.dtype.element_ty))


@triton.jit
def take_piece(items, EARLY: tl.constexpr):  # noqa: ANN201
    """Return this program's row (-1: there is nothing to do), first token, end and slot; let the merge be launched."""
    if EARLY:
        gdc_launch_dependents()
    item = items + tl.program_id(0) * 4
    return tl.load(item), tl.load(item + 1), tl.load(item + 2), tl.load(item + 3)


@triton.jit
def store_lse(row, slot, member, top, total, lse, part_lse, GROUP: tl.constexpr):  # noqa: ANN201
    """Write the LSE of `member` [N] of a row's G heads; top and total are of powers of two."""
    logsum = (top + tl.log2(total)) * LN_2
    if slot < 0:
        tl.store(lse + row * GROUP + member, logsum, mask=member < GROUP)
    else:
        tl.store(part_lse + slot * GROUP + member, logsum, mask=member < GROUP)


@triton.jit
def store_mean(row, slot, place, mean, mask, out, part_out, GROUP: tl.constexpr, DIM: tl.constexpr):  # noqa: ANN201
    """Write values of a row's state [G, D] at `place`: into the result if the row is whole, else into its slot."""
    if slot < 0:
        tl.store(out + row * GROUP * DIM + place, mean.to(out.dtype.element_ty), mask=mask)
    else:
        tl.store(part_out + slot * GROUP * DIM + place, mean, mask=mask)
