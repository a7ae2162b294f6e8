"""Writes plain text safely into other formats. Every text of an entry goes through one of these, or through Jinja."""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$^=-])")
_MARKDOWN_HARMLESS = re.compile(r"(?<=\w)\\([-_+=])(?=\w)|(?<=[\w .,;])\\([()+!=-])")
# What the code host makes of plain text in a file: links of `www.`, of `//` behind a scheme and of an e-mail address,
# and pictures of `:name:`. It finds the first two in the source, where a backslash is enough, the others in the text
# that comes of it, where neither a backslash nor an entity helps: only a comment parts a text.
_AUTOLINKS = (
    (re.compile(r"(?<![A-Za-z0-9])(www)\.", re.IGNORECASE), r"\1\."),
    (re.compile(r"//"), r"/\/"),
    (re.compile(r"@(?=\w)"), r"@<!-- -->"),
    (re.compile(r":(?=[\w+\\-]+:)"), r":<!-- -->"),
)
# Before a formula in a cell: spaces and the sign that it begins with, whose full-width and small forms East Asian
# spreadsheets read alike. Where the list separator is a semicolon, which is so in half of Europe, a cell may also begin
# behind one inside of the text, quotes or not; comma, tab and line end cannot stand unquoted in a cell, or not at all.
_SIGN = "[=+@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b-]"
_FORMULA = re.compile(rf"^(?=\s*{_SIGN}|[\t\r])|(?<=;)(?=[\s\"]*{_SIGN})")
_BIBTEX = {
    "\\": r"{\textbackslash}",
    "{": r"{\textbraceleft}",
    "}": r"{\textbraceright}",
    "^": r"{\textasciicircum}",
    "~": r"{\textasciitilde}",
    **{c: f"\\{c}" for c in "&%$#_"},
}


def github_markdown(text: str) -> str:
    """Escape `text` for GitHub's Markdown, sparingly, so that the source stays readable. Addresses in it stay text."""
    escaped = _MARKDOWN.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    escaped = _MARKDOWN_HARMLESS.sub(lambda m: m[1] or m[2], escaped)
    for pattern, replacement in _AUTOLINKS:
        escaped = pattern.sub(replacement, escaped)
    return escaped


def markdown_address(url: str) -> str:
    """Encode the characters of an address that would end a Markdown link."""
    return re.sub(r"[()\[\]*~'|]", lambda m: f"%{ord(m[0]):02X}", url)


def bibtex(text: str) -> str:
    """Escape `text` for a BibTeX field. Braces come out balanced whatever `text` holds."""
    return "".join(_BIBTEX.get(c, c) for c in text)


def spreadsheet(text: str) -> str:
    """Put an apostrophe before whatever in a cell a spreadsheet would take for a formula."""
    return _FORMULA.sub("'", text)
