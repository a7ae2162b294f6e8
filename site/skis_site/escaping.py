"""Escapes text for Markdown and HTML at once: a page is Markdown first, and HTML after."""

from __future__ import annotations

import re

from markupsafe import Markup

# Letters and digits of any script, space, and the marks that mean nothing in Markdown or HTML wherever they stand.
_MARK = re.compile(r"[^\w ,.;:/?%@$\u00a0-\uffff\U00010000-\U0010ffff-]|_|(?<!\w)-|-(?!\w)")


def entities(value: object) -> Markup:
    """Return `value` as text in which every mark of Markdown or HTML is a numeric entity; Markup is left as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(_MARK.sub(lambda mark: f"&#{ord(mark[0])};", str(value)))  # noqa: S704 (this is the escaping)
