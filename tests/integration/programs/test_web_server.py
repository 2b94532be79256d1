"""Uploads over a real connection to the real server: what breaks off, lies about its length or does not end."""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import parse_headers
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from gunicorn.config import Config as Gunicorn

from faxbot.web import server
from tests.ground import eventually
from tests.installation import FAXBOT, Service, Stores
from tests.integration.web import NUMBER, TEXT

MEGABYTE = 1024 * 1024
LIMIT = 6 * MEGABYTE
HEAD = (
    f'--b\r\nContent-Disposition: form-data; name="to"\r\n\r\n{NUMBER}\r\n'
    '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
).encode()
TAIL = b"\r\n--b--\r\n"


@pytest.fixture(scope="module")
def service(stores: Stores) -> Iterator[Service]:
    """A whole faxbot that takes six megabytes; sending is off, so that nothing but the web layer works."""
    service = Service(stores.embedded(), "up", MAX_FILE_SIZE_MB="6", FAX_DISABLED="true")
    service.start()
    yield service
    service.stop()


class Connection:
    """One HTTP/1.1 connection, byte by byte."""

    def __init__(self, service: Service, *, key: str | None = None) -> None:
        self.key = service.key if key is None else key
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=20)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def begin(self, *headers: str, path: str = "/fax/send") -> None:
        lines = [
            f"POST {path} HTTP/1.1", "Host: faxbot", f"X-API-Key: {self.key}",
            "Content-Type: multipart/form-data; boundary=b", *headers, "", "",
        ]  # fmt: skip
        self.socket.sendall("\r\n".join(lines).encode())

    def chunk(self, data: bytes) -> None:
        self.socket.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def answer(self) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer; waits at most 20 seconds for it."""
        reader = self.socket.makefile("rb")
        status = int(reader.readline().split()[1])
        headers = {}
        while (line := reader.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        return status, json.loads(reader.read(int(headers[b"content-length"])))


def spool(service: Service) -> list[Path]:
    return list((service.installation.data_dir / "spool").glob("*"))


def faxes(service: Service) -> int:
    return len(service.request("GET", "/fax?limit=100").json()["items"])


@pytest.fixture
def unchanged(service: Service) -> Iterator[None]:
    """After the test there are as many faxes as before, and soon nothing in the spool."""
    before = faxes(service)
    yield

    eventually(lambda: not spool(service))
    assert faxes(service) == before


def test_a_chunked_upload_is_taken(service: Service) -> None:
    with Connection(service) as connection:
        connection.begin("Transfer-Encoding: chunked")
        for piece in (HEAD[:70], HEAD[70:], TEXT[:3], TEXT[3:], TAIL, b""):
            connection.chunk(piece) if piece else connection.socket.sendall(b"0\r\n\r\n")

        assert connection.answer()[0] == 202


@pytest.mark.usefixtures("unchanged")
def test_a_chunked_upload_over_the_limit_is_refused_while_it_is_still_coming(
    service: Service,
) -> None:
    with Connection(service) as connection:
        connection.begin("Transfer-Encoding: chunked")
        connection.chunk(HEAD)
        for _ in range(7):
            connection.chunk(b"x" * MEGABYTE)

        status, problem = connection.answer()  # the upload has not ended

    assert (status, problem["type"]) == (413, "/docs#document-too-large")


@pytest.mark.usefixtures("unchanged")
def test_an_announced_length_over_the_limit_is_refused_before_anything_is_read(
    service: Service,
) -> None:
    with Connection(service) as connection:
        connection.begin(f"Content-Length: {500 * MEGABYTE}")

        status, problem = connection.answer()

    assert (status, problem["type"]) == (413, "/docs#document-too-large")


@pytest.mark.usefixtures("unchanged")
def test_an_upload_shorter_than_announced_is_refused(service: Service) -> None:
    with Connection(service) as connection:
        connection.begin("Content-Length: 5000")
        connection.socket.sendall(HEAD + TEXT)
        connection.socket.shutdown(socket.SHUT_WR)

        status, problem = connection.answer()

    assert (status, problem["type"]) == (400, "/docs#malformed")


@pytest.mark.usefixtures("unchanged")
def test_what_comes_behind_the_announced_length_is_not_part_of_the_upload(service: Service) -> None:
    with Connection(service) as connection:
        connection.begin(f"Content-Length: {len(HEAD) + 5}")
        connection.socket.sendall(HEAD + TEXT + TAIL)

        status, problem = connection.answer()

    assert (status, problem["type"]) == (400, "/docs#malformed")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 900000"])
def test_a_client_that_vanishes_leaves_nothing(service: Service, framing: str) -> None:
    with Connection(service) as connection:
        connection.begin(framing)
        send = connection.chunk if "chunked" in framing else connection.socket.sendall
        send(HEAD)
        send(b"x" * (MEGABYTE // 4))
        eventually(lambda: sum(path.stat().st_size for path in spool(service)) > 0)


@pytest.mark.usefixtures("unchanged")
def test_broken_chunks_are_refused(service: Service) -> None:
    with Connection(service) as connection:
        connection.begin("Transfer-Encoding: chunked")
        connection.chunk(HEAD)
        connection.socket.sendall(b"this is no size\r\n")

        status, problem = connection.answer()

    assert (status, problem["type"]) == (400, "/docs#malformed")


@pytest.mark.usefixtures("unchanged")
def test_a_missing_body_is_malformed(service: Service) -> None:
    with Connection(service) as connection:
        connection.begin("Content-Length: 0")

        assert connection.answer()[0] == 400


@pytest.mark.usefixtures("unchanged")
def test_a_body_packed_in_another_way_than_in_chunks_is_refused(service: Service) -> None:
    with Connection(service) as connection:
        connection.begin("Transfer-Encoding: gzip, chunked")
        connection.chunk(HEAD + TEXT + TAIL)

        status, problem = connection.answer()

    assert (status, problem["type"]) == (400, "/docs#malformed")
    assert "Transfer-Encoding" in problem["detail"]


@pytest.mark.parametrize("key", [None, "wrong"])
def test_only_who_has_a_key_is_asked_to_send_the_body(service: Service, key: str | None) -> None:
    body = HEAD + TEXT + TAIL
    with Connection(service, key=key) as connection:
        connection.begin(f"Content-Length: {len(body)}", "Expect: 100-continue")
        if key is None:
            assert connection.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.socket.sendall(body)

        assert connection.answer()[0] == (202 if key is None else 401)


LONG = b"x" * 9000


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "malformed"),
        (b"GET /fax HTTP/1.1\r\nHost x\r\n\r\n", 400, "malformed"),
        (b"GET /" + LONG + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "request-too-large"),
        (b"GET / HTTP/1.1\r\nX: " + LONG + b"\r\n\r\n", 431, "request-too-large"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 9000, 431, "request-too-large"),
    ],
)
def test_what_is_no_request_has_the_one_error_body_too(
    service: Service, request_: bytes, status: int, code: str
) -> None:
    with Connection(service) as connection:
        connection.socket.sendall(request_)
        reader = connection.socket.makefile("rb")
        head = reader.readline()
        headers = parse_headers(reader)
        problem = json.loads(reader.read())  # and the connection is closed

    assert int(head.split()[1]) == problem["status"] == status
    assert problem["type"] == f"/docs#{code}"
    assert problem["detail"] != problem["title"]
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["X-Request-Id"] == problem["request_id"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_requests_in_one_go_are_answered_in_their_order(service: Service) -> None:
    many = b"".join(
        f"GET /fax/{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for number in range(9)
    )
    with Connection(service) as connection:
        connection.socket.sendall(many + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        reader = connection.socket.makefile("rb")
        statuses = []
        for _ in range(10):
            statuses.append(int(reader.readline().split()[1]))
            reader.read(int(parse_headers(reader)["Content-Length"]))

    assert statuses == [401] * 9 + [200]


def web_processes(service: Service) -> list[psutil.Process]:
    """The web server's master, then its workers."""
    (master,) = [
        process for process in psutil.Process(service.pid).children() if "web" in process.cmdline()
    ]
    return [master, *master.children()]


