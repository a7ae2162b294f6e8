"""Text that tries to be markup or a formula is only text in the tables, figures and pages of charts."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analysis.charts import CHARTS, chart
from analysis.charts.chart import Chart
from analysis.charts.files import csv_text, page, plain
from skis_site.charts import papers_of, shown
from skis_site.wording import read_wording
from taxonomy.exports.escaping import spreadsheet
from taxonomy.store.atlas import Atlas
from tests.hostile import ENTRIES, PAYLOADS

GAINS = ("gains-mean-latency", "gains-throughput", "gains-gpu-memory")
# What plotly reads in a text: a few tags of its own. These are the ones that our charts write.
WRITTEN = {"<b>", "</b>", "<br>", "<extra></extra>", "<span style='font-size:10px'>", "</span>"}
TAG = re.compile(r"<extra></extra>|<[^>]*>?")


@pytest.fixture(scope="module")
def hostile(atlas_of: Callable[..., Atlas]) -> Atlas:
    return atlas_of(ENTRIES)


@pytest.fixture(scope="module")
def charts(hostile: Atlas) -> dict[str, Chart]:
    return {name: chart(name, hostile) for name in CHARTS}


@pytest.fixture(scope="module", params=CHARTS)
def drawn(request: pytest.FixtureRequest, charts: dict[str, Chart]) -> Chart:
    return charts[request.param]


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (text for item in value.values() for text in texts_in(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in texts_in(item))
    elif isinstance(value, str):
        yield value


def kept(text: str) -> str:
    """The text as the atlas keeps it: composed (NFC), with single spaces."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


class Seen(HTMLParser):
    """Collects elements and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_no_cell_of_a_table_begins_like_a_formula(drawn: Chart):
    rows = [*csv.reader(io.StringIO(csv_text(drawn)))]
    assert len(rows) == len(drawn.table) + bool(drawn.table)
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


@pytest.mark.parametrize("name", GAINS)
def test_a_table_of_gains_still_says_what_the_papers_say(charts: dict[str, Chart], name: str):
    rows = [*csv.DictReader(io.StringIO(csv_text(charts[name])))]
    assert len(rows) == 2 * len(ENTRIES)  # a paper of two leaves stands in both
    said = {cell for row in rows for cell in (row["kind"], row["against"], row["setting"])}
    assert said == {spreadsheet(kept(facts["title"])) for facts in ENTRIES.values()}


def test_no_text_of_a_figure_is_markup(drawn: Chart):
    tags = {tag for text in texts_in(plain(drawn.figure)) for tag in TAG.findall(text)}
    assert tags <= WRITTEN


@pytest.mark.parametrize("name", GAINS)
def test_every_payload_reaches_a_gains_figure_as_text(charts: dict[str, Chart], name: str):
    traces = plain(charts[name].figure)["data"]
    hovers = " ".join(text for trace in traces for text in texts_in(trace.get("hovertext", "")))
    said = html.unescape(hovers.replace("<br>", " "))
    for payload in PAYLOADS:
        assert kept(payload) in said


def test_a_page_of_a_chart_has_the_elements_of_the_page_alone(drawn: Chart):
    seen, plain_one = Seen(), Seen()
    seen.feed(page(drawn))
    plain_one.feed(page(Chart("plain", "Title", "Caption", "Alt", drawn.figure, [], {}, {})))
    assert seen.tags == plain_one.tags
    assert seen.attributes == plain_one.attributes
    assert not any(name.startswith("on") for name in seen.attributes)


def test_title_caption_and_alternative_text_hold_nothing_of_a_papers_texts(drawn: Chart):
    for text in (drawn.title, drawn.caption, drawn.alt):
        assert not any(payload in text for payload in PAYLOADS if len(payload) > 6)
        assert not TAG.findall(text)


def test_what_a_page_of_the_website_is_given_cannot_end_its_script_element(
    hostile: Atlas, charts: dict[str, Chart], root: Path
):
    def link(_: object) -> str:
        return "x.html"

    wording = read_wording(root / "site" / "translations.yaml", "zh")
    for data in (
        papers_of([*charts.values()], link),
        *(shown(drawn, hostile, wording, link).data for drawn in charts.values()),
    ):
        assert not re.search("[<>&`\u2028\u2029]", data)
