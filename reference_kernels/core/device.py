"""Where kernels run: on a GPU, or on the CPU through Triton's interpreter, which must be switched on before Triton
loads."""

from __future__ import annotations

import os

import torch


def choose_device() -> torch.device:
    """Return the GPU, or the CPU after switching on the interpreter. Call it before a unit is imported."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    os.environ.setdefault("TRITON_INTERPRET", "1")
    return torch.device("cpu")


def interpreted() -> bool:
    """Whether kernels run in the interpreter, which knows neither bf16 nor inline assembly."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors of the GPU; 4 stand in for them on a CPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
