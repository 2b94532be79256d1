"""The way out for webhooks: whatever a receiver does, a call ends in time, and says how. On real sockets."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from faxbot import dialling
from faxbot.config import Config
from faxbot.destinations import Rules
from faxbot.dialling import Answer, Dialler
from faxbot.errors import ConfigError
from tests import certificates, misbehaving
from tests.misbehaving import (
    OK,
    Behaviour,
    Server,
    answering,
    dripping,
    hanging_up,
    resetting,
    saying,
    silent,
)

RULES = Rules((ip_network("127.0.0.1/32"),), (range(1, 65536),), https_only=False)
Serve = Callable[..., Server]
Post = Callable[..., Answer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(behave: Behaviour, tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(behave, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def dialler() -> Iterator[Dialler]:
    dialler = Dialler()
    yield dialler
    dialler.close()


@pytest.fixture
def post(dialler: Dialler) -> Post:
    def call(url: str, body: bytes = b"{}", seconds: float = 1.0, **headers: str) -> Answer:
        return dialler.post(RULES, url, headers, body, seconds=seconds)

    return call


def test_a_call_arrives_as_it_was_asked_for_and_the_connection_is_kept(
    serve: Serve, post: Post
) -> None:
    server = serve(answering(OK))
    answers = [post(f"{server.url}/hook?token=t", b'{"a":1}', **{"X-One": "1"}) for _ in range(3)]

    assert [(answer.outcome, answer.code, answer.ok) for answer in answers] == [
        ("ok", 200, True)
    ] * 3
    assert server.connections == 1
    head, _, body = server.requests[-1].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hook?token=t HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}".encode() in head
    assert (b"X-One: 1" in head, body) == (True, b'{"a":1}')


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"), (202, "ok"), (204, "ok"), (299, "ok"),
        (301, "redirect"), (302, "redirect"), (303, "redirect"), (307, "redirect"), (308, "redirect"),
        (304, "redirect"),
        (400, "status"), (401, "status"), (404, "status"), (409, "status"), (410, "gone"), (429, "status"),
        (500, "status"), (502, "status"), (503, "status"), (504, "status"), (600, "status"), (101, "status"),
    ],
)  # fmt: skip
def test_a_status_says_how_it_ended_and_a_redirect_is_not_followed(
    serve: Serve, post: Post, status: int, outcome: str
) -> None:
    elsewhere = serve(answering(OK))
    head = f"HTTP/1.1 {status} X\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n"
    answer = post(serve(answering(head.encode())).url)

    assert (answer.outcome, answer.code) == (outcome, status)
    assert elsewhere.connections == 0


@pytest.mark.parametrize(
    ("behave", "outcome"),
    [
        (hanging_up, "broken"),
        (resetting, "broken"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Le"), "broken"),
        (saying(b"hello\r\n\r\n"), "broken"),
        (saying(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), "broken"),
        (silent, "timeout"),
        (dripping, "timeout"),
    ],
    ids=["hangs up", "resets", "half a head", "no head", "a long head", "silent", "drips"],
)
def test_an_answer_that_is_none_is_told_apart_and_ends_in_time(
    serve: Serve, post: Post, behave: Behaviour, outcome: str
) -> None:
    begun = time.monotonic()
    answer = post(serve(behave).url, seconds=0.5)
    took = time.monotonic() - begun

    assert (answer.outcome, answer.code) == (outcome, None)
    assert took < 8
    assert answer.seconds <= took


def test_of_a_body_that_does_not_end_the_status_counts_and_no_more_is_read(
    serve: Serve, post: Post
) -> None:
    sent = []

    def endless(connection: socket.socket, server: Server) -> None:
        server.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
        while not server.done.is_set():
            sent.append(connection.send(b"x" * 65536))

    def trickling(connection: socket.socket, server: Server) -> None:
        server.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while not server.done.wait(0.05):
            connection.sendall(b"x")

    begun = time.monotonic()
    assert post(serve(endless).url, seconds=15).ok
    assert post(serve(trickling).url, seconds=15).ok
    assert time.monotonic() - begun < 14
    assert sum(sent) < 64 << 20


def test_a_receiver_that_does_not_read_holds_nobody_for_ever(serve: Serve, post: Post) -> None:
    def deaf(_: socket.socket, server: Server) -> None:
        server.done.wait(20)

    assert post(serve(deaf).url, b"x" * (64 << 20), seconds=0.5).outcome == "timeout"


def test_nobody_there_and_no_such_name_are_told_apart(post: Post) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert post(f"http://127.0.0.1:{port}/").outcome == "connection"
    assert post("http://nobody.invalid/").outcome == "name"
    assert post("http://10.0.0.1/").outcome == "not_allowed"


def test_a_name_server_that_is_silent_costs_no_more_than_the_call_may_take() -> None:
    asked = threading.Event()

    def silent_server(_host: str, _port: int) -> list[str]:
        asked.wait(20)
        return []

    dialler = Dialler(resolve=silent_server)
    begun = time.monotonic()
    answer = dialler.post(RULES, "http://hook.example.org/", {}, b"", seconds=0.3)
    asked.set()

    assert answer.outcome == "timeout"
    assert time.monotonic() - begun < 8


def test_a_name_is_tried_at_its_other_addresses_where_the_first_is_away(serve: Serve) -> None:
    server = serve(answering(OK))
    both = Rules((ip_network("127.0.0.0/8"), ip_network("::1/128")), RULES.ports, https_only=False)
    dialler = Dialler(resolve=lambda *_: ["::1", "127.0.0.3", "127.0.0.1"])

    url = f"http://hook.example.org:{server.port}/"
    assert dialler.post(both, url, {}, b"", seconds=5).ok
    dialler.close()
    assert f"Host: hook.example.org:{server.port}".encode() in server.requests[0]


@pytest.fixture
def black_hole() -> Iterator[Callable[[str, int], socket.socket]]:
    """Until the test is over."""
    with ExitStack() as stack:
        yield lambda address, port: stack.enter_context(misbehaving.black_hole(address, port))


NEAR = Rules((ip_network("127.0.0.0/8"),), RULES.ports, https_only=False)
BlackHole = Callable[[str, int], socket.socket]


def test_of_a_name_with_many_addresses_at_which_nothing_answers_the_last_is_tried_in_time(
    serve: Serve, black_hole: BlackHole
) -> None:
    server = serve(answering(OK))
    holes = [f"127.0.0.{number}" for number in (2, 3, 4)]
    for each in holes:
        black_hole(each, server.port)
    url = f"http://hook.example.org:{server.port}/"

    answers = {}
    for name, found in (("one answers", [*holes, "127.0.0.1"]), ("none", [*holes, "127.0.0.5"])):
        if name == "none":
            black_hole("127.0.0.5", server.port)
        begun = time.monotonic()
        dialler = Dialler(resolve=lambda *_, found=found: found)
        answers[name] = dialler.post(NEAR, url, {}, b"", seconds=2).outcome
        assert time.monotonic() - begun < 6
    assert answers == {"one answers": "ok", "none": "timeout"}


def test_a_handshake_that_hangs_after_a_slow_connection_ends_with_the_call(
    black_hole: BlackHole,
) -> None:
    listener = black_hole("127.0.0.2", 0)
    port, taken = listener.getsockname()[1], list[socket.socket]()

    def take() -> None:
        with suppress(OSError):  # until it is closed
            while True:
                taken.append(listener.accept()[0])

    # Linux knocks again after one second and after three; by then there is room.
    late = threading.Timer(1.5, take)
    late.daemon = True
    late.start()
    begun = time.monotonic()
    answer = Dialler().post(NEAR, f"https://127.0.0.2:{port}/", {}, b"", seconds=6)
    took = time.monotonic() - begun
    listener.shutdown(socket.SHUT_RDWR)
    late.join()
    for each in taken:
        each.close()

    assert answer.outcome == "timeout"
    assert 5.5 < took < 8.5, "it was connected with, and had the rest of the time"


def test_proxies_and_passwords_of_the_environment_are_not_used(
    serve: Serve, post: Post, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = serve(answering(OK))

    assert post(server.url).ok
    assert b"authorization" not in server.requests[0].lower()


# TLS --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of hook.example.org."""
    return certificates.certificate(
        tmp_path_factory.mktemp("tls") / "receiver.pem", "hook.example.org"
    )