def test_a_hangup_gives_new_workers_and_the_service_goes_on(service: Service) -> None:
    master, *workers = web_processes(service)
    master.send_signal(signal.SIGHUP)
    eventually(
        lambda: len(web_processes(service)) > 1 and not {*workers} & {*web_processes(service)}
    )

    assert web_processes(service)[0] == master
    assert service.request("GET", "/health").status_code == 200
    assert "Traceback" not in service.output()


@pytest.mark.parametrize(
    ("soft", "hard", "listeners", "expected", "raised"),
    [
        (256, 256, 0, 256 - 64 - 32, 256),
        (256, 1024, 0, 1024 - 64 - 32, 1024),
        (256, 4096, 0, 1000, 1096),
        (256, 4096, 500, 1500, 1596),
        (256, 1024, 500, 1024 - 64 - 32, 1024),
        (2048, 4096, 0, 1000, 2048),
        (64, 64, 500, 5, 64),
    ],
)
def test_a_worker_takes_no_more_connections_than_it_may_open_files(
    soft: int, hard: int, listeners: int, expected: int, raised: int
) -> None:
    """Measured in a process of its own, whose limits are its own."""
    program = (
        "import resource; from faxbot.web.server import connections\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"print(connections(4, {listeners}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )

    assert said.stdout.split() == [str(expected), str(raised)]


@pytest.mark.parametrize("address", ["nonsense", "mysql://faxbot@localhost/faxbot"])
def test_a_bad_database_address_is_one_line_before_anything_is_served(
    stores: Stores, address: str
) -> None:
    done = subprocess.run(
        [FAXBOT, "web"],
        env={**stores.embedded().env, "DATABASE_URL": address, "FAXBOT_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 1
    assert re.fullmatch(r"faxbot: DATABASE_URL .*\n", done.stderr), done.stderr


@pytest.mark.usefixtures("unchanged")
def test_without_a_key_the_answer_comes_before_the_body(service: Service) -> None:
    with Connection(service, key="wrong") as connection:
        connection.begin("Content-Length: 900000")

        assert connection.answer()[0] == 401


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("key", "size", "status"), [(None, 2 * LIMIT, 413), ("wrong", LIMIT, 401), ("wrong", 0, 401)]
)
def test_a_client_that_reads_only_when_it_has_sent_all_sees_the_refusal(
    service: Service, key: str | None, size: int, status: int
) -> None:
    for _ in range(3):  # a lost answer would be a matter of luck
        with Connection(service, key=key) as connection:
            connection.begin(f"Content-Length: {len(HEAD) + size + len(TAIL)}")
            for piece in (HEAD, b"x" * size, TAIL):
                connection.socket.sendall(piece)

            assert connection.answer()[0] == status


def test_a_head_and_a_short_body_come_in_one_piece(service: Service) -> None:
    with Connection(service) as connection:
        for _ in range(20):
            connection.socket.sendall(b"GET /health HTTP/1.1\r\nHost: faxbot\r\n\r\n")
            head, _, body = connection.socket.recv(65536).partition(b"\r\n\r\n")
            (length,) = re.findall(rb"(?mi)^content-length: (\d+)\r?$", head)
            assert len(body) == int(length)


def test_a_refused_request_does_not_end_the_connection(service: Service) -> None:
    with closing(requests.Session()) as session:
        session.trust_env = False
        session.headers["X-API-Key"] = service.key
        statuses = [
            session.post(
                f"{service.url}/fax/send", data={"to": to}, files={"file": TEXT}, timeout=10
            ).status_code
            for to in ("nobody", NUMBER, "nobody", NUMBER)
        ]

    assert statuses == [400, 202, 400, 202]


def test_requests_with_one_key_at_the_same_time_make_one_fax(service: Service) -> None:
    before = faxes(service)

    def submit(_: int) -> requests.Response:
        return service.request(
            "POST",
            "/fax/send",
            headers={"Idempotency-Key": "at the same time"},
            data={"to": NUMBER},
            files={"file": TEXT},
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(24)))
    taken = [answer for answer in answers if answer.status_code == 202]
    waiting = [answer for answer in answers if answer.status_code == 409]

    assert len(taken) + len(waiting) == len(answers)
    assert len({answer.content for answer in taken}) == 1
    assert ["Idempotency-Replayed" in answer.headers for answer in taken].count(False) == 1
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in waiting)
    assert faxes(service) == before + 1


def test_no_level_of_the_log_has_the_addresses_that_clients_ask_for() -> None:
    """gunicorn's own messages of the level debug have them."""
    assert server._Logger(Gunicorn()).error_log.level >= logging.INFO


def test_no_log_has_a_number_a_key_or_a_name_of_a_file(service: Service) -> None:
    files = {"file": ("Jane Doe.pdf", b"%PDF-1.7 nonsense")}
    number = "+15550100042"  # the start page shows the other one
    service.request("POST", "/fax/send?Jane=Doe", data={"to": number}, files=files)
    service.request("GET", f"/fax/{number}?to={number}")
    said = service.output()

    assert "faxbot" in said  # it does speak
    assert "Jane" not in said
    assert number[1:] not in said
    assert service.key not in said
