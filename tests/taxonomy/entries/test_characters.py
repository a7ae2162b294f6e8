"""Nobody can hide a character in a text, and a message shows those that somebody tried to hide."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxonomy.entries.characters import HIDDEN, printable


def test_every_control_format_private_and_separating_character_is_hidden():
    """By the categories of this Python's Unicode; a newer Unicode with a new one must make this fail."""
    unseen = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    for character in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(character) in unseen and character not in "\n\r":
            assert HIDDEN.match(character), f"U+{ord(character):04X}"


@pytest.mark.parametrize(
    "character",
    [
        *"\u034f\u115f\u1160\u17b4\u180b\u3164\ufe0f\uffa0",  # default-ignorable, but no format characters
        *"\U0001d173\U000e0100\U000e0fff",
        *"\u2800\U00016fe4\U0001d159",  # drawn as nothing
        *"\ufdd0\ufffe\U0010ffff",  # no characters at all
    ],
)
def test_what_is_drawn_as_nothing_is_hidden(character: str):
    assert HIDDEN.match(character)


@pytest.mark.parametrize(
    "text", ["αβγ λ-cache Σ", "键值缓存 全文", "Íñigo e\u0301 Ş ł ß", "한국어", "日本語カナ", "→ × ≤ ½ …", "😀"]
)
def test_letters_and_signs_that_are_seen_are_not(text: str):
    assert not HIDDEN.search(text)


anything = st.text(st.characters() | st.sampled_from("\n\r\t\x1b\u202e\u3164\ufeff\u2028\udcff#[]:%"))


@given(anything)
def test_a_printable_text_is_one_line_that_commands_nothing(text: str):
    shown = printable(text)
    assert shown.isprintable()
    assert not HIDDEN.search(shown)
    assert "##[" not in shown
    shown.encode()


@given(st.text(st.characters(categories=("L", "N", "P")).filter(lambda c: not HIDDEN.match(c) and c != "[")))
def test_a_text_without_hidden_characters_is_printed_as_it_is(text: str):
    assert printable(text) == text
