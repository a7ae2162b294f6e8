"""Text that tries to be markup, a formula or a command is only text in the list, the exports and the feeds."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from typing import Any

import bibtexparser
import feedparser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pybtex.database import parse_string

from taxonomy.entries.document import HIDDEN
from taxonomy.exports.awesome import awesome_list
from taxonomy.exports.bibtex import bibtex_file
from taxonomy.exports.csl import csl_file
from taxonomy.exports.escaping import bibtex, github_markdown, markdown_address, spreadsheet
from taxonomy.exports.feeds import atom_feed, json_feed
from taxonomy.exports.records import papers_csv, papers_json, placements_csv
from tests.hostile import ENTRIES, PAYLOADS

URL = "https://skis.example/"


@pytest.fixture(scope="module")
def hostile(atlas_of):
    return atlas_of(ENTRIES)


def squeezed(text: str) -> str:
    """The text as the atlas keeps it: composed (NFC), with single spaces."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def test_entries_come_out_of_the_store_as_they_went_in(hostile):
    for paper_id, facts in ENTRIES.items():
        assert squeezed(hostile.by_id[paper_id].title) == squeezed(facts["title"])


def test_list_items_are_links_and_text_only(hostile):
    """GitHub's Markdown, as markdown-it reads it with raw HTML and automatic links switched on."""
    text = awesome_list(hostile, URL)
    tokens = MarkdownIt("gfm-like", {"linkify": False}).enable("strikethrough").parse(text)
    allowed = {"text", "link_open", "link_close", "softbreak", "text_special"}
    titles = set()
    for token in tokens:
        if token.type != "inline":
            assert token.type != "fence"
            assert token.type != "html_block" or token.content.startswith("<!--"), token.content
            continue
        for child in token.children or []:
            assert child.type in allowed, (child.type, token.content)
            if child.type == "link_open":
                assert re.match(r"https://example\.org/|https://skis\.example/|#", str(child.attrs["href"]))
        if token.children and token.children[0].type == "link_open":
            end = next(i for i, child in enumerate(token.children) if child.type == "link_close")
            titles.add(squeezed("".join(child.content for child in token.children[1:end])))
    assert titles >= {squeezed(facts["title"]) for facts in ENTRIES.values()}
    assert text.count("\n- [") == 2 * len(ENTRIES) + text.count("\n- [Temporal") + text.count("\n- [S")  # contents


def test_bibtex_stays_whole_in_both_readers(hostile):
    text = bibtex_file(hostile)
    assert list(parse_string(text, "bibtex").entries) == sorted(ENTRIES)
    library = bibtexparser.parse_string(text)
    assert library.failed_blocks == []
    assert [entry.key for entry in library.entries] == sorted(ENTRIES)
    assert all(entry["author"].startswith("Lovelace, Ada and ") for entry in library.entries)
    for entry in text.split("\n\n"):
        assert entry.count("{") == entry.count("}")


def test_no_cell_begins_a_formula(hostile):
    for text, rows in ((papers_csv(hostile), len(ENTRIES)), (placements_csv(hostile), 2 * len(ENTRIES))):
        table = list(csv.DictReader(io.StringIO(text)))
        assert len(table) == rows
        for row in table:
            assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())
    first = next(csv.DictReader(io.StringIO(papers_csv(hostile))))
    title = hostile.by_id[first["id"]].title
    assert first["title"].removeprefix("'") == title.removeprefix("'")


def test_json_comes_back_as_it_was(hostile):
    by_id = {record["id"]: record for record in json.loads(papers_json(hostile))}
    assert all(squeezed(by_id[i]["title"]) == squeezed(facts["title"]) for i, facts in ENTRIES.items())
    assert len(json.loads(csl_file(hostile))) == len(ENTRIES)


def test_feeds_are_sound_and_carry_plain_text(hostile):
    atom = feedparser.parse(atom_feed(hostile, URL), sanitize_html=False)
    assert not atom.bozo
    titles = {squeezed(hostile.by_id[i].title) for i in ENTRIES}
    assert {squeezed(entry.title) for entry in atom.entries} == titles
    assert all(entry.title_detail.type == "text/plain" for entry in atom.entries)
    feed = json.loads(json_feed(hostile, URL))
    assert {squeezed(item["title"]) for item in feed["items"]} == titles
    assert all("content_html" not in item for item in feed["items"])


plain = st.text(st.characters(blacklist_categories=("C", "Zl", "Zp")), min_size=1, max_size=60).filter(
    lambda text: text.strip() and not HIDDEN.search(text)
)
marked = st.text("<>&[]()*_`~!\\#|{}$^='\"-+.:@/ ab1", min_size=1, max_size=40).filter(str.strip)


@given(plain | marked | st.sampled_from(PAYLOADS))
def test_any_text_is_the_text_of_its_link_in_the_list(text: str):
    text = squeezed(text)
    inline = MarkdownIt("gfm-like", {"linkify": False}).enable("strikethrough")
    tokens = inline.parseInline(f"- [{github_markdown(text)}](https://example.org/) - x.")[0].children or []
    assert [t.type for t in tokens if t.type not in ("text", "text_special")] == ["link_open", "link_close"]
    start = next(i for i, t in enumerate(tokens) if t.type == "link_open")
    end = next(i for i, t in enumerate(tokens) if t.type == "link_close")
    assert "".join(t.content for t in tokens[start + 1 : end]) == text


@given(marked)
def test_any_legal_address_survives_in_a_link(text: str):
    from taxonomy.entries.fields import URL as LEGAL

    url = "https://example.org/" + re.sub(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/%?#\[\]]", "", text)
    assert LEGAL.fullmatch(url)
    tokens = MarkdownIt().parseInline(f"[x]({markdown_address(url)})")[0].children or []
    assert [t.type for t in tokens] == ["link_open", "text", "link_close"]


@given(plain | marked)
def test_any_text_keeps_bibtex_balanced_and_readable(text: str):
    entry = f"@misc{{k,\n  title = {{{bibtex(squeezed(text))}}},\n  note = {{end}},\n}}\n"
    fields = parse_string(entry, "bibtex").entries["k"].fields
    assert fields["note"] == "end"
    library = bibtexparser.parse_string(entry)
    assert library.failed_blocks == []
    assert library.entries[0]["note"] == "end"


@given(plain | marked)
def test_a_cell_is_the_text_or_the_text_behind_an_apostrophe(text: str):
    assert spreadsheet(text) in (text, "'" + text)
    assert not spreadsheet(text).startswith(("=", "+", "-", "@"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=plain, technique=marked, note=plain | marked)
def test_any_entry_is_refused_or_harmless(title: str, technique: str, note: str, atlas_of: Any):
    """A whole entry with random text goes through store and exports."""
    facts = ENTRIES["hostile-0"] | {"title": title, "name": technique, "aliases": [note + " alias"]}
    facts["placements"] = [facts["placements"][0] | {"technique": {"en": technique}, "note": note}]
    atlas = atlas_of({"x": facts})
    assert list(parse_string(bibtex_file(atlas), "bibtex").entries) == ["x"]
    assert len(list(csv.DictReader(io.StringIO(papers_csv(atlas))))) == 1
    assert not feedparser.parse(atom_feed(atlas, URL)).bozo
    assert json.loads(papers_json(atlas))[0]["id"] == "x"
