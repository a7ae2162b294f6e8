"""What was left out is listed once, with a criterion and a reason, and is not in the checkout as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from skis.build import check
from skis.settings import Checkout
from taxonomy.entries.checks import OUT_OF_SCOPE_NAME, Checked
from taxonomy.entries.out_of_scope import check_out_of_scope
from tests.checkouts import ROOT

ONE = """- title: "An Architecture"
  arxiv: "2401.00001"
  fails: retraining
  why: "Trains the model anew"
  decided: 2026-11-24
"""
OTHER = ONE.replace("An Architecture", "Another").replace("2401.00001", "2401.00002")


def found(checkout: Checkout, text: str) -> list[str]:
    path = checkout.root / "papers" / OUT_OF_SCOPE_NAME
    path.write_text(text, encoding="utf-8")
    return [str(problem) for problem in check(checkout)[1].problems]


def test_the_list_of_the_repository_has_no_problem(checked: Checked):
    _, problems = check_out_of_scope(ROOT, checked.papers)
    assert problems == []


def test_a_good_list_is_read(empty_checkout: Checkout):
    assert found(empty_checkout, ONE) == []
    (item,), _ = check_out_of_scope(empty_checkout.root, [])
    assert (item.title, item.arxiv, item.fails, item.decided) == (
        "An Architecture", "2401.00001", "retraining", "2026-11-24"
    )  # fmt: skip


def test_without_a_list_nothing_is_out_of_scope(tmp_path: Path):
    assert check_out_of_scope(tmp_path, []) == ((), [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE + ONE, "is in this list already"),
        (ONE + ONE.replace("An Architecture", "Another"), "is in this list already"),
        (ONE + ONE.replace("2401.00001", "2401.00002").replace("An A", "AN a"), "is in this list already"),
        (ONE.replace("retraining", "retrainning"), "did you mean retraining?"),
        (ONE.replace("  why:", "  wy:"), "wy"),
        (ONE.replace("2026-11-24", "2026-11"), "decided"),
        (ONE + "  former_id: Old Name\n", "has a bad id"),
        (ONE + "  former_id: index\n", "has a bad id"),  # the page of all papers
        (ONE + "  former_id: old\n" + OTHER + "  former_id: old\n", "old is the id of another item of this list"),
        (ONE.replace("An Architecture", "…"), "has no letter and no digit"),
        (ONE + "  id: old\n", "id: is called former_id now"),
        ("title: x\n", "must be a list"),
        ("- [\n", "is not valid YAML"),
    ],
)
def test_a_wrong_list_is_refused(empty_checkout: Checkout, text: str, message: str):
    problems = found(empty_checkout, text)
    assert problems
    assert any(message in problem for problem in problems), problems
    assert all(problem.startswith("papers/out_of_scope.yaml:") for problem in problems)


def test_a_paper_is_not_both_in_and_out(empty_checkout: Checkout, add, sample):
    add(empty_checkout, "sample", sample)
    (problem,) = found(empty_checkout, ONE.replace("2401.00001", "2405.12345"))
    assert "is in papers/2024/sample.yaml already" in problem


def test_the_id_of_a_paper_is_not_that_of_one_that_left(empty_checkout: Checkout, add, sample):
    add(empty_checkout, "sample", sample)
    (problem,) = found(empty_checkout, ONE + "  former_id: sample\n")
    assert "sample is the id of papers/2024/sample.yaml" in problem
