"""An emulator of the few PTX instructions that unpack codes: what a CPU cannot run can still be proved on it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]


def run(text: str, *inputs: Words) -> Words:
    """Run inline assembly over many lanes at once: $0 is the result, $1, $2, ... are the inputs."""
    registers: dict[str, Words] = {f"${i}": words.astype(np.uint32) for i, words in enumerate(inputs, 1)}

    def value(name: str) -> Words:
        if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", name):
            return np.full_like(inputs[0], int(name, 0), dtype=np.uint32)
        return registers[name]  # a register that was never written is a KeyError

    declared = set()
    for line in text.strip().removeprefix("{").removesuffix("}").split(";"):
        if not (line := " ".join(line.split())):
            continue
        name, _, rest = line.partition(" ")
        operands = [operand.strip() for operand in rest.split(",")]
        if name == ".reg":
            kind, operands[0] = operands[0].split()
            if kind != ".b32":
                raise NotImplementedError(line)
            declared |= set(operands)
            continue
        target, *sources = operands
        if target != "$0" and target not in declared:
            raise ValueError(f"{target} is not a register: {line}")
        registers[target] = INSTRUCTIONS[name](*map(value, sources))
    return registers["$0"]


def _shift(left: bool) -> Callable[[Words, Words], Words]:
    def shift(a: Words, by: Words) -> Words:
        wide = a.astype(np.uint64)
        by = np.minimum(by, 32).astype(np.uint64)  # PTX clamps
        return ((wide << by if left else wide >> by) & np.uint64(0xFFFFFFFF)).astype(np.uint32)

    return shift


def _lop3(a: Words, b: Words, c: Words, table: Words) -> Words:
    """Any function of three bits: bit 4 a + 2 b + c of the table."""
    result = np.zeros_like(a)
    for bit in range(32):
        index = ((a >> bit & 1) << 2) | ((b >> bit & 1) << 1) | (c >> bit & 1)
        result |= (table >> index & 1) << np.uint32(bit)
    return result


def _prmt(a: Words, b: Words, selector: Words) -> Words:
    """Choose four of the eight bytes of b and a; bit 3 of a choice would copy its sign."""
    if (selector & 0x8888).any():
        raise NotImplementedError("prmt with signs")
    both = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
    result = np.zeros_like(a)
    for byte in range(4):
        which = (selector >> (4 * byte) & 7).astype(np.uint64)
        result |= (both >> (np.uint64(8) * which) & np.uint64(255)).astype(np.uint32) << np.uint32(8 * byte)
    return result


def halves(words: Words) -> npt.NDArray[np.float16]:
    """Return the two fp16 numbers of each word [..., 2], the low half first."""
    return np.stack([words & 0xFFFF, words >> 16], -1).astype(np.uint16).view(np.float16)


def packed(low: npt.ArrayLike, high: npt.ArrayLike) -> Words:
    """Return words of two 16-bit numbers."""
    return np.asarray(low).astype(np.uint32) & 0xFFFF | (np.asarray(high).astype(np.uint32) & 0xFFFF) << np.uint32(16)


def fma(a: npt.NDArray[np.float16], b: npt.NDArray[np.float16], c: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """a b + c with one rounding; it must be exact in fp64, which is checked."""
    product = a.astype(np.float64) * b.astype(np.float64)
    exact = product + c.astype(np.float64)
    there = np.isfinite(exact)
    if np.any(exact[there] - product[there] != c.astype(np.float64)[there]):
        raise ArithmeticError("fp64 does not hold this sum")
    with np.errstate(over="ignore"):
        return exact.astype(np.float16)


def _fma(a: Words, b: Words, c: Words) -> Words:
    bits = fma(halves(a), halves(b), halves(c)).view(np.uint16)
    return packed(bits[..., 0], bits[..., 1])


INSTRUCTIONS: dict[str, Callable[..., Words]] = {
    "mov.b32": lambda a: a,
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "xor.b32": lambda a, b: a ^ b,
    "shl.b32": _shift(left=True),
    "shr.b32": _shift(left=False),
    "shr.u32": _shift(left=False),
    "lop3.b32": _lop3,
    "prmt.b32": _prmt,
    "fma.rn.f16x2": _fma,
}
