"""Characters that no text may hold because a reader does not see them, and how a message shows them nevertheless.

Two titles that differ by such a character alone look the same, a title of nothing else looks empty, and some of them
turn the order of what stands around them.
"""

from __future__ import annotations

import re

# Unicode 17.0. A table here, not a dependency: the one property that the standard library lacks is short and stable.
# In order: Default_Ignorable_Code_Point (DerivedCoreProperties.txt); category Cf beyond it; category Cc but for the
# line feed and the carriage return, which a text file needs; line and paragraph separators; what fonts draw as blank
# though it is no space; surrogates, private use, noncharacters, and all from the end of plane 3 on, where nothing else
# is but default-ignorable tags and selectors. Each range beyond U+FFFF costs every search time, so there are few.
_IGNORABLE = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
)
_FORMAT = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
_CONTROL = "\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f"
_SEPARATOR = "\u2028\u2029"
_BLANK = "\u2800\ufffc\U00013441-\U00013442\U00016fe4\U0001d159"
_NO_CHARACTER = "\ud800-\uf8ff\ufdd0-\ufdef\ufffd-\uffff\U0001fffe-\U0001ffff\U0002fffe-\U0002ffff\U0003fffe-\U0010ffff"

HIDDEN = re.compile(f"[{_IGNORABLE}{_FORMAT}{_CONTROL}{_SEPARATOR}{_BLANK}{_NO_CHARACTER}]")
# `##[command]` anywhere in a line of a workflow's log is a command to GitHub's runner, in its older notation.
_COMMAND = re.compile(r"(?<=##)\[")


def printable(text: str) -> str:
    r"""Return `text` as one line that shows every character: hidden ones, ends of lines and odd spaces as `\u200b`."""
    if not text.isprintable() or HIDDEN.search(text):
        text = "".join(c if c.isprintable() and not HIDDEN.match(c) else _escape(c) for c in text)
    return _COMMAND.sub(lambda m: _escape(m[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