def test_the_name_stays_in_the_handshake_and_must_be_the_certificates(
    serve: Serve, certificate: Path
) -> None:
    named: list[str | None] = []
    tls = certificates.serving(certificate)
    tls.sni_callback = lambda _socket, name, _context: named.append(name)
    server = serve(answering(OK), tls)
    dialler = Dialler(str(certificate), resolve=lambda *_: ["127.0.0.1"])
    outcomes = {
        host: dialler.post(RULES, f"https://{host}:{server.port}/", {}, b"", seconds=5).outcome
        for host in ("hook.example.org", "other.example.org")
    }
    dialler.close()

    assert outcomes == {"hook.example.org": "ok", "other.example.org": "tls"}
    assert named == ["hook.example.org", "other.example.org"]
    assert len(server.requests) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(
    serve: Serve, post: Post, certificate: Path
) -> None:
    server = serve(answering(OK), certificates.serving(certificate))
    assert post(server.url).outcome == "tls"
    assert server.requests == []


def test_a_receiver_that_hangs_or_speaks_no_tls_in_the_handshake_is_left_in_time(
    serve: Serve, post: Post
) -> None:
    def plain(connection: socket.socket, _: Server) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def hangs(_: socket.socket, server: Server) -> None:
        server.done.wait(20)

    for behave, outcome in ((plain, "tls"), (hangs, "timeout")):
        begun = time.monotonic()
        url = serve(behave).url.replace("http://", "https://")
        assert post(url, seconds=0.5).outcome == outcome
        assert time.monotonic() - begun < 8


def test_a_file_of_certificates_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    for path in (tmp_path / "none.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match="FAXBOT_WEBHOOK_CA_FILE"):
            Dialler(str(path))
    with pytest.raises(ConfigError, match="FAXBOT_WEBHOOK_CA_FILE"):
        Config.load({"FAXBOT_WEBHOOK_CA_FILE": str(tmp_path / "missing.pem")})


# Many at once -----------------------------------------------------------------------------------------


def test_threads_share_a_dialler_and_each_keeps_to_its_own_rules_and_time(
    serve: Serve, dialler: Dialler
) -> None:
    slow, quick = serve(silent), serve(answering(OK))
    found: list[tuple[str, str]] = []

    def ask(name: str, rules: Rules, url: str, seconds: float) -> None:
        for _ in range(1 if name == "slow" else 20):
            answer = dialler.post(rules, url, {}, b"{}", seconds=seconds)
            found.append((name, answer.outcome))

    threads = [
        threading.Thread(target=ask, args=each)
        for each in [
            ("slow", RULES, slow.url, 0.5),
            ("barred", Rules(ports=RULES.ports, https_only=False), quick.url, 5),
            *[("quick", RULES, quick.url, 5)] * 4,
        ]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(found) == {("slow", "timeout"), ("barred", "not_allowed"), ("quick", "ok")}
    assert quick.connections <= 4


def test_every_way_a_call_can_end_has_its_words() -> None:
    assert set(dialling.OUTCOMES) == {
        "ok", "status", "redirect", "gone", "not_allowed", "name", "connection", "tls", "timeout", "broken",
    }  # fmt: skip
