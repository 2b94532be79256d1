"""A place where carriers call back: keeps every callback, and answers as a test says."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from faxbot.plugins.base import Arrival, CallbackRequest, TransportPlugin, Update
from faxbot.testing.standin import Served


@dataclass(frozen=True, slots=True)
class Callback:
    """One callback as it came; `at` in seconds of time.monotonic."""

    request: CallbackRequest
    at: float

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.request.body)
        return content


def updates_in(provider: TransportPlugin, request: CallbackRequest) -> list[Update]:
    """The news that a provider reads in a callback: of faxes that were sent, and of no other."""
    news = provider.read_callback(request)
    updates = [each for each in news if isinstance(each, Update)]
    assert len(updates) == len(news)
    return updates


def arrivals_in(provider: TransportPlugin, request: CallbackRequest) -> list[Arrival]:
    """The same of received faxes."""
    news = provider.read_callback(request)
    arrivals = [each for each in news if isinstance(each, Arrival)]
    assert len(arrivals) == len(news)
    return arrivals


class Receiver(Served):
    """Listens on a free port as a context manager. `statuses` are the answers in turn; then it is
    204 for ever."""

    def __init__(self, *statuses: int) -> None:
        self.callbacks: list[Callback] = []
        self.statuses = list(statuses)
        super().__init__(_Server(self))

    @property
    def url(self) -> str:
        return f"{super().url}/callbacks/simulator?locator=abc"

    def events(self, tag: str) -> list[str]:
        """The names of the events of one fax, in the order in which they came."""
        return [each.content["event"] for each in self.of(tag)]

    def of(self, tag: str) -> list[Callback]:
        return [each for each in list(self.callbacks) if each.content["fax"]["tag"] == tag]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        receiver = cast(_Server, self.server).receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.callbacks.append(
            Callback(CallbackRequest("POST", self.path, headers, body), time.monotonic())
        )
        self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Silent."""
