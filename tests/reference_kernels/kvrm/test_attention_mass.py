"""The two passes agree with torch, however the work is cut."""

from __future__ import annotations

import pytest
import torch

from reference_kernels.kvrm.attention_mass import Tuning, attention_weights, column_mass, row_lse
from reference_kernels.kvrm.draws import draw_keys, draw_queries

SCALE = 0.11


def draw(device: torch.device, lengths: list[int], queries: int, heads: int = 2, group: int = 3, dim: int = 16):
    generator = torch.Generator(device).manual_seed(3)
    k, sizes = draw_keys(lengths, heads, dim, dtype=torch.float32, generator=generator)
    q = draw_queries(len(lengths), heads * group, queries, dim, dtype=torch.float32, generator=generator)
    return q, k, sizes


def sdpa_weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """An independent oracle: attention whose values are unit vectors returns its weights."""
    queries, tokens = q.shape[1], k.shape[1]
    seen = torch.ones(queries, tokens, dtype=torch.bool, device=q.device).tril(tokens - queries)
    ones = torch.eye(tokens, dtype=q.dtype, device=q.device).expand(k.shape[0], tokens, tokens)
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(q[None], k[None], ones[None], attn_mask=seen, scale=SCALE, enable_gqa=True)[0]


def test_the_specification_is_torchs_attention():
    q, k, _ = draw(torch.device("cpu"), [37], queries=5)
    weights = attention_weights(q[0].double(), k[0].double(), SCALE)
    torch.testing.assert_close(weights, sdpa_weights(q[0].double(), k[0].double()))


@pytest.mark.parametrize(
    "tuning",
    [
        Tuning(rows=16, block=16, pieces=1),
        Tuning(rows=16, block=32, pieces=50),
        Tuning(rows=64, block=16, pieces=3),
        None,
    ],
    ids=str,
)
def test_any_cut_of_the_work_gives_the_same(tuning, device):
    q, k, lengths = draw(device, [70, 33, 4, 0], queries=11)
    lse = row_lse(q, k, lengths, SCALE, tuning=tuning)
    mass = column_mass(q, k, lengths, lse, SCALE, weight=0.5, tuning=tuning)
    for b, length in enumerate(lengths.tolist()):
        weights = attention_weights(q[b].double(), k[b, :, :length].double(), SCALE)
        expected = weights.sum(1).unflatten(0, (2, 3)).sum(1) * 0.5
        torch.testing.assert_close(mass[b, :, :length].double(), expected, atol=2e-6, rtol=1e-5)
        blind = max(11 - length, 0)  # queries before the first key
        assert torch.isneginf(lse[b, :, :blind]).all()
        assert torch.isfinite(lse[b, :, blind:]).all()


def test_logits_are_the_scores_before_the_softmax(device):
    q, k, lengths = draw(device, [70, 33], queries=2)
    logits = torch.full((2, 6, 2, 70), 7.0, device=device)
    lse = row_lse(q, k, lengths, SCALE, logits=logits)
    for b, length in enumerate(lengths.tolist()):
        weights = (logits[b, :, :, :length] - lse[b].unsqueeze(-1)).exp()
        expected = attention_weights(q[b], k[b, :, :length], SCALE)
        torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)
        assert (logits[b, :, :, length:] == 7).all()


def test_a_running_sum_is_added_to_and_padding_left_alone(device):
    q, k, lengths = draw(device, [40, 9], queries=3)
    lse = row_lse(q, k, lengths, SCALE)
    once = column_mass(q, k, lengths, lse, SCALE)
    into = torch.full((2, 2, 40), 3.0, device=device)
    twice = column_mass(q, k, lengths, lse, SCALE, into=into)
    assert twice is into
    torch.testing.assert_close(twice[0], once[0] + 3)
    torch.testing.assert_close(twice[1, :, :9], once[1, :, :9] + 3)
    assert (twice[1, :, 9:] == 3).all()


def test_keys_may_be_part_of_a_longer_cache(device):
    q, k, lengths = draw(device, [40, 40], queries=3)
    cache = torch.full((2, 2, 64, 32), float("nan"), device=device)
    cache[:, :, :40, :16] = k
    view = cache[:, :, :40, :16]
    assert not view.is_contiguous()
    lse = row_lse(q, view, lengths, SCALE)
    assert torch.equal(lse, row_lse(q, k, lengths, SCALE))
    assert torch.equal(column_mass(q, view, lengths, lse, SCALE), column_mass(q, k, lengths, lse, SCALE))


def test_bad_input_is_refused(device):
    q, k, lengths = draw(device, [8], queries=2)
    with pytest.raises(ValueError, match="multiple of the key heads"):
        row_lse(q[:, :5], k, lengths, SCALE)
    with pytest.raises(ValueError, match="power of two"):
        row_lse(q[..., :12].contiguous(), k[..., :12].contiguous(), lengths, SCALE)
    with pytest.raises(ValueError, match="contiguous"):
        row_lse(q, k.transpose(2, 3).contiguous().transpose(2, 3), lengths, SCALE)
    with pytest.raises(ValueError, match="scale"):
        row_lse(q, k, lengths, 0.0)
    with pytest.raises(ValueError, match="queries and keys"):
        row_lse(q[:, :, :0], k, lengths, SCALE)
    with pytest.raises(TypeError, match="int32"):
        row_lse(q, k, lengths.long(), SCALE)
    with pytest.raises(TypeError, match=r"k is torch\.float64"):
        row_lse(q, k.double(), lengths, SCALE)
    with pytest.raises(ValueError, match="lse must have shape"):
        column_mass(q, k, lengths, torch.zeros(1, 6, 3, device=device), SCALE)
