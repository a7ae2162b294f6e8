"""Full-text search in English and Chinese over the store's FTS5 table."""

from __future__ import annotations

import re

CJK = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKENS = re.compile(rf"[{CJK}]+|[^\s{CJK}\W]+")


def spaced(text: str) -> str:
    """Put a space around every Chinese character, so that the tokenizer sees each as a word."""
    return re.sub(rf"([{CJK}])", r" \1 ", text)


def match_expression(query: str) -> str:
    """Turn what a person typed into an FTS5 expression: all words must occur, the last may be unfinished.

    Runs of Chinese characters must occur as they stand. Nothing in `query` is taken as FTS5 syntax. Returns "" where
    the query holds no word.
    """
    tokens: list[str] = _TOKENS.findall(query)
    quoted = [f'"{spaced(token).strip()}"' for token in tokens]
    if quoted and not re.match(rf"[{CJK}]", tokens[-1]):
        quoted[-1] += " *"
    return " ".join(quoted)
