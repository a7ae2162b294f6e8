"""Appending is a pure copy: what is written is equal bit by bit, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_kernels.kvrm.append_kv import UNIT, append_kv, check_slots

SHAPE: dict[str, Any] = {"new": [5, 20, 1], "cached": 3, "heads": 2, "dim": 16, "page": 4, "skip": 4}


def draw(device: torch.device, dtype: torch.dtype = torch.float32, **change: Any) -> dict[str, Any]:
    return UNIT.make_inputs(device=device, dtype=dtype, seed=0, **{**SHAPE, **change})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", UNIT.shapes)
def test_every_bit_is_that_of_the_reference(shape: str, dtype: torch.dtype, device: torch.device):
    inputs = draw(device, dtype, **{"cached": 0, "page": 16, "skip": 0, **UNIT.shapes[shape]})
    found, truth = append_kv(**inputs), UNIT.reference(**inputs)
    assert all(torch.equal(found[name], truth[name]) for name in truth)


@given(data=st.data(), tokens=st.integers(1, 40), page=st.integers(1, 8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_slots_in_any_order_get_their_token_and_all_others_keep_theirs(
    data: st.DataObject, tokens: int, page: int, device: torch.device
):
    pages = -(-tokens // page) + 1
    slots = data.draw(st.permutations(range(pages * page)))[:tokens]
    slots = [slot if data.draw(st.booleans()) else -1 for slot in slots]
    k, v = (torch.randn(tokens, 2, 16, device=device) for _ in range(2))
    old_k, old_v = (torch.randn(pages, 2, page, 16, device=device) for _ in range(2))
    k_pages, v_pages = old_k.clone(), old_v.clone()
    append_kv(k, v, k_pages, v_pages, torch.tensor(slots, dtype=torch.int32, device=device))
    for new, old, now in ((k, old_k, k_pages), (v, old_v, v_pages)):
        for slot in range(pages * page):
            wanted = new[slots.index(slot)] if slot in slots else old[slot // page, :, slot % page]
            assert torch.equal(now[slot // page, :, slot % page], wanted)


def test_special_values_survive(device: torch.device):
    special = torch.tensor([float("inf"), float("-inf"), -0.0, 1e-45, 3.4e38, 0.0] + [1.0] * 10, device=device)
    k = special.expand(1, 1, 16).contiguous()
    pages = torch.zeros(1, 1, 4, 16, device=device)
    append_kv(k, k, pages, pages.clone(), torch.tensor([2], dtype=torch.int32, device=device))
    assert torch.equal(pages[0, 0, 2].view(torch.int32), special.view(torch.int32))


def test_strides_do_not_matter(device: torch.device):
    inputs = draw(device)
    truth = UNIT.reference(**inputs)
    k, v = inputs["k"].transpose(0, 1).contiguous().transpose(0, 1), inputs["v"].contiguous()  # k has heads outermost
    by_token = {n: inputs[n].transpose(1, 2).contiguous().transpose(1, 2) for n in ("k_pages", "v_pages")}  # NHD
    slots = inputs["slots"].repeat_interleave(2)[::2]
    found = append_kv(k, v, **by_token, slots=slots)
    assert all(torch.equal(found[name], truth[name]) for name in truth)


def test_pages_are_changed_in_place(device: torch.device):
    inputs = draw(device)
    assert append_kv(**inputs)["k_pages"] is inputs["k_pages"]


def test_reference_sees_a_stray_write(device: torch.device):
    inputs = draw(device)
    found = append_kv(**inputs)["k_pages"]
    skipped = (found == -3.0).all(-1).nonzero()[0]
    found[tuple(skipped)] = 0.0
    assert not torch.equal(found, UNIT.reference(**inputs)["k_pages"])


@pytest.mark.parametrize("bad", [-2, 28])
def test_slots_outside_of_the_pool_are_refused(bad: int, device: torch.device):
    with pytest.raises(ValueError, match="0 … 27"):
        check_slots(torch.tensor([3, bad, -1], dtype=torch.int32, device=device), 7, 4)


def test_two_tokens_in_one_slot_are_refused(device: torch.device):
    inputs = draw(device)
    inputs["slots"][1] = inputs["slots"][2]
    with pytest.raises(ValueError, match="same slot"):
        append_kv(**inputs)


def test_padding_may_repeat(device: torch.device):
    check_slots(torch.tensor([-1, 0, -1], dtype=torch.int32, device=device), 1, 1)
    check_slots(torch.tensor([], dtype=torch.int32, device=device), 1, 1)


def strided(device: torch.device) -> torch.Tensor:
    return torch.zeros(26, 2, 32, device=device)[..., ::2]


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("slots", lambda d: torch.zeros(26, device=d), TypeError, "int32"),
        ("slots", lambda d: torch.zeros(3, dtype=torch.int32, device=d), ValueError, "slots must have shape"),
        ("k", lambda d: torch.zeros(26, 3, 16, device=d), ValueError, "k must have shape"),
        ("v", lambda d: torch.zeros(25, 2, 16, device=d), ValueError, "v must have shape"),
        ("v", lambda d: torch.zeros(26, 2, 16, dtype=torch.float16, device=d), TypeError, "float16"),
        ("v_pages", lambda d: torch.zeros(1, 2, 4, 16, device=d), ValueError, "v_pages must have shape"),
        ("k", strided, ValueError, "contiguous heads"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, value: Callable[..., torch.Tensor], error: type, words: str, device: torch.device
):
    with pytest.raises(error, match=words):
        append_kv(**{**draw(device), name: value(device)})


def test_pages_of_different_layout_are_refused(device: torch.device):
    inputs = draw(device)
    inputs["v_pages"] = inputs["v_pages"].transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.raises(ValueError, match="same strides"):
        append_kv(**inputs)


def test_odd_head_sizes_are_refused(device: torch.device):
    with pytest.raises(ValueError, match="power of two"):
        append_kv(**draw(device, dim=48))
