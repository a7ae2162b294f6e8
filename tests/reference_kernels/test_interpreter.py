"""The patches of Triton's interpreter change no bit of what kernels return, and nothing of what Triton refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from reference_kernels.registry import load
from tests.reference_kernels import interpreter
from tests.reference_kernels.conftest import DEVICE

pytestmark = [
    pytest.mark.quick,
    pytest.mark.skipif(DEVICE.type != "cpu", reason="a GPU interprets nothing"),
    pytest.mark.skipif(triton.__version__ != interpreter.VERSION, reason="the patches do not know this Triton"),
]
POINTER = tl.pointer_type(tl.float16)
TYPES = [
    tl.int1, tl.int8, tl.uint8, tl.int16, tl.uint16, tl.int32, tl.uint32, tl.int64, tl.uint64, tl.float16, tl.bfloat16,
    tl.float32, tl.float64, tl.float8e5, tl.float8e4nv, POINTER,
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("quest", torch.float32, {"lengths": [70, 0, 9], "heads": 1, "group": 2, "dim": 64, "pages": 2}),
        ("kivi", torch.float16, {"quantized": [32], "tail": [5], "heads": 1, "group": 2, "dim": 64, "bits": 2}),
        ("fp8", torch.float16, {"lengths": [3, 18], "heads": 1, "group": 2, "dim": 64}),
        ("exponent_codec", torch.bfloat16, {"tokens": 17, "channels": 2}),
        ("tova", torch.float32, {"lengths": [40, 1], "heads": 1, "group": 3, "dim": 64, "budget": 16}),
    ],
)
def test_kernels_return_the_same_bits_without_the_patches(name: str, dtype: torch.dtype, shape: dict[str, Any]):
    unit = load(name).UNIT
    inputs = unit.planned(unit.make_inputs(device=DEVICE, dtype=dtype, seed=3, **shape))
    patched = unit.kernel(**inputs)
    with interpreter.plain():
        plain = unit.kernel(**inputs)
    assert patched.keys() == plain.keys()
    for output, found in patched.items():
        assert found.dtype == plain[output].dtype
        assert torch.equal(found.contiguous().view(torch.uint8), plain[output].contiguous().view(torch.uint8)), output


def described(dtype: Any) -> tuple[Any, ...]:
    """What there is to read of a type, and of a tensor that has it."""
    of_tensor = tl.tensor(None, dtype)
    shape, sizes = getattr(dtype, "shape", None), of_tensor.shape
    return (
        str(dtype), str(dtype.scalar), str(shape), repr(shape), str(getattr(shape, "type", None)),
        getattr(dtype, "numel", None), of_tensor.type is dtype, str(of_tensor.dtype), str(of_tensor.numel),
        [type(size) for size in sizes], repr(sizes), str(sizes.type), interpreted(dtype),
    )  # fmt: skip


def interpreted(dtype: Any) -> Any:
    from triton.runtime.interpreter import _get_np_dtype

    return _get_np_dtype(dtype)


def test_types_and_shapes_are_those_of_triton():
    for element in TYPES:
        for shape in ([], [1], [4], [4, 1], [1, 4], [2, 8, 16]):
            found = []
            for _ in range(2):  # the second is known
                found.append(described(tl.block_type(element, shape) if shape else element))
            with interpreter.plain():
                assert found == [described(tl.block_type(element, shape) if shape else element)] * 2


@pytest.mark.parametrize(
    ("shape", "error"), [([3], ValueError), ([4.0], TypeError), ([], TypeError), ([2**21], ValueError)]
)
def test_shapes_that_triton_refuses_stay_refused(shape: list[Any], error: type[Exception]):
    tl.block_type(tl.float32, [4])  # equals [4.0]
    for _ in range(2):
        with pytest.raises(error):
            tl.block_type(tl.float32, shape)


def test_what_is_patched_is_put_back():
    patched = [getattr(owner, name) for owner, name, _ in interpreter.replaced]
    with interpreter.plain():
        for (owner, name, value), mine in zip(interpreter.replaced, patched, strict=True):
            assert getattr(owner, name) is value
            assert value is not mine
    assert [getattr(owner, name) for owner, name, _ in interpreter.replaced] == patched
    assert len(patched) >= len(interpreter.PATCHES)


def test_another_triton_is_interpreted_without_patches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(triton, "__version__", "3.7.0")
    before = [getattr(owner, name) for owner, name, _ in interpreter.replaced]
    with pytest.warns(UserWarning, match=r"Triton 3\.7\.0: .*interpreter\.py knows 3\.6\.0 only"), interpreter.quick():
        assert [getattr(owner, name) for owner, name, _ in interpreter.replaced] == before
