"""What the cards of the kernels name is in the atlas."""

from __future__ import annotations

import pytest

from reference_kernels.registry import Card, cards
from taxonomy.entries.vocabulary import load_vocabulary
from tests.reference_kernels.repository import ROOT


@pytest.mark.parametrize("card", cards(), ids=lambda card: card.name)
def test_a_card_names_papers_and_a_leaf_of_the_atlas(card: Card):
    leaves = {leaf.code for leaf in load_vocabulary(ROOT / "taxonomy" / "vocabulary").leaves}
    assert card.leaf in leaves
    assert set(card.papers) <= {path.stem for path in (ROOT / "papers").glob("*/*.yaml")}
