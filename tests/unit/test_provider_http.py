"""Every fault of a carrier's server is told apart: nothing was sent, or the outcome is open. On real sockets."""

from __future__ import annotations

import io
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from faxbot.errors import (
    AccountRefused,
    OutcomeUnknown,
    ProviderError,
    Unreachable,
)
from faxbot.providers.http import HttpClient
from tests import certificates
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

StartServer = Callable[..., Server]
StartClient = Callable[..., HttpClient]


@pytest.fixture
def serve() -> Iterator[StartServer]:
    servers: list[Server] = []

    def start(behave: Behaviour, tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(behave, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def client() -> Iterator[StartClient]:
    clients: list[HttpClient] = []

    def make(*addresses: str, **limits: Any) -> HttpClient:
        clients.append(
            HttpClient(addresses, **{"connect": 1.0, "read": 1.0, "total": 5.0, **limits})
        )
        return clients[-1]

    yield make
    for made in clients:
        made.close()


# what a whole exchange looks like


def test_a_multipart_post_arrives_whole_and_its_answer_comes_back(
    serve: StartServer, client: StartClient
) -> None:
    server = serve(
        answering(
            b"HTTP/1.1 202 Accepted\r\nContent-Length: 13\r\nX-One: 1\r\n\r\n" + b'{"id": "abc"}'
        )
    )
    reply = client(server.url).request(
        "POST",
        f"{server.url}/v1/faxes",
        params={"page": "2"},
        data={"to": "+15550100000"},
        files={"file": ("fax.tiff", io.BytesIO(b"II*\x00pages"), "image/tiff")},
        auth=("me", "secret"),
    )
    assert (reply.status, reply.headers["x-one"], reply.json()) == (202, "1", {"id": "abc"})
    (request,) = server.requests
    assert request.startswith(b"POST /v1/faxes?page=2 HTTP/1.1\r\n")
    assert b"II*\x00pages" in request
    assert b'name="to"\r\n\r\n+15550100000\r\n' in request
    assert b"Authorization: Basic bWU6c2VjcmV0" in request
    assert b"User-Agent: faxbot/" in request


def test_a_chunked_answer_is_read_whole(serve: StartServer, client: StartClient) -> None:
    server = serve(
        answering(
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n'
        )
    )
    calls = client(server.url)
    assert [calls.request("GET", server.url).json() for _ in range(2)] == [{"a": 1}] * 2
    assert server.connections == 1


@pytest.mark.parametrize("status", [200, 201, 301, 302, 400, 401, 404, 429, 500, 503])
def test_a_status_is_returned_and_not_raised(
    serve: StartServer, client: StartClient, status: int
) -> None:
    server = serve(answering(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status))
    assert client(server.url).request("POST", server.url).status == status


def test_a_redirect_is_not_followed(serve: StartServer, client: StartClient) -> None:
    elsewhere = serve(answering(OK))
    location = f"HTTP/1.1 307 X\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n"
    server = serve(answering(location.encode()))
    assert client(server.url, elsewhere.url).request("POST", server.url).status == 307
    assert elsewhere.connections == 0


def test_cookies_are_not_kept(serve: StartServer, client: StartClient) -> None:
    server = serve(answering(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"))
    calls = client(server.url)
    calls.request("GET", server.url)
    calls.request("GET", server.url)
    assert b"cookie" not in server.requests[1].lower()


def test_proxies_of_the_environment_are_not_used(
    serve: StartServer, client: StartClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = serve(answering(OK)), serve(answering(OK))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    assert client(server.url).request("GET", server.url).status == 200
    assert (proxy.connections, server.connections) == (0, 1)


# nothing was sent


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_refused_connection_is_not_sent(client: StartClient) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match="the connection was refused"):
        client(url).request("POST", url)


def test_an_unknown_name_is_not_sent(client: StartClient) -> None:
    url = "http://nobody.invalid"
    with pytest.raises(Unreachable, match="its name is not known"):
        client(url).request("POST", url)


def test_a_connection_that_takes_too_long_is_not_sent(client: StartClient) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with closing(socket.create_connection(("127.0.0.1", port))):  # the queue of one is full now
            url = f"http://127.0.0.1:{port}"
            with pytest.raises(Unreachable, match="connecting took too long"):
                client(url, connect=0.3).request("POST", url)


def test_a_failed_tls_handshake_is_not_sent(serve: StartServer, client: StartClient) -> None:
    def plain(connection: socket.socket, _: Server) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    url = serve(plain).url.replace("http:", "https:")
    with pytest.raises(Unreachable, match="the TLS handshake failed"):
        client(url).request("POST", url)


def test_a_tls_server_that_hangs_in_the_handshake_is_not_sent(
    serve: StartServer, client: StartClient
) -> None:
    def wait(_: socket.socket, server: Server) -> None:
        server.done.wait(20)

    url = serve(wait).url.replace("http:", "https:")
    with pytest.raises(Unreachable):
        client(url, connect=0.3).request("POST", url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    return certificates.certificate(tmp_path_factory.mktemp("tls") / "carrier.pem", "127.0.0.1")


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    return certificates.serving(certificate)


def test_an_untrusted_certificate_is_not_sent(
    serve: StartServer, client: StartClient, tls: ssl.SSLContext
) -> None:
    server = serve(answering(OK), tls)
    with pytest.raises(Unreachable, match="the TLS handshake failed"):
        client(server.url).request("POST", server.url)
    assert server.requests == []


def test_a_trusted_certificate_is_used_and_the_connection_kept(
    serve: StartServer, client: StartClient, tls: ssl.SSLContext, certificate: Path
) -> None:
    server = serve(answering(OK), tls)
    calls = client(server.url, ca_file=str(certificate))
    assert [calls.request("POST", server.url).status for _ in range(3)] == [200] * 3
    assert server.connections == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1",
        "https://127.0.0.1:{port}",
        "http://localhost:{port}",
        "http://127.0.0.1:{port}@evil.invalid/",
        "http://evil.invalid\\@127.0.0.1:{port}/",
        "http://evil.invalid#@127.0.0.1:{port}/",
        "ftp://127.0.0.1:{port}",
        "file:///etc/passwd",
        "//127.0.0.1:{port}",
        "",
        "http://",
        "http://[::1",
        "http://127.0.0.1:{port}.evil.invalid",
    ],
)
def test_no_address_but_the_admitted_ones_is_called(
    serve: StartServer, client: StartClient, url: str
) -> None:
    server = serve(answering(OK))
    with pytest.raises(AccountRefused) as refused:
        client(server.url).request("POST", url.format(port=server.port))
    assert refused.value.cause == "config"
    assert server.connections == 0


def test_the_default_port_need_not_be_written(client: StartClient) -> None:
    # Admitted, so it is the connection that fails.
    with pytest.raises(Unreachable):
        client("http://nobody.invalid/v1").request("GET", "http://nobody.invalid:80/v2")


# the outcome is open


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (hanging_up, "broke before its answer was complete"),
        (resetting, "broke before its answer was complete"),
        (silent, "did not answer in time"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Le"), "broke"),
        (saying(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"id": '), "broke"),
        (saying(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"i'), "broke"),
        (saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n"), "broke"),
        (saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "broke"),
        (saying(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"), "broke"),
        (saying(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000), "broke"),
    ],
)
def test_a_fault_after_bytes_were_sent_leaves_the_outcome_open(
    serve: StartServer, client: StartClient, behave: Behaviour, why: str
) -> None:
    server = serve(behave)
    with pytest.raises(OutcomeUnknown, match=why):
        client(server.url, read=0.5).request("POST", server.url, data={"to": "+15550100000"})
    assert len(server.requests) == 1, "it may not be sent twice"


def test_a_server_that_drips_cannot_outlast_the_total_time(
    serve: StartServer, client: StartClient
) -> None:
    server = serve(dripping)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown, match="did not answer in time"):
        client(server.url, read=5.0, total=0.5).request("POST", server.url)
    assert time.monotonic() - began < 15


def test_a_server_that_does_not_read_cannot_hold_an_upload_for_ever(
    serve: StartServer, client: StartClient
) -> None:
    def deaf(_: socket.socket, server: Server) -> None:
        server.done.wait(20)

    server = serve(deaf)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        client(server.url, read=0.5).request("POST", server.url, data={"x": "y" * 20_000_000})
    assert time.monotonic() - began < 15


def test_an_answer_that_is_too_large_leaves_the_outcome_open(
    serve: StartServer, client: StartClient
) -> None:
    server = serve(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000))
    with pytest.raises(OutcomeUnknown, match="too large"):
        client(server.url, max_body=4999).request("POST", server.url)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 401 X\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000,
        b"HTTP/1.1 401 X\r\nContent-Length: 5000\r\n\r\nhalf",
    ],
)
def test_a_refusal_counts_though_its_body_is_too_large_or_cut_off(
    serve: StartServer, client: StartClient, answer: bytes
) -> None:
    server = serve(saying(answer))
    reply = client(server.url, max_body=1000).request("POST", server.url)
    assert reply.status == 401
    assert len(reply.body) <= 1000


def test_no_error_holds_the_address_or_what_was_sent(
    serve: StartServer, client: StartClient
) -> None:
    server = serve(hanging_up)
    refused = f"http://127.0.0.1:{free_port()}"
    for url in (server.url, refused):
        with pytest.raises(ProviderError) as raised:
            client(url).request("GET", url, params={"phone_number": "+15550100123"})
        error = raised.value
        assert "0100123" not in str(error) + repr(error.args)
        assert error.__cause__ is None
        assert error.__suppress_context__


def test_no_log_holds_the_address(
    serve: StartServer, client: StartClient, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(saying(b"HTTP/1.1 200 OK\r\nodd line\r\nContent-Length: 0\r\n\r\n"))
    with caplog.at_level(logging.DEBUG):
        client(server.url).request("GET", server.url, params={"phone_number": "+15550100123"})
    assert "0100123" not in caplog.text


# connections that are kept


def test_a_connection_is_kept_for_the_next_call(serve: StartServer, client: StartClient) -> None:
    server = serve(answering(OK))
    calls = client(server.url)
    for _ in range(5):
        calls.request("POST", server.url)
    assert server.connections == 1


def test_a_connection_that_was_idle_too_long_is_replaced(
    serve: StartServer, client: StartClient
) -> None:
    server = serve(answering(OK))
    calls = client(server.url, idle=0.0)
    for _ in range(3):
        calls.request("POST", server.url)
    assert server.connections == 3


def test_a_connection_that_the_server_closed_while_idle_is_no_fault(
    serve: StartServer, client: StartClient
) -> None:
    closed = threading.Semaphore(0)

    def once(connection: socket.socket, server: Server) -> None:
        server.read(connection)
        connection.sendall(OK)
        connection.close()
        closed.release()

    server = serve(once)
    calls = client(server.url)
    for _ in range(3):
        assert calls.request("POST", server.url).status == 200
        closed.acquire()
    assert server.connections == 3


def test_a_connection_that_goes_silent_is_not_used_again(
    serve: StartServer, client: StartClient
) -> None:
    def one_answer(connection: socket.socket, server: Server) -> None:
        server.read(connection)
        if server.connections == 1:
            silent(connection, server)
        connection.sendall(OK)

    server = serve(one_answer)
    calls = client(server.url, read=0.3)
    with pytest.raises(OutcomeUnknown):
        calls.request("POST", server.url)
    assert calls.request("POST", server.url).status == 200


def test_threads_share_a_client_and_each_gets_its_own_answer(
    serve: StartServer, client: StartClient
) -> None:
    def echo(connection: socket.socket, server: Server) -> None:
        while request := server.read(connection):
            path = request.split(b" ")[1]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(path) + path)

    server = serve(echo)
    calls = client(server.url)
    wrong: list[bytes] = []

    def ask(number: int) -> None:
        for turn in range(20):
            body = calls.request("GET", f"{server.url}/{number}/{turn}").body
            if body != f"/{number}/{turn}".encode():
                wrong.append(body)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert server.connections <= 6
