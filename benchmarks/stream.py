"""What listening to events costs those who submit: the rate of submits with nobody listening, with 200 who wait for the
one fax that never changes, and with 200 who are told of every event.

The listeners are a process of their own (python -m benchmarks.stream), which shares the cores with all the rest.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

from benchmarks import documents
from benchmarks.client import Address, Pace
from benchmarks.figures import Figures
from benchmarks.launch import Workshop, until
from benchmarks.load import Load, run
from benchmarks.sides import Side
from benchmarks.stages import Length, Progress, keep_some, rotated

LISTENERS = 200
NOBODY, WAITING, TOLD = "nobody listens", "200 wait", "200 are told"
CONNECTIONS = 8
_PIECE = 1 << 16


def measure(
    figures: Figures, workshop: Workshop, side: Side, length: Length, say: Progress
) -> None:
    """Submits a second with and without listeners, in turns."""
    document = documents.pdf_page()
    fax_id = keep_some(side, document)[0]
    load = Load(10**9, Pace(CONNECTIONS, length.submit_seconds))
    key = workshop.folder / "key-of-listeners"
    key.write_text(side.service.key)
    paths = {
        NOBODY: "",
        WAITING: f"/events/stream?fax_id={fax_id}",
        TOLD: "/events/stream",
    }
    for number in range(length.rounds):
        say(f"submits beside listeners, round {number + 1} of {length.rounds}")
        for name in rotated(list(paths), number):
            child = None
            if paths[name]:
                words = (str(side.service.address), str(LISTENERS), paths[name], key)
                log = f"listeners-{number}-{name.replace(' ', '-')}"
                child = workshop.python(log, "benchmarks.stream", *words)
                until(lambda child=child: "listening" in child.log.read_text(), child)  # type: ignore[misc]
            time.sleep(1)  # so that no beginning is among the submits
            outcome = run(side.service, document, load, watched=side.watched)
            own_cpu = side.own_cpu(outcome.cpu_seconds)
            figures.take_outcome("stream", name, outcome, own_cpu)
            if child is not None:
                time.sleep(2)  # what was submitted last is told
                child.stop()
                said = json.loads(child.log.read_text().splitlines()[-1])
                wanted = outcome.accepted * LISTENERS if name == TOLD else 0
                figures.add("stream/missed", name, float(abs(wanted - said["events"])))


class _Listeners:
    """Connections that are read until the process is told to end."""

    def __init__(self, address: Address, count: int, path: str, key: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._is_over = False
        self.events = 0
        request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {key}\r\n\r\n".encode()
        for _ in range(count):
            connection = socket.create_connection((address.host, address.port), 10)
            connection.sendall(request)
            head = connection.recv(_PIECE)
            if not head.startswith(b"HTTP/1.1 200"):
                raise ConnectionError(head.partition(b"\r\n")[0].decode())
            connection.setblocking(False)
            # An event may lie across two pieces; its end is looked for in both.
            self._selector.register(connection, selectors.EVENT_READ, bytearray())

    def end(self, _signal: int, _frame: FrameType | None) -> None:
        self._is_over = True

    def read(self) -> None:
        """Count events until the end."""
        while not self._is_over:
            for key, _ in self._selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(_PIECE)
                if not data:
                    raise ConnectionError("the server has ended a stream")
                key.data.extend(data)
                self.events += key.data.count(b"\nevent: ")
                del key.data[:-8]


def main(words: list[str]) -> int:
    """Listen: host:port, how many, path, file of the key. Prints `listening` when all do, in the end what was heard."""
    address, count, path, key = words
    listeners = _Listeners(Address.of(f"http://{address}"), int(count), path, Path(key).read_text())
    signal.signal(signal.SIGTERM, listeners.end)
    print("listening", flush=True)
    listeners.read()
    print(json.dumps({"events": listeners.events}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
