"""What holds for every unit: its card is complete, and its kernel is as exact as its precision allows."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from reference_kernels.core.bench import check
from reference_kernels.registry import Card, cards, load
from tests.reference_kernels.repository import ROOT

SECTIONS = {"Computes", "Layout", "Cost", "Published", "Differs"}
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()


@pytest.mark.quick
@pytest.mark.parametrize("card", cards(), ids=lambda card: card.name)
def test_card_is_complete(card: Card):
    assert set(card.sections) >= SECTIONS
    assert all(card.sections.values())
    assert card.papers


@pytest.mark.quick
def test_names_are_unique():
    names = [card.name for card in cards()]
    assert len(set(names)) == len(names)


def test_cards_are_read_without_torch():
    code = "import sys; from reference_kernels.registry import cards; assert cards(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.quick
def test_package_imports_nothing_else_of_ours():
    ours = ("taxonomy", "analysis", "skis", "skis_site")
    for path in (ROOT / "reference_kernels").rglob("*.py"):
        for line in path.read_text("utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] not in ours, path


QUICK = {  # kernel -> a cheap shape that is not empty
    "paged_decode": "one query head per key head",
    "quest": "large pages",
    "radix_cache": "page of 4, lengths that do not fit",
    "serving_simulation": "short blocks",
    "shared_prefix": "prefix and own tokens",
    "sparq": "one query head per key head",
    "cachegen": "channels past a program",
    "coupled_channels": "three query heads",
    "exponent_codec": "tokens past a unit",
    "fp8": "one query head per key head",
    "kivi": "2 bits, small head",
    "low_rank": "no sharing, one query head per key head",
    "minicache": "wide group and head",
    "rotated_codebook": "3 bits, small head",
    "think": "half, one query head per key head",
    "ada_kv": "no safeguard",
    "append_kv": "padding",
    "block_allocator": "tight pool",
    "compact": "ragged quarter",
    "h2o": "a whole prompt",
    "keydiff": "one long request",
    "pyramidkv": "first layer",
    "ragged_decode": "one query head per key head",
    "snapkv": "wide group and head",
    "streaming_llm": "odd lengths",
    "tova": "one query head per key head",
}


def marks(name: str, shape: str, dtype: torch.dtype) -> list[pytest.MarkDecorator]:
    precise = torch.float32 if torch.float32 in load(name).UNIT.dtypes else torch.bfloat16
    return [pytest.mark.quick] if (shape, dtype) == (QUICK.get(name), precise) else []


def cases(dtypes: list[torch.dtype]) -> list[Any]:
    return [
        pytest.param(
            card.name, shape, dtype, id=f"{card.name}-{shape}-{str(dtype)[6:]}", marks=marks(card.name, shape, dtype)
        )
        for card in cards()
        for shape in load(card.name).UNIT.shapes
        for dtype in dtypes
        if dtype in load(card.name).UNIT.dtypes
    ]


@pytest.mark.quick
def test_every_kernel_has_one_quick_case():
    marked = [case.values[0] for case in cases([torch.float32, torch.float16, torch.bfloat16]) if case.marks]
    assert marked == [card.name for card in cards()]


@pytest.mark.parametrize(("name", "shape", "dtype"), cases(DTYPES))
def test_kernel_is_within_the_error_budget(name: str, shape: str, dtype: torch.dtype, device: torch.device):
    unit = load(name).UNIT
    for verdict in check(unit, unit.shapes[shape], device=device, dtype=dtype, seed=1):
        assert verdict.good, str(verdict)
