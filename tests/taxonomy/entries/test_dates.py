"""Dates are in ASCII digits, in the order in which things happen, and not after today."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from skis.build import check
from skis.settings import Checkout
from taxonomy.entries.checks import Checked, check_papers
from taxonomy.entries.entry import Entry
from taxonomy.entries.fields import ArxivId, Doi, FullDate, PartialDate
from taxonomy.entries.out_of_scope import check_out_of_scope
from tests.checkouts import SAMPLE

TODAY = datetime.date(2026, 11, 24)
LEFT = 'title: "Left"\n  arxiv: "2401.00001"\n  fails: kv-cache\n  why: "No KV"\n'


def messages(checkout: Checkout, today: datetime.date | None = TODAY) -> list[str]:
    return [str(problem) for problem in check(checkout, today)[1].problems]


@pytest.mark.parametrize("added", ["2026-11-24", "2026-11-25"])  # somewhere on Earth it is tomorrow
def test_an_entry_may_be_of_today(empty_checkout, add, sample, added: str):
    add(empty_checkout, "sample", sample | {"added": added})
    assert messages(empty_checkout) == []


@pytest.mark.parametrize("added", ["2026-11-26", "2106-02-08", "9999-12-31"])
def test_no_entry_is_of_a_day_to_come(empty_checkout, add, sample, added: str):
    add(empty_checkout, "sample", sample | {"added": added})
    (message,) = messages(empty_checkout)
    assert message.endswith(f"added: {added} lies in the future: today is 2026-11-24")


def test_without_a_day_the_command_asks_the_clock(empty_checkout, add, sample):
    later = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=3)
    add(empty_checkout, "sample", sample | {"added": later.isoformat()})
    assert "lies in the future" in messages(empty_checkout, None)[0]


@pytest.mark.parametrize(
    ("published", "late"),
    [("2026-11", False), ("2026-11-24", False), ("2026-11-25", True), ("2026-12", True), ("9999-12-31", True)],
)
def test_no_paper_is_added_before_it_is_public(empty_checkout, add, sample, published: str, late: bool):
    sample["links"] = {"paper": "https://example.org/a"}
    add(empty_checkout, "sample", sample | {"published": published, "venue": None})
    found = [message for message in messages(empty_checkout) if "published" in message]
    assert len(found) == late
    assert all("is later than 2026-11-24, the day on which the entry was added" in message for message in found)


def test_an_arxiv_number_of_a_month_to_come_is_refused(empty_checkout, add, sample):
    sample["links"]["arxiv"] = "2612.00001"
    add(empty_checkout, "sample", sample)
    assert "links.arxiv: is of 2026-12, but the entry was added on 2026-11-24" in messages(empty_checkout)[0]


@pytest.mark.parametrize(("decided", "count"), [("2026-11-25", 0), ("2026-11-26", 1), ("2106-02-08", 1)])
def test_no_decision_is_of_a_day_to_come(empty_checkout, decided: str, count: int):
    path = empty_checkout.root / "papers" / "out_of_scope.yaml"
    path.write_text(f"- {LEFT}  decided: {decided}\n")
    found = messages(empty_checkout)
    assert len(found) == count
    assert all(message.endswith(f"[0].decided: {decided} lies in the future: today is {TODAY}") for message in found)


def test_the_dates_of_the_repository_are_in_order(root, vocabulary, checked: Checked):
    newest = datetime.date.fromisoformat(max(paper.entry.added for paper in checked.papers))
    assert check_papers(root, vocabulary, newest).problems == []
    assert check_out_of_scope(root, checked.papers, newest)[1] == []


OTHER_DIGITS = ["٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗", "〇一二三四五六七八九"]


@st.composite
def in_other_digits(draw, *texts: str) -> str:
    """One of the texts with one of its digits, or all of them, in another script."""
    text, digits = draw(st.sampled_from(texts)), draw(st.sampled_from(OTHER_DIGITS))
    places = [i for i, c in enumerate(text) if c.isdigit()]
    changed = places if draw(st.booleans()) else [draw(st.sampled_from(places))]
    return "".join(digits[int(c)] if i in changed else c for i, c in enumerate(text))


def refused(kind: object, value: object) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return True
    return False


@settings(deadline=None)
@given(st.data())
def test_digits_of_other_scripts_are_refused_wherever_a_number_is_meant(data: st.DataObject):
    assert refused(PartialDate, data.draw(in_other_digits("2024-05", "2024-05-06")))
    assert refused(FullDate, data.draw(in_other_digits("2024-05-06")))
    assert refused(ArxivId, data.draw(in_other_digits("2402.02750")))
    assert refused(Doi, data.draw(in_other_digits("10.1145/3600006.3613165")))
    assert refused(Entry, SAMPLE | {"venue": data.draw(in_other_digits("ICML 2024"))})
    gain = {"factor": data.draw(in_other_digits("2.5", "16")), "kind": "x"}
    effect = {"effect": "direct", "source": "abstract", "gains": [gain]}
    assert refused(Entry, SAMPLE | {"effects": {"energy": effect}})


@pytest.mark.parametrize("digits", OTHER_DIGITS)
def test_a_folder_and_a_trait_in_other_digits_are_refused(empty_checkout, add, sample, vocabulary, digits: str):
    sample["traits"]["quantization"]["bits"] = digits[2]
    path = add(empty_checkout, "sample", sample)
    assert "is not a number" in str(check_papers(empty_checkout.root, vocabulary).problems[0])
    path.parent.rename(path.parent.with_name("".join(digits[int(c)] for c in "2024")))
    assert "is not in its place" in str(check_papers(empty_checkout.root, vocabulary).problems[0])
