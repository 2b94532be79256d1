"""What the tests of Sinch's client share: the vendor's files, and a server that answers by address."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from faxbot.hidden import Hidden
from faxbot.plugins import manifest
from faxbot.plugins.base import Cache, CallbackRequest, Context, OutboundFax, OwnCache
from faxbot.providers import sinch
from faxbot.providers.http import HttpClient
from faxbot.providers.sinch import SinchProvider
from tests.misbehaving import Behaviour, Server

VENDOR = Path(__file__).parent / "vendor" / "sinch"
MANIFEST = manifest.read(Path(sinch.__file__).with_name("manifest.json"))
TAG = "attempt-7f3a"
FAX_ID = "01HDF5S9P29WC29J578J8EKC1C"
NUMBER = "+15550100000"
PROJECT = "/v3/projects/YOUR_PROJECT_ID"
FAXES, FAX = f"{PROJECT}/faxes", f"{PROJECT}/faxes/{FAX_ID}"
TOKEN = "/oauth2/token"
NOW = datetime(2023, 10, 23, 21, 10, tzinfo=UTC)
CALLBACK = f"https://fax.example.com/callbacks/sinch?attempt={TAG}&token=0123456789abcdef"
SECRETS = ("the-key", "the-secret", "open-sesame-0123", NUMBER, TAG, "0123456789abcdef")
"""What no error may say."""
SETTINGS: dict[str, Any] = {
    "projectId": "YOUR_PROJECT_ID",
    "apiKey": "the-key",
    "apiSecret": "the-secret",
    "webhookUser": "sinch-hook",
    "webhookPassword": "open-sesame-0123",
}


def said(name: str) -> bytes:
    """A vendor file's bytes."""
    return (VENDOR / name).read_bytes()


def answer(body: bytes = b"", status: int = 200, *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def by_address(answers: dict[str, list[bytes]]) -> Behaviour:
    """Answers each "METHOD /path" in turn, the last answer for ever."""

    def behave(connection: socket.socket, server: Server) -> None:
        while request := server.read(connection):
            method, target, _ = request.partition(b"\r\n")[0].decode().split(" ")
            turn = answers[f"{method} {urlsplit(target).path}"]
            connection.sendall(turn.pop(0) if len(turn) > 1 else turn[0])

    return behave


class Request:
    """One request as it came over the wire."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.method, target, _ = first.split(" ")
        self.path = urlsplit(target).path
        self.query = dict(
            parse_qsl(urlsplit(target).query, strict_parsing=bool(urlsplit(target).query))
        )
        self.headers = {
            name.lower(): value for name, value in (one.split(": ", 1) for one in lines)
        }

    def parts(self) -> dict[str, tuple[str | None, str | None, bytes]]:
        """Of a multipart form: file name, type and content by name."""
        kind = self.headers["content-type"].encode()
        message = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + self.body)
        found = {}
        for part in message.walk():
            if (name := part.get_param("name", header="content-disposition")) is not None:
                content = part.get_payload(decode=True)
                assert isinstance(content, bytes)
                found[str(name)] = (part.get_filename(), part.get("content-type"), content)
        return found


def requests(server: Server) -> list[Request]:
    return [Request(raw) for raw in server.requests]


Connect = Callable[..., SinchProvider]


def provider(
    client: HttpClient, url: str, cache: Cache | None = None, **settings: Any
) -> SinchProvider:
    """A provider whose carrier and token server are at `url`."""
    made = SinchProvider()
    context = Context(logging.getLogger("test"), lambda: NOW, client, cache or OwnCache())
    given = {**SETTINGS, "baseUrl": f"{url}/v3", "authBaseUrl": url, **settings}
    made.initialize(manifest.validated(MANIFEST, given), context)
    return made


def offline(**settings: Any) -> SinchProvider:
    """A provider that is never let near a network."""
    return provider(HttpClient([]), "http://nobody.invalid", **settings)


def fax(document: Path, **facts: Any) -> OutboundFax:
    usual: dict[str, Any] = {
        "tag": TAG,
        "to": Hidden(NUMBER),
        "document": document,
        "media_type": "application/pdf",
        "pages": 3,
        "resolution": "fine",
        "callback_url": CALLBACK,
    }
    return OutboundFax(**{**usual, **facts})


def webhook(name: str, base: str = "https://fax.example.com") -> CallbackRequest:
    """A vendor's webhook as core hands it to a plugin."""
    raw = said(f"webhooks/{name}")
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {key.lower(): value for key, value in (one.split(": ", 1) for one in lines)}
    return CallbackRequest(method, base + target, headers, body)
