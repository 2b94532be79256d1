"""A stand-in Sinch as a real process for tests, a client of its own, and what the vendor's files say."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import re
import urllib.error
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import requests

from faxbot.carriers.pages import blank_pdf
from faxbot.carriers.sinch.submission import JSON
from faxbot.carriers.sinch.words import MOODS
from tests.callbacks import Callback, Receiver
from tests.carrier import CarrierProcess
from tests.ground import eventually

VENDOR = Path(__file__).parent / "providers" / "vendor" / "sinch"
PDF = blank_pdf(3)
FINAL = ("COMPLETED", "FAILURE")
HOOK = "sinch-hook:open-sesame-0123"

PROJECT, KEY, SECRET = "test-project", "test-key", "test-secret"


class SinchProcess(CarrierProcess):
    """`faxbot carrier sinch`.

    Times are as short as they can be unless given: `page_seconds=0` ends a call at once, `scale`
    makes the vendor's hours milliseconds.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        settings = {
            "project_id": PROJECT,
            "key": KEY,
            "secret": SECRET,
            "page_seconds": 0,
            "late_seconds": 0.5,
            "scale": 0.0001,
        }
        super().__init__("sinch", folder, {**settings, **options})

    @property
    def api(self) -> str:
        """Where its project is."""
        return f"{self.url}/v3/projects/{PROJECT}"

    def ledger(self, tag: str | None = None) -> dict[str, Any]:
        """`counts`, `tokens`, and `faxes`: the entries of one tag, or of all, oldest first."""
        content: dict[str, Any] = self.control("GET", "ledger" + (f"?tag={tag}" if tag else ""))
        return content

    def faxes(self, tag: str | None = None) -> list[dict[str, Any]]:
        """The ledger's entries, oldest first."""
        entries: list[dict[str, Any]] = self.ledger(tag)["faxes"]
        return entries

    def counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = self.ledger()["counts"]
        return counts

    def tokens(self) -> dict[str, Any]:
        """How often a token was `asked` for, `given`, `refused`, `throttled`."""
        counts: dict[str, Any] = self.ledger()["tokens"]
        return counts

    def misbehave(self, answer: str, **which: Any) -> None:
        """Have requests to come answered otherwise: `times`, `method`, `path`."""
        self.control("POST", "misbehave", {"answer": answer, **which})

    def moods(self, **moods: str) -> None:
        """Change how it speaks (faxbot.carriers.sinch.words.MOODS)."""
        self.control("POST", "moods", moods)

    def usual_moods(self) -> None:
        """Speak again as at the start."""
        self.moods(**{name: choices[0] for name, choices in MOODS.items()})

    def control(self, method: str, path: str, content: Any = None) -> Any:
        """What its control door answers, as JSON; raises urllib.error.HTTPError."""
        request = urllib.request.Request(
            f"{self.url}/control/{path}",
            json.dumps(content or {}).encode() if method == "POST" else None,
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


def vendor(name: str) -> Any:
    return json.loads((VENDOR / name).read_text(encoding="utf-8"))


def vendor_message(name: str) -> tuple[str, dict[str, str], bytes]:
    """First line, headers by lower-case name, and body of a whole message."""
    head, _, body = (VENDOR / name).read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    named = (line.split(": ", 1) for line in lines)
    return first, {name.lower(): value for name, value in named}, body


def call(
    method: str, url: str, *, auth: Any = (KEY, SECRET), timeout: float = 10, **more: Any
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, auth=auth, timeout=timeout, **more)


def send(
    carrier: SinchProcess,
    to: str = "+15550100000",
    document: bytes = PDF,
    name: str = "fax.pdf",
    timeout: float = 10,
    **fields: Any,
) -> requests.Response:
    """Submit a fax as multipart; `labels__x` stands for `labels[x]`."""
    named = {re.sub(r"^(\w+)__(\w+)$", r"\1[\2]", field): each for field, each in fields.items()}
    return call(
        "POST",
        f"{carrier.api}/faxes",
        data={"to": to, **named},
        files={"file": (name, document, "application/pdf")},
        timeout=timeout,
    )


def send_json(carrier: SinchProcess, **fields: Any) -> requests.Response:
    files = [{"file": base64.b64encode(PDF).decode(), "fileType": "PDF"}]
    content = {"to": "+15550100000", "files": files, **fields}
    given = {name: each for name, each in content.items() if each is not None}
    return call("POST", f"{carrier.api}/faxes", json=given)


def get(carrier: SinchProcess, fax_id: str) -> dict[str, Any]:
    content: dict[str, Any] = call("GET", f"{carrier.api}/faxes/{fax_id}").json()
    return content


def ended(carrier: SinchProcess, fax_id: str) -> dict[str, Any]:
    """A fax once it has ended."""
    eventually(lambda: get(carrier, fax_id)["status"] in FINAL)
    return get(carrier, fax_id)


def found(carrier: SinchProcess, tag: str, **query: str) -> list[dict[str, Any]]:
    """What a list shows of one label."""
    faxes = call("GET", f"{carrier.api}/faxes", params={"pageSize": "1000", **query}).json()
    return [fax for fax in faxes["faxes"] if fax.get("labels", {}).get("faxbot") == tag]


def hook(receiver: Receiver, tag: str) -> str:
    """A callback URL with credentials, and a query that a client would have."""
    return f"http://{HOOK}@{receiver.url.split('/')[2]}/callbacks/sinch?attempt={tag}&token=t"


def posted(receiver: Receiver, tag: str) -> list[Callback]:
    return [each for each in list(receiver.callbacks) if f"attempt={tag}&" in each.request.url]


def parts(callback: Callback) -> dict[str, EmailMessage]:
    """The parts of a multipart callback by name."""
    kind = callback.request.headers["content-type"]
    raw = f"Content-Type: {kind}\r\n\r\n".encode() + callback.request.body
    message = email.message_from_bytes(raw, policy=email.policy.HTTP)
    named = {}
    for part in message.iter_parts():
        assert isinstance(part, EmailMessage)
        named[str(part.get_param("name", header="content-disposition"))] = part
    return named


def content_of(part: EmailMessage) -> bytes:
    """A part's bytes."""
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


def fax_of(callback: Callback) -> dict[str, Any]:
    """The fax object in a callback of either type."""
    if callback.request.headers["content-type"] == JSON:
        content: dict[str, Any] = callback.content["fax"]
    else:
        content = json.loads(content_of(parts(callback)["fax"]))
    return content


def event_of(callback: Callback) -> str:
    if callback.request.headers["content-type"] == JSON:
        return str(callback.content["event"])
    return content_of(parts(callback)["event"]).decode()


class Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def ask_for_token(carrier: SinchProcess, **more: Any) -> requests.Response:
    asked = {"auth": (KEY, SECRET), "data": {"grant_type": "client_credentials"}, **more}
    return call("POST", f"{carrier.url}/oauth2/token", **asked)
