"""The error budget: derived from data, and never passed by NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.budget import Verdict, compare, judge, to_double
from reference_kernels.core.unit import Unit, Work

pytestmark = pytest.mark.quick

INF, NAN = torch.inf, torch.nan


def exactly(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(
    sixteenths=st.lists(st.integers(-64, 64), min_size=1, max_size=6), power=st.integers(1, 20),
    place=st.integers(0, 5), sign=st.sampled_from([-1, 1]), dtype=st.sampled_from([torch.float32, torch.float16]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_an_error_of_one_budget_passes_and_twice_the_budget_does_not(
    sixteenths: list[int], power: int, place: int, sign: int, dtype: torch.dtype
):
    exact = exactly(*sixteenths) / 16  # all numbers here are dyadic, so that nothing is rounded
    place %= len(sixteenths)
    rough = exact.to(dtype)
    rough[-1] = rough[-1] + 2.0**-power
    error = float((rough.double() - exact).abs().max())
    budget = 2 * error + torch.finfo(dtype).eps * float(exact.abs().max())
    for factor, good in ((0, True), (1, True), (2, budget == 0)):
        actual = exact.clone()
        actual[place] += sign * factor * budget
        verdict = compare("x", actual, exact, rough)
        assert verdict.budget == budget
        assert verdict.error == factor * budget
        assert verdict.good is good


def test_the_budget_is_twice_the_references_error_and_one_rounding():
    exact = exactly(3.0, -8.0)
    rough = torch.tensor([3.0 + 2**-10, -8.0], dtype=torch.float32)
    verdict = compare("x", exact.float(), exact, rough)
    assert verdict.budget == 2 * 2**-10 + 2**-23 * 8
    assert verdict.error == 0


def test_the_coarser_precision_decides_the_rounding():
    exact = exactly(1.0)
    for actual, rough in ((torch.float16, torch.float32), (torch.float32, torch.float16), (torch.float16,) * 2):
        assert compare("x", exact.to(actual), exact, exact.to(rough)).budget == 2**-10


@pytest.mark.parametrize("exact", [1.0, 0.0, INF, -INF])
@pytest.mark.parametrize("rough", [1.0, 0.0, INF, -INF, NAN])
def test_nan_never_passes(exact: float, rough: float):
    actual = torch.tensor([2.0, NAN])
    assert not compare("x", actual, exactly(2.0, exact), torch.tensor([2.0, rough])).good


def test_nan_in_the_reference_lets_nothing_pass():
    assert not compare("x", torch.tensor([0.0]), exactly(NAN), torch.tensor([NAN])).good
    assert not compare("x", torch.tensor([NAN]), exactly(NAN), torch.tensor([NAN])).good
    assert not compare("x", torch.tensor([0.0]), exactly(0.0), torch.tensor([NAN])).good
    assert not Verdict("x", 0.0, NAN).good


@pytest.mark.parametrize("infinite", [INF, -INF])
def test_infinities_must_agree_in_sign_and_place(infinite: float):
    exact, rough = exactly(1.0, infinite), torch.tensor([1.0, infinite])
    assert compare("x", torch.tensor([1.0, infinite]), exact, rough).good
    for wrong in ([1.0, -infinite], [1.0, 3e38], [1.0, 0.0], [infinite, infinite], [infinite, 1.0]):
        assert not compare("x", torch.tensor(wrong), exact, rough).good
    assert not compare("x", torch.tensor([infinite, 1.0]), exactly(1.0, 1.0), torch.ones(2)).good


def test_an_infinity_takes_no_part_in_the_budget_of_the_rest():
    exact, rough = exactly(4.0, -INF), torch.tensor([4.0, -INF])
    verdict = compare("x", torch.tensor([4.5, -INF]), exact, rough)
    assert (verdict.error, verdict.budget) == (0.5, 4 * 2**-23)
    assert not verdict.good


@pytest.mark.parametrize(("exact", "rough"), [(70000.0, INF), (-INF, 0.0), (INF, 0.0)])
def test_a_reference_that_overflows_excuses_nothing(exact: float, rough: float):
    actual = torch.tensor([5.0, 1.0])
    assert not compare("x", actual, exactly(exact, 7.0), torch.tensor([rough, 7.0])).good


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.bool])
def test_integers_must_be_equal(dtype: torch.dtype):
    exact = torch.tensor([0, 1, 1, 0]).to(dtype)
    assert compare("x", exact.clone(), exact, exact).good
    wrong = torch.tensor([1, 1, 1, 1]).to(dtype)
    verdict = compare("x", wrong, exact, wrong)  # whatever the rough reference says
    assert (verdict.error, verdict.budget) == (2.0, 0.0)
    assert not verdict.good


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_nothing_is_right(dtype: torch.dtype):
    empty = torch.zeros(0, 3, dtype=dtype)
    assert compare("x", empty, to_double(empty), empty).good


@pytest.mark.parametrize("shape", [(1,), (2, 1), (3,), ()])
def test_another_shape_is_refused_even_where_it_would_broadcast(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"x has shape .*, the reference \(2,\)"):
        compare("x", torch.zeros(shape), exactly(0.0, 0.0), torch.zeros(2))


def test_to_double_is_exact_and_leaves_the_rest_alone():
    half = torch.tensor([0.1], dtype=torch.float16)
    assert to_double(half).dtype == torch.float64
    assert float(to_double(half)) == float(half)
    for other in (torch.tensor([1]), torch.tensor([True]), 3, None, "words"):
        assert to_double(other) is other


def test_a_verdict_says_what_is_wrong():
    assert str(Verdict("out", 0.25, 0.125)) == "out: error 0.25, budget 0.125  WRONG"
    assert str(Verdict("out", 0.1, 0.125)) == "out: error 0.1, budget 0.125"


def unit(reference: Any, **kwargs: Any) -> Unit:
    return Unit(reference, reference, lambda **_: {}, lambda **_: Work(0), shapes={}, **kwargs)


def test_judge_runs_the_reference_in_fp64_and_in_the_inputs_precision():
    third = torch.tensor([1.0, 10.0], dtype=torch.float16)
    seen: list[torch.dtype] = []

    def reference(x: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(x.dtype)
        return {"out": x / 3}

    (verdict,) = judge(unit(reference), {"x": third}, {"out": third / 3, "more": third})
    assert sorted(map(str, seen)) == ["torch.float16", "torch.float64"]
    rounding = float(((third / 3).double() - third.double() / 3).abs().max())
    assert verdict == Verdict("out", rounding, 2 * rounding + 2**-10 * 10 / 3)


def test_judge_hands_the_kernels_choices_to_the_reference():
    x = torch.tensor([5.0, 5.0])

    def reference(x: torch.Tensor, chosen: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        place = torch.tensor([0]) if chosen is None else chosen
        return {"out": x[place], "place": place}

    outputs = {"out": x[1:], "place": torch.tensor([1]), "chosen": torch.tensor([1])}
    follows = judge(unit(reference, follows=("chosen",)), {"x": x}, outputs)
    assert all(verdict.good for verdict in follows)
    assert not all(verdict.good for verdict in judge(unit(reference), {"x": x}, outputs))


def test_judge_misses_no_output_of_the_reference():
    both = unit(lambda x: {"a": x, "b": x})
    x = torch.ones(1)
    assert [v.good for v in judge(both, {"x": x}, {"a": x, "b": x + 1})] == [True, False]
    with pytest.raises(KeyError, match="b"):
        judge(both, {"x": x}, {"a": x})
