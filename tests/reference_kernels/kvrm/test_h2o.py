"""H2O: running sums that add up, and a budget in two halves."""

from __future__ import annotations

import pytest
import torch

from reference_kernels.kvrm.h2o import accumulate, follow, h2o


def draw(device: torch.device, queries: int = 12, tokens: int = 30):
    generator = torch.Generator(device).manual_seed(7)
    q = torch.randn(2, 4, queries, 16, device=device, generator=generator)
    k = torch.randn(2, 2, tokens, 16, device=device, generator=generator)
    lengths = torch.tensor([tokens, tokens - 5], dtype=torch.int32, device=device)
    return q, k, lengths, torch.zeros(2, 2, tokens, device=device)


def test_sums_add_up_to_the_number_of_queries(device):
    q, k, lengths, mass = draw(device)
    accumulate(mass, q, k, lengths)
    torch.testing.assert_close(mass.sum(-1), torch.full((2, 2), 12.0, device=device))
    assert (mass[1, :, 25:] == 0).all()


def test_a_prefill_in_one_block_equals_token_by_token(device):
    q, k, _, mass = draw(device)
    whole = torch.full((2,), 30, dtype=torch.int32, device=device)
    accumulate(mass, q, k, whole)
    steps = torch.zeros_like(mass)
    for n in range(12):
        accumulate(steps, q[:, :, n : n + 1], k, whole - 11 + n)
    torch.testing.assert_close(steps, mass, atol=1e-5, rtol=1e-5)


def test_a_known_lse_changes_nothing(device):
    q, k, lengths, mass = draw(device, queries=1)
    scores = torch.einsum("bhgd,bhtd->bhgt", q[:, :, 0].unflatten(1, (2, 2)), k) * 16**-0.5
    hidden = torch.arange(30, device=device) >= lengths[:, None, None, None]
    lse = scores.masked_fill(hidden, float("-inf")).logsumexp(-1).flatten(1).unsqueeze(-1)
    known, unknown = h2o(q, k, lengths, mass, 6, lse=lse), h2o(q, k, lengths, mass, 6)
    torch.testing.assert_close(known["scores"], unknown["scores"])
    assert torch.equal(known["kept"], unknown["kept"])


def test_half_of_the_budget_is_recent_and_half_heavy(device):
    q, k, lengths, mass = draw(device, queries=1)
    mass[:, :, [3, 11, 19]] = 50  # hitters of old
    kept = h2o(q, k, lengths, mass, 7)["kept"]
    assert kept.shape == (2, 2, 7)
    for request, length in zip(kept.tolist(), [30, 25], strict=True):
        for row in request:
            assert {3, 11, 19, *range(length - 3, length)} <= set(row)


def test_the_given_sums_are_not_changed(device):
    q, k, lengths, mass = draw(device)
    h2o(q, k, lengths, mass, 7)
    assert (mass == 0).all()


def test_kept_tokens_take_their_sums_along(device):
    q, k, lengths, mass = draw(device)
    lengths[1] = 4  # fewer than the budget
    outputs = h2o(q, k, lengths, mass, 7)
    moved = follow(outputs["scores"], outputs["kept"])
    for b in range(2):
        for h in range(2):
            count = outputs["counts"][b, h]
            expected = outputs["scores"][b, h, outputs["kept"][b, h, :count].long()]
            assert torch.equal(moved[b, h, :count], expected)
            assert (moved[b, h, count:] == 0).all()


def test_bad_input_is_refused(device):
    q, k, lengths, mass = draw(device)
    with pytest.raises(ValueError, match="at least one token"):
        h2o(q, k, lengths, mass, 0)
    with pytest.raises(ValueError, match="mass must have shape"):
        h2o(q, k, lengths, mass[:, :1], 7)
    with pytest.raises(TypeError, match="float64"):
        accumulate(mass.double(), q, k, lengths)
    with pytest.raises(ValueError, match="kept must have shape"):
        follow(mass, torch.zeros(2, 3, 4, dtype=torch.int32, device=device))
