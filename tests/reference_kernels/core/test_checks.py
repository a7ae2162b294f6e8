"""Bad input is refused with words that name the argument and what is wrong; good input is let through."""

from __future__ import annotations

import pytest
import torch

from reference_kernels.core.checks import (
    check_dim,
    check_heads,
    check_integers,
    check_same,
    check_scale,
    check_shape,
    check_table,
)

pytestmark = pytest.mark.quick

CPU = torch.device("cpu")
ELSEWHERE = torch.device("meta")


def ints(*values: int | list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_one_dtype_and_device_is_the_same():
    check_same(q=torch.zeros(1), k=torch.zeros(2, 3))
    check_same(q=torch.zeros(1, dtype=torch.float16))


def test_other_dtypes_and_devices_are_named():
    with pytest.raises(TypeError, match=r"v is torch.float16, q is torch.float32"):
        check_same(q=torch.zeros(1), k=torch.zeros(1), v=torch.zeros(1, dtype=torch.float16))
    with pytest.raises(ValueError, match="k is on meta, q on cpu"):
        check_same(q=torch.zeros(1), k=torch.zeros(1, device=ELSEWHERE))
    with pytest.raises(TypeError, match=r"q must be floating-point, not torch.int32"):
        check_same(q=ints(1), k=ints(1))


@pytest.mark.parametrize("wanted", [(2, 3), (None, 3), (2, None), (None, None)])
def test_a_fitting_shape_passes(wanted: tuple[int | None, ...]):
    check_shape("x", torch.zeros(2, 3), *wanted)


@pytest.mark.parametrize("wanted", [(3, 2), (2,), (2, 3, 1), (None,), (None, 4), ()])
def test_an_unfitting_shape_is_refused(wanted: tuple[int | None, ...]):
    with pytest.raises(ValueError, match="x must have shape"):
        check_shape("x", torch.zeros(2, 3), *wanted)


def test_the_refusal_says_both_shapes():
    with pytest.raises(ValueError, match=r"x must have shape \[any, 5\], not \[2, 3\]"):
        check_shape("x", torch.zeros(2, 3), None, 5)


def test_only_int32_on_the_datas_device_passes():
    check_integers(CPU, a=ints(1), b=ints(2))
    with pytest.raises(TypeError, match=r"b must be int32, not torch.int64"):
        check_integers(CPU, a=ints(1), b=torch.tensor([1]))
    with pytest.raises(ValueError, match="a is on meta, the data on cpu"):
        check_integers(CPU, a=ints(1).to(ELSEWHERE))


def test_the_group_size_must_be_whole():
    assert [check_heads(8, 1), check_heads(8, 4), check_heads(3, 3)] == [8, 2, 1]
    for query_heads, heads in ((8, 3), (4, 8), (0, 1), (1, 0), (0, 0)):
        with pytest.raises(
            ValueError, match=f"query heads, {query_heads}, must be a multiple of the key heads, {heads}"
        ):
            check_heads(query_heads, heads)


@pytest.mark.parametrize("dim", [16, 64, 128, 256])
def test_powers_of_two_are_head_sizes(dim: int):
    check_dim(dim)


@pytest.mark.parametrize("dim", [0, 1, 8, 17, 48, 80, 96, 192])
def test_other_numbers_are_not(dim: int):
    with pytest.raises(ValueError, match=f"power of two of at least 16, not {dim}"):
        check_dim(dim)


def test_the_scale_is_one_over_the_root_if_none_is_given():
    assert check_scale(None, 64) == 0.125
    assert check_scale(0.3, 64) == 0.3
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="scale must be positive"):
            check_scale(scale, 64)


@pytest.mark.parametrize(
    ("table", "lengths"),
    [
        (ints([0, 9]), ints(32)),
        (ints([3, -1]), ints(16)),  # an entry past the length may be anything
        (ints([-1, -1], [9, 10]), ints(0, 17 + 15)),
        (ints([[1, 2], [-1, -1]]), ints([20, 0])),
    ],
)
def test_a_table_within_the_pool_passes(table: torch.Tensor, lengths: torch.Tensor):
    check_table(table, lengths, 11, 16)


@pytest.mark.parametrize("bad", [-1, 11, 2**31 - 1])
def test_an_entry_outside_of_the_pool_is_named_with_its_place(bad: int):
    with pytest.raises(ValueError, match=rf"block_table\[1, 2\] is {bad}, outside of the pool of 11 pages"):
        check_table(ints([0, 1, 2], [3, 10, bad]), ints(48, 33), 11, 16)


def test_the_place_in_a_table_per_head_has_three_numbers():
    with pytest.raises(ValueError, match=r"block_table\[0, 1, 1\] is 7, outside of the pool of 7 pages"):
        check_table(ints([[0, 1], [2, 7]]), ints([32, 17]), 7, 16)


def test_a_table_shared_by_heads_is_judged_by_every_heads_length():
    check_table(ints([[0, -1]]), ints([16, 5]), 7, 16)
    with pytest.raises(ValueError, match=r"block_table\[0, 1, 1\] is -1"):
        check_table(ints([[0, -1]]), ints([16, 17]), 7, 16)


def test_impossible_lengths_are_refused():
    with pytest.raises(ValueError, match="must not be negative, one is -3"):
        check_table(ints([0]), ints(-3), 1, 16)
    with pytest.raises(ValueError, match="a request of 33 tokens needs 3 pages, the block table has 2 columns"):
        check_table(ints([0, 0]), ints(33), 1, 16)
    with pytest.raises(ValueError, match="at least one request"):
        check_table(torch.zeros(0, 2, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), 1, 16)
