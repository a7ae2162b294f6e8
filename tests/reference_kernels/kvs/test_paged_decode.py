"""Paged decode: PyTorch's attention, wherever the pages lie and however the work is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core import pieces as pieces_module
from reference_kernels.core.peers import DECODE_PEERS
from reference_kernels.core.pieces import WAVES, Tuning, plan_rows
from reference_kernels.kvs.paged_decode import UNIT, dense_peer, lognormal_lengths, make_plan, paged_decode
from tests.reference_kernels.caches import check_close, draw_tokens, paginate, strided, truth
from tests.reference_kernels.conftest import DEVICE

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU, and there is none")
TUNING = Tuning(block=16, pieces=2)


def cache(
    lengths: list[int],
    heads: int,
    group: int,
    dim: int,
    page: int = 16,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Any], Any]:
    """Return arguments for `paged_decode`, and what it must return."""
    k, v = (draw_tokens(lengths, heads, dim, device=DEVICE, dtype=dtype, seed=2 * seed + i) for i in range(2))
    k_pages, v_pages, table = paginate(k, v, page, seed=seed)
    q = draw_tokens([1] * len(lengths), heads * group, dim, device=DEVICE, dtype=dtype, seed=seed + 77)
    arguments = {
        "q": torch.cat(q, 1).transpose(0, 1).contiguous(), "k_pages": k_pages, "v_pages": v_pages, "block_table": table,
        "lengths": torch.tensor(lengths, dtype=torch.int32, device=DEVICE),
    }  # fmt: skip
    return arguments, truth(arguments["q"], k, v)


@pytest.mark.parametrize(
    ("lengths", "heads", "group", "dim"),
    [
        ([1, 15, 16, 17], 2, 1, 64),
        ([17, 1, 33], 1, 4, 128),
        ([1023], 1, 8, 64),
        ([16, 0, 65], 2, 4, 256),
        ([3, 40], 1, 3, 16),
        ([20], 1, 20, 32),
    ],
)
def test_it_is_pytorchs_attention(lengths: list[int], heads: int, group: int, dim: int):
    arguments, wanted = cache(lengths, heads, group, dim)
    check_close(paged_decode(**arguments), wanted)


def test_it_is_pytorchs_attention_in_fp16():
    arguments, wanted = cache([1, 17, 70], 2, 4, 64, dtype=torch.float16)
    result = paged_decode(**arguments)
    assert result["out"].dtype == torch.float16
    assert result["lse"].dtype == torch.float32
    check_close(result, wanted, 2e-3)


def test_the_scale_is_a_factor_on_the_scores():
    arguments, _ = cache([40, 7], 2, 2, 64)
    k, v = draw_tokens([40, 7], 2, 64, device=DEVICE), draw_tokens([40, 7], 2, 64, device=DEVICE, seed=1)
    check_close(paged_decode(**arguments, scale=0.5), truth(arguments["q"], k, v, 0.5))


@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=3), page=st.sampled_from([1, 3, 16, 64]),
    block=st.sampled_from([16, 32]), pieces=st.integers(1, 9), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_neither_pages_nor_pieces_change_the_result(lengths: list[int], page: int, block: int, pieces: int, seed: int):
    arguments, wanted = cache(lengths, 1, 2, 32, page, seed)
    plan = make_plan(arguments["q"], arguments["lengths"], 1, Tuning(block=block, pieces=pieces))
    check_close(paged_decode(**arguments, plan=plan), wanted)


def test_renaming_pages_changes_not_a_bit():
    arguments, _ = cache([50, 33], 2, 2, 64)
    before = paged_decode(**arguments)
    order = torch.randperm(len(arguments["k_pages"]), generator=torch.Generator().manual_seed(5)).to(DEVICE)
    table = arguments["block_table"]
    moved = {
        **arguments,
        **{name: arguments[name][order] for name in ("k_pages", "v_pages")},
        "block_table": torch.where(table < 0, table, order.argsort()[table.long()]).to(torch.int32),
    }
    for name, part in paged_decode(**moved).items():
        assert torch.equal(part, before[name])


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four multiprocessors, on whatever GPU: into how many pieces rows are cut depends on them."""
    monkeypatch.setattr(pieces_module, "multiprocessors", lambda _: 4)


