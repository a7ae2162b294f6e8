"""KeyDiff: what the score of a key depends on."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from reference_kernels.kvrm.keydiff import keydiff, keydiff_scores


def draw(device: torch.device, tokens: int = 50):
    generator = torch.Generator(device).manual_seed(11)
    k = torch.randn(2, 3, tokens, 32, device=device, generator=generator) + 0.5
    return k, torch.tensor([tokens, tokens - 20], dtype=torch.int32, device=device)


def test_scores_are_those_of_torchs_cosine_similarity(device):
    k, lengths = draw(device)
    scores = keydiff_scores(k, lengths)
    for b, length in enumerate(lengths.tolist()):
        keys = k[b, :, :length]
        anchor = functional.normalize(keys, dim=-1).mean(1, keepdim=True)
        torch.testing.assert_close(scores[b, :, :length], -functional.cosine_similarity(keys, anchor, dim=-1))
        assert torch.isneginf(scores[b, :, length:]).all()


def test_the_odd_key_out_is_kept_first(device):
    k, lengths = draw(device)
    k[:, :, 13] = -k[:, :, :13].mean(2)
    assert (keydiff(k, lengths, 1)["kept"] == 13).all()


def test_the_length_of_a_key_does_not_matter(device):
    k, lengths = draw(device)
    factors = 2.0 ** torch.arange(-20, 30, device=device)  # exact
    torch.testing.assert_close(keydiff_scores(k * factors[:, None], lengths), keydiff_scores(k, lengths))


def test_the_order_of_tokens_does_not_matter(device):
    k, lengths = draw(device)
    lengths[1] = 50
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0)).to(device)
    torch.testing.assert_close(keydiff_scores(k[:, :, order], lengths), keydiff_scores(k, lengths)[:, :, order])


def test_a_key_of_zeros_has_a_score_of_zero(device):
    k, lengths = draw(device)
    k[:, :, 5] = 0
    assert (keydiff_scores(k, lengths)[:, :, 5] == 0).all()
    assert (keydiff_scores(torch.zeros_like(k), lengths)[0] == 0).all()


def test_what_lies_past_the_length_does_not_matter(device):
    k, lengths = draw(device)
    before = keydiff(k, lengths, 9)
    k[1, :, 30:] = float("nan")
    after = keydiff(k, lengths, 9)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bad_input_is_refused(device):
    k, lengths = draw(device)
    with pytest.raises(ValueError, match="at least one token"):
        keydiff(k, lengths, 0)
    with pytest.raises(ValueError, match="k must have shape"):
        keydiff(k[0], lengths, 4)
    with pytest.raises(ValueError, match="power of two"):
        keydiff(k[..., :24].contiguous(), lengths, 4)
    with pytest.raises(ValueError, match="contiguous"):
        keydiff(k.transpose(2, 3).contiguous().transpose(2, 3), lengths, 4)
    with pytest.raises(TypeError, match="int32"):
        keydiff(k, lengths.long(), 4)
    with pytest.raises(TypeError, match="floating-point"):
        keydiff(k.int(), lengths, 4)
