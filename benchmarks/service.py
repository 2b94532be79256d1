"""The service under load, as a client sees it: submissions as bytes to be sent, and what it says of a fax later.

The floor and the self-test's stand-in answer the same paths in the same shapes: nothing here knows which it is.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.carrier import get_json, seconds
from benchmarks.client import Address, Pace, Reply, Request, drive, http_request
from benchmarks.documents import Document
from benchmarks.outcome import FINAL, Told

DELIVERED_NUMBER = "+15550100000"
"""The simulator delivers what goes to a number that ends so; docs/simulator.md has the others."""
NUMBERS = 10**6
"""Of that many numbers with such an end each fax gets the next: one number is called once at a time."""
ENDINGS = {f"FAX_{status.upper()}": status for status in FINAL}
_BOUNDARY = "faxbot-benchmark-boundary"


@dataclass(frozen=True)
class Service:
    """Where it listens and the API key to show."""

    address: Address
    key: str = field(repr=False)

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("X-API-Key", self.key)]

    def ask(self, fax_ids: Sequence[str], connections: int, suffix: str = "") -> list[Reply]:
        """GET /fax/{id}<suffix> for each, in the order given."""
        requests = (
            Request(number, self.get(f"/fax/{fax_id}{suffix}"))
            for number, fax_id in enumerate(fax_ids)
        )
        replies = drive(self.address, requests, Pace(connections))
        return sorted(replies, key=lambda reply: reply.number)

    def get(self, path: str) -> bytes:
        return http_request(self.address, "GET", path, headers=self.headers)

    def status(self, fax_id: str) -> str:
        """The status of one fax; raises OSError when it cannot be read."""
        job = get_json(self.address, f"/fax/{fax_id}", dict(self.headers))
        return str(job["status"])


class Submissions:
    """An endless row of POST /fax/send, each with a copy of the document and an Idempotency-Key of its own, to
    numbers of their own or all `to` one.
    """

    def __init__(self, service: Service, document: Document, to: str | None = None) -> None:
        self.service = service
        self.document = document
        self.run = secrets.token_hex(6)
        self.to = to
        self.first = secrets.randbelow(NUMBERS)
        self.hashes: list[str] = []
        """SHA-256 of the document of each submission so far."""
        self.before = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="to"\r\n\r\n'
        self.between = (
            f'\r\n--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{document.name}"\r\nContent-Type: {document.media_type}\r\n\r\n'
        )
        self.after = f"\r\n--{_BOUNDARY}--\r\n".encode()

    def take(self, count: int) -> Iterator[Request]:
        """The next `count` submissions."""
        for _ in range(count):
            number = len(self.hashes)
            data, sha256 = self.document.copy(number)
            self.hashes.append(sha256)
            yield Request(number, self._bytes(number, data))

    def _bytes(self, number: int, data: bytes) -> bytes:
        return http_request(
            self.service.address,
            "POST",
            "/fax/send",
            headers=[
                *self.service.headers,
                ("Idempotency-Key", f"{self.run}-{number}"),
                ("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}"),
            ],
            body=b"".join(
                (f"{self.before}{self.number(number)}{self.between}".encode(), data, self.after)
            ),
        )

    def number(self, number: int) -> str:
        """Where this submission goes."""
        if self.to is not None:
            return self.to
        return f"+1{(self.first + number) % NUMBERS:06d}{DELIVERED_NUMBER[-4:]}"


def read_timeline(reply: Reply) -> Told:
    """What GET /fax/{id}/events says; a fax that the service does not know is `unknown`."""
    if reply.status == 404:
        return Told("unknown")
    if reply.status != 200:
        return Told("unreadable")
    timeline: Mapping[str, Any] = json.loads(reply.body)
    tags = tuple(attempt["tag"] for attempt in timeline["attempts"])
    for event in reversed(timeline["events"]):
        if event["type"] in ENDINGS:
            return Told(ENDINGS[event["type"]], tags, seconds(event["recorded_at"]))
    return Told("open", tags)


def wait_until_final(service: Service, fax_ids: Sequence[str], deadline: float) -> None:
    """Wait until each of a few faxes is final or time.time() passes `deadline`; one small GET at a time."""
    pause = 0.02
    for fax_id in fax_ids:
        while service.status(fax_id) not in FINAL and time.time() < deadline:
            time.sleep(pause)
            pause = min(pause * 1.3, 0.5)


def read_all(
    service: Service, fax_ids: Sequence[str], connections: int, deadline: float
) -> list[Told]:
    """What the service says of every fax, once all are final or time.time() has passed `deadline`."""
    told: dict[str, Told] = {}
    waiting = list(fax_ids)
    pause = 0.1
    while True:
        for fax_id, reply in zip(
            waiting, service.ask(waiting, connections, "/events"), strict=True
        ):
            told[fax_id] = read_timeline(reply)
        waiting = [fax_id for fax_id in waiting if not told[fax_id].final]
        if not waiting or time.time() >= deadline:
            return [told[fax_id] for fax_id in fax_ids]
        time.sleep(pause)
        pause = min(pause * 1.5, 2.0)