@pytest.mark.parametrize("pieces", [1, 3, 200])
def test_a_row_in_many_pieces_is_the_row_in_one(small_card: None, pieces: int):
    arguments, wanted = cache([1023], 1, 4, 64, seed=3)
    plan = make_plan(arguments["q"], arguments["lengths"], 1, Tuning(block=16, pieces=pieces))
    assert (len(plan.items) > 32) == (pieces == 200), "200 pieces merge in more than one block"
    check_close(paged_decode(**arguments, plan=plan), wanted)


def test_poison_in_unused_slots_never_leaks():
    arguments, wanted = cache([1, 17, 0, 31], 2, 4, 64)
    assert torch.isnan(arguments["k_pages"]).any()
    for poison in (torch.nan, torch.inf, -torch.inf):
        poisoned = {name: arguments[name].nan_to_num(poison) for name in ("k_pages", "v_pages")}
        check_close(paged_decode(**arguments | poisoned), wanted)


def test_entries_past_the_length_are_never_read():
    arguments, wanted = cache([20, 3, 0], 1, 2, 64)
    wide = torch.nn.functional.pad(arguments["block_table"], (0, 3), value=2**30)
    wide[wide < 0] = -(2**30)
    check_close(paged_decode(**arguments | {"block_table": wide}), wanted)


def test_a_request_without_tokens_gives_zeros_and_minus_infinity():
    arguments, _ = cache([0, 5], 2, 2, 64)
    result = paged_decode(**arguments)
    assert (result["out"][0] == 0).all()
    assert (result["lse"][0] == -torch.inf).all()
    assert (result["out"][1] != 0).all()


