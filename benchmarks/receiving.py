"""What a large received fax adds to the memory of all roles while it passes: 50 MB, in the carrier's request or
fetched."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.request import Request, urlopen

from benchmarks import product
from benchmarks.figures import Figures
from benchmarks.floor.settings import SHARED_WITH_CARRIER
from benchmarks.launch import NotStarted, Workshop, free_port, listens, until
from benchmarks.processes import Peak, pss
from benchmarks.product import Product
from benchmarks.stages import Length

LARGE = 50_000_000
WAYS = {"in the request": "0000", "fetched": "0011"}
"""The last digits of the number that calls choose it (docs/simulator.md)."""
PATIENCE = 60.0


def measure(
    figures: Figures,
    workshop: Workshop,
    database: str,
    redis: str,
    length: Length,
    say: Callable[[str], None],
) -> None:
    """Bytes that all roles together have more at most, and seconds until the document is stored."""
    port, secret = free_port(), SHARED_WITH_CARRIER
    carrier = f"http://127.0.0.1:{port}"
    faxbot = product.install(
        workshop, "faxbot-received", database, redis,
        SIMULATOR_BASE_URL=carrier, SIMULATOR_SECRET=secret,
    )  # fmt: skip
    listening = faxbot.start("carrier", "simulator", "--port", str(port))
    until(lambda: listens(port), listening)
    roles = [faxbot.web().pid, *(faxbot.start(role).pid for role in ("worker", "beat"))]
    key = faxbot.service().key
    for ending in WAYS.values():  # warm: processes and their children are there
        _arrived(faxbot, key, carrier, ending, 100_000)
    for number in range(length.rounds):
        for way, ending in WAYS.items():
            say(f"50 MB {way}, round {number + 1} of {length.rounds}")
            before, began = pss(roles), time.perf_counter()
            with Peak(lambda: pss(roles), every=0.02) as peak:
                _arrived(faxbot, key, carrier, ending, LARGE)
            figures.add("received/memory", way, peak.value - before)
            figures.add("received/seconds", way, time.perf_counter() - began)


def _arrived(faxbot: Product, key: str, carrier: str, ending: str, size: int) -> None:
    """Have a fax of so many bytes come in, and wait until its document is stored; raises NotStarted."""
    wish = {
        "from": f"+1555010{ending}",
        "to": "+15550109876",
        "bytes": size,
        "callback_url": f"{faxbot.url}/callbacks/simulator",
    }
    heads = {"Authorization": f"Bearer {SHARED_WITH_CARRIER}"}
    asked = Request(f"{carrier}/control/receive", json.dumps(wish).encode(), heads)  # noqa: S310 - ours
    with urlopen(asked, timeout=PATIENCE) as answer:  # noqa: S310
        external_id = json.loads(answer.read())["id"]
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        listed = Request(f"{faxbot.url}/inbound?limit=5", headers={"X-API-Key": key})  # noqa: S310
        with urlopen(listed, timeout=PATIENCE) as answer:  # noqa: S310
            items = json.loads(answer.read())["items"]
        if any(
            each["external_id"] == external_id and each["status"] == "received" for each in items
        ):
            return
        time.sleep(0.05)
    raise NotStarted("a received fax did not arrive")
