"""The kinds of value that entries and vocabulary are made of."""

from __future__ import annotations

import datetime
import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MAX_LINE = 500
MAX_PARAGRAPH = 2000

# RFC 3986's characters, host in letters, digits, dots and hyphens: nothing that could end an attribute or a link.
URL = re.compile(
    r"https?://[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)+(?::[0-9]{1,5})?"
    r"(?:[/?#][A-Za-z0-9\-._~!$&'()*+,;=:@/%?#\[\]]*)?"
)
DATE = re.compile(r"([0-9]{4})-([0-9]{2})(?:-([0-9]{2}))?")
FIRST_YEAR = 2017  # of the Transformer


class Part(BaseModel):
    """Part of a file; unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _normalized(value: object) -> object:
    """Compose a text (NFC), with one plain space wherever it has spaces of any kind, and none around it."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    one_line = "\n" not in value and "\r" not in value  # others are refused as they are
    return unicodedata.normalize("NFC", " ".join(value.split()) if one_line else value)


def _one_line(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise ValueError("must be one line; a long one is folded with `>-` and indented")
    return value


def _url(value: str) -> str:
    if not URL.fullmatch(value):
        raise ValueError("must be an http or https address with a full host name, percent-encoded")
    return value


def _calendar_date(value: str) -> str:
    match = DATE.fullmatch(value)
    if not match:
        raise ValueError("must be a date as YYYY-MM-DD, or YYYY-MM where the day is unknown")
    year, month, day = (int(part) if part else 1 for part in match.groups())
    try:
        datetime.date(year, month, day)
    except ValueError as error:
        raise ValueError(f"is not a date of the calendar: {error}") from None
    if year < FIRST_YEAR:
        raise ValueError(f"lies before {FIRST_YEAR}, the year of the Transformer")
    return value


def in_the_future(day: str, today: datetime.date | None) -> bool:
    """Say whether `day` (YYYY-MM-DD) lies after `today`, the day in UTC, by more than the one that time zones allow.

    None is no bound.
    """
    return today is not None and day > (today + datetime.timedelta(days=1)).isoformat()


def _full_date(value: str) -> str:
    if len(value) != len("YYYY-MM-DD"):
        raise ValueError("must be a full date, YYYY-MM-DD")
    return value


Text = Annotated[str, BeforeValidator(_normalized)]
Line = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_LINE), AfterValidator(_one_line)]
Paragraph = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_PARAGRAPH), AfterValidator(_one_line)]
Url = Annotated[Text, StringConstraints(max_length=MAX_LINE), AfterValidator(_url)]
PartialDate = Annotated[Text, AfterValidator(_calendar_date)]
FullDate = Annotated[Text, AfterValidator(_calendar_date), AfterValidator(_full_date)]
ArxivId = Annotated[Text, StringConstraints(pattern=r"^[0-9]{2}(0[1-9]|1[0-2])\.[0-9]{4,5}$")]
# DOIs end up in addresses, so the few legal characters that would need escaping there are left out.
Doi = Annotated[Text, StringConstraints(pattern=r"^10\.[0-9]{4,9}/[A-Za-z0-9\-._;()/:]+$", max_length=200)]
OpenReviewId = Annotated[Text, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,20}$")]
Factor = Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)]
Percent = Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)]
