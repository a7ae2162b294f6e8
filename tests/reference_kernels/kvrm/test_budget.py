"""Budgets are exact, whatever the scores: ties, infinities, negative zeros, padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.kvrm import select
from reference_kernels.kvrm.budget import (
    check_lengths,
    choose,
    keep_across_heads,
    keep_per_head,
    pyramid_budgets,
)
from tests.reference_kernels.conftest import DEVICE

FEW = settings(max_examples=7, deadline=None)
VALUES = [-1e30, -2.5, -1.0, -0.0, 0.0, 1e-38, 0.5, 0.75, 1.0, 3e38, float("inf"), float("-inf")]  # many ties


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    batch, heads, tokens = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 40))
    lengths = draw(st.lists(st.integers(0, tokens), min_size=batch, max_size=batch))
    count = batch * heads * tokens
    values = draw(st.lists(st.sampled_from(VALUES), min_size=count, max_size=count))
    scores = torch.tensor(values, device=DEVICE).reshape(batch, heads, tokens)
    return scores, torch.tensor(lengths, dtype=torch.int32, device=DEVICE)


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "CHUNK", 16)  # so that small rows have several


def check_form(kept: torch.Tensor, counts: torch.Tensor, lengths: torch.Tensor) -> None:
    """Ascending without repetition, within the request, -1 behind the last."""
    for request, row_counts, length in zip(kept.tolist(), counts.tolist(), lengths.tolist(), strict=True):
        for row, count in zip(request, row_counts, strict=True):
            assert row[:count] == sorted(set(row[:count]))
            assert all(0 <= token < length for token in row[:count])
            assert row[count:] == [-1] * (len(row) - count)


@FEW
@given(cases(), st.integers(1, 45), st.integers(0, 5), st.integers(0, 5))
def test_kernel_keeps_what_a_stable_sort_keeps(case, budget, sinks, recent):
    scores, lengths = case
    sinks, recent = min(sinks, budget), min(recent, budget - min(sinks, budget))
    kept, counts = keep_per_head(scores, lengths, budget, sinks=sinks, recent=recent)
    expected, expected_counts = choose(scores, lengths, budget, sinks=sinks, recent=recent)
    assert torch.equal(kept, expected)
    assert torch.equal(counts, expected_counts)
    assert torch.equal(counts, lengths.clamp(max=budget)[:, None].expand_as(counts))
    check_form(kept, counts, lengths)
    for b, length in enumerate(lengths.tolist()):
        always = {t for t in range(length) if t < sinks or t >= length - recent}
        assert all(always <= set(kept[b, h].tolist()) for h in range(scores.shape[1]))


@FEW
@given(cases(), st.integers(1, 45))
def test_kept_scores_are_those_of_torch_topk(case, budget):
    scores, lengths = case
    kept, counts = keep_per_head(scores, lengths, budget)
    for b, length in enumerate(lengths.tolist()):
        for h in range(scores.shape[1]):
            mine = scores[b, h, kept[b, h, : counts[b, h]].long()]
            best = torch.topk(scores[b, h, :length], min(budget, length)).values
            assert torch.equal(mine.sort(descending=True).values, best)


@FEW
@given(cases(), st.integers(1, 45), st.floats(0, 1), st.integers(0, 3))
def test_heads_together_keep_exactly_their_budget(case, budget, share, recent):
    scores, lengths = case
    recent = min(recent, budget)
    floor = recent + int(share * (budget - recent))
    kept, counts = keep_across_heads(scores, lengths, budget, floor=floor, recent=recent)
    expected, expected_counts = choose(scores, lengths, budget, floor=floor, recent=recent)
    assert torch.equal(kept, expected)
    assert torch.equal(counts, expected_counts)
    check_form(kept, counts, lengths)
    assert torch.equal(counts.sum(1), lengths.clamp(max=budget) * scores.shape[1])
    assert (counts >= lengths.clamp(max=floor)[:, None]).all()


def test_without_a_floor_heads_together_are_one_topk(device):
    scores = torch.randn(2, 3, 50, device=device)
    lengths = torch.tensor([50, 31], dtype=torch.int32, device=device)
    kept, counts = keep_across_heads(scores, lengths, 7, floor=0)
    for b, length in enumerate([50, 31]):
        mine = [scores[b, h, t].item() for h in range(3) for t in kept[b, h, : counts[b, h]].tolist()]
        best = torch.topk(scores[b, :, :length].flatten(), 21).values
        assert sorted(mine, reverse=True) == best.tolist()


def test_a_floor_of_the_whole_budget_is_a_budget_per_head(device):
    scores, lengths = torch.randn(2, 2, 40, device=device), torch.tensor([40, 9], dtype=torch.int32, device=device)
    together, alone = keep_across_heads(scores, lengths, 11, floor=11), keep_per_head(scores, lengths, 11)
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[1], alone[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_lies_past_the_length_does_not_matter(value, device):
    scores = torch.randn(2, 2, 40, device=device)
    lengths = torch.tensor([25, 0], dtype=torch.int32, device=device)
    expected = keep_per_head(scores, lengths, 10, sinks=1, recent=2)
    scores[0, :, 25:], scores[1] = value, value
    found = keep_per_head(scores, lengths, 10, sinks=1, recent=2)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert found[1][1].tolist() == [0, 0]


def test_a_budget_above_the_length_keeps_everything(device):
    scores, lengths = torch.randn(1, 2, 20, device=device), torch.tensor([13], dtype=torch.int32, device=device)
    for kept, counts in (keep_per_head(scores, lengths, 64), keep_across_heads(scores, lengths, 64, floor=3)):
        assert counts.tolist() == [[13, 13]]
        assert kept[0, :, :13].tolist() == [list(range(13))] * 2


def test_ties_go_to_the_lower_index_and_then_to_the_lower_head(device):
    scores, lengths = torch.ones(1, 2, 40, device=device), torch.tensor([40], dtype=torch.int32, device=device)
    assert keep_per_head(scores, lengths, 3)[0].tolist() == [[[0, 1, 2], [0, 1, 2]]]
    kept, counts = keep_across_heads(scores, lengths, 3, floor=1)
    assert counts.tolist() == [[5, 1]]
    assert kept[0, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_row_of_many_chunks(device, monkeypatch):
    monkeypatch.undo()
    scores = torch.randn(1, 2, 2 * select.CHUNK + 77, device=device)
    lengths = torch.tensor([2 * select.CHUNK + 70], dtype=torch.int32, device=device)
    for kept, expected in (
        (keep_per_head(scores, lengths, 1000, sinks=4, recent=16), choose(scores, lengths, 1000, sinks=4, recent=16)),
        (keep_across_heads(scores, lengths, 1000, floor=200), choose(scores, lengths, 1000, floor=200)),
    ):
        assert torch.equal(kept[0], expected[0])
        assert torch.equal(kept[1], expected[1])


def test_negative_zero_is_zero(device):
    scores = torch.tensor([[[-1.0, -0.0, 0.0, -0.0]]], device=device)
    lengths = torch.tensor([4], dtype=torch.int32, device=device)
    assert keep_per_head(scores, lengths, 1)[0].tolist() == [[[1]]]


@FEW
@given(cases(), st.permutations(range(3)))
def test_permuting_heads_permutes_the_choice(case, order):
    scores, lengths = case
    order = [head for head in order if head < scores.shape[1]]
    kept, _ = keep_per_head(scores, lengths, 5, recent=2)
    moved, _ = keep_per_head(scores[:, order], lengths, 5, recent=2)
    assert torch.equal(moved, kept[:, order])


@FEW
@given(cases(), st.integers(1, 20))
def test_a_larger_budget_only_adds_tokens(case, budget):
    scores, lengths = case
    small, large = (keep_per_head(scores, lengths, size)[0] for size in (budget, budget + 3))
    for row, wider in zip(small.flatten(0, 1).tolist(), large.flatten(0, 1).tolist(), strict=True):
        assert set(row) - {-1} <= set(wider)


def test_only_the_order_of_scores_matters(device):
    scores, lengths = torch.randn(1, 2, 60, device=device), torch.tensor([55], dtype=torch.int32, device=device)
    kept, _ = keep_per_head(scores, lengths, 9)
    ranks = scores.argsort(-1).argsort(-1).float() - 30
    assert torch.equal(keep_per_head(ranks, lengths, 9)[0], kept)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 400), st.integers(0, 50), st.integers(1, 30))
def test_pyramid_budgets_fall_and_sum_exactly(budget, layers, length, window, beta):
    window = min(window, budget)
    budgets = pyramid_budgets(budget, layers, length, window=window, beta=beta)
    assert len(budgets) == layers
    assert budgets == sorted(budgets, reverse=True)
    assert sum(budgets) == layers * min(budget, length)
    assert all(min(window, length) <= tokens <= length for tokens in budgets)


@settings(max_examples=100, deadline=None)
@given(st.integers(20, 300), st.integers(2, 40), st.integers(1, 16), st.integers(1, 30))
def test_pyramid_budgets_follow_the_papers_line(budget, layers, window, beta):
    budgets = pyramid_budgets(budget, layers, 10_000, window=window, beta=beta)
    base = budget - window
    last = base // beta
    first = 2 * base - last
    assert (budgets[0], budgets[-1]) == (window + first, window + last)
    for layer, tokens in enumerate(budgets):
        assert abs(tokens - window - (first - (first - last) * layer / (layers - 1))) < 1


def test_a_pyramid_that_exceeds_the_prompt_is_turned_until_it_fits():
    assert pyramid_budgets(60, 3, 100, window=5) == [100, 60, 20]
    assert pyramid_budgets(60, 3, 60, window=5) == [60, 60, 60]
    assert pyramid_budgets(60, 4, 1000, beta=1) == [60] * 4


def test_bad_budgets_are_refused(device):
    scores, lengths = torch.randn(1, 2, 8, device=device), torch.tensor([8], dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match="at least one token"):
        keep_per_head(scores, lengths, 0)
    with pytest.raises(ValueError, match="cannot hold 5"):
        keep_per_head(scores, lengths, 4, sinks=4, recent=1)
    with pytest.raises(ValueError, match="must not be negative"):
        keep_per_head(scores, lengths, 4, sinks=-1, recent=1)
    with pytest.raises(ValueError, match="floor, 5"):
        keep_across_heads(scores, lengths, 4, floor=5)
    with pytest.raises(ValueError, match="floor, 1"):
        keep_across_heads(scores, lengths, 4, floor=1, recent=2)
    with pytest.raises(TypeError, match="float32"):
        keep_per_head(scores.double(), lengths, 4)
    with pytest.raises(TypeError, match="int32"):
        keep_per_head(scores, lengths.long(), 4)
    with pytest.raises(ValueError, match="lengths must have shape"):
        keep_per_head(scores, lengths.expand(2), 4)
    with pytest.raises(ValueError, match="between 0 and 8"):
        check_lengths(lengths + 1, 8)
    with pytest.raises(ValueError, match="at least one request"):
        check_lengths(lengths[:0], 8)
    with pytest.raises(ValueError, match="beta"):
        pyramid_budgets(4, 2, 10, beta=0)
