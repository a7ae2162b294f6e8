"""Broken and malicious files get a clear error with a place, never a traceback, and never an entry."""

from __future__ import annotations

import os

import pytest

from taxonomy.entries.checks import FIRST_LINE

GOOD = """\
title: "Sample"
authors: [Ada Lovelace]
published: 2024-05
links: {paper: "https://example.org/a"}
placements: [{leaf: kvs, role: primary, source: abstract}]
added: 2026-11-24
"""


def with_(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


LAUGHS = 'a: &a ["lol"]\n' + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(9)
)

# name: (file's text or bytes, part of what must be said)
BROKEN: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "must be a mapping"),
    "blank": ("\n\n\n", "must be a mapping"),
    "only a word": ("hello\n", "must be a mapping"),
    "a list": ("- title: x\n", "must be a mapping"),
    "broken yaml": ("title: [x\n", "not valid YAML"),
    "unclosed quote": ('title: "x\n', "not valid YAML"),
    "colon in plain text": ("title: a: b\n", "not valid YAML"),
    "two documents": (GOOD + "---\ntitle: y\n", "more than one YAML document"),
    "duplicate key": (GOOD + "title: again\n", "given twice"),
    "duplicate key inside": (with_("{paper:", '{paper: "https://example.org/b", paper:'), "given twice"),
    "anchor": (with_('title: "Sample"', 'title: &t "Sample"'), "anchor or alias"),
    "alias": (GOOD + "name: *t\n", "anchor or alias"),
    "billion laughs": (LAUGHS, "anchor or alias"),
    "merge key": (GOOD + "evaluation: {<<: {models: [x]}}\n", "merge key"),
    "python tag": (with_('"Sample"', '!!python/object/apply:os.system ["true"]'), "YAML tag"),
    "own tag": (with_('"Sample"', '!x "Sample"'), "YAML tag"),
    "binary tag": (with_('"Sample"', "!!binary aGk="), "YAML tag"),
    "list as key": (GOOD + "? [a]\n: b\n", "key that is not plain text"),
    "deep nesting": ("title: " + "[" * 50 + "]" * 50 + "\n", "nested more than"),
    "deeper than the stack": ("title: " + "[" * 20000 + "\n", "nested more than"),
    "huge file": (GOOD + "# " + "x" * 70000 + "\n", "larger than 64 KiB"),
    "huge title": (with_("Sample", "x" * 600), "longer than 500"),
    "latin-1": (GOOD.encode().replace(b"Ada", b"\xc1da"), "not UTF-8"),
    "utf-16": (GOOD.encode("utf-16"), "not UTF-8"),
    "utf-8 with mark": (b"\xef\xbb\xbf" + GOOD.encode(), "U+FEFF"),
    "overlong utf-8": (GOOD.encode().replace(b"Sample", b"\xc0\xaf"), "not UTF-8"),
    "surrogate": (GOOD.encode().replace(b"Sample", b"\xed\xa0\x80"), "not UTF-8"),
    "nul": (with_("Sample", "Sam\0ple"), "invisible character"),
    "escape character": (with_("Sample", "\x1b[31mred"), "U+001B"),
    "bell by escape": (with_("Sample", "\\a"), "invisible character U+0007"),
    "tab": (GOOD + "name:\tx\n", "contains a tab"),
    "bidi override": (with_("Sample", "a\u202eb"), "U+202E"),
    "bidi by escape": (with_("Sample", "a\\u202Eb"), "U+202E"),
    "bidi isolate": (with_("Sample", "a\u2066b"), "U+2066"),
    "bidi in a comment": (GOOD + "# \u202e\n", "U+202E"),
    "right-to-left mark": (with_("Sample", "a\u200fb"), "U+200F"),
    "zero width space": (with_("Ada", "A\u200bda"), "U+200B"),
    "soft hyphen": (with_("Sample", "Sam\u00adple"), "U+00AD"),
    "line separator": (with_("Sample", "a\u2028b"), "U+2028"),
    "private use": (with_("Sample", "\ue000"), "U+E000"),
    "tag character": (with_("Sample", "a\U000e0041"), "U+E0041"),
    "no first line": (("# hi\n" + GOOD).encode(), "must begin with the line"),
    "unknown field": (GOOD + "abstract: x\n", "not a field here"),
    "unknown field inside": (with_("source: abstract", "source: abstract, reason: x"), "not a field here"),
    "missing title": (with_('title: "Sample"\n', ""), "title: is missing"),
    "empty title": (with_('"Sample"', '""'), "is empty"),
    "blank title": (with_('"Sample"', '"  "'), "is empty"),
    "title of wide spaces": (with_('"Sample"', '"\u3000\u2003"'), "is empty"),
    "title of a Hangul filler": (with_('"Sample"', '"\u3164"'), "invisible character U+3164"),
    "title of a braille blank": (with_('"Sample"', '"\u2800"'), "invisible character U+2800"),
    "variation selector": (with_("Sample", "Sam\ufe0fple"), "U+FE0F"),
    "combining joiner by escape": (with_("Sample", "Sam\\u034Fple"), "U+034F"),
    "no character": (with_("Sample", "a\uffff"), "U+FFFF"),
    "line feed in a key": (GOOD + '"a\\n::error::b": x\n', "a\\u000a::error::b: "),
    "placements by their former name": (with_("placements", "behaviors"), "behaviors: is called placements now"),
    "effects by their former name": (GOOD + "objectives: {}\n", "objectives: is called effects now"),
    "a former name where it never was": (with_("source:", "objectives: x, source:"), "is not a field here"),
    "null title": (with_('"Sample"', ""), "is empty"),
    "title is a list": (with_('"Sample"', "[a]"), "must be text"),
    "two lines": (with_('"Sample"', '"a\\nb"'), "must be one line"),
    "text block": (with_('"Sample"', "|\n  a\n  b"), "must be one line"),
    "no authors": (with_("[Ada Lovelace]", "[]"), "needs at least 1"),
    "authors is text": (with_("[Ada Lovelace]", "Ada Lovelace"), "must be a list"),
    "et al": (with_("Ada Lovelace", "Ada Lovelace et al."), "name every author"),
    "author family first": (with_("[Ada Lovelace]", '["Lovelace, Ada"]'), "must be one person"),
    "author is two": (with_("Ada Lovelace", "Ada Lovelace and Bob"), "must be one person"),
    "author with markup": (with_("[Ada Lovelace]", '["<b>Ada</b>"]'), "must be one person"),
    "author with address": (with_("[Ada Lovelace]", '["ada@example.org"]'), "must be one person"),
    "author without a family name": (with_("[Ada Lovelace]", "[{given: Ada}]"), "family: is missing"),
    "author of three parts": (with_("[Ada Lovelace]", "[{given: Ada, family: L, mid: X}]"), '"mid" is not a field'),
    "author is a list": (with_("[Ada Lovelace]", "[[Ada, Lovelace]]"), "must be one person"),
    "author of two people in a part": (with_("[Ada Lovelace]", "[{family: Ada and Bob}]"), "must be one person"),
    "author begins with and": (with_("[Ada Lovelace]", "[and Ada]"), "must be one person"),
    "author in capitals is two": (with_("Ada Lovelace", "Ada Lovelace AND Bob"), "must be one person"),
    "author in full width is two": (with_("Ada Lovelace", "Ada Lovelace ａｎｄ Bob"), "must be one person"),
    "author between wide spaces is two": (with_("Ada Lovelace", "Ada\u3000and\u3000Bob"), "must be one person"),
    "author between escaped ends of lines is two": (with_("Ada Lovelace", '"Ada\\rand\\rBob"'), "must be one person"),
    "author between wide commas is two": (with_("Ada Lovelace", "Ada Lovelace、Bob"), "must be one person"),
    "author ends with and": (with_("[Ada Lovelace]", "[{given: Ada and, family: Bob}]"), "must be one person"),
    "author named others": (with_("Ada Lovelace", "Ada Lovelace, others"), "name every author"),
    "author with the family name others": (with_("[Ada Lovelace]", "[{given: A, family: Others}]"), "name every"),
    "et al with a no-break space": (with_("Ada Lovelace", "Ada Lovelace et\u00a0al."), "name every author"),
    "author without a letter": (with_("Ada Lovelace", "Ada Lovelace, '...'"), "must be one person"),
    "author with a no-break space": (with_("[Ada Lovelace]", "[Ada\u00a0and\u00a0Bob]"), "must be one person"),
    "venue without year": (GOOD + "venue: ICML\n", "is not a venue and a year"),
    "venue in parts": (GOOD + "venue: {key: ICML, year: 2024}\n", "is not a venue and a year"),
    "year in other digits": (GOOD + "venue: ICML \u0662\u0660\u0662\u0664\n", "is not a venue and a year"),
    "date in other digits": (with_("2024-05", "\uff12\uff10\uff12\uff14-05"), "must be a date"),
    "date in words": (with_("2024-05", "May 2024"), "must be a date"),
    "thirteenth month": (with_("2024-05", "2024-13"), "not a date of the calendar"),
    "thirtieth of February": (with_("2024-05", "2024-02-30"), "not a date of the calendar"),
    "year only": (with_("2024-05", "2024"), "must be a date"),
    "before transformers": (with_("2024-05", "1999-05"), "lies before"),
    "added to the month": (with_("2026-11-24", "2026-11"), "must be a full date"),
    "javascript link": (with_("https://example.org/a", "javascript:alert(1)"), "must be an http or https address"),
    "javascript in capitals": (with_("https://example.org/a", "JaVaScRiPt:alert(1)"), "must be an http"),
    "data link": (with_("https://example.org/a", "data:text/html,<script>alert(1)</script>"), "must be an http"),
    "file link": (with_("https://example.org/a", "file:///etc/passwd"), "must be an http"),
    "ftp link": (with_("https://example.org/a", "ftp://example.org/a"), "must be an http"),
    "relative link": (with_("https://example.org/a", "//example.org/a"), "must be an http"),
    "link with quote": (
        with_('"https://example.org/a"', "'https://example.org/\"onclick=alert(1)'"),
        "must be an http",
    ),
    "link with angle": (with_("https://example.org/a", "https://example.org/<script>"), "must be an http"),
    "link with space": (with_("https://example.org/a", "https://example.org/a b"), "must be an http"),
    "link with password": (with_("https://example.org/a", "https://user:pw@example.org/a"), "must be an http"),
    "link without host": (with_("https://example.org/a", "https:///a"), "must be an http"),
    "link to a homograph": (with_("https://example.org/a", "https://ex\u0430mple.org/a"), "must be an http"),
    "bad arXiv number": (with_("{paper:", '{arxiv: "2402.275", paper:'), "wrong form"),
    "arXiv with version": (with_("{paper:", '{arxiv: "2402.02750v2", paper:'), "wrong form"),
    "arXiv month 13": (with_("{paper:", '{arxiv: "2413.02750", paper:'), "wrong form"),
    "bad DOI": (with_("{paper:", "{doi: 'https://doi.org/10.1145/1', paper:"), "wrong form"),
    "DOI with markup": (with_("{paper:", "{doi: '10.1145/<script>', paper:"), "wrong form"),
    "bad OpenReview id": (with_("{paper:", "{openreview: '../../x', paper:"), "wrong form"),
    "no placements": (with_("[{leaf: kvs, role: primary, source: abstract}]", "[]"), "needs at least 1"),
    "placement without source": (with_(", source: abstract", ""), "source: is missing"),
    "bad role": (with_("role: primary", "role: primry"), "did you mean primary?"),
    "bad source": (with_("source: abstract", "source: hearsay"), "must be survey, abstract, full-text or code"),
    "gain is text": (
        GOOD + "effects: {energy: {effect: direct, source: abstract, gains: [{factor: big, kind: x}]}}\n",
        "must be a number",
    ),
    "gain is infinite": (
        GOOD + "effects: {energy: {effect: direct, source: abstract, gains: [{factor: .inf, kind: x}]}}\n",
        "must be a number",
    ),
    "gain is zero": (
        GOOD + "effects: {energy: {effect: direct, source: abstract, gains: [{factor: 0, kind: x}]}}\n",
        "greater than 0",
    ),
    "gain without a number": (
        GOOD + "effects: {energy: {effect: direct, source: abstract, gains: [{kind: x}]}}\n",
        "needs a factor or a percent",
    ),
    "gain of two numbers": (
        GOOD + "effects: {energy: {effect: direct, source: abstract, gains: [{factor: 2, percent: 50, kind: x}]}}\n",
        "needs a factor or a percent",
    ),
    "survey is not a yes": (GOOD + "survey: maybe\n", "must be true or false"),
}


