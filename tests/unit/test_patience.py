"""What a client may let the server wait: heads are collected without waiting, bodies within an allowance."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from gunicorn.http.errors import LimitRequestHeaders
from hypothesis import given
from hypothesis import strategies as st

from faxbot.web import patience
from faxbot.web.patience import Allowance, Invited, Reader, Sender

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


@given(st.lists(st.integers(1, len(HEAD)), min_size=1))
def test_a_head_is_whole_when_its_last_byte_is_there_however_it_comes(cuts: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reader = Reader(ours)
        found = [reader.take_in()]
        marks = [0, *sorted({*cuts, len(HEAD)})]
        for start, end in pairwise(marks):
            theirs.sendall(HEAD[start:end] + (b"hello" if end == len(HEAD) else b""))
            found.append(reader.take_in())

        assert found == [False] * (len(found) - 1) + [True]
        assert reader.has_body
        assert reader.read() == HEAD + b"hello"  # as gunicorn's parser asks, and nothing is lost


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("content-LENGTH: 5", True),
        ("Transfer-Encoding: chunked", True),
        ("X-Content-Length: 5", False),
        ("X: content-length: 5", False),
    ],
)
def test_a_body_is_announced_or_there_is_none(pair: Pair, header: str, expected: bool) -> None:
    ours, theirs = pair
    theirs.sendall(f"GET / HTTP/1.1\r\n{header}\r\n\r\nContent-Length: 5\r\n\r\n".encode())
    reader = Reader(ours)

    assert reader.take_in()
    assert reader.has_body is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("POST /fax/send", True),
        ("\r\nPOST /fax/send", True),
        ("POST /callbacks/phaxio", False),
        ("\r\nPOST /callbacks/phaxio", False),
        ("POST //Callbacks/phaxio", False),
        ("POST http://x/callbacks/phaxio", False),
        ("POST /%63allback%73/phaxio", False),
    ],
)
@pytest.mark.parametrize("header", ["X-API-Key: k", "authorization: Bearer k"])
def test_a_key_counts_where_one_is_asked_for(
    pair: Pair, line: str, header: str, expected: bool
) -> None:
    ours, theirs = pair
    theirs.sendall(f"{line} HTTP/1.1\r\n{header}\r\nContent-Length: 5\r\n\r\n".encode())
    reader = Reader(ours)

    assert reader.take_in()
    assert reader.has_body
    assert reader.shows_key is expected


def test_a_head_without_end_is_not_waited_for(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"x" * (patience.HEAD_BYTES + 1))
    reader = Reader(ours)

    assert reader.take_in()
    assert len(reader.read()) > patience.HEAD_BYTES
    with pytest.raises(LimitRequestHeaders):
        reader.read()


def test_the_end_of_a_connection_is_noticed(pair: Pair) -> None:
    ours, theirs = pair
    reader = Reader(ours)
    theirs.sendall(b"GET")
    theirs.close()

    assert not reader.take_in()
    assert not reader.take_in()
    assert reader.ended


def test_a_silent_client_is_given_up_when_the_allowance_is_over(pair: Pair) -> None:
    reader = Reader(pair[0])
    reader.allow(Allowance(0.2, 1000))
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        reader.read(10)
    assert 0.15 < time.monotonic() - began < 5


def drip(sock: socket.socket, data: bytes, pause: float, stop: threading.Event) -> None:
    while not stop.wait(pause):
        sock.sendall(data)


@pytest.mark.parametrize(("rate", "arrives"), [(1000, False), (10, True)])
def test_each_byte_earns_its_time_and_no_more(pair: Pair, rate: float, arrives: bool) -> None:
    """100 bytes a second, for three allowances: enough at 10 a second, too few at 1000."""
    ours, theirs = pair
    reader = Reader(ours)
    reader.allow(Allowance(3 if arrives else 0.5, rate))
    stop = threading.Event()
    thread = threading.Thread(target=drip, args=(theirs, b"x" * 5, 0.05, stop))
    thread.start()
    try:
        if arrives:
            assert reader.read(150) == b"x" * 150
        else:
            with pytest.raises(patience.BROKEN):
                reader.read(150)
    finally:
        stop.set()
        thread.join()


def test_time_cannot_be_saved_up(pair: Pair) -> None:
    ours, theirs = pair
    reader = Reader(ours)
    reader.allow(Allowance(0.2, 1))  # each byte would earn a second
    theirs.sendall(b"x" * 100)
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        reader.read(101)
    assert time.monotonic() - began < 5


def test_an_answer_is_never_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with theirs, Sender(ours.family, ours.type, ours.proto, fileno=ours.detach()) as sender:
        answer = bytes(range(256)) * 20_000
        sender.sendall(answer)
        sender.sendall(b"the end")
        assert sender.unsent
        assert not sender.flush()

        received = b""
        while not received.endswith(b"the end"):
            received += theirs.recv(1_000_000)
            sender.flush()

    assert received == answer + b"the end"


def test_who_waits_to_be_asked_is_asked_once_and_only_when_the_body_is_read(pair: Pair) -> None:
    ours, theirs = pair
    reader = Reader(ours)
    reader.allow(Allowance(5, 1000))
    theirs.sendall(b"hello")
    body = Invited(reader, ours)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)

    assert body.read(2) + body.read(3) == b"hello"
    assert theirs.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
