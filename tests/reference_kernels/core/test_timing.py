"""Timing needs a GPU and says so; on one, it measures what it claims."""

from __future__ import annotations

import pytest
import torch

from reference_kernels.core.timing import Timing, time_call

pytestmark = pytest.mark.quick

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="times are taken on a GPU, and there is none")


def test_without_a_gpu_nothing_is_timed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    calls: list[int] = []
    with pytest.raises(RuntimeError, match="timing needs a GPU: the interpreter's times say nothing"):
        time_call(lambda: calls.append(1))
    assert calls == []


def test_a_timing_is_plain_values():
    wanted = {"median": 2.0, "p20": 1.0, "p80": 3.0, "repeats": 7, "graph": True}
    assert Timing(2.0, 1.0, 3.0, 7, True).as_dict() == wanted


@needs_gpu
def test_twice_the_bytes_take_about_twice_the_time():
    small, large = (torch.empty(n << 28, dtype=torch.uint8, device="cuda") for n in (1, 2))
    one, two = time_call(lambda: small.fill_(0)), time_call(lambda: large.fill_(0))
    assert one.graph
    assert one.p20 <= one.median <= one.p80
    assert 1.7 < two.median / one.median < 2.3


@needs_gpu
def test_a_call_that_waits_for_the_device_is_timed_without_a_graph():
    x = torch.ones(8, device="cuda")
    assert not time_call(lambda: x.sum().item()).graph
