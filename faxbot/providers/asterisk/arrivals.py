"""What our dialplan writes of a fax that came in, and what that means. Pure: text goes in, an Arrival comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from faxbot.errors import OutcomeUnknown
from faxbot.hidden import Hidden
from faxbot.plugins.base import Arrival
from faxbot.providers.asterisk import causes
from faxbot.providers.asterisk.calls import SUCCESS
from faxbot.providers.asterisk.spool import is_ours

FAMILY = "faxbot-in"
"""Of Asterisk's database; the key is the fax's name."""
BEGUN, LOST = "BEGUN", "LOST"
"""The status of a call that is under way, and what is made of it where there is no such call any more."""
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


def body(name: str, entry: Mapping[str, str]) -> bytes:
    """For core to keep: the same for the same knowledge."""
    return json.dumps({"entry": dict(entry), "received": name}, sort_keys=True).encode()


def is_body(text: bytes) -> bool:
    """Whether body() has made this, and it is not about a call of ours."""
    return text.startswith(b'{"entry": ')


def read(text: bytes) -> Arrival:
    """What body() was made of; raises OutcomeUnknown for anything else."""
    try:
        facts = json.loads(text)
        name, entry = facts["received"], facts["entry"]
        if is_ours(name):
            return arrival(name, {str(key): str(value) for key, value in entry.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise OutcomeUnknown("What was heard cannot be read.")


def arrival(name: str, entry: Mapping[str, str], *, attached: bool = False) -> Arrival:
    """The fax of this name. By FAXSTATUS alone it arrived or not: of a call that failed we cannot tell whether its
    last page is whole, nor which pages the sender takes for delivered."""
    pages = _count(entry.get("pages", ""))
    cause = _why(entry, pages)
    return Arrival(
        name,
        sender=Hidden(entry.get("from", "")),
        recipient=Hidden(entry.get("to", "")),
        pages=pages,
        cause=cause,
        attached=attached and cause is None,
        received_at=_moment(entry.get("ended") or entry.get("begun") or ""),
    )


def has_document(entry: Mapping[str, str]) -> bool:
    """Whether this fax has arrived, so that there is a file of it."""
    return entry.get("status") != BEGUN and _why(entry, _count(entry.get("pages", ""))) is None


def _why(entry: Mapping[str, str], pages: int | None) -> str | None:
    status = entry.get("status", "")
    if status == SUCCESS:
        return "doc_empty" if pages == 0 else None
    if status == LOST:
        return "system"
    words, more, remote = (entry.get(key, "") for key in ("error", "text", "remote"))
    return causes.failed(words, more, pages or 0, remote)


def _count(text: str) -> int | None:
    """Of at most five digits; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None


def _moment(text: str) -> datetime | None:
    """Asterisk's EPOCH."""
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        return None
    moment = datetime.fromtimestamp(int(text), UTC)
    return moment if moment > _EARLIEST else None
