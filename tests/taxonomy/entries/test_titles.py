"""Two titles that look alike are one paper, and a title that looks empty is none."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxonomy.entries.checks import Checked, check_papers, normalized_title
from taxonomy.entries.document import parse_document


@pytest.mark.parametrize(
    ("title", "same"),
    [
        ("DéjàVu: KV-Cache!", "dejavu kv cache"),
        ("ＫＶ Ｃａｃｈｅ", "KV Cache"),
        ("KV\u00a0Cache", "KV Cache"),
        ("Kv Caché", "KV Cache\u0301"),
        ("ﬁne ﬂow", "fine flow"),
        ("STRASSE", "straße"),
        ("한국어", "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165"),
        ("KV\u3164Cache\u115f", "KV Cache"),
    ],
)
def test_titles_are_compared_without_case_width_accents_and_marks(title: str, same: str):
    assert normalized_title(title) == normalized_title(same)


@pytest.mark.parametrize(
    ("title", "other"), [("α-cache", "β-cache"), ("键值缓存", "键值存储"), ("H2O", "H3O"), ("한국", "한글")]
)
def test_titles_that_differ_by_a_letter_or_digit_differ(title: str, other: str):
    assert normalized_title(title) != normalized_title(other)


def test_the_titles_of_the_repository_stay_distinct(checked: Checked):
    titles = [normalized_title(paper.entry.title) for paper in checked.papers]
    assert len(set(titles)) == len(titles)


hidden = st.sampled_from(
    "\u3164\u115f\u1160\uffa0\u034f\u17b4\u180b\u200b\u200d\u2060\u2061\u2800\ufe0f\ufeff\U000e0100\U0001d173\xad\u0890"
)


@given(hidden, st.sampled_from(["title: A{}B\n", '"a{}": b\n', "# {}\n", "{}", "- [a, {}]\n"]))
def test_no_file_holds_a_hidden_character_anywhere(character: str, text: str):
    (problem,) = parse_document(text.format(character).encode(), "f").problems
    assert "invisible character" in problem.message


@given(hidden, st.sampled_from(['title: "A{}B"\n', '"a{}": b\n', '"{}"', '- [a, "{}"]\n']))
def test_no_file_holds_one_as_an_escape(character: str, text: str):
    (problem,) = parse_document(text.format(f"\\U{ord(character):08X}").encode(), "f").problems
    assert "invisible character" in problem.message


@pytest.mark.parametrize("character", "\u3164\u2800\ufe0f")
def test_a_title_with_a_hidden_character_is_refused_with_its_place(check_bytes, character: str):
    (problem,) = check_bytes(f'title: "Sam{character}ple"\n').problems
    assert str(problem) == (
        "papers/2024/sample.yaml:2:12: contains the invisible character "
        f"U+{ord(character):04X}; a file holds visible text only"
    )


@pytest.mark.parametrize("blank", ["…", "--", "\u0301", "!?", "\u3000.\u2003"])
@pytest.mark.parametrize("field", ["title", "aliases"])
def test_a_title_without_a_letter_or_digit_is_refused(empty_checkout, add, sample, vocabulary, field: str, blank: str):
    add(empty_checkout, "sample", sample | {field: [blank] if field == "aliases" else blank})
    (problem,) = check_papers(empty_checkout.root, vocabulary).problems
    assert problem.message == "has no letter and no digit"


def test_equal_titles_give_one_problem_a_file_however_many_they_are(empty_checkout, add, sample, vocabulary):
    for number in range(40):
        facts = copy.deepcopy(sample) | {"links": {"paper": f"https://example.org/{number}"}}
        add(empty_checkout, f"paper-{number:02}", facts)
    problems = check_papers(empty_checkout.root, vocabulary).problems
    assert [problem.file for problem in problems] == [f"papers/2024/paper-{number:02}.yaml" for number in range(40)]
    assert problems[0].message == "has the same title as papers/2024/paper-01.yaml and 38 others"
    assert {p.message for p in problems[1:]} == {"has the same title as papers/2024/paper-00.yaml and 38 others"}
