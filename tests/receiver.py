"""A subscriber's server: keeps what it hears, verifies it with somebody else's verifier, and answers as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import standardwebhooks


@dataclass(frozen=True)
class Heard:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def said(self) -> str:
        """The event in a word, with its number."""
        return f"{self.event['data']['sequence']} {self.event['type'].removeprefix('FAX_')}"


Answer = int | tuple[int, dict[str, str]]
Does = Callable[[Heard], Answer]


def verified(heard: Heard, secret: str) -> Any:
    """What it says, if this secret has signed it; raises standardwebhooks' error."""
    return standardwebhooks.Webhook(secret).verify(heard.body, dict(heard.headers))


class Receiver:
    """Listens on loopback until it is closed."""

    def __init__(self, does: Does = lambda _heard: 200) -> None:
        self.does = does
        self.heard: list[Heard] = []
        self.over = threading.Event()
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                heard = Heard(self.path, headers, body)
                with receiver._lock:
                    receiver.heard.append(heard)
                answer = receiver.does(heard)
                status, more = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in {"Content-Length": "0", **more}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=s3cret"

    def hang(self, _heard: Heard) -> Answer:
        """To be done: no answer until it is closed."""
        self.over.wait(60)
        return 500

    @property
    def said(self) -> list[str]:
        return [each.said for each in self.heard]

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.heard]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
