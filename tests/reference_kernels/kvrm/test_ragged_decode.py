"""Budgets per head: exact in sum, and what they save is really saved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.paging import gather
from reference_kernels.kvrm import compact as compaction
from reference_kernels.kvrm.ragged_decode import UNIT, head_budgets, memory, ragged_decode
from reference_kernels.kvs.paged_decode import paged_decode


@given(
    length=st.integers(1, 3000), heads=st.integers(1, 16), fraction=st.floats(0.01, 1.0), spread=st.floats(0, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_budgets_have_the_exact_mean_and_lie_between_one_and_the_length(
    length: int, heads: int, fraction: float, spread: float, seed: int
):
    total = round(fraction * length * heads)
    if total < heads:
        with pytest.raises(ValueError, match="budget of 0"):
            head_budgets([length], heads, fraction, spread, seed)
        return
    budgets = head_budgets([length], heads, fraction, spread, seed)
    assert int(budgets.sum()) == total
    assert int(budgets.min()) >= 1
    assert int(budgets.max()) <= length


def test_without_spread_all_heads_are_equal():
    assert torch.equal(head_budgets([8192, 0], 4, 0.25, 0.0), torch.tensor([[2048] * 4, [0] * 4], dtype=torch.int32))


def test_spread_spreads():
    budgets = head_budgets([8192], 8, 0.25, 0.8)
    assert int(budgets.max()) > 2 * int(budgets.min())


def test_budgets_at_both_limits_still_have_the_exact_mean():
    budgets = head_budgets([64], 16, 0.3, 3.0)
    assert int(budgets.sum()) == round(0.3 * 64 * 16)
    assert int(budgets.min()) == 1
    assert int(budgets.max()) == 64


@pytest.mark.parametrize(("fraction", "spread"), [(0.0, 0.5), (1.1, 0.5), (0.5, -1.0)])
def test_bad_fractions_and_spreads_are_refused(fraction: float, spread: float):
    with pytest.raises(ValueError, match="fraction must be"):
        head_budgets([100], 2, fraction, spread)


def test_a_quarter_of_the_tokens_takes_a_quarter_of_the_memory():
    lengths = [8192] * 32
    counted = memory(head_budgets(lengths, 8, 0.25, 0.8), torch.tensor(lengths), 16)
    assert counted["pages, dense"] == 32 * 8 * 512
    assert 3.9 < counted["times smaller"] <= 4.0  # the rest is in last pages


def test_figures_count_bytes_of_the_pools(device: torch.device):
    shape = {"lengths": [64, 32], "heads": 2, "group": 1, "dim": 64, "fraction": 0.5, "spread": 0.0}
    inputs = UNIT.make_inputs(device=device, dtype=torch.float32, seed=0, **shape)
    found = UNIT.figures(inputs, {}, 1.0)
    assert found["pages"] == len(inputs["k_pages"]) == 2 * (2 + 1)
    assert found["pages, dense"] == 2 * (4 + 2)
    assert found["MB saved"] == 6 * 2 * 16 * 64 * 4 / 1e6


@pytest.mark.parametrize("in_place", [False, True])
def test_decode_after_compaction_is_attention_over_the_kept_tokens(in_place: bool, device: torch.device):
    group, heads, dim = 4, 2, 64
    inputs: dict[str, Any] = compaction.UNIT.make_inputs(
        device=device, dtype=torch.float32, seed=3, lengths=[200, 45], heads=heads, dim=dim, spread=0.8
    )
    q = torch.randn(2, heads * group, dim, device=device)
    dense = [
        [gather(inputs[name], row, int(n)) for row, n in zip(inputs["block_table"], inputs["lengths"], strict=True)]
        for name in ("k_pages", "v_pages")
    ]
    function = compaction.compact_in_place if in_place else compaction.compact
    out = ragged_decode(q, **function(**inputs))["out"]
    for request, (k, v) in enumerate(zip(*dense, strict=True)):
        seen = torch.zeros(heads * group, 1, k.shape[1], dtype=torch.bool, device=device)
        for head in range(heads):
            count = int(inputs["counts"][request, head])
            seen[head * group : (head + 1) * group, 0, inputs["kept"][request, head, :count].long()] = True
        wide = [part.repeat_interleave(group, 0) for part in (k, v)]
        truth = torch.nn.functional.scaled_dot_product_attention(q[request].unsqueeze(1), *wide, attn_mask=seen)
        torch.testing.assert_close(out[request], truth[:, 0], rtol=1e-5, atol=1e-5)


def test_dense_peer_reads_all_tokens(device: torch.device, monkeypatch: pytest.MonkeyPatch):
    shape = {"lengths": [40, 20], "heads": 2, "group": 1, "dim": 64}
    inputs = UNIT.make_inputs(device=device, dtype=torch.float32, seed=0, **shape)
    seen: list[list[int]] = []

    def spy(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor, **kw: Any
    ) -> Any:
        seen.append(lengths.tolist())
        return paged_decode(q, k, v, table, lengths, **kw)

    (peer,) = UNIT.peers.values()
    monkeypatch.setattr("reference_kernels.kvrm.ragged_decode.dense.paged_decode", spy)
    assert peer(inputs)() is None
    assert seen == [[40, 20]]


def test_lengths_without_heads_are_refused(device: torch.device):
    with pytest.raises(ValueError, match="lengths must have shape"):
        ragged_decode(*(torch.zeros(1, 1, 16, 64, device=device),) * 3, torch.zeros(1, 1), torch.zeros(1))
