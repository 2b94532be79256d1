"""The stand-in Phaxio's paths, who may use them, and a door of its own for whoever steers it."""

from __future__ import annotations

import hmac
import json
import re
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

from faxbot.carriers.door import Answer, Form, Request, error, read_form
from faxbot.carriers.ledger import RECEIVED, SENT, Fax
from faxbot.carriers.pages import blank_pdf
from faxbot.carriers.phaxio import words
from faxbot.carriers.phaxio.carrier import Carrier
from faxbot.carriers.phaxio.submission import (
    NUMBER,
    Refused,
    check_callback_url,
    check_fields,
    counted_tag,
    read,
)

STATUSES = frozenset(
    {"queued", "pendingbatch", "inprogress", "success", "failure", "partialsuccess"}
)
PER_PAGE, MOST_PER_PAGE = 25, 1000

_API = re.compile(r"/v2(?:\.1)?/(.+)")
_FAX = re.compile(r"faxes/([0-9]{1,18})(/file|/cancel|/resend)?")
_FILTERS = frozenset(
    {
        *("created_after", "created_before", "direction", "status", "phone_number"),
        *("per_page", "page"),
    }
)
_COUNTRY = {
    "name": "United States",
    "alpha2": "US",
    "country_code": 1,
    "price_per_page": 7,
    "send_support": "full",
    "receive_support": "full",
}
# A grey dot: nobody looks at it.
_JPEG = b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP//////////////////////////////////////////////////////////////"
    "////////////////////////wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACf/EABQQAQAAAAAAAAAAAAAAAAAA"
    "AAD/2gAIAQEAAD8AKp//2Q=="
)


@dataclass(slots=True)
class Misbehaviour:
    """How requests are answered that are still to come: `times` of them, of this method and this
    path below the version, or of any."""

    answer: str
    times: int = 1
    method: str = ""
    path: str = ""


