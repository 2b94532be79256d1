"""What only Phaxio's fax object has, beside what the ledger names of every fax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from faxbot.carriers.ledger import Fax
from faxbot.carriers.phaxio.numbers import Error


def new_details(
    to: Sequence[str],
    *,
    is_test: bool,
    tags: Mapping[str, str] | None = None,
    caller_id: str | None = None,
) -> dict[str, Any]:
    """What the ledger does not name: the fields of the vendor's fax object, and what is asked of
    it. `doom`: the error that it will end with, whatever its number says."""
    recipient = {
        "status": None,
        "retry_count": 0,
        "completed_at": None,
        "bitrate": None,
        "resolution": None,
        **said(Error(None, None, None)),
    }
    return {
        "is_test": is_test,
        "num_pages": 0,
        "caller_id": caller_id,
        "from_number": None,
        "to_number": None,
        "cost": 0,
        "tags": dict(tags or {}),
        "recipients": [{"phone_number": number, **recipient} for number in to],
        **said(Error(None, None, None)),
        "content_urls": [],
        "batch_delay": None,
        "cancel_timeout": None,
        "doom": None,
        "cancel_failed": False,
        "deleted": False,
        "with_file": False,
    }


def said(error: Error) -> dict[str, Any]:
    """An error as the fax and its recipients name it."""
    return {"error_type": error.type, "error_id": error.id, "error_message": error.message}


def doom(fax: Fax, error: Error) -> None:
    """Have it end with this error, unless it has one already."""
    fax.details["doom"] = fax.details["doom"] or [error.type, error.id, error.message]


def set_error(fax: Fax, error: Error) -> None:
    """What the fax says of itself; with one recipient that one says the same."""
    fax.details |= said(error)
    if len(fax.details["recipients"]) == 1:
        fax.details["recipients"][0] |= said(error)
