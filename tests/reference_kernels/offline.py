"""Compile every kernel for a GPU that is not here, and report what it takes of it: `python -m
tests.reference_kernels.offline`.

Triton compiles for a target without having one; only loading and launching need the card. The driver below stands in
for it: it launches nothing, so that a unit's host code runs to its end over CPU tensors of the GPU's dtype.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

HOPPER = {"max_shared_mem": 232448, "multiprocessor_count": 132, "max_num_regs": 65536, "warpSize": 32}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
DUMP: list[Path] = []  # a folder for PTX, TTGIR and SASS, with --dump


class _Utils:
    def __init__(self, found: dict[str, dict[str, Any]]) -> None:
        self.found = found

    def get_device_properties(self, _device: int) -> dict[str, int]:
        return HOPPER

    def load_binary(self, name: str, binary: bytes, shared: int, _device: int) -> tuple[None, None, int, int, int]:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(binary)
            file.flush()
            text = subprocess.run(
                [TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True, check=True
            ).stdout
            if DUMP:
                sass = subprocess.run([TOOLS / "cuobjdump", "-sass", file.name], capture_output=True, text=True).stdout
                (DUMP[0] / f"{name}.sass").write_text(sass)
        usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        self.found[f"{name} {len(self.found)}"] = {
            "registers": usage["REG"], "stack": usage["STACK"], "local": usage["LOCAL"], "shared": shared
        }  # fmt: skip
        return None, None, usage["REG"], 0, 1024


class OfflineDriver:
    """What Triton asks of a driver, answered for an H100."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self.utils = _Utils(self.found)
        self.launcher_cls = lambda _source, _metadata: lambda *_args, **_kwargs: None

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def compile_unit(name: str, shape: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Compile what a unit launches for its shapes (or one); return registers, stack and shared memory per kernel."""
    from reference_kernels.registry import load

    fake = OfflineDriver()
    driver.set_active(fake)
    unit = load(name).UNIT
    dtype = torch.bfloat16 if torch.bfloat16 in unit.dtypes else unit.dtypes[-1]
    for case in [shape] if shape else unit.shapes.values():
        inputs = unit.make_inputs(device=torch.device("cpu"), dtype=dtype, seed=0, **case)
        unit.kernel(**unit.planned(inputs))
    return fake.found


if __name__ == "__main__":
    from reference_kernels.registry import cards

    arguments = sys.argv[1:]
    if "--dump" in arguments:
        place = arguments.index("--dump")
        DUMP.append(Path(arguments[place + 1]))
        DUMP[0].mkdir(parents=True, exist_ok=True)
        del arguments[place : place + 2]
    print(json.dumps({name: compile_unit(name) for name in arguments or [card.name for card in cards()]}, indent=1))
