"""What holds for every unit: its card is complete, and its kernel is as exact as its precision allows."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from reference_kernels.core.bench import check
from reference_kernels.registry import Card, cards, load
from tests.reference_kernels.repository import ROOT

SECTIONS = {"Computes", "Layout", "Cost", "Published", "Differs"}
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()


@pytest.mark.parametrize("card", cards(), ids=lambda card: card.name)
def test_card_is_complete(card: Card):
    assert set(card.sections) >= SECTIONS
    assert all(card.sections.values())
    assert card.papers


def test_names_are_unique():
    names = [card.name for card in cards()]
    assert len(set(names)) == len(names)


def test_cards_are_read_without_torch():
    code = "import sys; from reference_kernels.registry import cards; assert cards(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_package_imports_nothing_else_of_ours():
    ours = ("taxonomy", "analysis", "skis", "skis_site")
    for path in (ROOT / "reference_kernels").rglob("*.py"):
        for line in path.read_text("utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] not in ours, path


CASES = [
    pytest.param(card.name, shape, dtype, id=f"{card.name}-{shape}-{str(dtype)[6:]}")
    for card in cards()
    for shape in load(card.name).UNIT.shapes
    for dtype in DTYPES
    if dtype in load(card.name).UNIT.dtypes
]


@pytest.mark.parametrize(("name", "shape", "dtype"), CASES)
def test_kernel_is_within_the_error_budget(name: str, shape: str, dtype: torch.dtype, device: torch.device):
    unit = load(name).UNIT
    for verdict in check(unit, unit.shapes[shape], device=device, dtype=dtype, seed=1):
        assert verdict.good, str(verdict)