class Routes:
    """From a request to its answer."""

    def __init__(self, carrier: Carrier, *, byte_order_mark: bool = False) -> None:
        self._carrier = carrier
        self._byte_order_mark = byte_order_mark
        self._planned: list[Misbehaviour] = []
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        if request.path.startswith("/control/"):
            return self._control(request) if request.local else error(404, "no-such-path")
        try:
            answer = self._api(request)
        except Refused as refused:
            answer = refused.answer
        return words.marked(answer) if self._byte_order_mark else answer

    # the vendor's calls

    def _api(self, request: Request) -> Answer:
        found = _API.fullmatch(request.path)
        if found is None:
            return words.REFUSALS["not_found"]
        path = found[1]
        if (request.method, path) == ("GET", "public/countries"):
            return words.success("Data contains supported countries", data=[_COUNTRY])
        if not self._admitted(request):
            return words.REFUSALS["auth_failure"]
        if planned := self._misbehaviour(request.method, path):
            return words.REFUSALS[planned]
        fixed: Mapping[tuple[str, str], Callable[[Request], Answer]] = {
            ("POST", "faxes"): self._create,
            ("GET", "faxes"): self._list,
            ("GET", "account/status"): self._status,
        }
        if answer := fixed.get((request.method, path)):
            return answer(request)
        return self._one(request, path)

    def _admitted(self, request: Request) -> bool:
        """Whether key and secret were given as HTTP Basic; not as parameters, which lands in logs."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        account = self._carrier.account
        try:
            known = hmac.compare_digest(
                b64decode(given, validate=True), f"{account.key}:{account.secret}".encode()
            )
        except ValueError:
            return False
        return kind.lower() == "basic" and known

    def _create(self, request: Request) -> Answer:
        try:
            form = read_form(request)
        except ValueError:
            return words.invalid("No multipart/form-data")
        if form.fields.get("direction") == RECEIVED:
            return self._receive_test(form)
        account = self._carrier.account
        try:
            submission = read(form, is_test=not account.live, numbers=account.numbers)
        except Refused as refused:
            to = form.fields.get("to", "")
            return self._carrier.refuse(counted_tag(form), to, refused.code, refused.answer)
        return self._carrier.submit(submission)

    def _receive_test(self, form: Form) -> Answer:
        fields = check_fields(form, {"direction", "from_number", "to_number"})
        document = form.files.get("file")
        if self._carrier.account.live or document is None:
            return words.REFUSALS["invalid_entity"]
        self._carrier.receive(*_numbers(fields), document)
        return words.success("Test fax received")

    def _status(self, _request: Request) -> Answer:
        now = datetime.now(UTC)
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        counts = [
            {name: self._carrier.count(name, since.timestamp()) for name in (SENT, RECEIVED)}
            for since in (day, day.replace(day=1))
        ]
        return words.success(
            "Account status retrieved successfully",
            data={"balance": 1076, "faxes_today": counts[0], "faxes_this_month": counts[1]},
        )

    def _list(self, request: Request) -> Answer:
        query = request.query
        for name in query:
            if name not in _FILTERS and not re.fullmatch(r"tag\[[^\[\]]+\]", name):
                return words.invalid("Unknown filter")
        faxes = [fax for fax in self._carrier.listed(*_span(query)) if _matches(fax, query)]
        per_page = _count(query, "per_page", PER_PAGE, MOST_PER_PAGE)
        page = _count(query, "page", 1, 10**6)
        shown = faxes[(page - 1) * per_page : page * per_page]
        paging = {"total": len(faxes), "per_page": per_page, "page": page}
        return words.success(
            "Retrieved faxes successfully",
            {f"x-{name.replace('_', '-')}": str(value) for name, value in paging.items()},
            data=[words.fax_object(fax) for fax in shown],
            paging=paging,
        )

    def _one(self, request: Request, path: str) -> Answer:
        """A call about one fax."""
        found = _FAX.fullmatch(path)
        fax = self._carrier.find(found[1]) if found else None
        if found is None or fax is None:
            return words.REFUSALS["not_found"]
        calls: Mapping[tuple[str, str], Callable[[Request, Fax], Answer]] = {
            ("GET", ""): self._get,
            ("DELETE", ""): self._delete,
            ("POST", "/cancel"): self._cancel,
            ("POST", "/resend"): self._resend,
            ("GET", "/file"): self._file,
            ("DELETE", "/file"): self._delete_file,
        }
        call = calls.get((request.method, found[2] or ""))
        return call(request, fax) if call else words.REFUSALS["not_found"]

    def _get(self, _request: Request, fax: Fax) -> Answer:
        return words.success("Metadata for fax", data=words.fax_object(fax))

    def _delete(self, _request: Request, fax: Fax) -> Answer:
        if self._carrier.account.live:
            return words.invalid("Only test faxes can be deleted")
        self._carrier.delete(fax)
        return words.success("Fax deleted successfully!")

    def _cancel(self, _request: Request, fax: Fax) -> Answer:
        if fax.direction == RECEIVED:
            return words.REFUSALS["not_found"]
        return self._carrier.cancel(fax)

    def _resend(self, request: Request, fax: Fax) -> Answer:
        if fax.direction == RECEIVED:
            return words.REFUSALS["not_found"]
        fields = check_fields(_either_form(request), {"callback_url"})
        return self._carrier.resend(fax, check_callback_url(fields.get("callback_url", "")))

    def _file(self, request: Request, fax: Fax) -> Answer:
        size = request.query.get("thumbnail")
        content = self._carrier.file(fax)
        if content is None:
            return words.REFUSALS["not_found"]
        if size is not None and size not in ("s", "l"):
            return words.REFUSALS["invalid_entity"]
        kind, ending = ("image/jpeg", "jpg") if size else ("application/pdf", "pdf")
        name = f'attachment; filename="fax-{fax.id}.{ending}"'
        headers = {"Content-Type": kind, "Content-Disposition": name}
        return Answer(200, _JPEG if size else content, headers)

    def _delete_file(self, _request: Request, fax: Fax) -> Answer:
        self._carrier.delete_file(fax)
        return words.success("Deleted files successfully!")

    # the door of whoever steers it

    def _control(self, request: Request) -> Answer:
        call = {
            ("GET", "/control/health"): lambda: Answer(200, {"ok": True}),
            ("GET", "/control/ledger"): lambda: self._ledger(request),
            ("POST", "/control/receive"): lambda: self._receive(request),
            ("POST", "/control/misbehave"): lambda: self._misbehave(request),
        }.get((request.method, request.path))
        return call() if call else error(404, "no-such-path")

    def _ledger(self, request: Request) -> Answer:
        query = request.query
        after, limit = query.get("after", "0"), query.get("limit", "1000000")
        if not (after.isdecimal() and limit.isdecimal()):
            return error(400, "bad-cursor")
        return self._carrier.ledger(query.get("tag"), int(after[:18]), int(limit[:7]))

    def _receive(self, request: Request) -> Answer:
        """A fax comes in."""
        known = {"from_number", "to_number", "callback_url", "send_file"}
        try:
            form = _either_form(request)
            fields = check_fields(form, known)
            fax = self._carrier.receive(
                *_numbers(fields),
                form.files.get("file", blank_pdf()),
                url=check_callback_url(fields.get("callback_url", "")),
                file=fields.get("send_file", "true") == "true",
            )
        except Refused as refused:
            return error(422, refused.code)
        return Answer(201, {"id": int(fax.id)})

    def _misbehave(self, request: Request) -> Answer:
        """Requests to come are answered otherwise."""
        try:
            wish = Misbehaviour(**json.loads(request.body))
            if wish.answer not in words.REFUSALS or not 0 < int(wish.times) < 10**6:
                raise ValueError
        except (ValueError, TypeError):
            return error(422, "wish-malformed")
        with self._lock:
            self._planned.append(wish)
        return Answer(201)

    def _misbehaviour(self, method: str, path: str) -> str:
        """What was planned for such a request, "" for nothing."""
        with self._lock:
            for wish in self._planned:
                if wish.method in ("", method) and wish.path in ("", path):
                    wish.times -= 1
                    if not wish.times:
                        self._planned.remove(wish)
                    return wish.answer
        return ""


def _either_form(request: Request) -> Form:
    """A form of either type, or none at all; raises Refused."""
    if not request.body:
        return Form((), ())
    try:
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            pairs = parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True)
            return Form(tuple(pairs), ())
        return read_form(request)
    except ValueError:
        raise Refused("form-malformed", words.REFUSALS["invalid_entity"]) from None


def _numbers(fields: Mapping[str, str]) -> tuple[str, str]:
    """From and to; raises Refused."""
    numbers = fields.get("from_number", ""), fields.get("to_number", "")
    if not all(NUMBER.fullmatch(number) for number in numbers):
        raise Refused("number-malformed", words.REFUSALS["number_invalid"])
    return numbers


def _span(query: Mapping[str, str]) -> tuple[float, float]:
    """From when to when, in seconds of the epoch: the last week where nothing is said."""
    now = time.time()
    week = now - timedelta(weeks=1).total_seconds()
    return _moment(query, "created_after", week), _moment(query, "created_before", now)


def _moment(query: Mapping[str, str], name: str, default: float) -> float:
    if name not in query:
        return default
    try:
        moment = datetime.fromisoformat(query[name])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Refused(f"{name}-malformed", words.invalid(f"Not acceptable: {name}")) from None


def _count(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= most:
        raise Refused(f"{name}-malformed", words.invalid(f"Not acceptable: {name}"))
    return int(text)


def _matches(fax: Fax, query: Mapping[str, str]) -> bool:
    if query.get("direction", SENT) not in (SENT, RECEIVED):
        raise Refused("direction-malformed", words.invalid("Not acceptable: direction"))
    if query.get("status", "queued") not in STATUSES:
        raise Refused("status-malformed", words.invalid("Not acceptable: status"))
    details = fax.details
    numbers = {each["phone_number"] for each in details["recipients"]}
    numbers |= {details["from_number"], details["to_number"]}
    tags = {name[4:-1]: value for name, value in query.items() if name.startswith("tag[")}
    return (
        query.get("direction", fax.direction) == fax.direction
        and query.get("status", fax.status) == fax.status
        and ("phone_number" not in query or query["phone_number"] in numbers)
        and tags.items() <= details["tags"].items()
    )
