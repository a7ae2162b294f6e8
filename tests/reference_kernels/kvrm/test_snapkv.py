"""SnapKV: pooling at the edges, the window, and what is refused."""

from __future__ import annotations

import pytest
import torch

from reference_kernels.kvrm.snapkv import snapkv, snapkv_scores


def peaked(device: torch.device, token: int, tokens: int = 40, window: int = 4):
    """Queries that attend to one token alone, with one key head of two query heads."""
    k = torch.zeros(1, 1, tokens, 16, device=device)
    k[0, 0, token, 0] = 100
    q = torch.zeros(1, 2, window, 16, device=device)
    q[..., 0] = 4
    return q, k, torch.tensor([tokens], dtype=torch.int32, device=device)


@pytest.mark.parametrize("token", [0, 1, 20, 35])
def test_pooling_spreads_a_peak_over_five_tokens_and_counts_zeros_beyond_the_edges(token, device):
    scores = snapkv_scores(*peaked(device, token))[0, 0]
    expected = torch.zeros(36, device=device)
    expected[max(token - 2, 0) : token + 3] = 0.2
    torch.testing.assert_close(scores[:36], expected)
    assert torch.isposinf(scores[36:]).all()


def test_pooling_does_not_look_into_the_window(device):
    q, k, lengths = peaked(device, 36)  # first token of the window
    assert (snapkv_scores(q, k, lengths)[0, 0, :36] < 1e-6).all()


def test_without_pooling_scores_are_mean_attention(device):
    scores = snapkv_scores(*peaked(device, 20), pool=1)[0, 0, :36]
    assert scores.argmax() == 20
    torch.testing.assert_close(scores.sum(), torch.tensor(1.0, device=device))


def test_neighbors_of_a_peak_and_the_window_are_kept(device):
    outputs = snapkv(*peaked(device, 20), budget=9)
    assert outputs["kept"][0, 0].tolist() == [18, 19, 20, 21, 22, 36, 37, 38, 39]
    assert outputs["counts"].tolist() == [[9]]


def test_requests_within_the_window_are_kept_whole(device):
    q, k = torch.randn(3, 2, 8, 16, device=device), torch.randn(3, 1, 20, 16, device=device)
    lengths = torch.tensor([8, 3, 0], dtype=torch.int32, device=device)
    outputs = snapkv(q, k, lengths, 8)
    assert outputs["counts"].flatten().tolist() == [8, 3, 0]
    assert outputs["kept"][1, 0].tolist() == [0, 1, 2, -1, -1, -1, -1, -1]


def test_what_lies_past_the_length_does_not_matter(device):
    q, k = torch.randn(2, 4, 8, 16, device=device), torch.randn(2, 2, 50, 16, device=device)
    lengths = torch.tensor([50, 30], dtype=torch.int32, device=device)
    before = snapkv(q, k, lengths, 16)
    k[1, :, 30:] = float("nan")
    after = snapkv(q, k, lengths, 16)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bad_input_is_refused(device):
    q, k, lengths = peaked(device, 3)
    with pytest.raises(ValueError, match="cannot hold 4"):
        snapkv(q, k, lengths, 3)
    with pytest.raises(ValueError, match="at least one token"):
        snapkv(q, k, lengths, 0)
    with pytest.raises(ValueError, match="odd"):
        snapkv(q, k, lengths, 9, pool=4)
    with pytest.raises(ValueError, match="q must have shape"):
        snapkv(q[0], k, lengths, 9)
