"""StreamingLLM: sinks and a window, and one token out for one token in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.kvrm.budget import choose
from reference_kernels.kvrm.streaming_llm import streaming_llm
from tests.reference_kernels.conftest import DEVICE


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 70), st.integers(0, 6), st.integers(1, 3))
def test_the_rule_is_a_budget_without_scores(lengths, budget, sinks, heads):
    sinks = min(sinks, budget)
    sizes = torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
    outputs = streaming_llm(sizes, heads, budget, sinks=sinks)
    scores = torch.zeros(len(lengths), heads, 70, device=DEVICE)
    kept, counts = choose(scores, sizes, budget, sinks=sinks, recent=budget - sinks)
    assert torch.equal(outputs["kept"], kept)
    assert torch.equal(outputs["counts"], counts)


def test_each_token_of_a_stream_replaces_the_one_behind_the_sinks(device):
    def kept(length: int) -> list[int]:
        return streaming_llm(torch.tensor([length], dtype=torch.int32, device=device), 1, 16)["kept"][0, 0].tolist()

    for length in range(16, 40):
        before, after = kept(length), kept(length + 1)
        assert after == [*before[:4], *before[5:], length]


def test_bad_input_is_refused(device):
    lengths = torch.tensor([5], dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match="at least one token"):
        streaming_llm(lengths, 1, 0)
    with pytest.raises(ValueError, match="cannot hold 4"):
        streaming_llm(lengths, 1, 3)
    with pytest.raises(ValueError, match="at least one head"):
        streaming_llm(lengths, 0, 8)
    with pytest.raises(TypeError, match="int32"):
        streaming_llm(lengths.long(), 1, 8)