def test_the_good_file_is_good(check_bytes):
    assert check_bytes(GOOD).problems == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gets_a_clear_error(name, check_bytes):
    data, expected = BROKEN[name]
    if isinstance(data, bytes) and name not in ("utf-16", "utf-8 with mark", "no first line"):
        data = FIRST_LINE.encode() + b"\n" + data
    problems = check_bytes(data).problems
    assert any(expected in str(problem) for problem in problems), problems
    for problem in problems:
        assert str(problem).startswith("papers/2024/sample.yaml:")
        assert str(problem).isprintable()
        assert len(str(problem)) < 600


# Paths that an entry may not have. They stand below papers/ of a scratch copy, so none of them leaves it.
BAD_PATHS = [
    "2024/Sample.yaml",
    "2024/sam ple.yaml",
    "2024/sample_x.yaml",
    "2024/-sample.yaml",
    "2024/sample..yaml",
    "2024/..sample.yaml.yaml/x.yaml",
    "2024/samplé.yaml",
    "2024/con.yaml",
    "2024/index.yaml",
    "2024/" + "x" * 61 + ".yaml",
    "2024/sample.yml",
    "2024/sample.json",
    "sample.yaml",
    "24/sample.yaml",
    "2024/deep/sample.yaml",
    "2024/%2e%2e.yaml",
    "2024/sample;rm -rf.yaml",
]


@pytest.mark.parametrize("name", BAD_PATHS)
def test_a_file_out_of_place_or_with_a_bad_id_is_refused(name, check_bytes):
    result = check_bytes(GOOD, name=name)
    if "/." in name:  # hidden folders and files are not the atlas's business
        assert result.papers == []
        return
    assert "is not in its place" in str(result.problems[0]) or "has a bad id" in str(result.problems[0])
    assert result.papers == []


def test_a_link_that_leads_out_of_papers_is_refused(empty_checkout, check_bytes, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.yaml"
    outside.write_text(f"{FIRST_LINE}\n{GOOD}")
    result = check_bytes(GOOD)
    (empty_checkout.root / "papers" / "2024" / "link.yaml").symlink_to(outside)
    result = check_bytes(GOOD)
    assert "is a link" in str(result.problems[0])
    assert [paper.id for paper in result.papers] == ["sample"]


def test_a_pipe_does_not_hang_the_check(empty_checkout, check_bytes):
    check_bytes(GOOD)
    os.mkfifo(empty_checkout.root / "papers" / "2024" / "pipe.yaml")
    assert "special file" in str(check_bytes(GOOD).problems[0])
