"""The floor's stand-in carrier: takes a fax, answers, calls back at once with a signature, keeps a ledger in memory.

python -m benchmarks.floor.carrier PORT CALLBACK_SECRET
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

from benchmarks.client import Address, http_request
from benchmarks.stub import Answer, Call, serve

CALLERS = 8
"""Connections that callbacks go out on."""


class Carrier:
    """The ledger, and the callbacks that wait to go out."""

    def __init__(self, secret: str) -> None:
        self.secret = secret.encode()
        self.faxes: list[dict[str, str]] = []
        self.callbacks: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def handle(self, call: Call) -> Answer:
        if call.method == "POST" and call.path == "/v1/faxes":
            return self.take(call.form())
        if call.path.partition("?")[0] == "/v1/ledger":
            return 200, {"faxes": self.faxes}
        return 404, {}

    def take(self, form: Mapping[str, bytes]) -> Answer:
        """Note one fax and ring back."""
        fax_id = f"fx{len(self.faxes) + 1}"
        tag = form["tag"].decode()
        self.faxes.append(
            {
                "id": fax_id,
                "tag": tag,
                "sha256": hashlib.sha256(form["document"]).hexdigest(),
                "received_at": datetime.fromtimestamp(time.time(), UTC).isoformat(),
            }
        )
        if form.get("callback_url"):
            news = json.dumps({"id": fax_id, "tag": tag, "status": "delivered"}).encode()
            self.callbacks.put_nowait((form["callback_url"].decode(), news))
        return 201, {"id": fax_id, "status": "accepted"}

    async def call_back(self) -> None:
        """One caller: takes callbacks in turn and posts them on a kept connection; a broken one is made again."""
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
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

    async def _post(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], url: str, body: bytes
    ) -> None:
        reader, writer = streams
        path = "/" + url.split("/", 3)[3]
        signature = hmac.digest(self.secret, body, "sha1").hex()
        headers = [("Content-Type", "application/json"), ("X-Signature", signature)]
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
