"""Cutting: every token is read exactly once, in pieces that are done first; merging: pieces leave the same result."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.device import multiprocessors
from reference_kernels.core.lse import merge_states
from reference_kernels.core.pieces import WAVES, Plan, Tuning, cut, merge, plan_rows

pytestmark = pytest.mark.quick

ROWS = st.one_of(
    st.lists(st.integers(0, 300), min_size=1, max_size=12),
    st.lists(st.sampled_from([0, 1, 15, 16, 17, 1023, 40_000]), min_size=1, max_size=8),
)
BLOCKS = st.sampled_from([1, 16, 32, 33, 128])
PIECES = st.integers(1, 20)
TUNING = Tuning(block=16, pieces=2)
CPU = torch.device("cpu")


def pieces_of(rows: list[int], block: int, pieces: int) -> tuple[list[list[int]], list[int]]:
    items, parts = cut(torch.tensor(rows, dtype=torch.int32), block, pieces)
    assert items.dtype == parts.dtype == torch.int32
    return items.tolist(), parts.tolist()


def by_row(items: list[list[int]], rows: int) -> list[list[list[int]]]:
    return [sorted((item for item in items if item[0] == row), key=lambda item: item[1]) for row in range(rows)]


@given(rows=ROWS, block=BLOCKS, pieces=PIECES)
@settings(max_examples=150, deadline=None)
def test_pieces_tile_every_row_exactly_once(rows: list[int], block: int, pieces: int):
    items, _ = pieces_of(rows, block, pieces)
    assert len(items) == sum(map(len, by_row(items, len(rows)))), "every item is of a row that exists"
    for length, mine in zip(rows, by_row(items, len(rows)), strict=True):
        reached = 0
        for _, start, stop, _ in mine:
            assert start == reached, "no gap and no overlap"
            assert stop > start or length == 0
            reached = stop
        assert reached == length


@given(rows=ROWS, block=BLOCKS, pieces=PIECES)
@settings(max_examples=100, deadline=None)
def test_pieces_are_whole_tiles_except_at_the_end_of_a_row(rows: list[int], block: int, pieces: int):
    items, _ = pieces_of(rows, block, pieces)
    assert all(start % block == 0 and (stop % block == 0 or stop == rows[row]) for row, start, stop, _ in items)


@given(rows=ROWS, block=BLOCKS, pieces=PIECES)
@settings(max_examples=100, deadline=None)
def test_pieces_of_a_row_are_equal_except_the_last_which_is_not_longer(rows: list[int], block: int, pieces: int):
    items, _ = pieces_of(rows, block, pieces)
    for mine in by_row(items, len(rows)):
        *sizes, last = [stop - start for _, start, stop, _ in mine]
        assert len(set(sizes)) <= 1
        assert last <= max(sizes, default=last)
        count = len(mine)
        if sizes:  # rounding up to tiles is all that makes the others longer than an even share
            assert sizes[0] - block < (sum(sizes) + last) / count + block


@given(rows=ROWS, block=BLOCKS, pieces=PIECES)
@settings(max_examples=100, deadline=None)
def test_the_longest_come_first(rows: list[int], block: int, pieces: int):
    sizes = [stop - start for _, start, stop, _ in pieces_of(rows, block, pieces)[0]]
    assert sizes == sorted(sizes, reverse=True)


@given(rows=ROWS, block=BLOCKS, pieces=PIECES)
@settings(max_examples=100, deadline=None)
def test_parts_and_slots_name_every_partial_state_once(rows: list[int], block: int, pieces: int):
    items, parts = pieces_of(rows, block, pieces)
    assert len(parts) == len(rows) + 1
    assert parts[0] == 0
    for row, mine in enumerate(by_row(items, len(rows))):
        slots = [slot for *_, slot in mine]
        if len(mine) == 1:
            assert slots == [-1], "a whole row is written directly"
            assert parts[row] == parts[row + 1]
        else:
            assert slots == list(range(parts[row], parts[row + 1])), "slots lie in the order of the tokens"


@given(rows=ROWS, block=BLOCKS, pieces=PIECES)
@settings(max_examples=100, deadline=None)
def test_an_empty_row_gets_one_item(rows: list[int], block: int, pieces: int):
    rows = [*rows, 0]
    items, _ = pieces_of(rows, block, pieces)
    for row, mine in enumerate(by_row(items, len(rows))):
        if rows[row] == 0:
            assert mine == [[row, 0, 0, -1]]


@given(
    rows=st.lists(st.integers(0, 60), min_size=1, max_size=8), pieces=st.integers(1, 12), block=st.sampled_from([1, 8])
)
@settings(max_examples=150, deadline=None)
def test_no_other_size_of_pieces_is_done_sooner(rows: list[int], pieces: int, block: int):
    items, _ = pieces_of(rows, block, pieces)
    tiles = [-(-length // block) for length in rows]

    def cost(count: int, longest: int) -> int:  # a piece costs two tiles to begin
        return math.ceil(count / pieces) * (longest + 2)

    real = [item for item in items if item[2] > item[1]]
    others = {}
    for size in range(1, max(*tiles, 1) + 1):
        count = sum(math.ceil(n / size) for n in tiles)
        if count <= WAVES * pieces or size == max(tiles):
            others[size] = cost(count, size)
    longest = max((math.ceil((stop - start) / block) for _, start, stop, _ in real), default=1)
    assert cost(len(real), longest) <= min(others.values(), default=math.inf)


def test_one_long_row_is_cut_for_all_programs():
    items, parts = pieces_of([16 * 64], 16, 8)
    assert [stop - start for _, start, stop, _ in items] == [128] * 8
    assert parts == [0, 8]


def test_enough_equal_rows_are_not_cut():
    items, parts = pieces_of([256] * 8, 16, 8)
    assert [item[3] for item in items] == [-1] * 8
    assert parts == [0] * 9


@given(rows=st.lists(st.integers(0, 3000), min_size=1, max_size=8), spare=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_room_to_spare_changes_nothing_but_spare_items(rows: list[int], spare: int):
    lengths = torch.tensor(rows, dtype=torch.int32)
    exact = plan_rows(lengths, TUNING, CPU)
    roomy = plan_rows(lengths, TUNING, CPU, capacity=len(exact.items) + spare)
    assert torch.equal(roomy.items[: len(exact.items)], exact.items)
    assert roomy.items[len(exact.items) :, 0].tolist() == [-1] * spare
    assert torch.equal(roomy.parts, exact.parts)


@given(rows=st.lists(st.integers(0, 5000), min_size=1, max_size=40), pieces=st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_the_promised_capacity_is_always_enough(rows: list[int], pieces: int):
    tuning = Tuning(block=16, pieces=pieces)
    room = len(rows) + WAVES * pieces * multiprocessors(CPU)
    assert len(plan_rows(torch.tensor(rows), tuning, CPU, capacity=room).items) == room


def test_two_dimensions_of_lengths_are_rows_in_order():
    lengths = torch.tensor([[5, 900], [0, 40]], dtype=torch.int32)
    one, other = plan_rows(lengths, TUNING, CPU), plan_rows(lengths.flatten(), TUNING, CPU)
    assert torch.equal(one.items, other.items)
    assert torch.equal(one.parts, other.parts)


@given(
    before=st.lists(st.integers(0, 3000), min_size=4, max_size=4),
    after=st.lists(st.integers(0, 3000), min_size=4, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_a_refilled_plan_is_a_fresh_one_in_the_same_buffers(before: list[int], after: list[int]):
    room = 4 + WAVES * TUNING.pieces * multiprocessors(CPU)
    plan = plan_rows(torch.tensor(before, dtype=torch.int32), TUNING, CPU, capacity=room)
    places = plan.items.data_ptr(), plan.parts.data_ptr()
    plan.refill(torch.tensor(after, dtype=torch.int32))
    fresh = plan_rows(torch.tensor(after, dtype=torch.int32), TUNING, CPU, capacity=room)
    assert (plan.items.data_ptr(), plan.parts.data_ptr()) == places
    assert torch.equal(plan.items, fresh.items)
    assert torch.equal(plan.parts, fresh.parts)


@pytest.mark.parametrize("rows", [[100], [100, 100, 100]])
def test_refill_refuses_another_number_of_rows(rows: list[int]):
    plan = plan_rows(torch.tensor([100, 100]), TUNING, CPU, capacity=64)
    with pytest.raises(ValueError, match=f"the plan is for 2 rows, not {len(rows)}"):
        plan.refill(torch.tensor(rows))


def test_too_many_pieces_are_refused_and_leave_the_plan_as_it_was():
    plan = plan_rows(torch.tensor([10, 10]), TUNING, CPU)
    items, parts = plan.items.clone(), plan.parts.clone()
    with pytest.raises(ValueError, match=r"the work falls into \d+ pieces, the plan has room for 2"):
        plan.refill(torch.tensor([10, 5000]))
    assert torch.equal(plan.items, items)
    assert torch.equal(plan.parts, parts)
    with pytest.raises(ValueError, match="the plan has room for 1"):
        plan_rows(torch.tensor([10, 10]), TUNING, CPU, capacity=1)


def test_states_have_room_for_every_piece():
    plan = plan_rows(torch.tensor([1000, 3]), TUNING, CPU, capacity=50)
    out, lse = plan.states(len(plan.parts) - 1, 4, 64)
    assert (out.shape, lse.shape) == ((50, 4, 64), (50, 4))
    assert out.dtype == lse.dtype == torch.float32


def states(parts: list[int], group: int, dim: int, device: torch.device) -> tuple[Plan, torch.Tensor, torch.Tensor]:
    """Return a plan whose row r has parts[r] partial states, and the states."""
    ends = torch.tensor([0, *parts], dtype=torch.int32).cumsum(0).to(torch.int32)
    slots = max(int(ends[-1]), 1)
    plan = Plan(torch.zeros(slots, 4, dtype=torch.int32, device=device), ends.to(device), TUNING, 8)
    generator = torch.Generator().manual_seed(slots)
    outs = torch.randn(slots, group, dim, generator=generator).to(device)
    return plan, outs, (torch.randn(slots, group, generator=generator) * 40).to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("group", "dim"), [(1, 16), (3, 64)])
def test_merge_is_the_merging_of_states_and_leaves_whole_rows_alone(
    dtype: torch.dtype, group: int, dim: int, device: torch.device
):
    parts = [2, 0, 32, 33, 0, 70]
    plan, part_out, part_lse = states(parts, group, dim, device)
    out = torch.full((len(parts) * group, dim), 7.0, dtype=dtype, device=device)
    lse = torch.full((len(parts) * group,), 7.0, device=device)
    merge(plan, part_out, part_lse, out, lse)
    for row, (begin, end) in enumerate(zip(plan.parts.tolist(), plan.parts.tolist()[1:], strict=False)):
        mine = slice(row * group, (row + 1) * group)
        if begin == end:
            assert (out[mine] == 7).all()
            assert (lse[mine] == 7).all()
            continue
        wanted, logs = merge_states(part_out[begin:end].double(), part_lse[begin:end].double())
        exact = 1e-3 if dtype == torch.float16 else 1e-5
        torch.testing.assert_close(out[mine].double(), wanted, rtol=exact, atol=exact)
        torch.testing.assert_close(lse[mine].double(), logs, rtol=1e-6, atol=1e-6)


def test_states_of_nothing_take_no_part_in_a_merge(device: torch.device):
    plan, part_out, part_lse = states([40], 2, 16, device)
    part_lse[3:38] = -torch.inf  # a piece has tokens, but a kernel may have masked them all
    part_lse[1:, 1] = -torch.inf
    out, lse = torch.full((2, 16), torch.nan, device=device), torch.full((2,), torch.nan, device=device)
    merge(plan, part_out, part_lse, out, lse)
    wanted, logs = merge_states(part_out.double(), part_lse.double())
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse.double(), logs, rtol=1e-6, atol=1e-6)


def test_states_for_other_rows_are_refused():
    plan = plan_rows(torch.tensor([40, 7]), Tuning(block=16), torch.device("cpu"))
    with pytest.raises(ValueError, match="the plan is for 2 rows, not for 3"):
        plan.states(3, 4, 64)


@pytest.mark.parametrize("alive", [[], [36]])
def test_a_merge_may_begin_with_states_of_nothing(alive: list[int], device: torch.device):
    """The first tile of a merge holds 32 states; that all of them are empty must not turn into NaN."""
    plan, part_out, part_lse = states([40], 1, 16, device)
    empty = torch.ones(40, dtype=torch.bool)
    empty[alive] = False
    part_lse[empty.to(device)], part_out[empty.to(device)] = -torch.inf, 0.0
    out, lse = torch.full((1, 16), torch.nan, device=device), torch.full((1,), torch.nan, device=device)
    merge(plan, part_out, part_lse, out, lse)
    wanted, logs = merge_states(part_out.double(), part_lse.double())
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse.double(), logs, rtol=1e-6, atol=1e-6)
