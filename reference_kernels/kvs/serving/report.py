"""What an operator asks of a run: hit rates, latencies, throughput, and goodput under two objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reference_kernels.kvs.serving.cost import CostModel
from reference_kernels.kvs.serving.engine import Result, simulate
from reference_kernels.kvs.serving.replica import Job, Limits
from reference_kernels.kvs.serving.trace import BLOCK, Request, infinite_cache_hits


@dataclass(frozen=True)
class Objectives:
    """What a request must get to count as good."""

    ttft: float = 5.0  # seconds from arrival to the first token
    tpot: float = 0.1  # seconds per further token, on average over the request

    def __post_init__(self) -> None:
        if not (self.ttft > 0 and self.tpot > 0):
            raise ValueError("objectives must be positive")


def ttft(job: Job) -> float:
    """Return the time to the first token."""
    return job.first_token - job.request.arrival


def tpot(job: Job) -> float:
    """Return the time per output token after the first; 0 where there is none."""
    return (job.finished - job.first_token) / max(job.request.output_tokens - 1, 1)


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile, linear between the two nearest values; NaN of nothing."""
    if not values:
        return float("nan")
    ordered, place = sorted(values), share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summarize(result: Result, objectives: Objectives) -> dict[str, float]:
    """Return the figures of a run. Rates are per second between the first arrival and the last token."""
    jobs, replicas = result.jobs, result.replicas
    blocks = sum(len(job.request.blocks) for job in jobs)
    inputs, outputs = (sum(getattr(job.request, f"{kind}_tokens") for job in jobs) for kind in ("input", "output"))
    seconds = max(job.finished for job in jobs) - jobs[0].request.arrival
    first = [ttft(job) for job in jobs]
    further = [tpot(job) for job in jobs if job.request.output_tokens > 1]
    good = sum(ttft(job) <= objectives.ttft and tpot(job) <= objectives.tpot for job in jobs)
    busy = [replica.busy for replica in replicas]
    return {
        "hit_rate_blocks": sum(job.hit_blocks for job in jobs) / blocks,
        "hit_rate_blocks_infinite": sum(infinite_cache_hits(job.request for job in jobs)) / blocks,
        "hit_rate_tokens": sum(job.cached_tokens for job in jobs) / inputs,
        "ttft_mean": sum(first) / len(first),
        "ttft_p50": quantile(first, 0.5),
        "ttft_p99": quantile(first, 0.99),
        "tpot_mean": sum(further) / len(further) if further else float("nan"),
        "tpot_p50": quantile(further, 0.5),
        "tpot_p99": quantile(further, 0.99),
        "requests_per_second": len(jobs) / seconds,
        "output_tokens_per_second": outputs / seconds,
        "goodput": good / seconds,
        "good_share": good / len(jobs),
        "seconds": seconds,
        "busy_share": sum(busy) / len(busy) / seconds,
        "imbalance": max(busy) * len(busy) / sum(busy),
        "peak_blocks": max(replica.peak for replica in replicas),
        "evicted_blocks": sum(replica.evicted for replica in replicas),
    }


MEANINGS = {
    "hit_rate_blocks": "prompt blocks found cached",
    "hit_rate_blocks_infinite": "… by one cache that never evicts",
    "hit_rate_tokens": "prompt tokens not prefilled",
    "ttft_mean": "time to first token, mean (s)",
    "ttft_p50": "… median (s)",
    "ttft_p99": "… 99th percentile (s)",
    "tpot_mean": "time per output token, mean (s)",
    "tpot_p50": "… median (s)",
    "tpot_p99": "… 99th percentile (s)",
    "requests_per_second": "requests per second",
    "output_tokens_per_second": "output tokens per second",
    "goodput": "goodput: good requests per second",
    "good_share": "… share within both objectives",
    "seconds": "simulated time (s)",
    "busy_share": "replicas busy, share of the time",
    "imbalance": "busiest replica over the mean",
    "peak_blocks": "most blocks used on a replica",
    "evicted_blocks": "blocks evicted",
}


def report(
    requests: Sequence[Request],
    policies: Sequence[str],
    *,
    replicas: int = 4,
    order: str = "fcfs",
    capacity_tokens: int | None = None,
    block: int = BLOCK,
    speed: float = 1.0,
    cost: CostModel | None = None,
    objectives: Objectives | None = None,
) -> dict[str, dict[str, float]]:
    """Simulate a trace once per routing policy.

    Args:
        requests: the trace.
        policies: keys of `ROUTERS`.
        replicas: how many.
        order: a key of `ORDERS`.
        capacity_tokens: of KV per replica; what the cost model leaves beside the weights if left out.
        block: tokens per block of the trace.
        speed: arrivals come this many times as fast as in the trace.
        cost: what a step takes.
        objectives: what counts as good.

    Returns:
        policy -> figures, whose names `MEANINGS` explains.

    Raises:
        ValueError: an argument is out of range, or the trace does not fit.
    """
    if not speed > 0:
        raise ValueError(f"the speed must be positive, not {speed}")
    cost = cost or CostModel()
    tokens = cost.capacity_tokens if capacity_tokens is None else capacity_tokens
    if tokens < block:
        raise ValueError(f"a replica must hold at least one block of {block} tokens, not {tokens} tokens")
    limits = Limits(tokens // block, block)
    faster = [Request(r.arrival / speed, r.input_tokens, r.output_tokens, r.blocks) for r in requests]
    return {
        policy: summarize(
            simulate(faster, replicas=replicas, routing=policy, order=order, cost=cost, limits=limits),
            objectives or Objectives(),
        )
        for policy in policies
    }
