"""Kernels run on a GPU where there is one, else in Triton's interpreter; freshly allocated memory is full of NaN."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from tests.reference_kernels import interpreter
from tests.reference_kernels.repository import ROOT

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before any unit imports Triton

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GARBAGE = 85  # for integers: large enough to be out of range, small enough for a byte


@pytest.fixture
def device() -> torch.device:
    return DEVICE


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is seen: `torch.empty` and its kin return NaN, or garbage for integers."""

    def poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def filled(*args: Any, **kwargs: Any) -> torch.Tensor:
            memory = allocate(*args, **kwargs)
            if memory.dtype == torch.bool or memory.numel() == 0:
                return memory
            return memory.fill_(float("nan") if memory.is_floating_point() else GARBAGE)

        return filled

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Many workers share the cores of a machine without a GPU, and the tensors here are small."""
    if DEVICE.type == "cpu":
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _quick_interpreter() -> Iterator[None]:
    """Leave out what takes Triton's interpreter most of its time and changes nothing; a GPU needs none of it."""
    with interpreter.quick() if DEVICE.type == "cpu" else nullcontext():
        yield


@pytest.fixture(scope="session")
def compiled() -> dict[str, Any]:
    """What the kernels of every unit take of an H100, compiled in a process without the interpreter (`offline.py`)."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    line = [sys.executable, "-m", "tests.reference_kernels.offline"] + ["--cover"] * (DEVICE.type == "cpu")
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
