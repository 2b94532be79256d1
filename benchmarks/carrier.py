"""What arrived at the carrier, by its own ledger: the witness that the service under load cannot talk to.

Any ledger over HTTP serves: those of `faxbot carrier simulator`, of the floor's stub and of the self-test speak alike.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from benchmarks.client import Address


@dataclass(frozen=True, slots=True)
class Arrival:
    """One fax that the carrier took: the attempt's tag, the document's SHA-256, when (seconds of the epoch)."""

    tag: str
    sha256: str
    at: float


class Ledger(Protocol):
    """Where the load program looks what the carrier has."""

    def arrivals(self, since: float) -> list[Arrival]:
        """Every fax taken at or after `since` (seconds of the epoch), repeats included."""


class HttpLedger:
    """GET <url>/v1/ledger."""

    def __init__(self, url: str) -> None:
        self.address = Address.of(url)

    def arrivals(self, since: float) -> list[Arrival]:
        """As Ledger.arrivals; raises OSError when the carrier is away."""
        entries = get_json(self.address, "/v1/ledger")["faxes"]
        arrivals = (_arrival(entry) for entry in entries)
        return [arrival for arrival in arrivals if arrival.at >= since]


def _arrival(entry: Mapping[str, Any]) -> Arrival:
    return Arrival(entry["tag"], entry["sha256"], seconds(entry["received_at"]))


def seconds(moment: str) -> float:
    """Seconds of the epoch from an ISO 8601 time with its zone."""
    return datetime.fromisoformat(moment).timestamp()


def get_json(address: Address, path: str, headers: Mapping[str, str] | None = None) -> Any:
    """One GET on a connection of its own; raises OSError for anything but a 200."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise OSError(f"GET {path} answered {response.status}")
        return json.loads(body)
    finally:
        connection.close()
