"""Measuring one unit: correctness first, then its time, then that of every peer that is installed."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import torch

from reference_kernels.core.budget import Verdict, compare, compare_all, judge, references
from reference_kernels.core.ceilings import Ceilings
from reference_kernels.core.peers import forget_poison
from reference_kernels.core.timing import time_call
from reference_kernels.core.unit import Inputs, MissingPeerError, Outputs, Peer, Shape, Unit

PEER_SLACK = 4  # a peer may round where our reference does not; it must still compute the same thing


def check(unit: Unit, shape: Shape, *, device: torch.device, dtype: torch.dtype, seed: int = 0) -> list[Verdict]:
    """Run a unit on random inputs of a shape and judge its outputs."""
    inputs = unit.make_inputs(device=device, dtype=dtype, seed=seed, **shape)
    return judge(unit, inputs, unit.kernel(**unit.planned(inputs)))


def bench(unit: Unit, shape: Shape, ceilings: Ceilings, *, dtype: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """Measure one case on the current GPU. A wrong result is reported and not timed."""
    try:
        return _bench(unit, shape, ceilings, dtype)
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def _bench(unit: Unit, shape: Shape, ceilings: Ceilings, dtype: torch.dtype) -> dict[str, Any]:
    inputs = unit.make_inputs(device=torch.device("cuda"), dtype=dtype, seed=0, **shape)
    planned = unit.planned(inputs)
    outputs = unit.kernel(**planned)
    exact, rough = references(unit, inputs, outputs)
    verdicts = compare_all(outputs, exact, rough)
    work = unit.work(**inputs, **{name: outputs[name] for name in unit.follows})
    result: dict[str, Any] = {
        "shape": dict(shape),
        "dtype": str(dtype).removeprefix("torch."),
        "checks": [{"output": v.output, "error": v.error, "budget": v.budget, "good": v.good} for v in verdicts],
        "bytes_read": work.read,
        "bytes_written": work.written,
        "flops": work.flops,
    }
    if all(v.good for v in verdicts):
        forget_poison(inputs)
        time = time_call(lambda: unit.kernel(**planned))
        result |= {"seconds": time.as_dict(), "floor": ceilings.floor(work)}
        result["share"] = result["floor"] / time.median
        if unit.figures:
            result["figures"] = unit.figures(inputs, outputs, time.median)
        result["peers"] = {name: _peer(peer, inputs, unit.output, exact, rough) for name, peer in unit.peers.items()}
    return result


def _peer(peer: Peer, inputs: Inputs, output: str, exact: Outputs, rough: Outputs) -> dict[str, Any]:
    """Prepare, check and time a peer, or say why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call = peer(inputs)
            found = call()
            result: dict[str, Any] = {}
            if found is not None:
                verdict = compare(output, found, exact[output], rough[output])
                result = {"error": verdict.error}
                if not verdict.error <= PEER_SLACK * verdict.budget:
                    return {"missing": f"its result is off by {verdict.error:.3g}, more than {PEER_SLACK} budgets"}
            return {"seconds": time_call(call).as_dict(), **result}
    except MissingPeerError as error:
        return {"missing": str(error)}
    except Exception as error:  # a peer's own failure must not stop the benchmark; it is reported in the result
        return {"missing": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
