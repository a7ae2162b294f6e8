"""Measuring a unit: nothing wrong is timed, and what a peer cannot do is said. The clock is a stand-in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from reference_kernels.core import bench as measuring
from reference_kernels.core.ceilings import Ceilings
from reference_kernels.core.timing import Timing
from reference_kernels.core.unit import Inputs, MissingPeerError, Outputs, Unit, Work

pytestmark = pytest.mark.quick

CEILINGS = Ceilings(read=1000.0, copy=500.0, to_device=1.0, to_host=1.0, matmul=100.0)


def make_inputs(*, device: torch.device, dtype: torch.dtype, seed: int, size: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(size, generator=generator).to(dtype)}  # on the CPU, whatever the device


def double(x: torch.Tensor, bonus: Any = 0) -> Outputs:
    return {"out": 2 * x + bonus}


def unit(kernel: Callable[..., Outputs] = double, **kwargs: Any) -> Unit:
    kwargs = {"make_inputs": make_inputs, "work": lambda **_: Work(100, 0, 5), **kwargs}
    return Unit(kernel, kwargs.pop("reference", double), shapes={}, **kwargs)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let every call take half a second, and return what the timed calls returned."""
    results: list[Any] = []

    def clock(call: Callable[[], Any]) -> Timing:
        results.append(call())
        return Timing(0.5, 0.4, 0.6, 10, True)

    monkeypatch.setattr(measuring, "time_call", clock)
    return results


def bench(one: Unit) -> dict[str, Any]:
    return measuring.bench(one, {"size": 4}, CEILINGS, dtype=torch.float32)


def test_check_finds_a_kernel_right_and_a_wrong_one_wrong():
    for kernel, good in ((double, True), (lambda x: {"out": 2 * x + 1e-3}, False)):
        (verdict,) = measuring.check(unit(kernel), {"size": 4}, device=torch.device("cpu"), dtype=torch.float32)
        assert verdict.good is good


def test_check_draws_by_shape_dtype_and_seed():
    seen: list[torch.Tensor] = []

    def kernel(x: torch.Tensor) -> Outputs:
        seen.append(x)
        return double(x)

    for seed in (0, 0, 1):
        measuring.check(unit(kernel), {"size": 5}, device=torch.device("cpu"), dtype=torch.float16, seed=seed)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert (seen[0].shape, seen[0].dtype) == ((5,), torch.float16)


def test_a_result_has_checks_times_and_its_share_of_the_ceiling(timed: list[Any]):
    result = bench(unit(figures=lambda inputs, outputs, seconds: {"rate": 100 / seconds}))
    assert result["seconds"] == {"median": 0.5, "p20": 0.4, "p80": 0.6, "repeats": 10, "graph": True}
    assert result["floor"] == 0.1  # 100 bytes at 1000 a second
    assert result["share"] == pytest.approx(0.2)
    assert result["figures"] == {"rate": 200.0}
    assert (result["bytes_read"], result["bytes_written"], result["flops"]) == (100, 0, 5)
    assert (result["shape"], result["dtype"], result["peers"]) == ({"size": 4}, "float32", {})
    (check,) = result["checks"]
    assert check["good"]
    assert check["error"] <= check["budget"]


@pytest.mark.parametrize("off", [1e-3, math.nan])
def test_a_wrong_result_is_reported_and_not_timed(off: float, timed: list[Any]):
    result = bench(unit(lambda x: {"out": 2 * x + off}))
    assert not result["checks"][0]["good"]
    assert timed == []
    assert not {"seconds", "share", "peers"} & set(result)


def test_the_plan_is_made_outside_of_the_timed_region(timed: list[Any]):
    plans: list[int] = []
    bench(unit(plan=lambda **_: plans.append(1) or {"bonus": 0}))
    assert len(plans) == 1
    assert len(timed) == 1


def test_peers_are_timed_over_inputs_without_poison(timed: list[Any]):
    def poisoned(**kwargs: Any) -> Inputs:
        return {"x": torch.tensor([1.0, math.nan, 3.0])}

    def ignoring(x: torch.Tensor) -> Outputs:
        return {"out": x[::2] * 2}

    seen: list[torch.Tensor] = []

    def peer(inputs: Inputs) -> Callable[[], torch.Tensor]:
        seen.append(inputs["x"].clone())
        return lambda: inputs["x"][::2] * 2

    result = bench(unit(ignoring, reference=ignoring, make_inputs=poisoned, peers={"other": peer}))
    assert result["checks"][0]["good"]
    assert torch.isfinite(seen[0]).all()
    assert result["peers"]["other"]["seconds"]["median"] == 0.5
    assert result["peers"]["other"]["error"] == 0.0


def test_a_peer_that_computes_something_else_is_not_timed(timed: list[Any]):
    result = bench(
        unit(
            peers={"wrong": lambda inputs: lambda: inputs["x"] * 3, "nan": lambda _: lambda: torch.full((4,), math.nan)}
        )
    )
    for peer in result["peers"].values():
        assert set(peer) == {"missing"}
        assert "its result is off by" in peer["missing"]
    assert len(timed) == 1


def test_a_peer_without_a_result_is_only_timed(timed: list[Any]):
    result = bench(unit(peers={"other": lambda _: lambda: None}))
    assert set(result["peers"]["other"]) == {"seconds"}


def raise_(error: Exception) -> Any:
    raise error


def test_a_peer_that_fails_or_is_missing_says_why_and_stops_nothing(timed: list[Any]):
    peers = {
        "missing": lambda _: raise_(MissingPeerError("it is not installed")),
        "broken": lambda _: lambda: raise_(RuntimeError("no such kernel\nand a long trace")),
        "silent": lambda _: raise_(AssertionError()),
        "good": lambda inputs: lambda: inputs["x"] * 2,
    }
    result = bench(unit(peers=peers))["peers"]
    assert result["missing"] == {"missing": "it is not installed"}
    assert result["broken"] == {"missing": "RuntimeError: no such kernel"}
    assert result["silent"] == {"missing": "AssertionError: "}
    assert result["good"]["seconds"]["median"] == 0.5


def test_peers_and_work_are_judged_by_the_kernels_own_choices(timed: list[Any]):
    x = torch.tensor([5.0, 7.0])

    def kernel(x: torch.Tensor, chosen: torch.Tensor | None = None) -> Outputs:
        chosen = torch.tensor([1]) if chosen is None else chosen
        return {"out": x[chosen], "chosen": chosen}

    def reference(x: torch.Tensor, chosen: torch.Tensor | None = None) -> Outputs:
        return {"out": x[torch.tensor([0]) if chosen is None else chosen]}

    one = unit(
        kernel, reference=reference, make_inputs=lambda **_: {"x": x}, follows=("chosen",),
        work=lambda x, chosen: Work(int(chosen) * 10), peers={"other": lambda inputs: lambda: inputs["x"][1:]},
    )  # fmt: skip
    result = bench(one)
    assert result["checks"][0]["good"]
    assert result["bytes_read"] == 10
    assert "seconds" in result["peers"]["other"]


def test_the_reference_runs_once_in_each_precision_however_many_peers_there_are(timed: list[Any]):
    runs: list[torch.dtype] = []

    def reference(x: torch.Tensor) -> Outputs:
        runs.append(x.dtype)
        return double(x)

    peers = {name: lambda inputs: lambda: inputs["x"] * 2 for name in ("one", "two", "three")}
    result = bench(unit(reference=reference, peers=peers))
    assert all("error" in peer for peer in result["peers"].values())
    assert runs == [torch.float64, torch.float32]
