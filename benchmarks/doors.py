"""A carrier's callback while the service is busy: how long until it is verified, stored and acknowledged.

Callbacks in Phaxio's form come at an even pace, each different, while clients submit faxes as fast as they are
answered. Carriers post again what is not acknowledged soon; how soon, Phaxio does not say, so the limit is far below
what any would wait.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks import documents
from benchmarks.client import Pace, Request, drive, http_request
from benchmarks.figures import Figures
from benchmarks.load import Load, run
from benchmarks.outcome import Spread
from benchmarks.sides import Side
from benchmarks.stages import Length, Progress

TOKEN = "benchmark-callback-token"  # noqa: S105 - of nobody
PATH = "/callbacks/phaxio"
RATE = 20.0
CONNECTIONS = 8
"""Of each kind: so many clients submit, and so many callbacks may be under way."""
SECONDS = 10.0
QUIET, BUSY = "callbacks in quiet", "callbacks under load"
_BOUNDARY = "faxbot-benchmark-boundary"


def measure(figures: Figures, side: Side, base_url: str, length: Length, say: Progress) -> None:
    """Milliseconds from a callback's due time to its acknowledgement, with nobody else there and under load."""
    for number in range(length.rounds):
        say(f"callbacks, round {number + 1} of {length.rounds}")
        for name, busy in ((QUIET, False), (BUSY, True)):
            with ThreadPoolExecutor(2) as pool:
                posting = pool.submit(_post, side, base_url)
                if busy:
                    load = Load(10**9, Pace(CONNECTIONS, SECONDS), wait=0)
                    pool.submit(run, side.service, documents.pdf_page(), load).result()
                seconds = posting.result()
            spread = Spread.of(seconds)
            assert spread is not None, "no callback was posted"
            figures.add("callbacks/p50", name, spread.p50)
            figures.add("callbacks/p99", name, spread.p99)


def _post(side: Side, base_url: str) -> list[float]:
    """Post callbacks for SECONDS; how long each took. Raises RuntimeError when one was not taken."""
    address = side.service.address

    def requests() -> Iterator[Request]:
        for number in itertools.count():
            headers, body = callback(base_url + PATH, number)
            data = http_request(address, "POST", PATH, headers=headers, body=body)
            yield Request(number, data)

    replies = drive(address, requests(), Pace(CONNECTIONS, SECONDS, RATE))
    if refused := {reply.status for reply in replies} - {200}:
        raise RuntimeError(f"callbacks were answered with {sorted(refused)}")
    return [reply.seconds for reply in replies]


def callback(url: str, number: int) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of one callback, signed as Phaxio signs (docs/providers/phaxio.md)."""
    fax = json.dumps(
        {"id": number + 1, "direction": "sent", "num_pages": 1, "status": "success", "tags": {}}
    )
    fields = {"event_type": "fax_completed", "fax": fax}
    parts = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    message = url + "".join(name + value for name, value in sorted(fields.items()))
    proof = hmac.new(TOKEN.encode(), message.encode(), hashlib.sha1).hexdigest()
    headers = [
        ("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}"),
        ("X-Phaxio-Signature", proof),
    ]
    return headers, f"{parts}--{_BOUNDARY}--\r\n".encode()
