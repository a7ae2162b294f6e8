"""`missing` names what a curator still owes, and where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from skis.settings import Checkout
from taxonomy.entries.checks import check_papers
from taxonomy.entries.completeness import missing
from taxonomy.entries.vocabulary import Vocabulary


@pytest.fixture
def complaints(empty_checkout: Checkout, add, vocabulary: Vocabulary) -> Callable[[dict[str, Any]], list[str]]:
    def check(facts: dict[str, Any]) -> list[str]:
        add(empty_checkout, "sample", facts)
        return [problem.message for problem in missing(check_papers(empty_checkout.root, vocabulary).papers)]

    return check


def test_an_entry_with_all_facts_but_one_reason_lacks_that_reason(complaints, sample):
    assert complaints(sample) == ["has no reason (why) for kvs"]
    sample["placements"][1]["why"] = "It orders requests"
    assert complaints(sample) == []


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("summary", "has no English summary (summary.en)"),
        ("effects", "has no objective that the method improves or costs (effects)"),
        ("read", "has no statement of how far the curator read (read)"),
    ],
)
def test_what_is_absent_is_named(complaints, sample, field: str, message: str):
    del sample[field]
    assert message in complaints(sample)


def test_a_number_by_which_the_paper_is_known_is_needed(complaints, sample):
    del sample["links"]["arxiv"]
    assert "has no arXiv number, DOI or OpenReview id" in complaints(sample)
    assert not any("DOI" in m for m in complaints(sample | {"links": {"doi": "10.1145/3600006.3613165"}}))
