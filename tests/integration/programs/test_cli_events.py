"""`faxbot events`: what happened, page by page, and what happens, across everything that ends a connection."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import StartService
from tests.ground import BUSY, eventually
from tests.installation import FAXBOT, Installation
from tests.integration.command import CALLED, ID, one_line, run
from tests.integration.programs.test_event_stream import WEB, House, alone, house
from tests.integration.test_cli_client import STRANGE, Answer, Server, answering, problem
from tests.servers import free_port

__all__ = ["alone", "answering"]  # fixtures


def event(number: int, name: str = "FAX_DELIVERED", **data: Any) -> dict[str, Any]:
    told = {"fax_id": ID, "sequence": number, "status": "delivered", "pages": 3, "pages_sent": 3}
    stamp = "2026-11-20T12:00:00.123456Z"
    return {"id": f"1-{number}", "type": name, "timestamp": stamp, "data": {**told, **data}}


def page(*numbers: int, more: bool = False) -> Answer:
    last = f"1-{max(numbers, default=9)}"
    return 200, {"items": [event(number) for number in numbers], "next": last, "more": more}


def stream(*blocks: str) -> Answer:
    return 200, "\n\n".join([*blocks, ""]).encode(), {"Content-Type": "text/event-stream"}


def cut_off(*blocks: str) -> Answer:
    """A stream that ends in the middle of its last block."""
    status, body, headers = stream(*blocks)  # type: ignore[misc]
    return status, body[:-2], headers


def block(number: int) -> str:
    told = event(number)
    return f"id: {told['id']}\nevent: {told['type']}\ndata: {json.dumps(told)}"


def asked(server: Server) -> list[tuple[str, dict[str, list[str]]]]:
    paths = [urlsplit(path) for _, path, _, _ in server.asked]
    return [(path.path, parse_qs(path.query)) for path in paths]


def test_pages_are_followed_to_their_end(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    server = answering(page(1, 2, more=True), page(more=True), page(3))
    ended = run(embedded, "events", "--cursor", "1-0", "--url", server.url)

    assert ended.code == 0
    assert (
        ended.out.splitlines()
        == [f"2026-11-20 12:00:00Z  {ID}  FAX_DELIVERED         3 of 3 pages confirmed"] * 3
    )
    assert ended.err == f"go on with: {CALLED} events --cursor 1-3\n"
    assert [query["cursor"] for _, query in asked(server)] == [["1-0"], ["1-2"], ["1-9"]]


def test_without_a_place_it_is_the_last_day(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    server = answering(page())
    words = ("--type", "FAX_SENT", "--type", "FAX_FAILED", "--fax", ID, "--json")
    ended = run(embedded, "events", "--url", server.url, *words)

    assert (ended.code, ended.out, ended.err) == (0, "", "")
    ((path, query),) = asked(server)
    assert (path, query["type"], query["fax_id"]) == ("/events", ["FAX_SENT,FAX_FAILED"], [ID])
    assert "cursor" not in query
    assert query["since"][0].endswith("+00:00")


@pytest.mark.parametrize(
    "words",
    [
        ("--cursor", "+15550100000"),
        ("--fax", "+15550100000"),
        ("--since", "+15550100000"),
        ("--since", "2026-11-20T12:00:00"),
        ("--cursor", "1-1", "--since", "2026-11-20T12:00:00Z"),
        ("--type", "FAX_LOST"),
    ],
)
def test_misuse_is_said_before_anything_is_asked(
    embedded: Installation, answering: Callable[..., Server], words: tuple[str, ...]
) -> None:
    server = answering(page())
    ended = run(embedded, "events", "--url", server.url, *words)

    assert (ended.code, ended.out, server.asked) == (2, "", [])
    assert "+15550100000" not in ended.err


def test_a_stream_is_taken_up_behind_its_last_event_wherever_it_ends(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    server = answering(
        stream("retry: 1\nid: 1-1", ": heartbeat", block(2)),
        problem("listeners-full", 503),
        None,
        cut_off("id: 1-2", block(3), ": heartbeat\nid: 1-7", 'id: 1-8\ndata: {"'),
        problem("unauthenticated", 401, detail="This API key is not valid."),
    )
    ended = run(embedded, "events", "--follow", "--url", server.url, "--key", "k", "--json")

    told = [json.loads(line)["data"]["sequence"] for line in ended.out.splitlines()]
    assert (ended.code, told) == (1, [2, 3])
    places = [headers.get("last-event-id") for _, _, headers, _ in server.asked]
    assert places == [None, "1-2", "1-2", "1-2", "1-7"]
    lines = ended.err.splitlines()
    assert lines[-1] == "faxbot: This API key is not valid. (--key, FAXBOT_API_KEY)"
    assert (
        lines[:-1]
        == [
            "faxbot: the connection has ended; trying again until it goes on",
        ]
        * 2
    )


def test_what_came_before_is_shown_first_and_then_followed(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    server = answering(page(1, 2), stream(block(3)), problem("forbidden", 403))
    since = ("--since", "2026-11-20T12:00:00Z")
    ended = run(embedded, "events", "--follow", *since, "--url", server.url, "--key", "k")

    assert len(ended.out.splitlines()) == 3
    assert [path for path, _ in asked(server)] == ["/events", "/events/stream", "/events/stream"]
    assert [headers.get("last-event-id") for _, _, headers, _ in server.asked] == [
        *(None, "1-2", "1-3")
    ]
    assert f"go on with: {CALLED} events --cursor 1-3" in ended.err.splitlines()


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"items": []}),
        (200, b"<html>", {"Content-Type": "text/html"}),
        stream("data: <html>"),
        stream('data: {"id": 1}'),
    ],
)
def test_a_stream_of_something_else_is_not_faxbot(
    embedded: Installation, answering: Callable[..., Server], answer: Answer
) -> None:
    ended = run(embedded, "events", "--follow", "--url", answering(answer).url)

    assert (ended.code, ended.out, one_line(ended.err)) == (1, "", STRANGE)


@pytest.mark.parametrize("answer", [{}, [], {"items": [1], "next": "1-1", "more": False}])
def test_a_page_of_something_else_is_not_faxbot(
    embedded: Installation, answering: Callable[..., Server], answer: object
) -> None:
    ended = run(embedded, "events", "--url", answering((200, answer)).url)

    assert (ended.code, ended.out, one_line(ended.err)) == (1, "", STRANGE)


def test_a_server_that_was_never_there_is_given_up(embedded: Installation) -> None:
    ended = run(embedded, "events", "--follow", "--url", f"127.0.0.1:{free_port()}")

    assert ended.code == 1
    first, last = ended.err.splitlines()
    assert first.endswith("; trying again until it goes on")
    assert last.endswith("cannot be reached: is faxbot up there? (--url, FAXBOT_URL)")


@contextmanager
def following(home: House, *words: str) -> Iterator[Callable[[int], list[dict[str, Any]]]]:
    """A command that follows; the call gives its first so many events."""
    out = home.service.installation.folder / "followed"
    environment = {**home.service.env, "FAXBOT_API_KEY": home.service.key}
    with out.open("wb") as file:
        process = subprocess.Popen(
            [FAXBOT, "events", "--follow", "--json", "--url", home.service.url, *words],
            env=environment,
            stdout=file,
            stderr=subprocess.DEVNULL,
        )

    def told(count: int) -> list[dict[str, Any]]:
        def lines() -> list[str]:
            return out.read_text().splitlines()

        eventually(lambda: len(lines()) >= count, 30)
        return [json.loads(line) for line in lines()]

    try:
        yield told
        process.send_signal(signal.SIGINT)
        assert process.wait(10 * BUSY) == 130
    finally:
        process.kill()
        process.wait()


def test_a_real_server_is_followed_through_its_restart(
    alone: Installation, start_service: StartService
) -> None:
    with house(alone, start_service, **WEB) as home:
        fax_id = home.fax()
        with following(home, "--cursor", "0-0", "--fax", fax_id) as told:
            home.progress(fax_id, 2)
            told(3)
            home.service.stop()
            home.progress(fax_id, 2)
            home.service.start()
            told(5)
            home.progress(fax_id, 2)
            events = told(7)

        assert [event["data"]["sequence"] for event in events] == [1, 2, 3, 4, 5, 6, 7]
        assert {event["data"]["fax_id"] for event in events} == {fax_id}
