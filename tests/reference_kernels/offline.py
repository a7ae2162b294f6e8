"""Compile kernels for a GPU that is not here, and report what they take of it: `python -m
tests.reference_kernels.offline`.

Triton compiles for a target without having one; only loading and launching need the card. The driver below stands in
for it: it launches nothing, so that a unit's host code runs to its end over CPU tensors of the GPU's dtype.

A kernel is compiled anew for every combination of its constants. With --cover only so many combinations are compiled
that every branch is (each state of a flag, each value of BRANCHES, each answer of PADDED) and the widest tiles are: a
fifth of the combinations, and of the minutes.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from reference_kernels.registry import cards, load

HOPPER = {"max_shared_mem": 232448, "multiprocessor_count": 132, "max_num_regs": 65536, "warpSize": 32}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
BRANCHES = {"BITS", "SPAN", "PASS", "ROW"}  # numbers of which each may be code of its own
PADDED = (("KEEP", "WIDE"), ("K_RANK", "K_WIDE"), ("V_RANK", "V_WIDE"), ("RANK", "WIDE"), ("RANK", "LANES"))
WIDTHS = {"DIM", "ROWS"}  # numbers that decide how many registers a tile takes

Hook = Callable[..., bool]
Usage = dict[str, Any]  # registers, stack, local and shared memory; the lines of TTGIR that hold inline assembly


class _Utils:
    """Takes the binaries that a driver would load, and asks `cuobjdump` what they need."""

    def __init__(self, dump: Path | None) -> None:
        self.dump = dump
        self.kernel = ""  # what is being compiled
        self.found: dict[str, list[Usage]] = {}

    def get_device_properties(self, _device: int) -> dict[str, int]:
        return HOPPER

    def load_binary(self, name: str, binary: bytes, shared: int, _device: int) -> tuple[str, str, int, int, int]:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(binary)
            file.flush()
            text = subprocess.run(
                [TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True, check=True
            ).stdout
            if self.dump:
                sass = subprocess.run([TOOLS / "cuobjdump", "-sass", file.name], capture_output=True, text=True).stdout
                (self.dump / f"{name}.sass").write_text(sass)
        usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        self.found.setdefault(self.kernel, []).append(
            {"registers": usage["REG"], "stack": usage["STACK"], "local": usage["LOCAL"], "shared": shared}
        )
        return "module", "function", usage["REG"], 0, 1024  # not None, or Triton loads it again at each launch


class OfflineDriver:
    """What Triton asks of a driver, answered for an H100."""

    def __init__(self, dump: Path | None = None) -> None:
        self.utils = _Utils(dump)
        self.launcher_cls = lambda _source, _metadata: lambda *_args, **_kwargs: None

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@dataclass(frozen=True)
class Combination:
    """Constants with which a kernel would be compiled, and the types of its pointers."""

    constants: dict[str, Any]
    pointers: dict[str, str]

    @property
    def size(self) -> int:
        return math.prod(value for value in self.constants.values() if type(value) is int and value > 0)


def launch(name: str) -> None:
    """Run the host code of a unit for its shapes."""
    unit = load(name).UNIT
    dtype = torch.bfloat16 if torch.bfloat16 in unit.dtypes else unit.dtypes[-1]
    for case in unit.shapes.values():
        inputs = unit.make_inputs(device=torch.device("cpu"), dtype=dtype, seed=0, **case)
        unit.kernel(**unit.planned(inputs))


def listing(seen: dict[str, dict[Any, Combination]]) -> Hook:
    """Return a hook that compiles nothing and notes what would be: kernel -> Triton's key -> combination."""

    def hook(*, key: Any, fn: Any, compile: dict[str, Any], **_: Any) -> bool:  # Triton names its arguments so
        parameters = fn.jit_function.params
        constants = {p.name: compile["constants"].get((p.num,)) for p in parameters if p.is_constexpr}
        pointers = {name: kind for name, kind in compile["signature"].items() if kind.startswith("*")}
        seen.setdefault(f"{fn.module}.{fn.name}", {})[key] = Combination(constants, pointers)
        return True

    return hook


