"""PyramidKV: SnapKV's choice, smaller from layer to layer."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from reference_kernels.kvrm.pyramidkv import pyramidkv
from reference_kernels.kvrm.snapkv import snapkv


def draw(device: torch.device):
    generator = torch.Generator(device).manual_seed(13)
    q = torch.randn(1, 4, 4, 16, device=device, generator=generator)
    k = torch.randn(1, 2, 90, 16, device=device, generator=generator)
    return q, k, torch.tensor([90], dtype=torch.int32, device=device)


def test_layers_keep_the_budget_in_the_mean_and_deeper_ones_a_part_of_it(device):
    q, k, lengths = draw(device)
    layers = [pyramidkv(q, k, lengths, 30, layer, 5) for layer in range(5)]
    counts = [int(outputs["counts"][0, 0]) for outputs in layers]
    assert sum(counts) == 5 * 30
    for h in range(2):
        kept = [set(outputs["kept"][0, h].tolist()) for outputs in layers]
        assert all(deeper < shallower for shallower, deeper in pairwise(kept))
        assert all({86, 87, 88, 89} <= tokens for tokens in kept)


def test_the_middle_layer_and_a_flat_pyramid_are_snapkv(device):
    q, k, lengths = draw(device)
    plain = snapkv(q, k, lengths, 30)["kept"]
    assert torch.equal(pyramidkv(q, k, lengths, 30, 2, 5)["kept"], plain)
    assert torch.equal(pyramidkv(q, k, lengths, 30, 0, 5, beta=1)["kept"], plain)


def test_bad_input_is_refused(device):
    q, k, lengths = draw(device)
    with pytest.raises(ValueError, match="no layer 5 of 5"):
        pyramidkv(q, k, lengths, 30, 5, 5)
    with pytest.raises(ValueError, match="cannot hold 4"):
        pyramidkv(q, k, lengths, 3, 0, 5)
    with pytest.raises(ValueError, match="beta"):
        pyramidkv(q, k, lengths, 30, 0, 5, beta=0)
