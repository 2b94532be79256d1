"""Facts in what a carrier says, read with distrust: what is not of its kind is nothing, or an unknown outcome."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from faxbot.errors import OutcomeUnknown
from faxbot.hidden import Hidden

LONGEST_NUMBER = 64
MOST_PAGES = 100_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def object_in(value: object) -> dict[str, Any]:
    """The JSON object that `value` should be; raises OutcomeUnknown where it is none."""
    if not isinstance(value, dict):
        raise OutcomeUnknown("The carrier's answer is not what it should be.")
    return value


def id_in(fax: Mapping[str, Any]) -> str:
    """The carrier's name for a fax; raises OutcomeUnknown where it has none."""
    external_id = fax.get("id")
    if not isinstance(external_id, str) or not _ID.fullmatch(external_id):
        raise OutcomeUnknown("The carrier's answer holds no id.")
    return external_id


def moment(value: object) -> datetime | None:
    """An aware time from text with a zone (RFC 3339); None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def number_in(value: object) -> Hidden[str]:
    """A fax number as the carrier writes it; empty for anything that is none."""
    text = value.strip() if isinstance(value, str) else ""
    return Hidden(text if text.isprintable() and len(text) <= LONGEST_NUMBER else "")


def count_in(value: object) -> int | None:
    """A number of pages; None for anything else."""
    return value if type(value) is int and 0 <= value <= MOST_PAGES else None


def attempt_in(url: str) -> str | None:
    """The tag in the address of a callback; None where it names none, or is no address."""
    try:
        return parse_qs(urlsplit(url).query).get("attempt", [None])[-1]
    except ValueError:
        return None
