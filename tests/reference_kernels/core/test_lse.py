"""Merging states of disjoint sets of keys is associative and commutative, and gives dense attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_kernels.core.lse import attention, merge_states

pytestmark = pytest.mark.quick

State = tuple[torch.Tensor, torch.Tensor]
SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=6)
LOUD = st.sampled_from([0.0, 1.0, 30.0, 3000.0])  # of the scores: 3000 overflows without a maximum


def draw(sizes: list[int], loud: float, seed: int, dim: int = 3) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return scores [T] and values [T, D] of some sets of keys, fp64."""
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randn(n, generator=generator, dtype=torch.float64) * loud for n in sizes]
    return scores, [torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in sizes]


def state(scores: torch.Tensor, values: torch.Tensor) -> State:
    """The definition, by softmax; nothing where there is no key."""
    if not len(scores):
        return torch.zeros_like(values.sum(0)), torch.tensor(-torch.inf, dtype=scores.dtype)
    top = scores.max()
    return torch.softmax(scores, 0) @ values, top + torch.log(torch.exp(scores - top).sum())


def merged(*states: State) -> State:
    return merge_states(torch.stack([out for out, _ in states]), torch.stack([lse for _, lse in states]))


def assert_same(one: State, other: State) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@given(sizes=SIZES, loud=LOUD, seed=st.integers(0, 999))
@settings(max_examples=80, deadline=None)
def test_merged_states_are_dense_attention(sizes: list[int], loud: float, seed: int):
    scores, values = draw(sizes, loud, seed)
    assert_same(merged(*map(state, scores, values)), state(torch.cat(scores), torch.cat(values)))


@given(sizes=st.lists(st.integers(0, 3), min_size=3, max_size=3), loud=LOUD, seed=st.integers(0, 999))
@settings(max_examples=80, deadline=None)
def test_merging_is_associative_and_commutative(sizes: list[int], loud: float, seed: int):
    a, b, c = map(state, *draw(sizes, loud, seed))
    assert_same(merged(merged(a, b), c), merged(a, merged(b, c)))
    assert_same(merged(a, b, c), merged(merged(a, b), c))
    assert_same(merged(a, b), merged(b, a))


@given(size=st.integers(1, 5), loud=LOUD, seed=st.integers(0, 999), nothings=st.integers(1, 3), after=st.booleans())
@settings(max_examples=40, deadline=None)
def test_merging_with_nothing_changes_nothing(size: int, loud: float, seed: int, nothings: int, after: bool):
    scores, values = draw([size, 0], loud, seed)
    some, nothing = map(state, scores, values)
    out, lse = merged(*([some] * after + [nothing] * nothings + [some] * (not after)))
    assert torch.equal(out, some[0])
    assert torch.equal(lse, some[1])


@pytest.mark.parametrize("parts", [1, 4])
def test_merging_nothings_gives_zeros_and_minus_infinity(parts: int):
    out, lse = merge_states(torch.zeros(parts, 2, 3), torch.full((parts, 2), -torch.inf))
    assert torch.equal(out, torch.zeros(2, 3))
    assert torch.equal(lse, torch.full((2,), -torch.inf))


def test_an_empty_row_beside_a_full_one_stays_empty():
    lses = torch.tensor([[0.0, -torch.inf], [1.0, -torch.inf]])
    out, lse = merge_states(torch.ones(2, 2, 3) * torch.tensor([1.0, 0.0])[None, :, None], lses)
    assert torch.equal(out[1], torch.zeros(3))
    torch.testing.assert_close(out[0], torch.ones(3))
    assert float(lse[1]) == -torch.inf
    torch.testing.assert_close(lse[0], torch.log(torch.exp(torch.tensor(0.0)) + torch.exp(torch.tensor(1.0))))


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_any_dimension_can_be_merged(dim: int):
    outs, lses = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    out, lse = merge_states(outs, lses, dim)
    assert_same((out, lse), merge_states(outs.movedim(dim, 0), lses.movedim(dim, 0)))
    assert lse.shape == lses.select(dim, 0).shape


def test_a_dimension_counted_from_the_end_is_refused():
    with pytest.raises(ValueError, match="counts from the front, not -1"):
        merge_states(torch.zeros(2, 3), torch.zeros(2), dim=-1)


@pytest.mark.parametrize("queries", [None, 1, 5])
@pytest.mark.parametrize(
    ("heads", "group", "length", "dim", "width"), [(2, 3, 7, 8, 8), (1, 1, 1, 4, 6), (3, 4, 17, 5, 2)]
)
def test_attention_is_pytorchs(queries: int | None, heads: int, group: int, length: int, dim: int, width: int):
    generator = torch.Generator().manual_seed(heads)
    shape = (heads * group, dim) if queries is None else (heads * group, queries, dim)
    q, k, v = (
        torch.randn(*size, generator=generator, dtype=torch.float64)
        for size in (shape, (heads, length, dim), (heads, length, width))
    )
    out, lse = attention(q, k, v, 0.3)
    rows = q.unsqueeze(1) if queries is None else q
    wide_k, wide_v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    wanted = torch.nn.functional.scaled_dot_product_attention(rows, wide_k, wide_v, scale=0.3)
    logs = torch.exp(0.3 * torch.einsum("hnd,htd->hnt", rows, wide_k)).sum(-1).log()
    assert_same((out, lse), (wanted.squeeze(1), logs.squeeze(1)) if queries is None else (wanted, logs))


@pytest.mark.parametrize("shape", [(4, 8), (4, 3, 8)])
def test_attention_to_no_key_is_nothing(shape: tuple[int, ...]):
    out, lse = attention(torch.randn(shape), torch.zeros(2, 0, 8), torch.zeros(2, 0, 6), 1.0)
    assert torch.equal(out, torch.zeros(*shape[:-1], 6))
    assert torch.equal(lse, torch.full(shape[:-1], -torch.inf))
