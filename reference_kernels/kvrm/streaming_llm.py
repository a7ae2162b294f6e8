"""StreamingLLM: the first tokens of a stream, which all heads use as attention sinks, and its most recent ones.

Computes
--------
Of T tokens keep {0, …, sinks - 1} and {T - (budget - sinks), …, T - 1}; all of them while T <= budget. There is no
score: the rule needs neither keys nor queries and keeps the same tokens in every head.

Layout
------
lengths [B] int32. Returns kept [B, Hkv, M] int32, ascending, -1 after the last, with M = budget, and counts [B, Hkv]
int32.

Cost
----
Writes 4 B Hkv (budget + 1) bytes; a launch costs more. The saving is in what follows: compaction moves at most `budget`
tokens per head, and the cache stays at that size for ever. In a stream one token leaves per token that comes, always
the one in slot `sinks`, so that a ring buffer behind the sinks needs no copying at all.

Published
---------
Up to 22.2x faster than a sliding window with recomputation, over streams of 4 million tokens and more (its abstract,
which states no saving of memory).

Differs
-------
The paper numbers positions within the cache: keys are cached before rotation and rotated by their slot. This unit says
which tokens stay; how positions are counted is up to the attention that reads them.

:leaf: kvrm/eviction
:papers: streamingllm
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from reference_kernels.core.checks import check_integers, check_shape
from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvrm.budget import check_budget

BLOCK = 1024  # slots per program


def streaming_llm(lengths: torch.Tensor, heads: int, budget: int, *, sinks: int = 4) -> Outputs:
    """Keep the first `sinks` and the most recent tokens, `budget` in all.

    Args:
        lengths: [B] int32, not negative.
        heads: Hkv.
        budget: kept tokens per head.
        sinks: first tokens that are always kept, at most the budget.

    Raises:
        ValueError, TypeError: the budget cannot hold the sinks, there are no heads, or lengths have another form.
    """
    check_shape("lengths", lengths, None)
    check_integers(lengths.device, lengths=lengths)
    check_budget(budget, sinks)
    if heads < 1:
        raise ValueError(f"there must be at least one head, not {heads}")
    kept = torch.empty(len(lengths), heads, budget, dtype=torch.int32, device=lengths.device)
    counts = torch.empty(len(lengths), heads, dtype=torch.int32, device=lengths.device)
    _keep[(triton.cdiv(budget, BLOCK), heads, len(lengths))](lengths, kept, counts, budget, sinks, BLOCK=BLOCK)
    return {"kept": kept, "counts": counts}


@triton.jit
def _keep(lengths, kept, counts, budget, sinks, BLOCK: tl.constexpr):
    """One program: BLOCK slots of one head."""
    head = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    length = tl.load(lengths + tl.program_id(2))
    count = tl.minimum(length, budget)
    token = slot + tl.where(slot < sinks, 0, length - count)  # behind the sinks, skip what is dropped
    tl.store(kept + head.to(tl.int64) * budget + slot, tl.where(slot < count, token, -1), mask=slot < budget)
    if tl.program_id(0) == 0:
        tl.store(counts + head, count)


def reference(lengths: torch.Tensor, heads: int, budget: int, *, sinks: int = 4) -> Outputs:
    """The rule, one request at a time."""
    kept = torch.full((len(lengths), heads, budget), -1, dtype=torch.int32, device=lengths.device)
    for i, length in enumerate(lengths.tolist()):
        tokens = range(length)
        stay = list(tokens) if length <= budget else [*tokens[:sinks], *tokens[length - (budget - sinks) :]]
        kept[i, :, : len(stay)] = torch.tensor(stay, dtype=torch.int32)
    return {"kept": kept, "counts": (kept >= 0).sum(-1, dtype=torch.int32)}


def eager(inputs: Inputs) -> Callable[[], torch.Tensor]:
    """A peer: the rule in PyTorch operations."""
    lengths, heads, budget = inputs["lengths"], inputs["heads"], inputs["budget"]
    sinks = inputs.get("sinks", 4)

    def call() -> torch.Tensor:
        slots = torch.arange(budget, dtype=torch.int32, device=lengths.device)
        counts = lengths.clamp(max=budget)[:, None]
        tokens = torch.where(slots < sinks, slots, slots + (lengths[:, None] - counts))
        return torch.where(slots < counts, tokens, -1)[:, None].expand(-1, heads, -1).contiguous()

    return call


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, lengths: Sequence[int], heads: int, budget: int,
    sinks: int = 4,
) -> Inputs:  # fmt: skip
    """Nothing is drawn: the rule depends on lengths alone."""
    del dtype, seed
    sizes = torch.tensor(lengths, dtype=torch.int32, device=device)
    return {"lengths": sizes, "heads": heads, "budget": budget, "sinks": sinks}


def work(*, lengths: torch.Tensor, heads: int, budget: int, **_: Any) -> Work:
    """Lengths once, kept indices and counts once."""
    return Work(read=4 * len(lengths), written=4 * len(lengths) * heads * (budget + 1))


UNIT = Unit(
    kernel=streaming_llm,
    reference=reference,
    make_inputs=make_inputs,
    work=work,
    shapes={
        "odd lengths": {"lengths": [0, 1, 15, 16, 17, 1023], "heads": 2, "budget": 16},
        "sinks alone": {"lengths": [3, 4, 100], "heads": 1, "budget": 4},
        "a window without sinks": {"lengths": [33], "heads": 3, "budget": 7, "sinks": 0},
        "more slots than one program": {"lengths": [5000, 1200], "heads": 1, "budget": 1100},
    },
    benchmarks={
        "B=1 x 128k": {"lengths": [131072], "heads": 8, "budget": 2048},
        "B=8 x 32k": {"lengths": [32768] * 8, "heads": 8, "budget": 2048},
    },
    peers={"PyTorch, eager": eager},
    output="kept",
    dtypes=(torch.float32,),  # there are no numbers
)
