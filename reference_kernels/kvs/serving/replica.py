"""One replica: a queue, a batch, and a pool of blocks that running requests and the prefix cache share."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from itertools import count, islice

from reference_kernels.kvs.radix_tree import Match, RadixTree
from reference_kernels.kvs.serving.cost import CostModel, causal_pairs
from reference_kernels.kvs.serving.policies import Order
from reference_kernels.kvs.serving.trace import Request


@dataclass(frozen=True)
class Limits:
    """How a replica forms its steps."""

    capacity: int  # blocks in the pool
    block: int  # tokens per block
    chunk: int = 2048  # tokens of a step: one per decoding request, the rest for prefill
    batch: int = 256  # running requests

    def __post_init__(self) -> None:
        if min(self.capacity, self.block, self.batch) < 1:
            raise ValueError("capacity, block and batch must be at least 1")
        if self.chunk <= self.batch:
            raise ValueError(f"a step of {self.chunk} tokens leaves no room for prefill beside {self.batch} requests")

    def blocks(self, request: Request) -> int:
        """Return the blocks that a request takes if nothing of it is cached."""
        return len(request.blocks) + -(-request.output_tokens // self.block)


@dataclass(slots=True)
class Job:
    """A request on its way through a replica; times in seconds, NaN until they are known."""

    request: Request
    replica: int
    admitted: float = math.nan
    first_token: float = math.nan
    finished: float = math.nan
    hit_blocks: int = 0  # leading blocks of the prompt that were in the pool
    cached_tokens: int = 0  # prompt tokens that need no prefill
    todo: int = 0  # prompt tokens still to prefill
    lock: Match | None = None
    answer: list[int] = field(default_factory=list)  # blocks of the pool for the answer


class Replica:
    """Steps of continuous batching, one event each; steps in which only decoding happens are taken in one leap.

    A step holds one token for every decoding request and fills up to `chunk` tokens with prefill, in the order of
    admission. A request is admitted when the step has room for some of its prompt, the batch for one more, and the pool
    for what it misses and for its whole answer, after eviction; if the one that the order names does not fit, nobody is
    admitted before it. Its blocks can be hit by requests admitted after it, whose prefill comes later, and stay in the
    pool when it has finished, until they are evicted.
    """

    def __init__(self, limits: Limits, cost: CostModel, order: Order) -> None:
        self.limits, self.cost, self.order = limits, cost, order
        self.tree = RadixTree()
        self.waiting: deque[Job] = deque()
        self.until = math.inf  # end of the step that runs; infinite when idle
        self.busy = 0.0  # seconds in steps
        self.used = 0  # blocks that hold something, cached ones included
        self.peak = 0  # most blocks that were ever used
        self.evicted = 0  # blocks
        self._free: list[int] = []
        self._fresh = count()  # slots that were never used
        self._current: Job | None = None  # its prompt is partly prefilled
        self._parts: list[tuple[Job, int]] = []  # prompt tokens in the step that runs
        self._tokens = 0  # their sum
        self._pairs = 0  # of such a token and one that it attends to
        self._begun = 0.0
        self._steps = 0  # in the leap that runs
        self._done = 0  # decoding steps so far
        self._cached = 0  # tokens that the next decoding step reads
        self._ends: list[tuple[int, int, Job]] = []  # decoding requests: (last decoding step, order of joining, job)
        self._joined = count()

    def submit(self, job: Job, now: float) -> None:
        """Queue a request; a leap of decoding steps ends early, at the end of the step in which it arrives."""
        self.waiting.append(job)
        if self.until == math.inf:
            self.until = now
        elif self._steps > 1:
            self._steps = 1 + bisect_left(range(1, self._steps), now, key=self._end_of)
            self.until = self._end_of(self._steps)

    def advance(self) -> list[Job]:
        """End the step that runs, at `until`, and begin the next one. Return the requests that finished."""
        now = self.until
        finished = self._end(now)
        self._parts = self._fill(now)
        self._tokens = sum(tokens for _, tokens in self._parts)
        self._pairs = sum(causal_pairs(tokens, job.request.input_tokens - job.todo) for job, tokens in self._parts)
        self._begun = now
        self._steps = 1 if self._parts else self._ends[0][0] - self._done if self._ends else 0
        self.until = self._end_of(self._steps) if self._steps else math.inf
        return finished

    def _end_of(self, steps: int) -> float:
        """Return when the leap that runs has taken so many steps."""
        return self._begun + self.cost.step_seconds(self._tokens, self._pairs, len(self._ends), self._cached, steps)

    def _end(self, now: float) -> list[Job]:
        """Book the steps since `_begun`: tokens decoded, prompts prefilled, requests finished."""
        self.busy += now - self._begun if self._steps else 0.0
        self._done += self._steps
        self._cached += self._steps * len(self._ends)
        finished = []
        while self._ends and self._ends[0][0] == self._done:
            job = heapq.heappop(self._ends)[2]
            self._cached -= job.request.input_tokens + job.request.output_tokens
            finished.append(job)
        for job, tokens in self._parts:
            job.todo -= tokens
            if job.todo:
                continue
            job.first_token = now  # the prefill yields it
            if job.request.output_tokens == 1:
                finished.append(job)
            else:
                last = self._done + job.request.output_tokens - 1
                heapq.heappush(self._ends, (last, next(self._joined), job))
                self._cached += job.request.input_tokens + 1
        for job in finished:
            self._release(job, now)
        return finished

    def _fill(self, now: float) -> list[tuple[Job, int]]:
        """Choose the prompt tokens of the next step, admitting requests as there is room."""
        room = self.limits.chunk - len(self._ends)
        parts: list[tuple[Job, int]] = []
        while room > 0:
            if self._current is None and self.waiting and len(self._ends) + len(parts) < self.limits.batch:
                self._current = self._admit(now)
            if self._current is None:
                break
            tokens = min(room, self._current.todo)
            parts.append((self._current, tokens))
            room -= tokens
            if tokens < self._current.todo:
                break
            self._current = None
        return parts

    def _admit(self, now: float) -> Job | None:
        """Admit the request that the order names, if the pool has room for it."""
        place = self.order((job.request for job in self.waiting), self.tree)
        job = self.waiting[place]
        request = job.request
        match = self.tree.match(request.blocks, touch=False)
        self.tree.lock(match)  # what it hits must not be evicted for it
        wanted = self.limits.blocks(request) - match.length
        lacking = wanted - (self.limits.capacity - self.used)
        if lacking > self.tree.evictable:
            self.tree.unlock(match)
            return None
        if lacking > 0:
            freed = self.tree.evict(lacking)
            self.evicted += lacking
            self.used -= lacking
            self._free += freed
        slots = [self._free.pop() if self._free else next(self._fresh) for _ in range(wanted)]
        self.used += wanted
        self.peak = max(self.peak, self.used)
        missing = len(request.blocks) - match.length
        self.tree.unlock(match)
        self.tree.insert(request.blocks, [*match.slots, *islice(slots, missing)])
        job.lock = self.tree.match(request.blocks)
        self.tree.lock(job.lock)
        job.answer = slots[missing:]
        job.admitted = now
        job.hit_blocks = match.length
        # The last token is computed even where all of its prompt is cached: the first answer token needs it.
        job.cached_tokens = min(match.length * self.limits.block, request.input_tokens - 1)
        job.todo = request.input_tokens - job.cached_tokens
        del self.waiting[place]
        return job

    def _release(self, job: Job, now: float) -> None:
        """Give the answer's blocks back; those of the prompt stay cached."""
        job.finished = now
        if job.lock:
            self.tree.unlock(job.lock)
        self._free += job.answer
        self.used -= len(job.answer)
        job.lock, job.answer = None, []
