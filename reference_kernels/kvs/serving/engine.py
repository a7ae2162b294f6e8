"""The event loop: requests arrive, replicas end their steps, and time never goes back."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from reference_kernels.kvs.serving.cost import CostModel
from reference_kernels.kvs.serving.policies import ORDERS, ROUTERS
from reference_kernels.kvs.serving.replica import Job, Limits, Replica
from reference_kernels.kvs.serving.trace import BLOCK, Request


@dataclass(frozen=True)
class Result:
    """What became of a trace: one job per request, in the order of the trace, and the replicas at the end."""

    jobs: list[Job]
    replicas: list[Replica]


def simulate(
    requests: Sequence[Request],
    *,
    replicas: int = 1,
    routing: str = "round-robin",
    order: str = "fcfs",
    cost: CostModel | None = None,
    limits: Limits | None = None,
) -> Result:
    """Serve a trace.

    Args:
        requests: in the order of their arrival.
        replicas: how many equal ones.
        routing: which replica a request goes to, a key of `ROUTERS`.
        order: who is next within a replica, a key of `ORDERS`.
        cost: what a step takes; an 8B model on an H100 if left out.
        limits: of a replica; blocks of 512 tokens and the capacity that the cost model leaves if left out.

    Raises:
        ValueError: a policy is unknown, requests are out of order, or one does not fit into a replica.
    """
    cost = cost or CostModel()
    limits = limits or Limits(cost.capacity_tokens // BLOCK, BLOCK)
    _check(requests, replicas, routing, order, limits)
    router = ROUTERS[routing](replicas, limits.capacity, limits.block, cost)
    servers = [Replica(limits, cost, ORDERS[order]) for _ in range(replicas)]
    jobs: list[Job] = []
    ends: list[tuple[float, int]] = []  # ends of steps; those that no longer hold are skipped
    while len(jobs) < len(requests) or ends:
        # Who arrives at the very moment at which a step ends takes part in the next one.
        if len(jobs) < len(requests) and (not ends or requests[len(jobs)].arrival <= ends[0][0]):
            request = requests[len(jobs)]
            number = router.route(request, request.arrival)
            jobs.append(Job(request, number))
            before = servers[number].until
            servers[number].submit(jobs[-1], request.arrival)
            if servers[number].until != before:
                heapq.heappush(ends, (servers[number].until, number))
            continue
        now, number = heapq.heappop(ends)
        server = servers[number]
        if now != server.until:
            continue
        for job in server.advance():
            router.finished(job.request, number)
        if server.until < math.inf:
            heapq.heappush(ends, (server.until, number))
    if not all(job.finished < math.inf for job in jobs):
        raise RuntimeError("a request never finished: the simulation is wrong")
    return Result(jobs, servers)


def _check(requests: Sequence[Request], replicas: int, routing: str, order: str, limits: Limits) -> None:
    if replicas < 1:
        raise ValueError(f"there must be at least one replica, not {replicas}")
    if routing not in ROUTERS:
        raise ValueError(f"routing {routing!r} is unknown; there are {', '.join(ROUTERS)}")
    if order not in ORDERS:
        raise ValueError(f"order {order!r} is unknown; there are {', '.join(ORDERS)}")
    before = 0.0
    for number, request in enumerate(requests):
        if not before <= request.arrival < math.inf:
            raise ValueError(f"request {number} arrives at {request.arrival} s, behind one at {before} s")
        before = request.arrival
        if len(request.blocks) != -(-request.input_tokens // limits.block):
            raise ValueError(f"request {number} has {len(request.blocks)} blocks for {request.input_tokens} tokens")
        if limits.blocks(request) > limits.capacity:
            raise ValueError(
                f"request {number} needs {limits.blocks(request)} blocks of {limits.block} tokens, "
                f"a replica holds {limits.capacity}"
            )
