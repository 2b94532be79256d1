"""The carrier of both sides: speaks as `faxbot carrier simulator` does, delivers at once, keeps its ledger in memory.

    python -m benchmarks.floor.carrier PORT SECRET

It costs less than the simulator, because it shares the cores with what is measured; otherwise the two are
interchangeable. Every fax has one page.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from benchmarks.client import Address, http_request
from benchmarks.stub import Answer, Call, serve

CALLERS = 8
"""Connections that callbacks go out on."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def signature(secret: str, moment: str, body: bytes) -> str:
    """What proves a callback: HMAC-SHA256 over its time and body."""
    return hmac.digest(secret.encode(), f"{moment}.".encode() + body, "sha256").hex()


class Carrier:
    """The ledger, and the callbacks that wait to go out."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.faxes: list[dict[str, Any]] = []
        self.callbacks: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def handle(self, call: Call) -> Answer:
        path = call.path.partition("?")[0]
        if path == "/v1/ledger":
            return 200, {"faxes": self.faxes}
        if call.method == "POST" and path == "/v1/faxes":
            if call.headers.get("authorization") != f"Bearer {self.secret}":
                return 401, {"error": {"code": "bad-credentials"}}
            return self.take(call.form())
        if call.method == "POST" and path == "/v2.1/faxes":
            # As Phaxio takes a fax, for the cost of a call alone: nothing is kept.
            data = {"id": len(call.form())}
            return 200, {"success": True, "message": "Fax queued for sending", "data": data}
        return 404, {"error": {"code": "no-such-path"}}

    def take(self, form: Mapping[str, bytes]) -> Answer:
        """Note one fax, accept it, and ring back that it is delivered."""
        now = datetime.fromtimestamp(time.time(), UTC).isoformat()
        fax = {
            "id": f"fx{len(self.faxes) + 1}",
            "tag": form["tag"].decode(),
            "code": None,
            "pages": 1,
            "received_at": now,
        }
        self.faxes.append({**fax, "sha256": hashlib.sha256(form["file"]).hexdigest()})
        url = form.get("callback_url", b"").decode()
        if url.startswith("http"):
            ended = {**fax, "status": "delivered", "pages_sent": 1, "ended_at": now}
            news = {"event_id": f"{fax['id']}-delivered-1", "event": "fax.delivered", "fax": ended}
            self.callbacks.put_nowait((url, json.dumps(news).encode()))
        return 202, {"fax": {**fax, "status": "accepted", "pages_sent": 0, "ended_at": None}}

    async def call_back(self) -> None:
        """One caller: takes callbacks in turn and posts them on a kept connection; a broken one is made again."""
        streams: Streams | None = None
        while True:
            url, body = await self.callbacks.get()
            host = Address.of(url)
            for _ in range(3):
                try:
                    if streams is None:
                        streams = await asyncio.open_connection(host.host, host.port)
                    await self._post(streams, url, body)
                    break
                except (OSError, asyncio.IncompleteReadError):
                    streams = None

    async def _post(self, streams: Streams, url: str, body: bytes) -> None:
        reader, writer = streams
        moment = str(int(time.time()))
        headers = [
            ("Content-Type", "application/json"),
            ("X-Simulator-Signature", f"t={moment},v1={signature(self.secret, moment, body)}"),
        ]
        path = "/" + url.split("/", 3)[3]
        writer.write(http_request(Address.of(url), "POST", path, headers=headers, body=body))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, length = head.partition(b"content-length:")
        if length:
            await reader.readexactly(int(length.split(b"\r\n", 1)[0]))


async def main(port: int, secret: str) -> None:
    """Serve until SIGTERM."""
    carrier = Carrier(secret)
    callers = [asyncio.create_task(carrier.call_back()) for _ in range(CALLERS)]
    await serve(port, carrier.handle)
    for caller in callers:
        caller.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
