"""Kernels run on a GPU where there is one, else in Triton's interpreter; freshly allocated memory is full of NaN."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

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
