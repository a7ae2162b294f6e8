"""Triton's interpreter without the work that changes nothing: it takes a fifth of the time.

Each patch below leaves out what Triton 3.6.0 computes and throws away, or computes anew and always alike. They were
read against that version, so on any other Triton nothing is patched: the tests then warn, run, and take longer.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

VERSION = "3.6.0"  # whose source the patches were read against

Replacement = tuple[Any, str, Any]  # of an attribute: whose, its name, the new value

replaced: list[Replacement] = []  # what Triton had in place of the patches that apply now


def prepare_once() -> list[Replacement]:
    """Prepare `triton.language` once per function, not at every call of it: it is always prepared alike."""
    from triton.runtime import interpreter

    prepare = interpreter._patch_lang
    prepared = set()
    nothing = interpreter._LangPatchScope()  # to restore: the next call finds the language prepared

    def once(function: Any) -> Any:
        if function not in prepared:
            prepare(function)
            prepared.add(function)
        return nothing

    return [(interpreter, "_patch_lang", once)]


def no_overflow() -> list[Replacement]:
    """Do not compute whether additions of integers overflow: only an assertion of the debug mode looks at it."""
    from triton.runtime.interpreter import interpreter_builder as builder

    return [(builder, "options", dataclasses.replace(builder.options, sanitize_overflow=False))]


def known_shapes() -> list[Replacement]:
    """Build the tuples that describe a shape once per shape: tensors and types only read theirs.

    A `tl.tuple` makes a type of all its values, with a name; only `_setitem`, which the compiler alone calls, changes
    one. A shape that is not of plain integers goes the long way, where Triton judges it.
    """
    from triton.language import core

    type_init, tensor_init = core.block_type.__init__, core.tensor.__init__
    types: dict[Any, Any] = {}
    tensors: dict[Any, Any] = {}

    def plain(shape: Any) -> tuple[int, ...] | None:
        if type(shape) is core.tuple:
            shape = shape.values
        elif type(shape) is not list:
            return None
        values = tuple([d.value if type(d) is core.constexpr else d for d in shape])
        for value in values:
            if type(value) is not int:
                return None
        return values

    def of_type(self: Any, element_ty: Any, shape: Any) -> None:
        key = (plain(shape), element_ty.name)
        known = types.get(key)
        if known is None:
            type_init(self, element_ty, shape)
            if key[0] is not None:
                types[key] = (self.shape, self.numel, self.name)
            return
        self.element_ty = element_ty
        self.shape, self.numel, self.name = known

    def of_tensor(self: Any, handle: Any, type: Any) -> None:
        key = plain(type.shape) if type.is_block() else ()
        known = tensors.get(key)
        if known is None:
            tensor_init(self, handle, type)
            if key is not None:
                tensors[key] = (self.shape, self.numel)
            return
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = known

    return [(core.block_type, "__init__", of_type), (core.tensor, "__init__", of_tensor)]


def known_dtypes() -> list[Replacement]:
    """Look NumPy's type up once per Triton type: a type's name says all that the answer depends on."""
    from triton.runtime import interpreter

    find = interpreter._get_np_dtype
    known: dict[str, Any] = {}

    def found(tt_dtype: Any) -> Any:
        name = tt_dtype.name
        if name not in known:
            known[name] = find(tt_dtype)
        return known[name]

    return [(interpreter, "_get_np_dtype", found)]


def same_shape() -> list[Replacement]:
    """Do not broadcast what has one shape already: Triton compares dimension by dimension and returns both as given."""
    from triton.language.semantic import TritonSemantic

    broadcast = TritonSemantic.broadcast_impl_value

    def quick(self: Any, lhs: Any, rhs: Any) -> Any:
        if lhs.type.is_block() and rhs.type.is_block() and lhs.type.shape.values == rhs.type.shape.values:
            return lhs, rhs
        return broadcast(self, lhs, rhs)

    return [(TritonSemantic, "broadcast_impl_value", quick)]


PATCHES: tuple[Callable[[], list[Replacement]], ...] = (
    prepare_once,
    no_overflow,
    known_shapes,
    known_dtypes,
    same_shape,
)


@contextmanager
def quick() -> Iterator[None]:
    """Interpret with the patches above, where Triton is the one they know."""
    import triton

    if triton.__version__ != VERSION:
        warnings.warn(
            f"Triton {triton.__version__}: tests/reference_kernels/interpreter.py knows {VERSION} only, so kernels are"
            " interpreted without its patches, several times slower: read them against the new source.",
            stacklevel=3,
        )
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for make in PATCHES:
            for owner, name, value in make():
                replaced.append((owner, name, getattr(owner, name)))
                patch.setattr(owner, name, value)
        yield
    replaced.clear()


@contextmanager
def plain() -> Iterator[None]:
    """Interpret as Triton does, within `quick`."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, value in replaced:
            patch.setattr(owner, name, value)
        yield
