"""Who is next within a replica, and which replica a request goes to."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import count, cycle, islice
from typing import Protocol

from reference_kernels.kvs.radix_tree import RadixTree
from reference_kernels.kvs.serving.cost import CostModel
from reference_kernels.kvs.serving.trace import Request

LOOK_AHEAD = 128  # waiting requests that longest_prefix compares, the oldest; each costs a walk through the tree
WINDOW = 180.0  # seconds of history that a load counts

Order = Callable[[Iterable[Request], RadixTree], int]  # waiting requests, oldest first -> place of the next one


def first_come(waiting: Iterable[Request], tree: RadixTree) -> int:
    """Take the request that waits longest."""
    return 0


def longest_prefix(waiting: Iterable[Request], tree: RadixTree) -> int:
    """Take the request with the longest cached prefix, among equals the one that waits longest (SGLang)."""
    lengths = [tree.peek(request.blocks) for request in islice(waiting, LOOK_AHEAD)]
    return lengths.index(max(lengths))


class Router(Protocol):
    """Assigns requests to replicas. It sees what it assigned and what finished, not the inside of the replicas."""

    def __init__(self, replicas: int, capacity: int, block: int, cost: CostModel) -> None: ...

    def route(self, request: Request, now: float) -> int:
        """Return the replica for a request that arrives now."""

    def finished(self, request: Request, replica: int) -> None:
        """Learn that a request has got its last token."""


class RoundRobin:
    """One replica after the other."""

    def __init__(self, replicas: int, capacity: int, block: int, cost: CostModel) -> None:
        self.turns = cycle(range(replicas))

    def route(self, request: Request, now: float) -> int:
        """Return the next replica in turn."""
        return next(self.turns)

    def finished(self, request: Request, replica: int) -> None:
        """Nothing to learn."""


class LeastLoaded:
    """The replica whose unfinished requests have the fewest prompt tokens; the first among equals."""

    def __init__(self, replicas: int, capacity: int, block: int, cost: CostModel) -> None:
        self.load = [0] * replicas

    def route(self, request: Request, now: float) -> int:
        """Return the least loaded replica."""
        replica = self.load.index(min(self.load))
        self.load[replica] += request.input_tokens
        return replica

    def finished(self, request: Request, replica: int) -> None:
        """Take its tokens off the load."""
        self.load[replica] -= request.input_tokens


class ExploitExplore:
    """Preble's rule: exploit a cached prefix where it is longer than the rest of the prompt, else explore.

    To exploit is to take the replica with the longest match, among equals the one with the lowest cost. To explore is
    to take the replica i with the lowest cost in seconds of GPU time,
        cost_i = L_i + P_i + M_i
        L_i: of the requests sent to i within the window, what they missed to prefill and their share of the decoding;
        P_i: to prefill what the request misses on i;
        M_i: to prefill again, as often as they were hit within the window, the blocks that it would push out of i.
    The router keeps a tree of its own for each replica, with the prompts that it sent there and LRU at the replica's
    capacity, as if a prompt were cached from the moment that it is assigned: it need not ask the replicas, and requests
    that are still waiting attract others with the same prefix.
    """

    def __init__(self, replicas: int, capacity: int, block: int, cost: CostModel) -> None:
        self.capacity, self.block, self.cost = capacity, block, cost
        self.trees = [RadixTree() for _ in range(replicas)]
        self.slots = count()  # the trees only count: every page gets a new number
        self.sent: list[deque[tuple[float, int, tuple[int, ...]]]] = [deque() for _ in range(replicas)]
        self.load = [0] * replicas  # in whole nanoseconds: what leaves the window leaves no rounding behind
        self.hits: list[Counter[int]] = [Counter() for _ in range(replicas)]
        self.answers, self.answer_tokens = 0, 0  # finished requests and the tokens of their answers

    def route(self, request: Request, now: float) -> int:
        """Return the replica to exploit or explore."""
        for replica in range(len(self.trees)):
            self._forget(replica, now)
        cached = [tree.peek(request.blocks) for tree in self.trees]
        matched = min(max(cached) * self.block, request.input_tokens)
        if matched > request.input_tokens - matched:
            candidates = [i for i, blocks in enumerate(cached) if blocks == max(cached)]
        else:
            candidates = list(range(len(cached)))
        replica = min(candidates, key=lambda i: self._seconds(request, i, cached[i]))
        self._assign(request, now, replica, cached[replica])
        return replica

    def finished(self, request: Request, replica: int) -> None:
        """Learn how long answers are."""
        self.answers += 1
        self.answer_tokens += request.output_tokens

    def _seconds(self, request: Request, replica: int, cached: int) -> float:
        return self.load[replica] / 1e9 + self._new(request, cached) + self._lost(request, replica, cached)

    def _new(self, request: Request, cached: int) -> float:
        before = min(cached * self.block, request.input_tokens)
        return self.cost.prefill_seconds(request.input_tokens - before, before)

    def _lost(self, request: Request, replica: int, cached: int) -> float:
        tree, hits = self.trees[replica], self.hits[replica]
        excess = tree.used + len(request.blocks) - cached - self.capacity
        if excess <= 0:
            return 0.0
        match = tree.match(request.blocks, touch=False)
        tree.lock(match)
        lost = tree.victims(excess)
        tree.unlock(match)
        return sum(
            hits[one] * self.cost.prefill_seconds(self.block, (node.end - size + i) * self.block)
            for node, size in lost
            for i, one in enumerate(node.run[-size:])
            if one in hits
        )

    def _assign(self, request: Request, now: float, replica: int, cached: int) -> None:
        tree = self.trees[replica]
        match = tree.match(request.blocks)
        tree.lock(match)
        tree.evict(max(tree.used + len(request.blocks) - cached - self.capacity, 0))
        tree.unlock(match)
        tree.insert(request.blocks, [*match.slots, *islice(self.slots, len(request.blocks) - cached)])
        # A request adds to a step of the batch the reading of its own keys and values; the weights are read anyway.
        answer = self.answer_tokens / self.answers if self.answers else 0.0
        decoding = answer * self.cost.kv_bytes * request.input_tokens / self.cost.bandwidth
        load = round((self._new(request, cached) + decoding) * 1e9)
        hit = request.blocks[:cached]
        self.sent[replica].append((now, load, hit))
        self.load[replica] += load
        self.hits[replica].update(hit)

    def _forget(self, replica: int, now: float) -> None:
        """Drop what was sent before the window."""
        sent, hits = self.sent[replica], self.hits[replica]
        while sent and sent[0][0] < now - WINDOW:
            _, load, blocks = sent.popleft()
            self.load[replica] -= load
            for one in blocks:
                hits[one] -= 1
                if not hits[one]:
                    del hits[one]


ORDERS: dict[str, Order] = {"fcfs": first_come, "longest-prefix": longest_prefix}
ROUTERS: dict[str, type[Router]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "exploit-explore": ExploitExplore,
}
