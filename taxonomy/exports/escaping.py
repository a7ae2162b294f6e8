"""Writes plain text safely into other formats. Every text of an entry goes through one of these, or through Jinja."""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$^=-])")
_MARKDOWN_HARMLESS = re.compile(r"(?<=\w)\\([-_+=])(?=\w)|(?<=[\w .,;])\\([()+!=-])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_BIBTEX = {
    "\\": r"{\textbackslash}",
    "{": r"{\textbraceleft}",
    "}": r"{\textbraceright}",
    "^": r"{\textasciicircum}",
    "~": r"{\textasciitilde}",
    **{c: f"\\{c}" for c in "&%$#_"},
}


def github_markdown(text: str) -> str:
    """Escape `text` for GitHub's Markdown, sparingly, so that the source stays readable."""
    escaped = _MARKDOWN.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    return _MARKDOWN_HARMLESS.sub(lambda m: m[1] or m[2], escaped)


def markdown_address(url: str) -> str:
    """Encode the characters of an address that would end a Markdown link."""
    return re.sub(r"[()\[\]*~'|]", lambda m: f"%{ord(m[0]):02X}", url)


def bibtex(text: str) -> str:
    """Escape `text` for a BibTeX field. Braces come out balanced whatever `text` holds."""
    return "".join(_BIBTEX.get(c, c) for c in text)


def spreadsheet(text: str) -> str:
    """Mark a cell that a spreadsheet would take for a formula with a leading apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text
