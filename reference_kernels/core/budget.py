"""The error budget: how far a kernel may be from the truth, derived from data instead of chosen by hand.

The truth is the reference in fp64. The reference in the kernel's own precision makes an error of its own; a kernel in
that precision may make at most twice that error, plus one rounding of the largest value. The rule is attention-gym's.

Serving uses 16 bits, and there every case holds. In fp32 on an H100, 11 of 116 cases do not, by a factor of up to 2.3
(Quest's bounds of pages most): `tl.dot` adds its terms as one chain, PyTorch in blocks. Products in fp64 would mend it,
but Triton 3.6 fails to compile some of them; TF32 in three parts does worse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from reference_kernels.core.unit import Inputs, Outputs, Unit


@dataclass(frozen=True)
class Verdict:
    """One output compared: its error, what it may be, and whether that holds."""

    output: str
    error: float
    budget: float

    @property
    def good(self) -> bool:
        """Whether the error is within the budget; never for NaN, nor where the reference itself overflows."""
        return self.error <= self.budget < math.inf

    def __str__(self) -> str:
        return f"{self.output}: error {self.error:.3g}, budget {self.budget:.3g}{'' if self.good else '  WRONG'}"


def to_double(value: Any) -> Any:
    """Return floating-point tensors in fp64 (exact), everything else as it is."""
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def judge(unit: Unit, inputs: Inputs, outputs: Outputs) -> list[Verdict]:
    """Compare the outputs of a kernel with the reference, in fp64 and in the kernel's precision."""
    return compare_all(outputs, *references(unit, inputs, outputs))


def references(unit: Unit, inputs: Inputs, outputs: Outputs) -> tuple[Outputs, Outputs]:
    """Return what the reference makes of the inputs in fp64 and in their own precision, given the kernel's choices."""
    given = {name: outputs[name] for name in unit.follows}
    exact = unit.reference(**{k: to_double(v) for k, v in inputs.items()}, **given)
    return exact, unit.reference(**inputs, **given)


def compare_all(outputs: Outputs, exact: Outputs, rough: Outputs) -> list[Verdict]:
    """Compare every output that the references have."""
    return [compare(name, outputs[name], exact[name], rough[name]) for name in exact]


def compare(name: str, actual: torch.Tensor, exact: torch.Tensor, rough: torch.Tensor) -> Verdict:
    """Judge one output. Integers and booleans must be equal: their error is the number of places that differ."""
    if actual.shape != exact.shape:
        raise ValueError(f"{name} has shape {tuple(actual.shape)}, the reference {tuple(exact.shape)}")
    if not exact.is_floating_point():
        return Verdict(name, float((actual != exact).sum()), 0.0)
    epsilon = max(torch.finfo(actual.dtype).eps, torch.finfo(rough.dtype).eps)
    infinite = torch.isinf(exact) & (actual == exact)  # the LSE of an empty request is -inf on both sides

    def error(values: torch.Tensor) -> float:
        difference = (values.double() - exact).abs().masked_fill(infinite, 0)
        return float(difference.max()) if difference.numel() else 0.0

    largest = float(exact.masked_fill(infinite, 0).abs().max()) if exact.numel() else 0.0
    return Verdict(name, error(actual), 2 * error(rough) + epsilon * largest)
