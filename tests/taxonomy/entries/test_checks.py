"""`check_papers` finds every problem at once, says where it is, and suggests what was meant."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skis.settings import Checkout
from taxonomy.entries.checks import FIRST_LINE, Checked, check_papers
from taxonomy.entries.vocabulary import Vocabulary

Change = Callable[[dict[str, Any]], None]


def test_the_repository_has_no_problem(checked: Checked):
    assert checked.problems == []


def test_a_full_entry_is_accepted(empty_checkout: Checkout, add, sample, vocabulary: Vocabulary):
    add(empty_checkout, "sample", sample)
    result = check_papers(empty_checkout.root, vocabulary)
    assert result.problems == []
    assert result.papers[0].entry.effects["gpu-memory"].gains[0].factor == 2.6


def change(path: str, value: Any) -> Change:
    def apply(entry: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        place: Any = entry
        for part in parents:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return apply


# What is changed in a good entry, and what must be said. All of these keep the file well-formed.
WRONG_WORDS = {
    "leaf": (change("placements.0.leaf", "kvcc/quantisation"), "did you mean kvcc/quantization?"),
    "objective": (change("effects.gpu-mem", {"effect": "direct", "source": "abstract"}), "did you mean gpu-memory?"),
    "trait group": (change("traits.quantisation", {"bits": "2"}), "did you mean quantization?"),
    "trait": (change("traits.quantization.outlier", "x"), "did you mean outliers?"),
    "trait value": (change("traits.quantization.key", "per-chanel"), "did you mean per-channel?"),
    "trait number": (change("traits.quantization.bits", "two"), '"two" is not a number'),
    "trait list": (change("traits.quantization.key", ("per-channel", "per-token")), "takes one value"),
    "trait of another leaf": (change("traits.eviction", {"signal": "x"}), "not among the placements"),
    "venue": (change("venue", "ICMLL 2024"), "did you mean ICML?"),
    "venue before the paper": (change("venue", "ICML 2023"), "does not follow the first public version"),
    "date after arXiv": (change("published", "2024-06"), "later than the arXiv number"),
    "leaf twice": (change("placements.1.leaf", "kvcc/quantization"), "given twice"),
    "no primary": (change("placements.0.role", "secondary"), "0 primary behaviors"),
    "author twice": (change("authors", ["Ada Lovelace", "ada lovelace"]), "given twice"),
    "no link": (change("links", {}), "at least one address"),
}


@pytest.mark.parametrize("name", WRONG_WORDS)
def test_wrong_words_and_facts_get_a_sentence_and_a_place(name, empty_checkout, add, sample, vocabulary):
    apply, expected = WRONG_WORDS[name]
    apply(sample)
    add(empty_checkout, "sample", sample)
    problems = check_papers(empty_checkout.root, vocabulary).problems
    assert any(expected in str(problem) for problem in problems), problems
    assert all(problem.line > 1 for problem in problems)


def test_three_primary_behaviors_are_too_many(empty_checkout, add, sample, vocabulary):
    sample["placements"] = [
        {"leaf": leaf, "role": "primary", "source": "abstract"} for leaf in ("kvs", "cdo", "kvcc/quantization")
    ]
    add(empty_checkout, "sample", sample)
    assert "3 primary behaviors" in str(check_papers(empty_checkout.root, vocabulary).problems[0])


def test_the_year_of_the_folder_is_the_year_of_the_paper(empty_checkout, add, sample, vocabulary):
    path = add(empty_checkout, "sample", sample)
    (empty_checkout.root / "papers" / "2023").mkdir()
    path.rename(empty_checkout.root / "papers" / "2023" / "sample.yaml")
    assert "papers/2023/" in str(check_papers(empty_checkout.root, vocabulary).problems[0])


DUPLICATES: dict[str, Change] = {
    "title": change("title", "SAMPLE — a paper, on caches"),
    "arxiv": change("links.arxiv", "2405.12345"),
    "doi": change("links.doi", "10.1145/ABC"),
    "openreview": change("links.openreview", "abcdefghij"),
    "link": change("links.paper", "http://www.example.org/sample"),
    "alias": change("aliases", ["Sample: A Paper on Caches"]),
}


@pytest.mark.parametrize("kind", DUPLICATES)
def test_two_entries_for_one_paper_are_found_in_both_files(kind, empty_checkout, add, sample, vocabulary):
    first = copy.deepcopy(sample)
    first["links"] |= {"doi": "10.1145/abc", "openreview": "abcdefghij"}
    other = copy.deepcopy(sample) | {"title": "Another", "links": {"code": "https://example.org/code"}}
    DUPLICATES[kind](other)
    add(empty_checkout, "sample", first)
    add(empty_checkout, "other", other)
    problems = check_papers(empty_checkout.root, vocabulary).problems
    assert {problem.file for problem in problems} == {"papers/2024/sample.yaml", "papers/2024/other.yaml"}
    assert all("has the same" in problem.message for problem in problems)


def test_an_id_is_taken_in_every_year(empty_checkout, add, sample, vocabulary):
    add(empty_checkout, "sample", sample)
    add(
        empty_checkout,
        "sample",
        sample | {"title": "B", "published": "2023-01", "links": {"paper": "https://example.org/b"}},
    )
    assert any("same id" in problem.message for problem in check_papers(empty_checkout.root, vocabulary).problems)


def test_all_problems_of_all_files_come_in_one_run(empty_checkout: Checkout, vocabulary: Vocabulary):
    folder = empty_checkout.root / "papers" / "2024"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(f"{FIRST_LINE}\ntitel: x\npublished: never\nplacements: []\nadded: 2024\n")
    problems = check_papers(empty_checkout.root, vocabulary).problems
    for name in ("a", "b"):
        of_file = [str(problem) for problem in problems if problem.file.endswith(f"{name}.yaml")]
        assert any(":2:1: titel:" in problem and "did you mean title?" in problem for problem in of_file)
        assert any(":3:12: published:" in problem for problem in of_file)
        assert any("authors: is missing" in problem for problem in of_file)
        assert any("placements: needs at least 1" in problem for problem in of_file)
        assert any(":5:8: added:" in problem for problem in of_file)
    assert problems == sorted(problems)


def test_a_problem_reads_as_editors_and_github_expect(check_bytes):
    problem = check_bytes("title: x\nnmae: y\n").problems
    text = [str(p) for p in problem]
    assert 'papers/2024/sample.yaml:3:1: nmae: "nmae" is not a field here (did you mean name?)' in text
    assert any(
        p.as_annotation().startswith("::error file=papers/2024/sample.yaml,line=3,col=1::nmae: ") for p in problem
    )


def test_entries_are_not_written_to(empty_checkout: Checkout, add, sample, vocabulary, root: Path):
    path = add(empty_checkout, "sample", sample)
    before = path.read_bytes()
    check_papers(empty_checkout.root, vocabulary)
    assert path.read_bytes() == before
