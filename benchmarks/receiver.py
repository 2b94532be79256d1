"""A subscriber of webhooks: takes whatever comes, notes how late each event is, and hangs where it is told to.

    python -m benchmarks.receiver PORT

POST /hook/... is answered with 200; /slow too, unless it was told to hang (POST /hang): then never. GET /taken gives
what came to /hook since the last POST /reset: the seconds from each event's time to its arrival.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime

from benchmarks.stub import Answer, Call, serve


class Receiver:
    """What came, and whether /slow hangs."""

    def __init__(self) -> None:
        self.hangs = False
        self.late: list[float] = []

    def handle(self, call: Call) -> Answer:
        path = call.path.partition("?")[0]
        if path.startswith("/hook"):
            event = datetime.fromisoformat(json.loads(call.body)["timestamp"])
            self.late.append(time.time() - event.timestamp())
        elif path == "/slow":
            return (-1 if self.hangs else 200), {}
        elif path == "/taken":
            return 200, {"late": self.late}
        elif path in ("/reset", "/hang"):
            self.late, self.hangs = [], path == "/hang"
        return 200, {}


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Receiver().handle))
