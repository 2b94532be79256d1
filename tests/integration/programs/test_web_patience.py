"""A server with four threads, and clients that take their time: hostile ones stop nobody, honest slow ones arrive."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, parse_headers
from itertools import count

import pytest

from faxbot.web import patience
from tests.ground import eventually
from tests.installation import Service, Stores
from tests.integration.web import NUMBER, TEXT

EACH = 12
"""Connections of each kind: three times the server's threads."""
CROWD = 600
"""More than a server lets wait for its threads."""
SIGNED = b"X-Simulator-Signature: t=1,v1=0\r\n"
"""So that its body is wanted."""
CALLBACK = b"POST /callbacks/simulator HTTP/1.1\r\nHost: x\r\n"
FORM = b"POST /fax/send HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
FIELDS = (
    f'--b\r\nContent-Disposition: form-data; name="to"\r\n\r\n{NUMBER}\r\n'
    '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
).encode()
GET = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n"
ROADS = {
    "says nothing": (b"", b""),
    "drips its head": (b"GET /health HTTP/1.1\r\nX: ", b"a"),
    "stops in its head": (b"GET /health HTTP/1.1\r\nX: ", b""),
    "stops in its second head": (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea", b""),
    "has a head without end": (GET + b"X: a\r\n" * 3000, b"X: a\r\n" * 3000),
    "drips a callback": (CALLBACK + b"Content-Length: 20000000\r\n\r\n", b"a"),
    "stops in a callback": (CALLBACK + b"Content-Length: 20000000\r\n\r\n", b""),
    "drips a callback in chunks": (
        CALLBACK + b"Transfer-Encoding: chunked\r\n\r\n",
        b"1\r\na\r\n",
    ),
    "drips a form without a key": (FORM + b"Content-Length: 5000000\r\n\r\n", b"a"),
    "drips a body nobody asked for": (GET + b"Content-Length: 5000000\r\n\r\n", b"a"),
    "does not close": (GET + b"Connection: close\r\n\r\n", b""),
    "reads no answer": ((GET + b"\r\n") * 200, b""),
}


@pytest.fixture(scope="module")
def service(stores: Stores) -> Iterator[Service]:
    service = Service(
        stores.embedded(),
        "up",
        FAXBOT_WEB_WORKERS="1",
        FAXBOT_WEB_THREADS="4",
        FAX_DISABLED="true",
    )
    service.start()
    yield service
    service.stop()


def connect(service: Service) -> socket.socket:
    """A connection whose client side keeps next to nothing of an answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.connect(("127.0.0.1", service.port))
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed it; reads what it said until then."""
    with suppress(BlockingIOError):
        try:
            while connection.recv(65536, socket.MSG_DONTWAIT):
                pass
        except ConnectionError:
            pass
        return True
    return False


@pytest.mark.parametrize("road", ROADS)
def test_health_answers_while_clients_hold_their_connections(service: Service, road: str) -> None:
    first, drip = ROADS[road]
    web = {process.pid for process in service.tree()}
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(service)) for _ in range(EACH)]
        for connection in connections:
            with suppress(OSError):
                connection.send(first, socket.MSG_DONTWAIT)
        slowest = 0.0
        for _ in range(10):
            for connection in connections:
                with suppress(OSError):
                    connection.send(drip, socket.MSG_DONTWAIT)
            began = time.monotonic()
            assert service.request("GET", "/health").status_code == 200
            slowest = max(slowest, time.monotonic() - began)
            select.select([], [], [], 0.1)

    assert slowest < patience.STRANGER.seconds / 2
    assert {process.pid for process in service.tree()} == web


@pytest.mark.parametrize("road", [road for road in ROADS if "callback" in road or "form" in road])
def test_a_fax_is_taken_while_strangers_hold_their_connections(service: Service, road: str) -> None:
    with ExitStack() as stack:
        for _ in range(EACH):
            stack.enter_context(connect(service)).sendall(ROADS[road][0])
        answers = [
            service.request(
                "POST", "/fax/send", data={"to": NUMBER}, files={"file": TEXT}, timeout=60
            )
            for _ in range(4)
        ]

    assert [answer.status_code for answer in answers] == [202] * 4


def test_a_header_that_looks_like_a_key_gives_a_callback_no_better_place(service: Service) -> None:
    """Whatever way the address is written."""
    with ExitStack() as stack:
        for path in (b"/callbacks/simulator", b"//callbacks/simulator", b"/%63allbacks/simulator"):
            head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nX-API-Key: x\r\n"
            for _ in range(EACH):
                stack.enter_context(connect(service)).sendall(
                    head + b"Content-Length: 20000000\r\n\r\nx"
                )
        answer = service.request(
            "POST", "/fax/send", data={"to": NUMBER}, files={"file": TEXT}, timeout=60
        )

    assert answer.status_code == 202


