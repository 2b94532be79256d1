"""Reads received faxes that come by HTTP: what an earlier Faxbot's dialplan posts (JSON, with the path of a file that
lies here), and what an Asterisk on another machine hands over (a form, with the file in it).
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, BinaryIO

from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from faxbot.errors import ProviderError, Refused, Unreachable
from faxbot.plugins.base import Arrival, CallbackRequest
from faxbot.providers.asterisk import arrivals
from faxbot.providers.asterisk.calls import SUCCESS, result_in
from faxbot.providers.asterisk.spool import Spool, is_call, is_ours

PROOF = "x-internal-secret"
FILE = "file"
_FIELDS = ("tiff_path", "to_number", "from_number", "faxstatus", "faxpages", "uniqueid", "result")
_LONGEST = 8 * 1024
"""Characters of a field, and bytes of JSON eight times."""
_MOST_PARTS = 32
_NO_SYSTEM = re.compile(r"[0-9]+\.[0-9]+")
"""A UNIQUEID of an Asterisk without `systemname`: the second, and a count."""
_NO_CALL = (
    "has no uniqueid of letters, digits and ._:@- only: without one faxes cannot be told apart."
)


def is_genuine(request: CallbackRequest, secret: str) -> bool:
    """Whether it brings our secret; never where there is none."""
    given = request.headers.get(PROOF, "").encode("utf-8", "surrogateescape")
    return bool(secret) and hmac.compare_digest(given, secret.encode())


def read(request: CallbackRequest, spool: Spool, secret: str) -> Arrival:
    """The fax that was posted. Raises Refused for what is none, of cause `config` where the folder may be wrong."""
    if _is_form(request):
        return _handed_over(request, secret)
    said = _json(request)
    call = said.get("uniqueid", "")
    if not is_call(call):
        raise Refused(f"The JSON {_NO_CALL}")
    spool.check(said.get("tiff_path", ""))
    return arrivals.arrival(call, _entry(said), attached=True)


def claim(request: CallbackRequest, spool: Spool, secret: str) -> None:
    """Make the file that a JSON names its call's own, where it is there; what hinders that is said when the file is
    fetched, which tries it again."""
    with suppress(ProviderError):
        if request.body and not _is_form(request):
            arrival = read(request, spool, secret)
            if arrival.attached:
                spool.adopt(arrival.external_id, _json(request).get("tiff_path", ""))


def attached(request: CallbackRequest, spool: Spool, target: BinaryIO) -> None:
    """Write the file in the form, or at the path in the JSON, into `target`. Raises Refused where there is none, or the
    form is cut off, and AccountRefused where it may not be read."""
    if not _is_form(request):
        _lying_here(_json(request), spool, target, request.received_at)
        return
    found = False
    for name, piece in _parts(request):
        if name == FILE:
            found = True
            target.write(piece)
    if not found:
        raise Refused("The form has no file in it.", cause="doc_unreadable")


def _lying_here(
    said: Mapping[str, str], spool: Spool, target: BinaryIO, posted_at: datetime | None
) -> None:
    call = said.get("uniqueid", "")
    spool.adopt(call, said.get("tiff_path", ""), posted_at=posted_at)
    try:
        spool.copy(call, target)
    except Unreachable as error:
        raise Refused(error.detail, cause="config") from None


def _handed_over(request: CallbackRequest, secret: str) -> Arrival:
    fields: dict[str, bytes] = {}
    file = 0
    for name, piece in _parts(request):
        if name == FILE:
            file += len(piece)
        elif name in _FIELDS:
            fields[name] = (fields.get(name, b"") + piece)[: _LONGEST + 1]
    said = {name: value.decode("utf-8", "replace") for name, value in fields.items()}
    call = said.get("uniqueid", "")
    if not is_call(call):
        raise Refused(f"The form {_NO_CALL}")
    entry = _entry(said)
    if "result" in said:
        told = result_in(said["result"])
        if told is None or not is_ours(call):
            raise Refused("The result is none of faxbot's dialplan.")
        entry = told
    return arrivals.arrival(_named(call, entry, secret), entry, attached=file > 0)


def _named(call: str, entry: Mapping[str, str], secret: str) -> str:
    """The name of a handed over fax. Two Asterisks without `systemname` may give two calls one UNIQUEID: there the
    numbers tell them apart, which a repeat has, too, as a hash that nobody can undo without our secret."""
    numbers = f"{entry.get('from', '')}\n{entry.get('to', '')}"
    if not _NO_SYSTEM.fullmatch(call) or not numbers.strip():
        return call
    return f"{call}-{hmac.digest(secret.encode(), numbers.encode(), 'sha256').hex()[:12]}"


def _is_form(request: CallbackRequest) -> bool:
    return _type(request)[0] == "multipart/form-data"


def _entry(said: Mapping[str, str]) -> dict[str, str]:
    """The same in our dialplan's words. Who does not say how it ended means that it ended well."""
    for name, value in said.items():
        if len(value) > _LONGEST:
            raise Refused(f"{name} is too long.")
    pages = said.get("faxpages", "").strip()
    return {
        "status": said.get("faxstatus", SUCCESS).strip().upper(),
        "from": said.get("from_number", ""),
        "to": said.get("to_number", ""),
        "pages": pages,
    }


def _json(request: CallbackRequest) -> dict[str, str]:
    """The fields as text; raises Refused for what is not a JSON object of such."""
    try:
        said = json.loads(request.body) if len(request.body) <= 8 * _LONGEST else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Refused("The body is neither JSON nor a form (multipart/form-data).")
    return {name: _text(said[name]) for name in _FIELDS if said.get(name) is not None}


def _text(value: Any) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise Refused("A field is neither text nor a number.")


def _type(request: CallbackRequest) -> tuple[str, dict[str, str]]:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    return kind.lower(), options


def _parts(request: CallbackRequest) -> Iterator[tuple[str, bytes]]:
    """The name of each part with its content, piece by piece; one that is empty comes as one empty piece."""
    boundary = _type(request)[1].get("boundary", "")
    try:
        parser = PushMultipartParser(
            boundary.encode("ascii"), max_segment_count=_MOST_PARTS, strict=True
        )
        name = ""
        for chunk in request.chunks():
            for event in parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    name = event.name
                    yield name, b""
                elif event:
                    yield name, bytes(event)
        parser.close()
    except (MultipartError, ValueError, LookupError, AssertionError):
        raise Refused("The form cannot be read to its end.") from None
