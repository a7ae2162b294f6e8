"""A process of its own for what is measured: an illegal access, of a peer say, spoils the GPU's context for good.

A case that fails is tried once more in a fresh process, since an earlier case may have spoiled the context of the old
one, and then without peers, which may kill the process that they run in.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from types import TracebackType
from typing import Any

from reference_kernels.core.bench import bench
from reference_kernels.core.ceilings import Ceilings
from reference_kernels.core.unit import Inputs, MissingPeerError
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
        """Measure one case of a unit (core/bench.py); what fails without peers too raises its error."""
        for _ in range(2):
            try:
                return self._start().submit(_bench, unit, case, ceilings, True).result()
            except Exception:
                self._end()
        try:
            return self._start().submit(_bench, unit, case, ceilings, False).result()
        except Exception:
            self._end()
            raise

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return self._pool

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None


def _bench(unit: str, case: str, ceilings: Ceilings, peers: bool) -> dict[str, Any]:
    described = load(unit).UNIT
    if not peers:
        described = replace(described, peers=dict.fromkeys(described.peers, _left_out))
    return bench(described, described.benchmarks[case], ceilings)


def _left_out(_inputs: Inputs) -> Callable[[], Any]:
    raise MissingPeerError("a peer killed the process that measured it")
