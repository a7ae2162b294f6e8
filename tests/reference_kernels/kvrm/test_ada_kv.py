"""Ada-KV: one budget for all heads of a layer."""

from __future__ import annotations

import pytest
import torch

from reference_kernels.kvrm.ada_kv import ada_kv, head_floor
from reference_kernels.kvrm.snapkv import snapkv


def draw(device: torch.device):
    """Two key heads: the first looks at one token, the second everywhere."""
    generator = torch.Generator(device).manual_seed(17)
    k = torch.randn(1, 2, 80, 16, device=device, generator=generator)
    q = torch.randn(1, 4, 4, 16, device=device, generator=generator)
    q[:, :2], q[:, 2:] = 20 * k[:, 0, 33], q[:, 2:] / 8
    return q, k, torch.tensor([80], dtype=torch.int32, device=device)


def test_a_head_that_looks_at_one_token_gives_its_budget_away(device):
    q, k, lengths = draw(device)
    focused, spread = ada_kv(q, k, lengths, 24, alpha=0.25)["counts"][0].tolist()
    assert focused + spread == 2 * 24
    assert head_floor(24, 4, 0.25) == 9
    assert 9 <= focused <= 10  # the floor; the peak and its neighbors are within it
    assert spread > 24


def test_joint_choice_keeps_more_attention_than_equal_budgets(device):
    q, k, lengths = draw(device)

    def mass(outputs: dict[str, torch.Tensor]) -> float:
        scores, kept = outputs["scores"].nan_to_num(posinf=0), outputs["kept"]
        return float(torch.where(kept >= 0, scores.gather(2, kept.clamp(min=0).long()), 0.0).sum())

    assert mass(ada_kv(q, k, lengths, 24, alpha=0.0)) > mass(snapkv(q, k, lengths, 24))


def test_a_full_safeguard_is_snapkv(device):
    q, k, lengths = draw(device)
    ada, plain = ada_kv(q, k, lengths, 24, alpha=1.0), snapkv(q, k, lengths, 24)
    assert all(torch.equal(ada[name], plain[name]) for name in plain)


def test_the_window_is_kept_in_every_head(device):
    q, k, lengths = draw(device)
    kept = ada_kv(q, k, lengths, 5, alpha=0.0)["kept"][0].tolist()
    assert all({76, 77, 78, 79} <= set(row) for row in kept)


def test_bad_input_is_refused(device):
    q, k, lengths = draw(device)
    with pytest.raises(ValueError, match="alpha"):
        ada_kv(q, k, lengths, 24, alpha=1.5)
    with pytest.raises(ValueError, match="cannot hold 4"):
        ada_kv(q, k, lengths, 3)
    with pytest.raises(ValueError, match="at least one token"):
        ada_kv(q, k, lengths, 0)
