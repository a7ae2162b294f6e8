"""What a unit hands on: its plan joins the inputs, and its work counts both directions."""

from __future__ import annotations

from typing import Any

import pytest

from reference_kernels.core.unit import Unit, Work

pytestmark = pytest.mark.quick


def unit(**kwargs: Any) -> Unit:
    return Unit(lambda **_: {}, lambda **_: {}, lambda **_: {}, lambda **_: Work(0), shapes={}, **kwargs)


def test_what_moves_is_what_is_read_and_what_is_written():
    assert Work(3, 4, flops=100).moved == 7
    assert Work(3).moved == 3


def test_without_a_plan_the_inputs_are_as_they_were():
    inputs = {"q": 1}
    assert unit().planned(inputs) == {"q": 1}


def test_a_plan_is_made_from_the_inputs_and_joins_them():
    inputs = {"q": 1, "lengths": 2}
    planned = unit(plan=lambda *, lengths, **others: {"plan": lengths + len(others)}).planned(inputs)
    assert planned == {"q": 1, "lengths": 2, "plan": 3}
    assert inputs == {"q": 1, "lengths": 2}, "the inputs themselves stay as they are"
