"""Every kernel compiles for a Hopper GPU, which the interpreter does not show, and keeps to its registers."""

from __future__ import annotations

from typing import Any

import pytest

from reference_kernels.registry import cards
from tests.reference_kernels.offline import HOPPER


@pytest.mark.parametrize("name", [card.name for card in cards()])
def test_kernels_compile_for_hopper_and_spill_nothing(name: str, compiled: dict[str, Any]):
    """All combinations of constants that the unit's shapes make, on a GPU; here those that cover every branch and the
    widest tiles (`offline.cover`)."""
    kernels = compiled[name]
    assert "error" not in kernels, kernels["error"]
    for kernel, found in kernels.items():
        assert found["takes"], kernel
        for takes in found["takes"]:
            assert takes["local"] == 0, kernel
            assert takes["stack"] == 0, kernel
            assert takes["shared"] <= HOPPER["max_shared_mem"], kernel
