"""For the tests of the Phaxio provider: the vendor's files, a server that gives such answers, a
provider and a fax."""

from __future__ import annotations

import email
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from faxbot.hidden import Hidden
from faxbot.plugins.base import Context, OutboundFax
from faxbot.plugins.manifest import read, validated
from faxbot.providers import phaxio as package
from faxbot.providers.http import HttpClient
from faxbot.providers.phaxio import PhaxioProvider
from tests.misbehaving import Behaviour, Server, answering

FILES = Path(__file__).parent / "vendor" / "phaxio"
MANIFEST = read(Path(package.__file__).with_name("manifest.json"))
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
TAG = "fb0f1e2d3c4b5a69788796a5b4c3d2e1f0"
TO: Hidden[str] = Hidden("+15558675309")
TOKEN = "example-token"

Serve = Callable[..., Server]
"""serve(answer, ...) or serve(behaviour): a server."""


def vendor(name: str) -> Any:
    """A vendor's file of JSON."""
    return json.loads((FILES / name).read_bytes())


def answer(name: str, *, headers: str = "") -> bytes:
    """One of the vendor's answers as a server sends it."""
    (entry,) = (each for each in vendor("answers.json") if each["file"] == name)
    kind = f"Content-Type: {entry['type']}\r\n" if entry["type"] else ""
    return answering_with(
        entry["status"], (FILES / "answers" / name).read_bytes(), headers=kind + headers
    )


def answering_with(status: int, body: bytes | object, *, headers: str = "") -> bytes:
    """An answer with this status and body; what is not bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def make(url: str, http: HttpClient | None = None, **settings: Any) -> PhaxioProvider:
    """A provider with the manifest's defaults that calls `url` + /v2.1."""
    given = {"apiKey": "key", "apiSecret": "secret", "baseUrl": f"{url}/v2.1", **settings}
    config = validated(MANIFEST, given)
    provider = PhaxioProvider()
    client = http or HttpClient([url], read=1.0)
    provider.initialize(config, Context(logging.getLogger("test"), lambda: NOW, client))
    return provider


def offline(token: str = TOKEN) -> PhaxioProvider:
    """A provider that is never let near a network, with a callback token or without."""
    return make(
        "http://nobody.invalid", HttpClient([]), **({"callbackToken": token} if token else {})
    )


def fax(document: Path, **changes: Any) -> OutboundFax:
    facts: dict[str, Any] = {
        "tag": TAG,
        "to": TO,
        "document": document,
        "media_type": "application/pdf",
        "pages": 3,
        "resolution": "fine",
        "callback_url": f"https://fax.example.com/callbacks/phaxio?attempt={TAG}&token=t",
    }
    return OutboundFax(**{**facts, **changes})


class Asked:
    """A request as a server of tests.misbehaving got it."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        line, _, fields = head.decode().partition("\r\n")
        self.method, target, _ = line.split(" ")
        parts = urlsplit(target)
        self.path, self.query = parts.path, dict(parse_qsl(parts.query))
        self.headers: Mapping[str, str] = email.message_from_string(fields)  # type: ignore[assignment]

    def form(self) -> dict[str, str | tuple[str, str, bytes]]:
        """Fields by name; of a file its name, type and content."""
        kind = self.headers["Content-Type"]
        if kind == "application/x-www-form-urlencoded":
            return dict(parse_qsl(self.body.decode(), strict_parsing=True))
        message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + self.body)
        form: dict[str, str | tuple[str, str, bytes]] = {}
        for part in message.walk():
            name = part.get_param("name", header="Content-Disposition")
            content = part.get_payload(decode=True)
            if name is None or not isinstance(content, bytes):
                continue
            assert str(name) not in form
            filename = part.get_filename()
            form[str(name)] = (
                (filename, part.get_content_type(), content) if filename else content.decode()
            )
        return form


@contextmanager
def servers() -> Iterator[Serve]:
    """A Serve whose servers are closed at the end."""
    running: list[Server] = []

    def start(*what: bytes | Behaviour) -> Server:
        answers = [each for each in what if isinstance(each, bytes)]
        (behave,) = [each for each in what if not isinstance(each, bytes)] or [answering(*answers)]
        running.append(Server(behave))
        return running[-1]

    yield start
    for server in running:
        server.close()


def asked(server: Server) -> Asked:
    (request,) = server.requests
    return Asked(request)
