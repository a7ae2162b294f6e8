"""Trace-driven scheduling by shared prefixes: what a policy makes of a trace, on a model of several replicas.

Computes
--------
Requests of a trace go to one of several replicas and wait there; each replica runs continuous batching over one pool of
blocks, which the running requests share with a cache of prefixes (radix_tree.py). For every request: the leading blocks
of its prompt that were in the pool when it was admitted, and the times of admission, first and last token. From these
follow hit rate, time to first token (TTFT), time per output token (TPOT), throughput, and goodput, the requests per
second that meet an objective for both times (report.py). Policies (policies.py):
    within a replica: first come first served, or longest cached prefix first (SGLang);
    between replicas: in turn, to the least loaded, or to exploit a cached prefix that is longer than the rest of the
    prompt and else to explore by the lowest cost, eviction included (Preble).
The rules of a replica (replica.py): a step holds one token of every decoding request and fills up to a fixed number of
tokens with prompts, in the order of admission. A request is admitted when the pool has room for what it misses and
for its whole answer, after evicting what was used least recently; nobody overtakes the one that the order names. Its
blocks count as cached for everybody who is admitted after it, since prefill goes in that order, and are locked until
it finishes.

Layout
------
A trace is Mooncake's JSONL (trace.py): arrival in ms, lengths in tokens, one id per block of 512 tokens; equal ids
stand for equal prompts up to there. In this unit: arrivals [R], input_tokens [R], output_tokens [R] and blocks [N],
the ids of all requests behind one another, all int64. Everything runs on the host, in plain Python.

Cost
----
Steps that only decode are leapt over in closed form, so that a request costs a handful of events: O(log) each plus its
blocks. 12,031 requests with 288,500 blocks on 4 replicas take about a second on one core.
The seconds inside of the simulation come from a roofline of stated numbers (cost.py: by default an 8B model on an
H100 of 3.0 TB/s and 400 TFLOP/s). They are a model and not a measurement; hit rates depend on them only through who
is served when.

Published
---------
Preble reports 1.5-14.5x lower mean and 2-10x lower p99 latency than the serving systems of its time (its abstract,
ICLR 2025), measured on GPUs. For the traces published with Mooncake, a cache that never evicts hits 0.366
(conversation) and 0.640 (synthetic) of the prompts' blocks; this simulation reproduces both with one replica and
unlimited memory.

Differs
-------
Preble's rebalancing after the assignment, its replication of hot prefixes and its priority groups within a replica are
left out, and its decoding load, a measured time per token, is here the reading of the request's own keys and values.
Where few prompts have a match worth exploiting, what remains evens out the work of three minutes and not the queues of
the moment: on the conversation trace with 4 replicas of 834 blocks, 4 % of the requests are exploited, and the
plain least-loaded rule has the lower mean TTFT (2.3 s against 3.4 s); on the synthetic trace it is 19.0 s against 5.0
s. Longest prefix first compares the 128 oldest waiting requests and can starve one without a prefix, as in SGLang.
The length of an answer is known at admission, so that nothing is preempted; answers are not reused, except where a
later prompt of the trace contains them. A prompt that is cached as a whole still computes its last token.

:leaf: kvs
:papers: preble, sglang
"""

from __future__ import annotations

from typing import Any

import torch

from reference_kernels.core.unit import Inputs, Outputs, Unit, Work
from reference_kernels.kvs.serving.engine import Result, simulate
from reference_kernels.kvs.serving.replica import Limits
from reference_kernels.kvs.serving.trace import Request, generate_trace

UNLIMITED = 10**9  # blocks