def per_head(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same cache with a table and a length for each head."""
    heads = arguments["k_pages"].shape[1]
    return arguments | {
        "block_table": arguments["block_table"].unsqueeze(1).repeat(1, heads, 1),
        "lengths": arguments["lengths"].unsqueeze(1).repeat(1, heads),
    }


def test_tables_per_head_over_shared_pages_are_the_shared_table():
    arguments, _ = cache([50, 0, 17], 3, 2, 64)
    before = paged_decode(**arguments)
    for name, part in paged_decode(**per_head(arguments)).items():
        assert torch.equal(part, before[name])


def test_pages_owned_by_heads_give_every_head_its_own_length():
    lengths = [[5, 0, 33], [16, 70, 1]]
    k, v = (draw_tokens([*lengths[0], *lengths[1]], 1, 64, device=DEVICE, seed=i) for i in range(2))  # one row per head
    k_pages, v_pages, table = paginate(k, v, 16)
    q = torch.randn(6, 4, 64, generator=torch.Generator().manual_seed(9)).to(DEVICE)  # 4 query heads for each
    sizes = torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
    result = paged_decode(q.reshape(2, 12, 64), k_pages, v_pages, table.reshape(2, 3, -1), sizes)
    out, lse = truth(q, k, v)
    check_close(result, (out.reshape(2, 12, 64), lse.reshape(2, 12)))


def test_heads_of_a_page_may_lie_behind_one_anothers_tokens():
    arguments, wanted = cache([40, 3], 2, 2, 64)
    swapped = {
        name: arguments[name].transpose(1, 2).contiguous().transpose(1, 2) for name in ("k_pages", "v_pages")
    }  # [P, S, H, D] in memory
    check_close(paged_decode(**arguments | swapped), wanted)


@pytest.mark.parametrize("name", ["q", "block_table"])
def test_strided_arguments_are_read_as_what_they_are(name: str):
    arguments, wanted = cache([40, 17, 50], 2, 2, 64)
    check_close(paged_decode(**arguments | {name: strided(arguments[name])}), wanted)


def test_a_roomy_plan_gives_the_same_result(small_card: None):
    arguments, _ = cache([50, 300], 1, 2, 64)
    rows = arguments["lengths"].cpu()
    plain = paged_decode(**arguments, plan=plan_rows(rows, TUNING, DEVICE))
    for name, part in paged_decode(**arguments, plan=plan_rows(rows, TUNING, DEVICE, capacity=100)).items():
        torch.testing.assert_close(part, plain[name])  # a GPU may add the same numbers in another order


def test_a_refilled_plan_serves_the_next_step(small_card: None):
    arguments, wanted = cache([50, 300, 0], 2, 2, 64)
    plan = make_plan(arguments["q"], torch.tensor([7, 0, 900]), 2, TUNING, capacity=100)
    places = plan.items.data_ptr(), plan.parts.data_ptr()
    plan.refill(arguments["lengths"].repeat_interleave(2))
    assert (plan.items.data_ptr(), plan.parts.data_ptr()) == places
    result = paged_decode(**arguments, plan=plan)
    check_close(result, wanted)
    fresh = paged_decode(**arguments, plan=make_plan(arguments["q"], arguments["lengths"], 2, TUNING))
    for name, part in fresh.items():
        torch.testing.assert_close(result[name], part)


@needs_gpu
def test_a_captured_graph_is_right_after_a_refill():
    first, _ = cache([700, 3], 2, 2, 64)
    second, wanted = cache([5, 900], 2, 2, 64, seed=4)
    width, pool = (
        max(sizes)
        for sizes in zip(*((a["block_table"].shape[1], len(a["k_pages"])) for a in (first, second)), strict=True)
    )
    room = 4 + WAVES * TUNING.pieces * torch.cuda.get_device_properties(DEVICE).multi_processor_count
    plan = make_plan(first["q"], first["lengths"], 2, TUNING, capacity=room)
    static = {
        name: torch.full((pool, 2, 16, 64), torch.nan, device=DEVICE) for name in ("k_pages", "v_pages")
    } | {"block_table": torch.full((2, width), -1, dtype=torch.int32, device=DEVICE)}  # fmt: skip
    static |= {name: first[name].clone() for name in ("q", "lengths")}

    def step(arguments: dict[str, Any]) -> None:
        for name in ("k_pages", "v_pages"):
            static[name][: len(arguments[name])] = arguments[name]
        static["block_table"][:, : arguments["block_table"].shape[1]] = arguments["block_table"]
        static["q"].copy_(arguments["q"])
        static["lengths"].copy_(arguments["lengths"])

    step(first)
    for _ in range(2):
        paged_decode(**static, plan=plan)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = paged_decode(**static, plan=plan)
    step(second)
    plan.refill(second["lengths"].cpu().repeat_interleave(2))
    graph.replay()
    torch.cuda.synchronize()
    check_close(result, wanted)


def refused(error: type[Exception], match: str, **changes: Any) -> None:
    arguments, _ = cache([20, 40], 2, 4, 64)
    with pytest.raises(error, match=match):
        paged_decode(**arguments | changes)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=DEVICE)


def ints(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def test_wrong_shapes_are_refused():
    refused(ValueError, r"q must have shape \[any, any, any\]", q=zeros(2, 64))
    refused(ValueError, r"k_pages must have shape \[any, any, any, 64\]", k_pages=zeros(7, 2, 16, 32))
    refused(ValueError, "v_pages must have shape", v_pages=zeros(7, 2, 8, 64))
    refused(ValueError, r"lengths must have shape \[2\]", lengths=ints(20))
    refused(ValueError, r"lengths must have shape \[2\]", lengths=ints([[20]]))
    refused(ValueError, r"block_table must have shape \[2, any\]", block_table=ints(0, 1, 2))
    refused(ValueError, r"block_table must have shape \[2, 2, any\]", lengths=ints([20, 1], [3, 3]))
    refused(ValueError, "pages hold 2 heads; lengths say that there are 4", lengths=zeros(2, 4, dtype=torch.int32))


def test_query_heads_must_be_a_multiple_of_the_key_heads():
    refused(ValueError, "query heads, 7, must be a multiple of the key heads, 2", q=zeros(2, 7, 64))
    refused(ValueError, "query heads, 1, must be a multiple", q=zeros(2, 1, 64))


def test_a_head_size_of_48_is_refused():
    pages = {name: zeros(7, 2, 16, 48) for name in ("k_pages", "v_pages")}
    refused(ValueError, "power of two of at least 16, not 48", q=zeros(2, 8, 48), **pages)


def test_mixed_dtypes_are_refused():
    for name in ("q", "k_pages", "v_pages"):
        shape = (2, 8, 64) if name == "q" else (7, 2, 16, 64)
        refused(TypeError, "is torch.float", **{name: zeros(*shape, dtype=torch.float16)})


def test_int64_tables_and_lengths_are_refused():
    refused(TypeError, "block_table must be int32, not torch.int64", block_table=zeros(2, 3, dtype=torch.int64))
    refused(TypeError, "lengths must be int32, not torch.int64", lengths=zeros(2, dtype=torch.int64))


def test_entries_outside_of_the_pool_are_refused_with_their_place():
    arguments, _ = cache([20, 40], 2, 4, 64)
    for bad in (len(arguments["k_pages"]), -1):
        table = arguments["block_table"].clone()
        table[1, 2] = bad
        refused(ValueError, rf"block_table\[1, 2\] is {bad}, outside of the pool", block_table=table)


def test_impossible_lengths_are_refused():
    refused(ValueError, "must not be negative, one is -1", lengths=ints(20, -1))
    refused(ValueError, "a request of 49 tokens needs 4 pages, the block table has 3 columns", lengths=ints(20, 49))


def test_a_scale_that_is_not_positive_is_refused():
    refused(ValueError, "scale must be positive", scale=0.0)
    refused(ValueError, "scale must be positive", scale=-0.1)


def test_keys_and_values_of_different_layout_are_refused():
    arguments, _ = cache([20, 40], 2, 4, 64)
    other = arguments["v_pages"].transpose(1, 2).contiguous().transpose(1, 2)
    refused(ValueError, "must have the same strides", v_pages=other)


def test_a_plan_for_other_work_is_refused_by_its_room():
    with pytest.raises(ValueError, match="the plan has room for 1"):
        make_plan(zeros(2, 8, 64), ints(5, 5), 2, capacity=1)


def test_drawn_inputs_fit_and_the_work_is_counted():
    inputs = UNIT.make_inputs(device=DEVICE, dtype=torch.float16, seed=0, lengths=[10, 33], heads=2, group=4, dim=64)
    counted = UNIT.work(**inputs)
    assert counted.read == 2 * 43 * 2 * 64 * 2 + 2 * 8 * 64 * 2
    assert counted.written == 2 * 8 * 64 * 2 + 2 * 8 * 4
    assert counted.flops == 4 * 43 * 8 * 64
    nested = UNIT.make_inputs(device=DEVICE, dtype=torch.float16, seed=0, lengths=[[10, 33]], heads=2, group=4, dim=64)
    assert UNIT.work(**nested).flops == 4 * 43 * 4 * 64


def test_lengths_of_traffic_are_ragged_and_within_their_bounds():
    lengths = lognormal_lengths(200, 16, 5000)
    assert len(lengths) == 200
    assert min(lengths) >= 16
    assert max(lengths) == 5000
    assert sorted(lengths)[100] * 2 < sorted(lengths)[180]
    assert lengths == lognormal_lengths(200, 16, 5000)
    assert lengths != lognormal_lengths(200, 16, 5000, seed=1)


def test_tunings_stay_within_what_a_tile_can_be():
    for dim in (16, 64, 128, 256):
        for tokens in (1, 1 << 20):
            q = zeros(1, 1, dim)
            tuning = make_plan(q, ints(tokens), 1).tuning
            assert tuning.block >= 16
            assert tuning.block & (tuning.block - 1) == 0


def test_a_plan_for_other_rows_is_refused():
    arguments = UNIT.make_inputs(device=DEVICE, dtype=torch.float32, seed=0, lengths=[40, 9], heads=2, group=1, dim=64)
    plan = make_plan(arguments["q"], torch.tensor([40], dtype=torch.int32), 2)
    with pytest.raises(ValueError, match="the plan is for 2 rows, not for 4"):
        paged_decode(**arguments, plan=plan)


def test_the_dense_peer_of_other_units_gives_libraries_a_cache_without_poison(monkeypatch: pytest.MonkeyPatch):
    seen: list[dict[str, Any]] = []

    def library(inputs: dict[str, Any]) -> Any:
        seen.append(inputs)
        return lambda: inputs["q"]

    monkeypatch.setitem(DECODE_PEERS, "a library", library)
    q, lengths = torch.zeros(2, 4, 64, device=DEVICE), torch.tensor([3, 20], dtype=torch.int32, device=DEVICE)
    assert dense_peer(q, lengths, 2, "a library")() is None
    assert dense_peer(q, lengths, 2)() is None
    (inputs,) = seen
    assert inputs["lengths"].tolist() == [3, 20]
    assert all(torch.isfinite(inputs[name]).all() for name in ("k_pages", "v_pages"))
