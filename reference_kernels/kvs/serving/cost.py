"""What a step of a replica costs: a roofline of stated numbers. It is a model, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class CostModel:
    """One replica. The defaults stand for an 8B model in bf16 (32 layers, 32 query and 8 key heads of 128) on one H100.

    A step is a batch in which some requests decode one token each and others prefill a piece of their prompts:
        seconds = max(weight_bytes / bandwidth, 2 * parameters * tokens / flops)     linear layers
                + attention_flops * pairs / flops                                    attention of the prefill
                + kv_bytes * cached / bandwidth                                      attention of the decoding
    with `tokens` of both kinds, `pairs` of a prefilled token and one that it attends to, and `cached` tokens that the
    decoding requests read. What it leaves out: the host's share of a step, sampling, and the traffic of activations.
    """

    parameters: float = 8.0e9  # each does one multiplication and one addition per token
    weight_bytes: float = 16.0e9
    kv_bytes: float = 131072.0  # per token: 2 x 32 layers x 8 heads x 128 x 2 bytes
    attention_flops: float = 524288.0  # per pair: 4 x 32 layers x 32 heads x 128
    flops: float = 400.0e12  # per second, achieved in dense layers; about half of what an H100 reaches at its best
    bandwidth: float = 3.0e12  # bytes per second
    memory_bytes: float = 80.0e9
    memory_share: float = 0.9  # of the memory for weights and cache; the rest is for activations

    def __post_init__(self) -> None:
        for one in fields(self):
            if not getattr(self, one.name) > 0:
                raise ValueError(f"{one.name} must be positive, not {getattr(self, one.name)}")
        if self.capacity_tokens < 1:
            raise ValueError("the weights leave no memory for the cache")

    @property
    def capacity_tokens(self) -> int:
        """Tokens whose KV fits beside the weights."""
        return int((self.memory_bytes * self.memory_share - self.weight_bytes) / self.kv_bytes)

    def prefill_seconds(self, tokens: int, before: int = 0) -> float:
        """Return the time of `tokens` tokens of a prompt behind `before` cached ones, alone and compute-bound."""
        return (2 * self.parameters * tokens + self.attention_flops * causal_pairs(tokens, before)) / self.flops

    def step_seconds(self, prefilled: int, pairs: int, batch: int, cached: int, steps: int = 1) -> float:
        """Return the time of `steps` equal steps, in which each decoding request grows by one token per step.

        Args:
            prefilled: prompt tokens in each step.
            pairs: of a prefilled token and one that it attends to, in each step.
            batch: decoding requests.
            cached: tokens that they read in the first step.
            steps: how many.
        """
        linear = max(self.weight_bytes / self.bandwidth, 2 * self.parameters * (prefilled + batch) / self.flops)
        read = steps * cached + batch * (steps * (steps - 1) // 2)
        return steps * (linear + self.attention_flops * pairs / self.flops) + self.kv_bytes * read / self.bandwidth


def causal_pairs(tokens: int, before: int) -> int:
    """Count the pairs of causal attention of `tokens` tokens behind `before` others."""
    return tokens * before + tokens * (tokens + 1) // 2
