"""TOVA: one choice for all heads, by the last query's attention."""

from __future__ import annotations

import pytest
import torch

from reference_kernels.kvrm.tova import tova


def draw(device: torch.device):
    generator = torch.Generator(device).manual_seed(5)
    q = torch.randn(2, 6, 1, 16, device=device, generator=generator)
    k = torch.randn(2, 2, 40, 16, device=device, generator=generator)
    return q, k, torch.tensor([40, 17], dtype=torch.int32, device=device)


def test_scores_are_a_distribution_over_the_tokens(device):
    q, k, lengths = draw(device)
    scores = tova(q, k, lengths, 8)["scores"]
    torch.testing.assert_close(scores[0].sum().item(), 1.0)
    torch.testing.assert_close(scores[1, :, :17].sum().item(), 1.0)
    assert torch.isneginf(scores[1, :, 17:]).all()


def test_all_heads_keep_the_same(device):
    q, k, lengths = draw(device)
    outputs = tova(q, k, lengths, 8)
    assert torch.equal(outputs["kept"][:, 0], outputs["kept"][:, 1])
    assert outputs["counts"].tolist() == [[8, 8], [8, 8]]


def test_a_decode_step_drops_the_least_attended_token(device):
    q, k, lengths = draw(device)
    outputs = tova(q, k, lengths, 39)
    dropped = set(range(40)) - set(outputs["kept"][0, 0].tolist())
    assert dropped == {int(outputs["scores"][0, 0].argmin())}
    assert outputs["counts"][1].tolist() == [17, 17]


def test_the_order_of_heads_does_not_matter(device):
    q, k, lengths = draw(device)
    swapped = tova(q.unflatten(1, (2, 3)).flip(1).flatten(1, 2), k.flip(1), lengths, 8)
    torch.testing.assert_close(swapped["scores"], tova(q, k, lengths, 8)["scores"])


def test_bad_input_is_refused(device):
    q, k, lengths = draw(device)
    with pytest.raises(ValueError, match="at least one token"):
        tova(q, k, lengths, 0)
    with pytest.raises(ValueError, match="q must have shape"):
        tova(q.expand(2, 6, 2, 16), k, lengths, 8)
