"""Text that tries to be markup, a formula or a command is only text in the list, the exports and the feeds."""

from __future__ import annotations

import csv
import functools
import html
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
from pydantic import ValidationError

from taxonomy.entries.characters import HIDDEN
from taxonomy.entries.names import Person
from taxonomy.exports.awesome import awesome_list
from taxonomy.exports.bibtex import bibtex_author, bibtex_file
from taxonomy.exports.csl import csl_file
from taxonomy.exports.escaping import bibtex, github_markdown, markdown_address, spreadsheet
from taxonomy.exports.feeds import atom_feed, json_feed
from taxonomy.exports.records import papers_csv, papers_json, placements_csv
from taxonomy.store.papers import Author
from tests.hostile import ENTRIES, PAYLOADS

URL = "https://skis.example/"
NOTHING = "<!-- -->"  # what may stand in the list between two texts


@pytest.fixture(scope="module")
def hostile(atlas_of):
    return atlas_of(ENTRIES)


def squeezed(text: str) -> str:
    """The text as the atlas keeps it: composed (NFC), with single spaces."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def test_entries_come_out_of_the_store_as_they_went_in(hostile):
    for paper_id, facts in ENTRIES.items():
        assert squeezed(hostile.by_id[paper_id].title) == squeezed(facts["title"])


@functools.cache
def github() -> MarkdownIt:
    """GitHub's Markdown, as markdown-it reads it with raw HTML and automatic links switched on.

    Bare host names without `www.`, which GitHub leaves alone, are left alone here too.
    """
    markdown = MarkdownIt("gfm-like", {"linkify": True}).enable("strikethrough")
    markdown.linkify.set({"fuzzy_link": False}).tlds(["example", "b"], keep_old=True)
    return markdown


def test_list_items_are_links_and_text_only(hostile):
    text = awesome_list(hostile, URL)
    tokens = github().parse(text)
    allowed = {"text", "link_open", "link_close", "softbreak", "text_special"}
    titles = set()
    for token in tokens:
        if token.type != "inline":
            assert token.type != "fence"
            assert token.type != "html_block" or token.content.startswith("<!--"), token.content
            continue
        token.children = [child for child in token.children or [] if child.content != NOTHING]
        for child in token.children:
            assert child.type in allowed, (child.type, token.content)
            if child.type == "link_open":
                assert re.match(r"https://example\.org/|https://skis\.example/|#", str(child.attrs["href"]))
        if token.children and token.children[0].type == "link_open":
            end = next(i for i, child in enumerate(token.children) if child.type == "link_close")
            titles.add(squeezed("".join(child.content for child in token.children[1:end])))
    assert titles >= {squeezed(facts["title"]) for facts in ENTRIES.values()}
    assert text.count("\n- [") == 2 * len(ENTRIES) + text.count("\n- [Temporal") + text.count("\n- [S")  # contents


def test_the_code_host_makes_no_link_of_a_text(hostile):
    """By cmark-gfm, the code host's own reader."""
    page = cmarkgfm().github_flavored_markdown_to_html(awesome_list(hostile, URL))
    links = re.findall(r'href="([^"]*)"', page)
    assert len(links) > len(ENTRIES)
    assert [link for link in links if not re.match(r"https://example\.org/|https://skis\.example/|#", link)] == []


def cmarkgfm() -> Any:
    return pytest.importorskip("cmarkgfm", reason="CMARKGFM IS NOT INSTALLED: it reads the list as GitHub does")


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
            assert not any(FORMULA.match(part) for cell in row.values() for part in cell.split(";"))
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


def joined(*words: str) -> st.SearchStrategy[str]:
    """Texts that are made of some of the words."""
    return st.lists(st.sampled_from(words), min_size=1, max_size=8).map("".join).filter(str.strip)


addresses = joined(
    *(
        "www.",
        "WWW.",
        "://",
        "//",
        "http",
        "HTTPS",
        "ftp",
        "mailto:",
        "xmpp:",
        "@",
        "a.b",
        "evil.example",
        "a",
        "1",
        "é",
    ),
    *(" ", ".", ":", "_", "*", "(", ")", "[", "]", "\\", "-", "+", "~", "<", ">", "&", "#", "!", ":smile:"),
)
formulas = joined(*"=+-@;,'\" a1", *"\uff1d\uff0b\uff0d\uff20\ufe66\u3000\xa0", "\t", "\r", "SUM(1)")
names = joined(
    *("Ada", "Lovelace", "and", "AND", "And", "ａｎｄ", "others", "Others", "et al.", "van", "Jr.", "Núñez", "李"),
    *(" ", " ", "\u3000", "\xa0", "-", "'", ".", ",", "、", "，", "{", "}", "\\", "~", '"', "%", "#", "\r"),
)
# A cell, or a part of one behind a semicolon, that begins like this is a formula to some spreadsheet.
FORMULA = re.compile(r'[\s"]*[=+@\uff1d\uff0b\uff0d\uff20\ufe66-]')


