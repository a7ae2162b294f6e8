"""The contract of a unit: what tests, benchmarks, command line and website need to know of a method.

Inputs are plain keyword arguments, the same for `kernel`, `reference` and `work`. Outputs are a dict of tensors.
Floating-point outputs are judged by the error budget (`core/budget.py`), all others must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Inputs = dict[str, Any]
Outputs = dict[str, torch.Tensor]
Shape = Mapping[str, Any]
Peer = Callable[[Inputs], Callable[[], torch.Tensor | None]]


class MissingPeerError(Exception):
    """A peer cannot run here: the message says what is missing, or why it does not apply."""


@dataclass(frozen=True)
class Work:
    """What a method must do at least: each byte that it needs read once, each result written once."""

    read: int  # bytes
    written: int = 0  # bytes
    flops: int = 0

    @property
    def moved(self) -> int:
        """Bytes in both directions."""
        return self.read + self.written


@dataclass(frozen=True)
class Unit:
    """One method.

    `make_inputs(device=, dtype=, seed=, **shape)` draws random inputs of a shape. `plan(**inputs)`, where there is one,
    is the part done once per step on the host; it returns further keyword arguments for `kernel` and stays out of the
    timed region. `reference` is the specification: plain PyTorch that follows the equation in whatever precision its
    inputs have. Outputs named in `follows` are choices (which pages, which tokens): the reference is given the kernel's
    own, so that ties do not matter, and a test of the unit shows that the choice is right.
    """

    kernel: Callable[..., Outputs]
    reference: Callable[..., Outputs]
    make_inputs: Callable[..., Inputs]
    work: Callable[..., Work]
    shapes: Mapping[str, Shape]  # checked by tests and by `run`; small and odd
    benchmarks: Mapping[str, Shape] = field(default_factory=dict)  # timed by `bench`
    plan: Callable[..., Inputs] | None = None
    peers: Mapping[str, Peer] = field(default_factory=dict)
    figures: Callable[[Inputs, Outputs, float], dict[str, float]] | None = None  # further figures, given the seconds
    output: str = "out"  # which output the peers compute
    follows: tuple[str, ...] = ()
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16)

    def planned(self, inputs: Inputs) -> Inputs:
        """Return the inputs together with the plan for them."""
        return {**inputs, **(self.plan(**inputs) if self.plan else {})}
