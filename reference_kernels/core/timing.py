"""Timing on a GPU: one CUDA graph, a cold L2 before each replay, events around it, median and quantiles.

The cache is emptied by *reading* a buffer of several times its size: writing one, as is usual, leaves dirty lines whose
write-back would be charged to the kernel. A call that cannot be captured is timed without a graph. A GPU that waited
for the host needs time to reach its speed: on an H100 one kernel took 154 us for the first 30 ms and 137 us from then
on. So replays warm it up by the clock, not by their number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

WARM_UP = 0.1  # seconds


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    p20: float
    p80: float
    repeats: int
    graph: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def time_call(call: Callable[[], Any], *, seconds: float = 0.25, most: int = 200, cold: bool = True) -> Timing:
    """Time `call` on the current GPU.

    Args:
        call: launches the work; it must always write to the same places or allocate.
        seconds: about how long to go on.
        most: repeats at most.
        cold: empty the L2 cache before each repeat.

    Raises:
        RuntimeError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("timing needs a GPU: the interpreter's times say nothing")
    replay, graph = _captured(call)
    flush = _flusher() if cold else lambda: None
    begun = time.perf_counter()
    while time.perf_counter() < begun + WARM_UP:
        for _ in range(10):  # before each wait
            flush()
            replay()
        first = _once(replay, flush)
    repeats = max(10, min(most, int(seconds / max(first, 1e-6))))
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in events:
        flush()
        begin.record()
        replay()
        end.record()
    torch.cuda.synchronize()
    times = torch.tensor([begin.elapsed_time(end) / 1e3 for begin, end in events], dtype=torch.float64)
    p20, median, p80 = (float(t) for t in torch.quantile(times, torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)))
    return Timing(median, p20, p80, repeats, graph)


def _captured(call: Callable[[], Any]) -> tuple[Callable[[], Any], bool]:
    """Return a replay of the call as a CUDA graph, or the call itself where capturing fails."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # compile, allocate
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:  # it waits for the device, for example to read a length
        torch.cuda.synchronize()
        return call, False
    return graph.replay, True


def _flusher() -> Callable[[], Any]:
    size = 4 * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    buffer = torch.ones(size // 4, dtype=torch.float32, device="cuda")
    result = torch.empty((), dtype=torch.float32, device="cuda")
    return lambda: torch.sum(buffer, dim=0, out=result)


def _once(replay: Callable[[], Any], flush: Callable[[], Any]) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    flush()
    begin.record()
    replay()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
