"""A stand-in Phaxio as a real process for tests, and a client's requests to it."""

from __future__ import annotations

import email
import email.policy
import json
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import requests

from faxbot.carriers.pages import blank_pdf
from tests.callbacks import Receiver
from tests.carrier import CarrierProcess
from tests.ground import eventually

KEY, SECRET, TOKEN = "test-key", "test-secret", "test-callback-token"
PDF = blank_pdf()
FINAL = ("success", "failure", "partialsuccess")


class PhaxioProcess(CarrierProcess):
    """`faxbot carrier phaxio`.

    Times are as short as they can be unless given: `page_seconds=0` ends a call at once, `scale`
    makes the vendor's hours milliseconds.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        settings = {
            "key": KEY,
            "secret": SECRET,
            "callback_token": TOKEN,
            "page_seconds": 0,
            "late_seconds": 0.5,
            "scale": 0.0001,
        }
        super().__init__("phaxio", folder, {**settings, **options})

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead the provider to this carrier."""
        return {
            "PHAXIO_BASE_URL": f"{self.url}/v2.1",
            "PHAXIO_API_KEY": KEY,
            "PHAXIO_API_SECRET": SECRET,
            "PHAXIO_CALLBACK_TOKEN": TOKEN,
        }

    def ledger(self, tag: str | None = None) -> dict[str, Any]:
        """`counts`, and `faxes`: the entries of one tag, or of all, oldest first."""
        query = f"?tag={tag}" if tag else ""
        content: dict[str, Any] = self.control("GET", f"ledger{query}")
        return content

    def faxes(self, tag: str | None = None) -> list[dict[str, Any]]:
        """The ledger's entries, oldest first."""
        entries: list[dict[str, Any]] = self.ledger(tag)["faxes"]
        return entries

    def counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = self.ledger()["counts"]
        return counts

    def misbehave(self, answer: str, **which: Any) -> None:
        """Have requests to come answered otherwise: `times`, `method`, `path`."""
        self.control("POST", "misbehave", json.dumps({"answer": answer, **which}).encode())

    def control(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        """What its control door answers, as JSON; raises urllib.error.HTTPError."""
        request = urllib.request.Request(
            f"{self.url}/control/{path}",
            body,
            {"Content-Type": kind or "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


def call(
    carrier: PhaxioProcess, method: str, path: str, *, auth: Any = (KEY, SECRET), **more: Any
) -> requests.Response:
    """A request at /v2.1/, or where `path` begins with a slash there."""
    with requests.Session() as session:
        session.trust_env = False
        url = carrier.url + (path if path.startswith("/") else f"/v2.1/{path}")
        return session.request(method, url, auth=auth, timeout=5, **more)


def send(
    carrier: PhaxioProcess, last: str = "0000", *, drop: str = "", files: Any = None, **fields: Any
) -> requests.Response:
    """POST faxes; `drop` leaves a field out."""
    form = [("to", f"+1555010{last}"), *fields.items()]
    parts = [(name, (None, value)) for name, value in form if name != drop]
    given = [("file", ("fax.pdf", PDF, "application/pdf"))] if files is None else files
    return call(carrier, "POST", "faxes", files=[*parts, *given])


def sent(carrier: PhaxioProcess, last: str = "0000", **fields: Any) -> int:
    """The id of a fax that was taken."""
    answer = send(carrier, last, **fields)
    assert answer.status_code == 200, answer.text
    number: int = answer.json()["data"]["id"]
    return number


def fax(carrier: PhaxioProcess, number: int) -> dict[str, Any]:
    content: dict[str, Any] = call(carrier, "GET", f"faxes/{number}").json()["data"]
    return content


def ended(carrier: PhaxioProcess, number: int) -> dict[str, Any]:
    """The fax once it has ended."""
    eventually(lambda: fax(carrier, number)["status"] in FINAL)
    return fax(carrier, number)


def form(kind: str, body: bytes) -> tuple[dict[str, str], dict[str, tuple[str, bytes]]]:
    """Fields, and files (file name, content), read with the email package and not as the carrier
    writes them."""
    message = email.message_from_bytes(
        f"Content-Type: {kind}\r\n\r\n".encode() + body, policy=email.policy.HTTP
    )
    fields, files = {}, {}
    for part in message.iter_parts():
        assert isinstance(part, EmailMessage)
        name = str(part.get_param("name", header="content-disposition"))
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename() is None:
            fields[name] = content.decode()
        else:
            files[name] = (str(part.get_filename()), content)
    return fields, files


def news(receiver: Receiver) -> list[dict[str, str]]:
    """The fields of every callback so far."""
    return [
        form(each.request.headers["content-type"], each.request.body)[0]
        for each in list(receiver.callbacks)
    ]


def entry(carrier: PhaxioProcess, number: int) -> dict[str, Any]:
    """The ledger's entry of one fax."""
    (found,) = [each for each in carrier.faxes() if each["id"] == str(number)]
    return found


def file(name: str = "file", filename: str = "a.pdf", content: bytes = PDF) -> Any:
    """A file part of a form."""
    return (name, (filename, content, "application/pdf"))