def cover(combinations: dict[Any, Combination]) -> set[Any]:
    """Choose keys of combinations that together have every feature that any of them has, large ones first."""
    largest = {
        name: max((c.constants[name] for c in combinations.values() if name in c.constants), default=None)
        for name in WIDTHS
    }

    def features(combination: Combination) -> Iterator[tuple[Any, ...]]:
        constants = combination.constants
        yield ("the kernel itself",)
        yield from combination.pointers.items()
        for name, value in constants.items():
            if type(value) is not int or name in BRANCHES:
                yield name, str(value)
            elif name in WIDTHS and value == largest[name]:
                yield name, "largest"
        for name, wide in PADDED:
            if name in constants and wide in constants:
                yield name, wide, constants[name] == constants[wide]

    having = {key: set(features(combination)) for key, combination in combinations.items()}
    large_first = sorted(having, key=lambda key: -combinations[key].size)
    missing = set().union(*having.values())
    chosen: set[Any] = set()
    while missing:
        best = max(large_first, key=lambda key: len(having[key] & missing))
        chosen.add(best)
        missing -= having[best]
    return chosen


def compile_units(names: Iterable[str], *, whole: bool = True, dump: Path | None = None) -> dict[str, Any]:
    """Compile what units launch for their shapes.

    Returns:
        Unit -> kernel -> what each of its compiled combinations takes; or unit -> `{"error": words}`.
    """
    fake = OfflineDriver(dump)
    driver.set_active(fake)
    launched: dict[str, set[str]] = {}
    everything: dict[str, dict[Any, Combination]] = {}
    errors: dict[str, str] = {}

    def visit(name: str, hook: Hook) -> None:
        triton.knobs.runtime.jit_cache_hook = hook
        try:
            launch(name)
        except Exception as error:  # one unit's error must not hide what the others take
            errors.setdefault(name, f"{type(error).__name__}: {error}")

    for name in names:
        seen: dict[str, dict[Any, Combination]] = {}
        visit(name, listing(seen))
        launched[name] = set(seen)
        for kernel, combinations in seen.items():
            everything.setdefault(kernel, {}).update(combinations)
    chosen = {kernel: set(found) if whole else cover(found) for kernel, found in everything.items()}
    assembly: dict[str, list[str]] = {}

    def leave_out(*, key: Any, fn: Any, **_: Any) -> bool:
        fake.utils.kernel = f"{fn.module}.{fn.name}"
        return key not in chosen[fake.utils.kernel]

    def note_assembly(*, key: Any, fn: Any, **_: Any) -> None:
        compiled = fn.jit_function.device_caches[0][0][key]
        lines = [line for line in compiled.asm["ttgir"].splitlines() if "elementwise_inline_asm" in line]
        assembly.setdefault(f"{fn.module}.{fn.name}", []).extend(lines)

    triton.knobs.runtime.jit_post_compile_hook = note_assembly
    for name in launched:
        visit(name, leave_out)
    return {
        name: {"error": errors[name]}
        if name in errors
        else {
            kernel: {"takes": fake.utils.found[kernel], "assembly": assembly.get(kernel, [])}
            for kernel in sorted(kernels)
        }
        for name, kernels in launched.items()
    }


if __name__ == "__main__":
    arguments = sys.argv[1:]
    folder = None
    if "--dump" in arguments:
        place = arguments.index("--dump")
        folder = Path(arguments[place + 1])
        folder.mkdir(parents=True, exist_ok=True)
        del arguments[place : place + 2]
    covered = "--cover" in arguments
    wanted = [argument for argument in arguments if argument != "--cover"] or [card.name for card in cards()]
    print(json.dumps(compile_units(wanted, whole=not covered, dump=folder), indent=1))
