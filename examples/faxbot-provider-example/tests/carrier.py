"""The invented carrier of README.md, to try things out: `python tests/carrier.py --port 8099 --secret SECRET`.

It places no call: a fax is done after a moment. A number that ends in 17 is busy, one that ends in 99 is refused.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import hmac
import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

MOMENT = 0.2


class Carrier:
    """Listens as a context manager; `faxes` is all that it took, by id."""

    def __init__(self, secret: str, port: int = 0) -> None:
        self.secret = secret
        self.faxes: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        self._server = _Server(self, port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, form: dict[str, str]) -> dict[str, Any]:
        name = f"f-{next(self._numbers)}"
        fax = {"id": name, "tag": form["tag"], "state": "queued", "pages": 0}
        self.faxes[name] = fax
        busy = form["to"].endswith("17")
        end = {"state": "failed", "reason": "line busy"} if busy else {"state": "done", "pages": 3}
        threading.Thread(target=self._send, args=(fax, end, form["callback"]), daemon=True).start()
        return dict(fax)

    def _send(self, fax: dict[str, Any], end: dict[str, Any], callback: str) -> None:
        time.sleep(MOMENT)
        fax.update(end)
        body = json.dumps(fax).encode()
        proof = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-Example-Signature": proof}
        with suppress(urllib.error.URLError):  # nobody there: a real one would post it again
            urllib.request.urlopen(urllib.request.Request(callback, body, headers), timeout=5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, carrier: Carrier, port: int) -> None:
        self.carrier = carrier
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(*(self._found() if self._is_ours() else (401, {"error": "who are you?"})))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._is_ours():
            self._answer(401, {"error": "who are you?"})
            return
        form = _form(self.headers["Content-Type"], body)
        if form["to"].endswith("99"):
            self._answer(422, {"error": "bad number"})
        else:
            self._answer(201, self._carrier.take(form))

    @property
    def _carrier(self) -> Carrier:
        return cast(_Server, self.server).carrier

    def _is_ours(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {self._carrier.secret}"

    def _found(self) -> tuple[int, object]:
        parts = urlsplit(self.path)
        if parts.path == "/account":
            return 200, {"account": "test"}
        if parts.path == "/faxes":
            tags = parse_qs(parts.query).get("tag", [])
            known = self._carrier.faxes.values()
            return 200, {"faxes": [fax for fax in known if fax["tag"] in tags]}
        fax = self._carrier.faxes.get(parts.path.removeprefix("/faxes/"))
        return (200, fax) if fax else (404, {"error": "no such fax"})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Silent: an address may name a number."""


def _form(kind: str, body: bytes) -> dict[str, str]:
    """The fields of a multipart form that are text."""
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    parts = [part for part in message.walk() if not part.is_multipart() and not part.get_filename()]
    names = [str(part.get_param("name", header="Content-Disposition")) for part in parts]
    return dict(zip(names, (str(part.get_payload()) for part in parts), strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The invented carrier.")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--secret", required=True)
    options = parser.parse_args()
    with Carrier(options.secret, options.port) as carrier:
        print(f"listening on {carrier.url}", flush=True)
        threading.Event().wait()