def infinite_cache_run(
    arrivals: torch.Tensor,
    input_tokens: torch.Tensor,
    output_tokens: torch.Tensor,
    blocks: torch.Tensor,
    *,
    block: int,
    replicas: int,
) -> Outputs:
    """Serve a trace in turn and first come first served, on replicas that never evict.

    Args:
        arrivals: [R] int64, ms.
        input_tokens: [R] int64.
        output_tokens: [R] int64.
        blocks: [N] int64, the prompts' block ids behind one another.
        block: tokens per block.
        replicas: how many.

    Returns:
        replica, hit_blocks and cached_tokens [R] and cached_blocks [replicas], the blocks in each cache at the end;
        int64.
    """
    counts = (-(-input_tokens // block)).tolist()
    requests = [
        Request(arrival / 1000, inputs, outputs, tuple(ids.tolist()))
        for arrival, inputs, outputs, ids in zip(
            arrivals.tolist(), input_tokens.tolist(), output_tokens.tolist(), blocks.split(counts), strict=True
        )
    ]
    result: Result = simulate(requests, replicas=replicas, limits=Limits(UNLIMITED, block))
    return {
        "replica": torch.tensor([job.replica for job in result.jobs]),
        "hit_blocks": torch.tensor([job.hit_blocks for job in result.jobs]),
        "cached_tokens": torch.tensor([job.cached_tokens for job in result.jobs]),
        "cached_blocks": torch.tensor([replica.tree.used for replica in result.replicas]),
    }


def reference(
    arrivals: torch.Tensor, input_tokens: torch.Tensor, output_tokens: torch.Tensor, blocks: torch.Tensor,
    block: int, replicas: int,
) -> Outputs:  # fmt: skip
    """Compare each prompt with all before it on the same replica: no queue, no time and no tree."""
    prompts = blocks.split((-(-input_tokens // block)).tolist())
    hits = []
    for i, prompt in enumerate(prompts):
        common = 0
        for other in prompts[i % replicas : i : replicas]:
            shortest = min(len(prompt), len(other))
            equal = (prompt[:shortest] == other[:shortest]).long()
            common = max(common, int(equal.cumprod(0).sum()))
        hits.append(common)
    hit_blocks = torch.tensor(hits)
    distinct = [torch.cat([prompts[0][:0], *prompts[k::replicas]]).unique().numel() for k in range(replicas)]
    return {
        "replica": torch.arange(len(prompts)) % replicas,
        "hit_blocks": hit_blocks,
        "cached_tokens": torch.minimum(hit_blocks * block, input_tokens - 1),
        "cached_blocks": torch.tensor(distinct),
    }


def make_inputs(
    *, device: torch.device, dtype: torch.dtype, seed: int, replicas: int, block: int = 512, **trace: Any
) -> Inputs:
    """Generate a trace; what `trace` holds goes to `generate_trace`. Everything stays on the host."""
    requests = generate_trace(seed=seed, block=block, **trace)
    return {
        "arrivals": torch.tensor([round(request.arrival * 1000) for request in requests]),
        "input_tokens": torch.tensor([request.input_tokens for request in requests]),
        "output_tokens": torch.tensor([request.output_tokens for request in requests]),
        "blocks": torch.tensor([one for request in requests for one in request.blocks]),
        "block": block,
        "replicas": replicas,
    }


def work(*, input_tokens: torch.Tensor, blocks: torch.Tensor, **_: Any) -> Work:
    """The trace read once, three results per request written."""
    return Work(read=8 * (3 * input_tokens.numel() + blocks.numel()), written=8 * 3 * input_tokens.numel())


UNIT = Unit(
    kernel=infinite_cache_run,
    reference=reference,
    make_inputs=make_inputs,
    work=work,
    shapes={
        "one replica": {"replicas": 1, "conversations": 30},
        "three replicas, queues": {"replicas": 3, "conversations": 40, "rate": 50.0, "think": 0.5},
        "short blocks": {"replicas": 2, "conversations": 20, "block": 64, "prompts": 2},
        "blocks longer than most prompts": {"replicas": 2, "conversations": 20, "block": 4096, "prompt_tokens": 0},
        "more replicas than requests": {"replicas": 5, "conversations": 1, "turns": 1.0},
    },
    dtypes=(torch.float32,),
    output="hit_blocks",
)