@given(plain | marked | addresses | st.sampled_from(PAYLOADS))
def test_any_text_is_the_text_of_its_link_in_the_list(text: str):
    text = squeezed(text)
    tokens = github().parseInline(f"- [{github_markdown(text)}](https://example.org/) - x.")[0].children or []
    tokens = [token for token in tokens if token.content != NOTHING]
    assert [t.type for t in tokens if t.type not in ("text", "text_special")] == ["link_open", "link_close"]
    start = next(i for i, t in enumerate(tokens) if t.type == "link_open")
    end = next(i for i, t in enumerate(tokens) if t.type == "link_close")
    assert "".join(t.content for t in tokens[start + 1 : end]) == text


@given(plain | marked | addresses | st.sampled_from(PAYLOADS))
def test_any_text_of_a_list_item_is_text_and_no_link(text: str):
    text = squeezed(text)
    tokens = github().parseInline(f"x {github_markdown(text)}. y")[0].children or []
    tokens = [token for token in tokens if token.content != NOTHING]
    assert {token.type for token in tokens} <= {"text", "text_special"}
    assert "".join(token.content for token in tokens) == f"x {text}. y"


@given(plain | marked | addresses | st.sampled_from(PAYLOADS))
def test_any_text_of_a_list_item_is_text_to_the_code_host(text: str):
    text = squeezed(text)
    options = 1 << 17  # CMARK_OPT_UNSAFE: comments stay
    page = cmarkgfm().github_flavored_markdown_to_html(f"- x {github_markdown(text)}. y", options=options)
    item = re.fullmatch(r"<ul>\n<li>(.*)</li>\n</ul>\n", page)
    assert item
    assert "<" not in (shown := item[1].replace(NOTHING, ""))
    assert html.unescape(shown) == f"x {text}. y"


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


@given(plain | marked | formulas)
def test_a_cell_is_the_text_with_an_apostrophe_before_each_formula(text: str):
    parts = spreadsheet(text).split(";")
    assert not any(FORMULA.match(part) for part in parts[1:])
    assert not FORMULA.match(parts[0].lstrip() if '"' not in parts[0] else "")
    for part, before in zip(parts, text.split(";"), strict=True):
        assert part in (before, "'" + before)


@pytest.mark.parametrize(
    "text", ["a = b", "fp16; int8", "KV-cache; -like", "1+1", "a@b", "键值；=1", '"quoted" = x', "x, =1"]
)
def test_a_text_without_a_formula_is_left_alone(text: str):
    assert spreadsheet(text) == text.replace("; -", ";' -")


@given(names)
def test_an_author_who_is_accepted_is_one_author_in_bibtex(name: str):
    try:
        person = Person.model_validate(name)
    except ValidationError:
        return
    author = bibtex_author(Author(given=person.given, family=person.family, name=person.name))
    entry = f"@misc{{k,\n  author = {{Bob Smith and {author} and Eve Jones}},\n}}\n"
    persons = parse_string(entry, "bibtex").entries["k"].persons["author"]
    assert [str(persons[0]), str(persons[2])] == ["Smith, Bob", "Jones, Eve"]
    assert len(persons) == 3
    assert author.strip("{}").casefold() != "others"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    title=plain | addresses,
    technique=marked | formulas.map(squeezed).filter(bool),
    note=plain | marked | addresses | formulas.map(squeezed),
)
def test_any_entry_is_refused_or_harmless(title: str, technique: str, note: str, atlas_of: Any):
    """A whole entry with random text goes through store and exports."""
    facts = ENTRIES["hostile-0"] | {"title": title, "name": technique, "aliases": [note + " alias"]}
    facts["placements"] = [facts["placements"][0] | {"technique": {"en": technique}, "note": note}]
    atlas = atlas_of({"x": facts})
    assert list(parse_string(bibtex_file(atlas), "bibtex").entries) == ["x"]
    assert len(list(csv.DictReader(io.StringIO(papers_csv(atlas))))) == 1
    assert not feedparser.parse(atom_feed(atlas, URL)).bozo
    assert json.loads(papers_json(atlas))[0]["id"] == "x"
