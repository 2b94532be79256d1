"""What cannot be sent is refused by the name of its option: at once, in one line, without a trace."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from threading import Thread

import pytest

from tests.installation import Installation
from tests.integration.command import ID, Ended, run

NOBODY = "http://127.0.0.1:9"
BYTES = "a\udcff"
"""How a byte that is no UTF-8 comes from a command line."""


def misuse(ended: Ended) -> str:
    """The last line of a command that was misused, below its usage."""
    assert ended.code == 2
    usage, hint, *_, last = ended.err.splitlines()
    assert usage.startswith("Usage: faxbot ")
    assert hint.endswith("--help' for help.")
    return last


@pytest.fixture
def letter(embedded: Installation) -> Path:
    path = embedded.folder / "letter.txt"
    path.write_text("Dear Sir")
    return path


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://h:99999",
        "http://h:port",
        "http://h:٣",
        "http://",
        "ftp://h",
        "http://a b",
        "http://h\n",
        "http://" + BYTES,
    ],
)
def test_an_address_that_cannot_be_is_misuse(embedded: Installation, url: str) -> None:
    given = run(embedded, "status", ID, "--url", url)
    variable = run(embedded, "status", ID, FAXBOT_URL=url)

    assert variable.code == 1
    assert misuse(given) == (
        "Error: Invalid value for --url: the server's address must look like http://127.0.0.1:8080"
    )
    assert variable.err.startswith("faxbot: FAXBOT_URL: the server's address must look like")
    assert variable.err.count("\n") == 1


@pytest.mark.parametrize("url", ["http://*.example.org", "http://.example.org"])
def test_an_address_that_only_the_client_library_refuses_is_not_tried_again(
    embedded: Installation, url: str
) -> None:
    began = time.monotonic()
    ended = run(embedded, "status", ID, "--url", url)

    assert ended.code == 1
    assert "cannot be asked" in ended.err
    assert "--url" in ended.err
    assert ended.err.count("\n") == 1, "it was tried again"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("value", ["Ж", "a\nb", "a\r\nX-Other: b", " a", "a ", BYTES])
@pytest.mark.parametrize("option", ["--key", "--idempotency-key"])
def test_what_no_header_can_hold_is_misuse(
    embedded: Installation, letter: Path, option: str, value: str
) -> None:
    words = ("send", letter, "--to", "+15550100000", "--url", NOBODY)

    ended = run(embedded, *words, option, value)

    assert misuse(ended).startswith(
        f"Error: Invalid value for {option}: it must be printable ASCII"
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--to", BYTES),
        ("--header", BYTES),
        ("--send-at", BYTES),
        ("--expires-at", BYTES),
        ("--tag", f"case={BYTES}"),
        ("--tag", f"{BYTES}=4711"),
    ],
)
def test_bytes_that_are_no_text_are_misuse(
    embedded: Installation, letter: Path, option: str, value: str
) -> None:
    to = () if option == "--to" else ("--to", "+15550100000")

    ended = run(embedded, "send", letter, *to, "--url", NOBODY, option, value)

    assert misuse(ended) == f"Error: Invalid value for {option}: it is no UTF-8 text"


def test_a_file_whose_name_is_no_text_is_sent_all_the_same(embedded: Installation) -> None:
    letter = embedded.folder / f"{BYTES}.txt"
    letter.write_text("Dear Sir")
    asked: list[bytes] = []

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            while b"Dear Sir" not in b"".join(asked):
                asked.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        answering = Thread(target=answer, args=(server,))
        answering.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        ended = run(embedded, "send", letter, "--to", "+15550100000", "--url", url)
        answering.join(10)

    assert "the server answered 404" in ended.err
    assert b'filename="a?.txt"' in b"".join(asked)
