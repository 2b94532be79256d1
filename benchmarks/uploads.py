"""What large uploads in flight cost in memory: 20 MB documents held open just before their end, then let go at once."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from benchmarks import documents
from benchmarks.processes import Peak, pss
from benchmarks.service import Submissions
from benchmarks.sides import Side

HELD_BACK = 64
_ANSWER_SECONDS = 120.0


def added_memory(side: Side, in_flight: int) -> float:
    """Bytes of PSS that one upload adds to the web processes, the highest of: all held open, all being taken.

    Raises OSError when one is not accepted: a refused upload costs nothing and proves nothing.
    """
    submissions = Submissions(side.service, documents.large_pdf())
    roots = side.roles["web"]
    _send(side, submissions, 1)  # what the first one of this size loads is there to stay
    before = pss(roots)
    return (_send(side, submissions, in_flight) - before) / in_flight


def _send(side: Side, submissions: Submissions, in_flight: int) -> int:
    """Have so many uploads in flight at once; the highest PSS meanwhile."""
    address = side.service.address
    requests = list(submissions.take(in_flight))
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection((address.host, address.port)))
            for _ in requests
        ]
        with Peak(lambda: pss(side.roles["web"]), every=0.05) as peak:
            for connection, request in zip(connections, requests, strict=True):
                connection.settimeout(_ANSWER_SECONDS)
                connection.sendall(request.data[:-HELD_BACK])
            for connection, request in zip(connections, requests, strict=True):
                connection.sendall(request.data[-HELD_BACK:])
            for connection in connections:
                answer = connection.recv(4096)
                if not answer.startswith(b"HTTP/1.1 202"):
                    raise OSError(f"a large upload was answered {answer[9:12].decode()!r}")
    return peak.value
