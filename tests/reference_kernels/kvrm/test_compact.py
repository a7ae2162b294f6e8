"""Compaction is a pure copy of the kept tokens, into new pages or in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_kernels.core.paging import gather
from reference_kernels.kvrm import compact as module
from reference_kernels.kvrm.compact import UNIT, Tuning, check_kept, compact, compact_in_place, make_plan

SHAPE: dict[str, Any] = {"lengths": [40, 9], "heads": 3, "dim": 16, "page": 4, "counts": [[1, 17, 40], [9, 4, 2]]}
IN_THE_TEST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def draw(device: torch.device, dtype: torch.dtype = torch.float32, **change: Any) -> dict[str, Any]:
    return UNIT.make_inputs(device=device, dtype=dtype, seed=0, **{**SHAPE, **change})


def tokens_of(outputs: dict[str, torch.Tensor], name: str, request: int, head: int) -> torch.Tensor:
    """What a head holds after compaction [count, D]; its pages hold one head or all."""
    pages = outputs[name]
    table, count = outputs["block_table"][request, head], int(outputs["lengths"][request, head])
    return gather(pages, table, count)[0 if pages.shape[1] == 1 else head]


def chosen(inputs: dict[str, Any], name: str, request: int, head: int) -> torch.Tensor:
    """What a head should hold."""
    whole = gather(inputs[name], inputs["block_table"][request], int(inputs["lengths"][request]))[head]
    return whole[inputs["kept"][request, head, : int(inputs["counts"][request, head])].long()]


def assert_kept(outputs: dict[str, torch.Tensor], inputs: dict[str, Any]) -> None:
    for name in ("k_pages", "v_pages"):
        for request, row in enumerate(inputs["counts"].tolist()):
            for head in range(len(row)):
                assert torch.equal(tokens_of(outputs, name, request, head), chosen(inputs, name, request, head))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", UNIT.shapes)
def test_every_bit_is_that_of_the_reference(shape: str, dtype: torch.dtype, device: torch.device):
    inputs = draw(device, dtype, **{"page": 16, "counts": None, **UNIT.shapes[shape]})
    found, truth = compact(**inputs), UNIT.reference(**inputs)
    assert all(torch.equal(found[name], truth[name]) for name in truth)


@given(data=st.data(), length=st.integers(1, 50), page=st.integers(1, 9), block=st.sampled_from([1, 4, 16]))
@IN_THE_TEST
def test_any_ascending_choice_is_moved_into_new_pages_and_in_place_alike(
    data: st.DataObject, length: int, page: int, block: int, device: torch.device
):
    kept = [sorted(data.draw(st.sets(st.integers(0, length - 1), min_size=1))) for _ in range(2)]
    inputs = draw(device, lengths=[length], heads=2, page=page, counts=[[len(k) for k in kept]])
    for head, indices in enumerate(kept):
        inputs["kept"][0, head, : len(indices)] = torch.tensor(indices)
    tuning = Tuning(block=block, walk=block)
    assert_kept(compact(**inputs, plan=make_plan(inputs["counts"], page, tuning=tuning)), inputs)
    pools = {name: inputs[name].clone() for name in ("k_pages", "v_pages")}
    assert_kept(compact_in_place(**{**inputs, **pools}, tuning=tuning), inputs)


@given(kept=st.sets(st.integers(0, 200), min_size=1).map(sorted), block=st.integers(1, 64))
def test_no_step_in_place_reads_where_an_earlier_step_has_written(kept: list[int], block: int):
    for first in range(0, len(kept), block):
        assert min(kept[first:]) >= first  # earlier steps wrote to places below `first`


def test_in_place_needs_the_order(device: torch.device):
    inputs = draw(device, lengths=[4], heads=1, counts=[[2]])
    inputs["kept"][0, 0] = torch.tensor([3, 0])
    pools = {name: inputs[name].clone() for name in ("k_pages", "v_pages")}
    wrong = compact_in_place(**{**inputs, **pools}, checked=True, tuning=Tuning(walk=1))
    assert not torch.equal(tokens_of(wrong, "k_pages", 0, 0), chosen(inputs, "k_pages", 0, 0))
    with pytest.raises(ValueError, match="does not ascend"):
        compact_in_place(**{**inputs, **pools})


def test_every_source_is_also_a_target_of_its_step(device: torch.device):
    # all tokens move up by one: without the barrier, threads would overwrite what others have not read yet
    inputs = draw(device, lengths=[1000], heads=2, dim=64, page=16, counts=[[999, 999]])
    inputs["kept"][0] = torch.arange(1, 1000)
    pools = {name: inputs[name].clone() for name in ("k_pages", "v_pages")}
    assert_kept(compact_in_place(**{**inputs, **pools}), inputs)


def test_in_place_leaves_other_requests_and_what_lies_behind_alone(device: torch.device):
    inputs = draw(device, lengths=[40, 9], counts=[[5, 5, 5], [9, 9, 9]])
    inputs["kept"][1] = torch.cat([torch.arange(9), torch.zeros(inputs["kept"].shape[2] - 9)])
    pools = {name: inputs[name].clone() for name in ("k_pages", "v_pages")}
    found = compact_in_place(**{**inputs, **pools})
    touched = inputs["block_table"][0, :2].long()  # 5 tokens in pages of 4
    rest = torch.ones(len(inputs["k_pages"]), dtype=torch.bool)
    rest[touched.cpu()] = False
    assert torch.equal(found["k_pages"][rest].nan_to_num(), inputs["k_pages"][rest].nan_to_num())
    assert found["k_pages"] is pools["k_pages"]


def test_heads_cut_along_d_are_moved_alike(device: torch.device, monkeypatch: pytest.MonkeyPatch):
    inputs = draw(device, dim=128)
    for processors in (1, 1000):
        monkeypatch.setattr(module, "multiprocessors", lambda _, n=processors: n)
        pools = {name: inputs[name].clone() for name in ("k_pages", "v_pages")}
        assert_kept(compact_in_place(**{**inputs, **pools}), inputs)


def test_keeping_everything_changes_nothing(device: torch.device):
    inputs = draw(device, lengths=[13], heads=2, counts=[[13, 13]])
    found = compact(**inputs)
    for head in range(2):
        whole = gather(inputs["v_pages"], inputs["block_table"][0], 13)[head]
        assert torch.equal(tokens_of(found, "v_pages", 0, head), whole)


def test_memory_follows_the_sum_of_the_counts(device: torch.device):
    inputs = draw(device)
    assert len(compact(**inputs)["k_pages"]) == 1 + 5 + 10 + 3 + 1 + 1  # pages of 4


def test_what_remains_of_a_last_page_is_zero(device: torch.device):
    inputs = draw(device, lengths=[40], heads=1, page=16, counts=[[17]])
    assert bool((compact(**inputs)["v_pages"][1, 0, 1:] == 0).all())


def test_pages_of_a_pool_in_use_are_filled_and_no_others(device: torch.device):
    inputs = draw(device)
    numbers = torch.randperm(30, generator=torch.Generator().manual_seed(0))[:25].to(torch.int32)
    pools = tuple(torch.full((30, 1, 4, 16), 7.0, device=device) for _ in range(2))
    found = compact(**inputs, plan=make_plan(inputs["counts"], 4, numbers), into=pools)
    assert found["k_pages"] is pools[0]
    assert_kept(found, inputs)
    others = sorted(set(range(30)) - set(numbers[:21].tolist()))
    assert all(bool((pool[others] == 7).all()) for pool in pools)


def test_one_plan_serves_all_layers_that_keep_as_many(device: torch.device):
    one = draw(device)
    other = UNIT.make_inputs(device=device, dtype=torch.float32, seed=5, **SHAPE)
    plan = make_plan(one["counts"], 4)
    for inputs in (one, other):
        assert_kept(compact(**inputs, plan=plan), inputs)


def test_too_few_pages_are_refused():
    with pytest.raises(ValueError, match="need 3 pages, 2 are given"):
        make_plan(torch.tensor([[5, 1]], dtype=torch.int32), 4, torch.arange(2, dtype=torch.int32))


def as_kept(*rows: list[int]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.int32)


@pytest.mark.parametrize(
    ("kept", "counts", "words"),
    [
        (as_kept([0, 2, 2]), [[3]], r"kept\[0, 0, 2\] is 2, which does not ascend"),
        (as_kept([0, 2, 1]), [[3]], r"kept\[0, 0, 2\] is 1, which does not ascend"),
        (as_kept([0, 1, 6]), [[3]], r"kept\[0, 0, 2\] is 6, which is outside"),
        (as_kept([-1, 1, 2]), [[3]], r"kept\[0, 0, 0\] is -1, which is outside"),
        (as_kept([0, 1, 2]), [[4]], "kept has 3 columns"),
        (as_kept([0, 1, 2]), [[-1]], "counts go from -1"),
        (as_kept([0, 1, 2], [0, 1, 2]), [[2, 0]], "head 1 of request 0 keeps nothing"),
    ],
)
def test_bad_indices_and_budgets_of_zero_are_refused(kept: torch.Tensor, counts: list[list[int]], words: str):
    lengths, sizes = torch.tensor([6], dtype=torch.int32), torch.tensor(counts, dtype=torch.int32)
    with pytest.raises(ValueError, match=words):
        check_kept(kept, sizes, lengths)


def test_a_head_may_be_emptied_on_request_and_an_empty_request_has_nothing_to_keep():
    sizes = torch.tensor([[0]], dtype=torch.int32)
    check_kept(as_kept([9, 9]), sizes, torch.tensor([6]), empty_heads=True)
    check_kept(as_kept([9, 9]), sizes, torch.tensor([0]))


def test_shared_pages_are_refused_in_place(device: torch.device):
    inputs = draw(device, lengths=[8, 8], counts=[[2] * 3] * 2)
    inputs["block_table"][1, 0] = inputs["block_table"][0, 0]
    with pytest.raises(ValueError, match="share pages"):
        compact_in_place(**inputs)
    assert_kept(compact(**inputs), inputs)


@pytest.mark.parametrize(
    ("name", "change", "error", "words"),
    [
        ("kept", lambda t: t.long(), TypeError, "int32"),
        ("kept", lambda t: t[:, :2], ValueError, "kept must have shape"),
        ("counts", lambda t: t[0], ValueError, "counts must have shape"),
        ("v_pages", lambda t: t.half(), TypeError, "float16"),
        ("v_pages", lambda t: t[1:], ValueError, "v_pages must have shape"),
        ("k_pages", lambda t: t.transpose(1, 2).contiguous().transpose(1, 2), ValueError, "same strides"),
        ("kept", lambda t: t.repeat_interleave(2, -1)[..., ::2], ValueError, "must be contiguous"),
        ("block_table", lambda t: t + 1000, ValueError, "outside of the pool"),
    ],
)
@pytest.mark.parametrize("function", [compact, compact_in_place])
def test_what_does_not_fit_is_refused(
    function: Any, name: str, change: Any, error: type, words: str, device: torch.device
):
    inputs = draw(device)
    with pytest.raises(error, match=words):
        function(**{**inputs, name: change(inputs[name])})


def test_new_pages_of_other_shapes_are_refused(device: torch.device):
    inputs = draw(device)
    with pytest.raises(ValueError, match="new_k must have shape"):
        compact(**inputs, into=(torch.zeros(21, 1, 8, 16, device=device),) * 2)
