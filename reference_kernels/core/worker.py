"""A process of its own for what is measured: an illegal access, of a peer say, spoils the GPU's context for good.

Whatever fails is tried once more in a fresh process, so that it pays for nobody's error but its own.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Any

from reference_kernels.core.bench import bench
from reference_kernels.core.ceilings import Ceilings
from reference_kernels.registry import load


class Worker:
    """One process that lasts until something fails in it."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Worker:
        """Start nothing yet."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process."""
        self._end()

    def bench(self, unit: str, case: str, ceilings: Ceilings) -> dict[str, Any]:
        """Measure one case of a unit (core/bench.py); what fails twice raises its error."""
        fresh = self._pool is None
        try:
            return self._start().submit(_bench, unit, case, ceilings).result()
        except Exception:
            self._end()
            if fresh:
                raise
            return self.bench(unit, case, ceilings)

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return self._pool

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None


def _bench(unit: str, case: str, ceilings: Ceilings) -> dict[str, Any]:
    described = load(unit).UNIT
    return bench(described, described.benchmarks[case], ceilings)
