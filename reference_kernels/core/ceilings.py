"""What this machine can do at most, measured in the same run as the kernels: bytes per second, FLOPs per second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from reference_kernels.core.timing import time_call
from reference_kernels.core.unit import Work

GIB = 1 << 30


@dataclass(frozen=True)
class Ceilings:
    """Rates measured on large simple operations."""

    read: float  # device memory, reading only, bytes/s
    copy: float  # device memory, bytes read plus bytes written, /s
    to_device: float  # pinned host memory to device, bytes/s
    to_host: float  # device to pinned host memory, bytes/s
    matmul: float  # dense bf16 matrix product, FLOP/s

    def floor(self, work: Work) -> float:
        """Return the seconds that a piece of work takes at least: moving its bytes or doing its arithmetic."""
        memory = self.read if work.written < work.read / 16 else self.copy
        return max(work.moved / memory, work.flops / self.matmul)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def measure() -> Ceilings:
    """Measure all ceilings of the current GPU; takes some seconds and 8 GiB."""
    read, copy = _memory()
    to_device, to_host = _link()
    matmul = _matmul()
    torch.cuda.empty_cache()
    return Ceilings(read, copy, to_device, to_host, matmul)


def _matmul(size: int = 8192) -> float:
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    return _rate(2 * size**3, lambda: a @ b)


def _memory() -> tuple[float, float]:
    """Return the best of several ways: one kernel is not the memory's limit."""
    source = torch.randn(GIB // 2, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    size = source.numel() * 4
    read = max(_rate(size, source.sum), _rate(size, lambda: source.view(1 << 15, -1).amax(1)))
    copies = (
        lambda: target.copy_(source),
        lambda: torch.add(source, 1, out=target),
        lambda: torch.neg(source[: GIB // 8], out=target[: GIB // 8]),
    )
    return read, max(_rate(2 * n, copy) for n, copy in zip((size, size, GIB // 2), copies, strict=True))


def _link() -> tuple[float, float]:
    device = torch.empty(GIB // 16, dtype=torch.float32, device="cuda")
    host = torch.empty(device.shape, dtype=device.dtype, pin_memory=True)
    size = device.numel() * 4
    to_device = _rate(size, lambda: device.copy_(host, non_blocking=True))
    return to_device, _rate(size, lambda: host.copy_(device, non_blocking=True))


def _rate(amount: int, call: Callable[[], Any]) -> float:
    return amount / time_call(call, seconds=0.2, cold=False).median
