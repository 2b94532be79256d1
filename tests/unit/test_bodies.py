"""Refused bodies are read away within limits; a silent client is not waited for without end."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator

import pytest

from faxbot.web import bodies


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


class Endless:
    """A body that never ends."""

    given = 0

    def read(self, size: int) -> bytes:
        self.given += size
        return bytes(size)


def test_what_is_left_of_a_body_is_read_away(pair: tuple[socket.socket, socket.socket]) -> None:
    rest = io.BytesIO(b"x" * 1_000_000)
    bodies.drain({"gunicorn.socket": pair[0], "wsgi.input": rest})

    assert rest.read() == b""


def test_a_body_without_end_is_left_to_the_server(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    body = Endless()
    bodies.drain({"gunicorn.socket": pair[0], "wsgi.input": body})

    assert 0 < body.given <= bodies.DRAIN_BYTES


def test_a_silent_client_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"some bytes")
    started = time.monotonic()
    with ours.makefile("rb") as reader:
        bodies.drain({"gunicorn.socket": ours, "wsgi.input": reader})

    assert time.monotonic() - started < bodies.DRAIN_SECONDS + 2


def test_reading_a_body_stops_after_a_stall(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    bodies.limit_stall({"gunicorn.socket": ours})

    assert ours.gettimeout() == bodies.STALL_SECONDS


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"CONTENT_LENGTH": ""}, False),
        ({"CONTENT_LENGTH": "0"}, False),
        ({"CONTENT_LENGTH": "7"}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
    ],
)
def test_a_body_is_announced_or_there_is_none(environ: dict[str, str], expected: bool) -> None:
    assert bodies.has_body(environ) is expected
