"""The worker's main loop with connections that have no end: who goes, who is slow, and when both happen at once."""

from __future__ import annotations

import logging
import os
import selectors
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from faxbot.web import endless
from faxbot.web.endless import EndlessWorker, Piece, Tell, hand_over
from faxbot.web.patience import Sender
from faxbot.web.server import _Response


class Voice:
    """Says what a test has it say."""

    farewell = b": bye\n\n"
    every = 3600.0

    def __init__(self) -> None:
        self.tell: Tell | None = None
        self.drains = 0
        self.has_ended = False

    def begin(self, tell: Tell) -> None:
        self.tell = tell

    def drained(self) -> None:
        self.drains += 1

    def heartbeat(self) -> bytes:
        return b": beat\n\n"

    def ended(self) -> None:
        assert not self.has_ended
        self.has_ended = True


class Loop:
    """A real worker that serves nobody but the connections of a test."""

    def __init__(self) -> None:
        self.worker = EndlessWorker(0, os.getpid(), [], None, 30, Config(), logging.getLogger())
        self.worker.poller = selectors.DefaultSelector()
        self.worker.method_queue.init()
        queue = self.worker.method_queue
        self.worker.poller.register(queue.fileno(), selectors.EVENT_READ, queue.run_callbacks)
        self._ends: list[socket.socket] = []

    def connect(self) -> tuple[Voice, socket.socket, Any]:
        """A voice, the client's end, and the connection, as it is when a thread has answered."""
        left, right = socket.socketpair()
        sender = Sender(left.family, left.type, left.proto, fileno=left.detach())
        voice = Voice()
        hand_over({"gunicorn.socket": sender}, voice)
        conn = SimpleNamespace(
            sock=sender, has_body=False, is_stranger=False, timeout=0.0, close=sender.close
        )
        self.worker.nr_conns += 1
        done: Future[bool] = Future()
        done.set_result(False)
        self._ends += [sender, right]
        self.worker.finish_request(conn, done)
        return voice, right, conn

    def turn(self) -> None:
        self.worker.wait_for_and_dispatch_events(0.2)

    def close(self) -> None:
        self.worker.poller.close()
        self.worker.method_queue.close()
        self.worker.tmp.close()
        for end in self._ends:
            end.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def read(end: socket.socket) -> bytes:
    end.settimeout(5)
    return end.recv(1 << 20)


def test_what_is_told_is_sent_in_order_and_then_it_is_drained(loop: Loop) -> None:
    voice, client, _ = loop.connect()
    assert voice.tell is not None
    assert voice.drains == 1
    voice.tell([Piece(voice, b"one\n"), Piece(voice, b"two\n")])
    loop.turn()

    assert read(client) == b"one\ntwo\n"
    assert voice.drains == 3
    loop.worker.murder_pending()
    assert voice.drains == 3


def test_who_is_gone_is_noticed_at_once_and_hears_no_more(loop: Loop) -> None:
    voice, client, _ = loop.connect()
    client.close()
    loop.turn()
    assert voice.has_ended
    assert loop.worker.nr_conns == 0

    assert voice.tell is not None
    voice.tell([Piece(voice, b"one\n")])
    loop.turn()


def test_what_a_listener_says_is_read_away(loop: Loop) -> None:
    voice, client, _ = loop.connect()
    client.sendall(b"GET /health HTTP/1.1\r\n\r\n")
    loop.turn()
    assert voice.tell is not None
    voice.tell([Piece(voice, b"one\n")])
    loop.turn()
    assert read(client) == b"one\n"
    assert not voice.has_ended


def test_who_goes_at_the_moment_he_is_sent_away_ends_once(loop: Loop) -> None:
    """Both wake the main loop, in one turn; what it then looks at is not there any more."""
    voice, client, _ = loop.connect()
    assert voice.tell is not None
    voice.tell([Piece(voice, b": over\n\n", is_last=True)])
    client.close()
    loop.turn()
    loop.turn()

    assert voice.has_ended
    assert loop.worker.nr_conns == 0


def test_a_slow_client_gets_the_rest_when_he_takes_it(loop: Loop) -> None:
    voice, client, conn = loop.connect()
    assert voice.tell is not None
    data = b"x" * (4 << 20)
    voice.tell([Piece(voice, data)])
    loop.turn()
    assert (voice.drains, bool(conn.sock.unsent)) == (1, True)

    got = 0
    while got < len(data):
        got += len(read(client))
        loop.turn()
    assert (got, voice.drains) == (len(data), 2)


def test_a_worker_that_stops_says_goodbye_to_each(loop: Loop) -> None:
    voice, client, _ = loop.connect()
    loop.worker.alive = False
    loop.worker._cap_keepalive(0.0)
    assert voice.has_ended
    assert read(client) == b": bye\n\n"
    assert read(client) == b""

    late, client, _ = loop.connect()
    assert (late.has_ended, late.tell) == (True, None)
    assert read(client) == b": bye\n\n"


def answer(status: str, version: tuple[int, int] = (1, 1)) -> tuple[Voice, Sender, _Response]:
    """What a view answers with this status after it has handed over."""
    left, right = socket.socketpair()
    right.close()
    sender = Sender(left.family, left.type, left.proto, fileno=left.detach())
    voice = Voice()
    hand_over({"gunicorn.socket": sender}, voice)
    request = SimpleNamespace(method="GET", version=version, should_close=lambda: False)
    response = _Response(request, sender, Config())
    response.start_response(status, [("Content-Type", "text/event-stream")])
    sender.close()
    return voice, sender, response


@pytest.mark.parametrize("version", [(1, 0), (1, 1)])
def test_what_has_no_end_ends_with_its_connection(version: tuple[int, int]) -> None:
    voice, sender, response = answer("200 OK", version)
    assert (response.chunked, response.should_close()) == (False, True)
    assert (sender.endless, voice.has_ended) == (voice, False)


def test_a_view_that_fails_after_it_has_handed_over_answers_as_any_other() -> None:
    voice, sender, response = answer("500 Internal Server Error")
    assert (response.chunked, response.should_close()) == (True, False)
    assert (sender.endless, voice.has_ended) == (None, True)


def test_without_our_server_it_ends_with_its_answer() -> None:
    voice = Voice()
    hand_over({}, voice)
    assert voice.has_ended


def test_a_heartbeat_comes_in_time_and_who_takes_nothing_is_given_up(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Voice, "every", 0.0)
    monkeypatch.setattr(endless, "ANSWER_SECONDS", -1.0)
    voice, client, _ = loop.connect()
    asleep, _, _ = loop.connect()
    assert asleep.tell is not None
    asleep.tell([Piece(asleep, b"x" * (4 << 20))])
    loop.turn()
    monkeypatch.setattr(Voice, "every", 3600.0)
    loop.worker.murder_pending()

    assert read(client) == b": beat\n\n"
    assert (voice.has_ended, asleep.has_ended) == (False, True)