def test_callbacks_have_their_turn_while_uploads_never_cease(service: Service) -> None:
    """Of each kind more than there are threads for, each client asking again at once."""
    body = FIELDS + TEXT + b"\r\n--b--\r\n"
    headers = {"X-API-Key": service.key, "Content-Type": "multipart/form-data; boundary=b"}
    over = threading.Event()

    def submit() -> set[int]:
        statuses = set()
        connection = HTTPConnection("127.0.0.1", service.port, timeout=20)
        with closing(connection):
            while not over.is_set():
                connection.request("POST", "/fax/send", body, headers)
                with connection.getresponse() as answer:
                    answer.read()
                    statuses.add(answer.status)
        return statuses

    def call_back() -> list[int]:
        connection = HTTPConnection("127.0.0.1", service.port, timeout=20)
        with closing(connection):
            return [status_of(connection) for _ in range(5)]

    def status_of(connection: HTTPConnection) -> int:
        connection.request("POST", "/callbacks/simulator", b"{}")
        with connection.getresponse() as answer:
            answer.read()
            return answer.status

    with ThreadPoolExecutor(2 * EACH) as pool:
        submits = [pool.submit(submit) for _ in range(EACH)]
        try:
            callbacks = [pool.submit(call_back) for _ in range(EACH)]
            answers = {status for callback in callbacks for status in callback.result(60)}
        finally:
            over.set()
        taken = {status for each in submits for status in each.result(60)}

    assert answers == {401}  # read, and not signed
    assert taken == {202}


@pytest.fixture
def crowd(service: Service) -> Iterator[list[socket.socket]]:
    """Callbacks that announce a body and send none."""
    with ExitStack() as stack:
        connections = []
        for _ in range(CROWD):
            connections.append(stack.enter_context(connect(service)))
            connections[-1].sendall(CALLBACK + SIGNED + b"Content-Length: 100\r\n\r\n")
        yield connections


def test_a_crowd_that_waits_for_threads_is_turned_away(
    service: Service, crowd: list[socket.socket]
) -> None:
    """Most of it at once, the rest soon; others are served meanwhile."""
    assert service.request("GET", "/health", timeout=60).status_code == 200
    answer = service.request(
        "POST", "/fax/send", data={"to": NUMBER}, files={"file": TEXT}, timeout=60
    )
    assert answer.status_code == 202

    last = crowd[-1].makefile("rb")
    crowd[-1].settimeout(20)
    assert last.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
    headers = parse_headers(last)
    problem = json.loads(last.read(int(headers["Content-Length"])))
    assert (problem["type"], problem["status"]) == ("/docs#busy", 503)
    assert int(headers["Retry-After"]) > 0

    def answered() -> int:
        return len(select.select(crowd, [], [], 0)[0])

    # All but the last few, who have a thread by then.
    eventually(lambda: answered() >= CROWD - 5, 3 * patience.STRANGER.seconds, every=0.5)


def test_who_is_too_slow_is_not_served(service: Service) -> None:
    """All roads at once: every connection is closed by the server, and a fax is taken then."""
    with ExitStack() as stack:
        roads = [road for name, road in ROADS.items() if name != "reads no answer"]
        connections = {stack.enter_context(connect(service)): drip for _, drip in roads}
        for connection, (first, _) in zip(connections, roads, strict=True):
            connection.sendall(first)

        def all_closed() -> bool:
            for connection in [one for one in connections if is_closed(one)]:
                del connections[connection]
            for connection, drip in connections.items():
                with suppress(OSError):
                    connection.send(drip, socket.MSG_DONTWAIT)
            return not connections

        eventually(
            all_closed, patience.LINGER_SECONDS + 3 * patience.STRANGER.seconds + 10, every=1.0
        )
    answer = service.request("POST", "/fax/send", data={"to": NUMBER}, files={"file": TEXT})

    assert answer.status_code == 202


def test_a_slow_upload_with_a_key_arrives(service: Service) -> None:
    """The head in pieces, then 16 kB a second, while others drip."""
    body = FIELDS + b"word " * 10_000 + b"\r\n--b--\r\n"
    head = FORM + f"X-API-Key: {service.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    data = head + body
    with connect(service) as connection:
        for start in count(0, 1600):
            if start >= len(data):
                break
            step = 20 if start < len(head) else 1600
            for piece in range(start, start + 1600, step):
                connection.sendall(data[piece : min(piece + step, start + 1600)])
            select.select([], [], [], 0.1)
        connection.settimeout(20)

        assert connection.recv(12) == b"HTTP/1.1 202"


def test_a_stop_waits_for_nobody_who_is_silent(stores: Stores) -> None:
    service = Service(stores.embedded(), "up", FAXBOT_WEB_WORKERS="1", FAX_DISABLED="true").start()
    with ExitStack() as stack:
        for first in (
            *(b"", GET, GET + b"\r\n", GET + b"Connection: close\r\n\r\n"),
            FORM + b"Content-Length: 5000000\r\n\r\n",
            *[CALLBACK + b"Content-Length: 5000000\r\n\r\n"] * EACH,
        ):
            stack.enter_context(connect(service)).sendall(first)
        assert service.request("GET", "/health").status_code == 200
        began = time.monotonic()
        service.stop()

        # Whose callback has a thread is waited for as ever, who waits for one is not; a good request has 20 seconds.
        assert time.monotonic() - began < patience.STRANGER.seconds + 13
