"""One replica simulated the slow way, as an oracle: every single step, and a search of all blocks for one to evict."""

from __future__ import annotations

from dataclasses import dataclass, field

from reference_kernels.kvs.serving.cost import CostModel
from reference_kernels.kvs.serving.replica import Limits
from reference_kernels.kvs.serving.trace import Request


@dataclass
class Served:
    request: Request
    admitted: float = 0.0
    first_token: float = 0.0
    finished: float = 0.0
    hit_blocks: int = 0
    prefilled: int = 0  # tokens of the prompt with keys and values
    answered: int = 0  # output tokens


@dataclass
class NaiveServer:
    limits: Limits
    cost: CostModel
    longest_first: bool
    now: float = 0.0
    cached: dict[int, int] = field(default_factory=dict)  # block -> time of its last use
    parent: dict[int, int] = field(default_factory=dict)
    running: list[Served] = field(default_factory=list)  # in the order of admission
    uses: int = 0

    def serve(self, requests: list[Request]) -> list[Served]:
        everyone = [Served(request) for request in requests]
        coming, waiting = list(everyone), []
        while coming or waiting or self.running:
            if not waiting and not self.running:
                self.now = max(self.now, coming[0].request.arrival)
            while coming and coming[0].request.arrival <= self.now:
                waiting.append(coming.pop(0))
            self.step(waiting)
        return everyone

    def step(self, waiting: list[Served]) -> None:
        decoding = [one for one in self.running if one.answered]
        room = self.limits.chunk - len(decoding)
        pieces: list[tuple[Served, int]] = []
        for one in self.running:
            if not one.answered and room:
                pieces.append((one, min(room, one.request.input_tokens - one.prefilled)))
                room -= pieces[-1][1]
        while room and waiting and len(self.running) < self.limits.batch and (one := self.admit(waiting)):
            pieces.append((one, min(room, one.request.input_tokens - one.prefilled)))
            room -= pieces[-1][1]
        self.now += self.seconds(pieces, decoding)
        for one in decoding:
            one.answered += 1
        for one, tokens in pieces:
            one.prefilled += tokens
            if one.prefilled == one.request.input_tokens:
                one.answered, one.first_token = 1, self.now
        for one in self.running:
            if one.answered == one.request.output_tokens:
                one.finished = self.now
        self.running = [one for one in self.running if one.answered < one.request.output_tokens]

    def seconds(self, pieces: list[tuple[Served, int]], decoding: list[Served]) -> float:
        cost, tokens = self.cost, sum(size for _, size in pieces) + len(decoding)
        pairs = sum(one.prefilled + i + 1 for one, size in pieces for i in range(size))
        read = sum(one.request.input_tokens + one.answered for one in decoding)
        return (
            max(cost.weight_bytes / cost.bandwidth, 2 * cost.parameters * tokens / cost.flops)
            + cost.attention_flops * pairs / cost.flops
            + cost.kv_bytes * read / cost.bandwidth
        )

    def hits(self, request: Request) -> int:
        return next((i for i, one in enumerate(request.blocks) if one not in self.cached), len(request.blocks))

    def admit(self, waiting: list[Served]) -> Served | None:
        one = max(waiting, key=lambda w: self.hits(w.request)) if self.longest_first else waiting[0]
        request, hits = one.request, self.hits(one.request)
        answers = [-(-other.request.output_tokens // self.limits.block) for other in self.running]
        wanted = len(request.blocks) - hits + -(-request.output_tokens // self.limits.block)
        locked = {block for other in self.running for block in other.request.blocks} | set(request.blocks[:hits])
        excess = len(self.cached) + sum(answers) + wanted - self.limits.capacity
        if excess > len(set(self.cached) - locked):
            return None
        for _ in range(excess):
            inner = {self.parent[block] for block in self.cached}
            victim = min((b for b in self.cached if b not in inner and b not in locked), key=self.cached.__getitem__)
            del self.cached[victim]
        self.uses += 1
        for before, block in zip((-1, *request.blocks), request.blocks, strict=False):
            self.parent[block] = before
            self.cached[block] = self.uses
        one.admitted, one.hit_blocks = self.now, hits
        one.prefilled = min(hits * self.limits.block, request.input_tokens - 1)
        waiting.remove(one)
        self.running.append(one)
        return one
