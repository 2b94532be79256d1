"""The commands that are clients of the HTTP API, against a server of the test's own."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation
from tests.integration.command import ID, first_key, one_line, run, run_heard
from tests.servers import free_port

PDF = b"%PDF-1.7 stands for a document; the server decides what it is"

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@dataclass
class Server:
    """An HTTP server that answers from a script, and remembers what it was asked."""

    answers: list[Answer | None] = field(default_factory=list)
    """In order, the last one for ever; None hangs up without an answer."""
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Method, path, headers, body."""
    url: str = ""

    def keys(self) -> list[str]:
        return [headers["idempotency-key"] for _, _, headers, _ in self.asked]


def start_server(answers: list[Answer | None], port: int = 0) -> tuple[Server, ThreadingHTTPServer]:
    record = Server(answers)

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            record.asked.append((self.command, self.path, headers, self.rfile.read(length)))
            answer = record.answers.pop(0) if len(record.answers) > 1 else record.answers[0]
            if answer is None:
                self.close_connection = True
                return
            status, content, *extra = answer
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (extra[0] if extra else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = handle_any  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    record.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return record, server


@pytest.fixture
def answering() -> Iterator[Callable[..., Server]]:
    """answering(answer, ...): a Server with that script."""
    started: list[ThreadingHTTPServer] = []

    def start(*answers: Answer | None) -> Server:
        record, server = start_server(list(answers))
        started.append(server)
        return record

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def document(embedded: Installation) -> Path:
    path = embedded.folder / "letter.pdf"
    path.write_bytes(PDF)
    return path


def accepted(**more: object) -> Answer:
    return 202, {
        "id": ID,
        "status": "queued",
        "pages": 3,
        "explanation": "It goes out now.",
        **more,
    }


def problem(code: str, status: int, **more: object) -> Answer:
    return status, {
        "type": f"/docs#{code}",
        "status": status,
        "title": "t",
        "detail": "d",
        "errors": {},
        **more,
    }


TO = ("--to", "+15550100000")
IN_FLIGHT = problem("idempotency-key-in-flight", 409)
AWAY = problem("database-away", 503)


@pytest.mark.parametrize(
    "trouble", [AWAY, IN_FLIGHT, None, (502, b"<html>"), (429, {}, {"Retry-After": "0"})]
)
def test_trouble_is_tried_again_under_the_same_key(
    embedded: Installation, document: Path, answering: Callable[..., Server], trouble: Answer | None
) -> None:
    server = answering(trouble, accepted())
    ended = run(embedded, "send", document, *TO, "--url", server.url, "--json")

    assert (ended.code, ended.json["id"]) == (0, ID)
    first, second = server.keys()
    assert first == second
    bodies = [body for _, _, _, body in server.asked]
    assert all(PDF in body and b"+15550100000" in body for body in bodies)


def test_a_server_that_is_only_just_starting_is_waited_for(
    embedded: Installation, document: Path
) -> None:
    port = free_port()
    later: list[ThreadingHTTPServer] = []

    def start_when_missed(line: str) -> None:
        if "trying again in" in line and not later:
            later.append(start_server([accepted()], port)[1])

    ended = run_heard(embedded, start_when_missed, "send", document, *TO, FAXBOT_PORT=str(port))
    later[0].shutdown()
    later[0].server_close()

    assert ended.code == 0
    assert "cannot be reached" in one_line(ended.err.splitlines()[0])
    assert f"fax {ID} is accepted, 3 pages" in ended.out


def test_two_sends_are_two_faxes_unless_they_carry_one_key(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    server = answering(accepted())
    for words in ([], [], ["--idempotency-key", "order 17"], ["--idempotency-key", "order 17"]):
        run(embedded, "send", document, *TO, "--url", server.url, *words)

    one, two, *named = server.keys()
    assert one != two
    assert named == ["order 17", "order 17"]


def test_a_number_can_be_kept_from_the_command_line(
    embedded: Installation,
    answering: Callable[..., Server],
    document: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = answering(accepted())
    monkeypatch.setattr("sys.stdin", io.StringIO("+15550100000\n"))

    ended = run(embedded, "send", document, "--to", "-", "--url", server.url, "--key", "k")

    assert ended.code == 0, ended.err
    assert b"\r\n+15550100000\r\n" in server.asked[0][3]


def test_all_options_reach_the_server_and_no_other(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    server = answering(accepted())
    words = [
        "--header",
        "ACME",
        "--resolution",
        "standard",
        "--priority",
        "9",
        "--tag",
        "case=4=2",
        "--tag",
        "b=",
    ]
    words += ["--send-at", "2026-11-20T18:00:00Z", "--expires-at", "2026-11-21T18:00:00Z"]
    run(embedded, "send", document, document, *TO, "--url", server.url, *words)

    ((_, path, _, body),) = server.asked
    fields = dict(re.findall(rb'; name="([^"]+)"\r\n\r\n([^\r]*)\r\n', body))
    assert path == "/fax/send"
    assert body.count(b'name="file"; filename="letter.pdf"') == 2
    assert fields == {
        b"to": b"+15550100000",
        b"header": b"ACME",
        b"resolution": b"standard",
        b"priority": b"9",
        b"tags[case]": b"4=2",
        b"tags[b]": b"",
        b"send_at": b"2026-11-20T18:00:00Z",
        b"expires_at": b"2026-11-21T18:00:00Z",
    }


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            problem(
                "invalid-fields",
                422,
                detail="Some fields are not valid.",
                errors={"to": ["Not a number."]},
            ),
            "faxbot: to: Not a number.",
        ),
        (
            problem("forbidden", 403, detail="This key may not do that."),
            "faxbot: This key may not do that. (--key, FAXBOT_API_KEY)",
        ),
        (
            (200, b"<html>welcome"),
            "faxbot: what answers there is not faxbot: see --url and FAXBOT_URL",
        ),
        (
            (404, b"<html>"),
            "faxbot: the server answered 404, and not as faxbot does: see --url and FAXBOT_URL",
        ),
        (
            (302, b"", {"Location": "http://elsewhere.invalid/"}),
            "faxbot: the server answered 302, and not as faxbot does: see --url and FAXBOT_URL",
        ),
    ],
)
def test_a_refusal_is_one_line_and_final(
    embedded: Installation,
    document: Path,
    answering: Callable[..., Server],
    answer: Answer,
    line: str,
) -> None:
    server = answering(answer)
    ended = run(embedded, "send", document, *TO, "--url", server.url, "--key", "k")

    assert (ended.code, ended.out, one_line(ended.err)) == (1, "", line)
    assert len(server.asked) == 1


STRANGE = "faxbot: what answers there is not faxbot: see --url and FAXBOT_URL"


@pytest.mark.parametrize(
    "answer",
    [
        *([], None, {}, 1, "text", {"items": [{"id": 1}]}, {"items": None}, {"events": [None]}),
        {"id": ID, "status": "unheard", "explanation": "e"},
        {"id": ID, "status": "failed", "explanation": "e", "error": "text"},
        {"items": [{"id": ID, "status": "sent", "created_at": "today", "to": "+1"}]},
    ],
)
@pytest.mark.parametrize("words", [["send", *TO], ["status", ID], ["list"], ["cancel", ID]])
def test_json_of_something_else_is_not_faxbot(
    embedded: Installation,
    document: Path,
    answering: Callable[..., Server],
    words: list[str],
    answer: object,
) -> None:
    files = [document] if words[0] == "send" else []
    ended = run(embedded, *words, *files, "--url", answering((200, answer)).url)

    assert (ended.code, ended.out, one_line(ended.err)) == (1, "", STRANGE)


@pytest.mark.parametrize("answer", [[], {}, {"events": [{"sequence": "1"}]}])
def test_events_of_something_else_are_not_faxbot(
    embedded: Installation, answering: Callable[..., Server], answer: object
) -> None:
    server = answering(accepted(), (200, answer))
    ended = run(embedded, "status", ID, "--events", "--url", server.url)

    assert (ended.code, one_line(ended.err)) == (1, STRANGE)


@pytest.mark.parametrize("errors", [{"to": "text"}, ["x"], "text", None])
def test_a_refusal_in_another_shape_is_told_by_its_detail(
    embedded: Installation, answering: Callable[..., Server], errors: object
) -> None:
    server = answering((400, {"type": 1, "errors": errors, "detail": "It is refused."}))
    ended = run(embedded, "status", ID, "--url", server.url)

    assert (ended.code, one_line(ended.err)) == (1, "faxbot: It is refused.")


def test_without_a_key_it_says_where_one_was_looked_for(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    server = answering(problem("unauthenticated", 401, detail="An API key is needed."))
    for words in (["send", document, *TO], ["status", ID]):
        ended = run(embedded, *words, "--url", server.url)
        assert one_line(ended.err) == (
            "faxbot: An API key is needed. (--key, FAXBOT_API_KEY; "
            f"{first_key(embedded)} was looked for and is not there)"
        )


def test_nobody_there_says_so_at_once_and_gives_up_in_the_end(
    embedded: Installation, document: Path
) -> None:
    ended = run(embedded, "send", document, *TO, "--url", f"127.0.0.1:{free_port()}")

    assert ended.code == 1
    *retries, last = ended.err.splitlines()
    assert len(retries) == 4
    assert all(line.endswith(" s") and "trying again in" in line for line in retries)
    assert "cannot be reached: is faxbot up there? (--url, FAXBOT_URL)" in last


@pytest.mark.parametrize("words", [["list"], ["status", ID], ["send", "FILE", "--wait"]])
def test_who_only_looks_or_has_little_time_is_told_so_soon(
    embedded: Installation, document: Path, words: list[str]
) -> None:
    if words[0] == "send":
        words = ["send", str(document), *TO, "--wait", "--timeout", "0.5"]
    ended = run(embedded, *words, "--url", f"127.0.0.1:{free_port()}")

    assert ended.code == 1
    assert "cannot be reached" in one_line(ended.err), "no further try is announced"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "://"])
def test_an_address_that_is_none_names_its_setting(
    embedded: Installation, document: Path, url: str
) -> None:
    ended = run(embedded, "send", document, *TO, FAXBOT_URL=url)
    assert ended.code == 1
    assert "FAXBOT_URL" in one_line(ended.err)


def test_the_key_comes_from_option_variable_or_first_key(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    server = answering(accepted())
    first_key(embedded).write_text("first\n")
    variables = {"FAXBOT_URL": server.url}
    run(embedded, "send", document, *TO, FAXBOT_ENV="production", **variables)
    run(embedded, "send", document, *TO, **variables)
    variables["API_KEY"] = "api key"
    run(embedded, "send", document, *TO, **variables)
    variables["FAXBOT_API_KEY"] = "client key"
    run(embedded, "send", document, *TO, **variables)
    run(embedded, "send", document, *TO, "--key", "option", **variables)

    sent = [headers.get("x-api-key") for _, _, headers, _ in server.asked]
    assert sent == [None, "first", "api key", "client key", "option"]


def test_a_proxy_for_the_outside_world_is_not_asked_for_this_machine(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    server = answering(accepted())
    proxy = f"http://127.0.0.1:{free_port()}"
    ended = run(
        embedded, "send", document, *TO, "--url", server.url, HTTP_PROXY=proxy, http_proxy=proxy
    )
    assert ended.code == 0


def event(
    sequence: int, kind: str, status: str, second: float, **more: object
) -> dict[str, object]:
    at = f"2026-11-20T12:00:{second:06.3f}+00:00"
    empty = dict.fromkeys(
        ("attempt", "provider_id", "cause", "pages", "pages_sent", "source", "reason")
    )
    return {
        "sequence": sequence,
        "type": kind,
        "status": status,
        **empty,
        "occurred_at": at,
        "recorded_at": at,
        **more,
    }


STORY = [
    event(1, "FAX_QUEUED", "queued", 0, pages=3),
    event(2, "FAX_SUBMITTING", "submitting", 0.41, attempt=1, provider_id="simulator"),
    event(3, "FAX_SENT", "sent", 0.5, attempt=1, provider_id="simulator"),
    event(4, "FAX_PROGRESS", "sent", 1.5, pages=3, pages_sent=2),
    event(5, "FAX_RETRYING", "retrying", 2, attempt=1, cause="busy"),
    event(6, "FAX_HELD", "held", 2.5, reason="disabled"),
    event(7, "FAX_DELIVERED", "delivered", 3, pages=3, pages_sent=3),
]
TOLD = """\
   +0.00 s  FAX_QUEUED            accepted and recorded, 3 pages
   +0.41 s  FAX_SUBMITTING        attempt 1 via simulator
   +0.50 s  FAX_SENT              simulator has it
   +1.50 s  FAX_PROGRESS          page 2 of 3
   +2.00 s  FAX_RETRYING          The line was busy.
   +2.50 s  FAX_HELD              sending is switched off (by FAX_DISABLED, among the settings)
   +3.00 s  FAX_DELIVERED         3 of 3 pages confirmed
"""


def told(*events: dict[str, object]) -> Answer:
    return 200, {"events": list(events), "attempts": []}


def test_the_timeline_is_told_as_it_happens_until_it_is_delivered(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    server = answering(
        accepted(),
        told(STORY[0]),
        told(*STORY[:3]),
        AWAY,
        told(*STORY[:3]),
        told(*STORY[:6]),
        told(*STORY),
    )
    ended = run(embedded, "send", document, *TO, "--wait", "--url", server.url)

    assert ended.code == 0
    assert ended.out == f"fax {ID} is accepted, 3 pages\n{TOLD}"
    assert {path for _, path, _, _ in server.asked[1:]} == {f"/fax/{ID}/events"}


@pytest.mark.parametrize("final", ["failed", "cancelled", "expired"])
def test_any_other_end_is_exit_code_1(
    embedded: Installation, document: Path, answering: Callable[..., Server], final: str
) -> None:
    last = event(2, f"FAX_{final.upper()}", final, 1, cause="number_dead")
    server = answering(accepted(), told(STORY[0], last))
    ended = run(embedded, "send", document, *TO, "--wait", "--url", server.url)

    assert ended.code == 1
    assert ended.out.endswith("The number is not in service.\n")


def test_waiting_for_json_prints_the_final_fax_alone(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    server = answering(accepted(), told(*STORY), accepted(status="delivered"))
    ended = run(embedded, "send", document, *TO, "--wait", "--json", "--url", server.url)

    assert (ended.code, ended.json["status"]) == (0, "delivered")


def test_waiting_ends_after_its_time(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    server = answering(accepted(), told(STORY[0]))
    ended = run(embedded, "send", document, *TO, "--wait", "--timeout", "0.5", "--url", server.url)

    assert ended.code == 1
    said = one_line(ended.err)
    assert said.startswith("faxbot: still queued after 0.5 s; see how it goes on with: ")
    assert said.endswith(f"faxbot status {ID}")


HOLDING = {
    "id": ID,
    "status": "held",
    "explanation": "On hold: check credentials. Next try in 9 min, at 12:10:00 UTC.",
    "next_at": "2026-11-20T12:05:00Z",
}


def test_waiting_says_what_a_silent_fax_waits_for_and_how_to_leave(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    held = event(2, "FAX_HELD", "held", 1, reason="account_refused")
    # One body for both questions: the timeline, and how the fax stands.
    server = answering(accepted(), (200, {"events": [STORY[0], held], "attempts": [], **HOLDING}))
    ended = run(embedded, "send", document, *TO, "--wait", "--timeout", "4", "--url", server.url)

    assert ended.code == 1
    *_, last = ended.out.splitlines()
    assert last.startswith(f"       ...  {HOLDING['explanation']} Ctrl-C leaves")
    assert f"faxbot cancel {ID}` gives it up" in last
    assert ended.out.count("On hold") == 1
    assert "still held after 4 s" in one_line(ended.err)


def test_time_does_not_go_back_where_two_clocks_differ(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    page = event(2, "FAX_PROGRESS", "sent", 1.70, pages=3, pages_sent=2)
    done = event(3, "FAX_DELIVERED", "delivered", 1.29, pages=3, pages_sent=3)
    server = answering(accepted(), told(STORY[0], page, done))
    ended = run(embedded, "send", document, *TO, "--wait", "--url", server.url)
    assert [line.split()[0] for line in ended.out.splitlines()[-2:]] == ["+1.70", "+1.70"]


def test_what_was_learnt_late_stands_where_it_was_learnt_and_says_when_it_happened(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    wish = event(2, "FAX_CANCEL_REQUESTED", "queued", 26.71)
    at = {"recorded_at": "2026-11-20T12:00:27.500+00:00"}
    done = event(3, "FAX_DELIVERED", "delivered", 0.99, pages=3, pages_sent=3, **at)
    server = answering(accepted(), told(STORY[0], wish, done))
    ended = run(embedded, "send", document, *TO, "--wait", "--url", server.url)

    assert ended.out.splitlines()[-1] == (
        "  +27.50 s  FAX_DELIVERED         3 of 3 pages confirmed (happened at +0.99 s)"
    )


def test_status_says_where_a_fax_stands_and_why(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    fax = {
        "id": ID, "status": "retrying", "explanation": "The line was busy; it is tried again at 12:05.",
        "pages": 3, "pages_sent": None, "attempts": 1, "provider_id": "simulator", "external_id": "sim-1",
        "error": {"code": "busy", "message": "The line was busy.", "retryable": True},
        "next_at": "2026-11-20T12:05:00Z", "created_at": "2026-11-20T12:00:00Z",
    }  # fmt: skip
    server = answering((200, fax), told(*STORY))
    ended = run(embedded, "status", ID, "--events", "--url", server.url)

    assert ended.code == 0
    assert ended.out.startswith(
        "retrying: The line was busy; it is tried again at 12:05.\n  pages:"
    )
    assert "The line was busy. (busy)" in ended.out
    assert ended.out.endswith(TOLD)
    server.answers = [(200, fax), told(*STORY)]
    as_json = run(embedded, "status", ID, "--events", "--json", "--url", server.url).json
    assert (as_json["status"], len(as_json["events"])) == ("retrying", 7)


def fax(number: int, status: str) -> dict[str, object]:
    return {
        "id": f"{number:032x}",
        "status": status,
        "to": "+1555*****00",
        "pages": 3 if number else None,
        "created_at": "2026-11-20T12:00:00+00:00",
    }


def test_a_list_is_one_line_a_fax(embedded: Installation, answering: Callable[..., Server]) -> None:
    page = {"items": [fax(1, "delivered"), fax(0, "held")], "next": None}
    server = answering((200, page))
    ended = run(embedded, "list", "--url", server.url)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        f"{1:032x}  delivered   2026-11-20 12:00:00Z    3  +1555*****00",
        f"{0:032x}  held        2026-11-20 12:00:00Z       +1555*****00",
    ]
    assert run(embedded, "list", "--json", "--url", server.url).json == page


def test_a_list_can_be_narrowed_and_says_when_there_is_more(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    server = answering((200, {"items": [fax(1, "held")], "next": "abc"}))
    ended = run(embedded, "list", "--status", "held", "--limit", "1", "--url", server.url)

    ((method, path, _, _),) = server.asked
    assert (method, path) == ("GET", "/fax?limit=1&status=held")
    assert "there are more" in ended.err
    server.answers = [(200, {"items": [], "next": None})]
    assert "no faxes yet" in run(embedded, "list", "--url", server.url).err


def test_a_cancel_says_what_came_of_it(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    server = answering(
        (200, {"id": ID, "status": "cancelled", "explanation": "Cancelled as asked."})
    )
    ended = run(embedded, "cancel", ID, "--url", server.url)
    assert (ended.code, ended.out, ended.err) == (0, "cancelled: Cancelled as asked.\n", "")
    assert [asked[:2] for asked in server.asked] == [("POST", f"/fax/{ID}/cancel")]

    server.answers = [(202, {"id": ID, "status": "sent", "explanation": "A cancel was asked for."})]
    assert f"faxbot status {ID}" in run(embedded, "cancel", ID, "--url", server.url).err
    server.answers = [
        problem("not-possible-in-this-state", 409, detail="the fax is failed already"),
        (200, {"id": ID, "status": "failed", "explanation": "The line was busy."}),
    ]
    ended = run(embedded, "cancel", ID, "--url", server.url)
    assert (ended.code, one_line(ended.err)) == (1, "faxbot: the fax is failed already")


def test_a_cancel_whose_first_answer_was_lost_has_worked(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    server = answering(
        None,
        problem("not-possible-in-this-state", 409, detail="the fax is cancelled already"),
        (200, {"id": ID, "status": "cancelled", "explanation": "Cancelled as asked."}),
    )
    ended = run(embedded, "cancel", ID, "--url", server.url)

    assert (ended.code, ended.out) == (0, "cancelled: Cancelled as asked.\n")
    assert [asked[:2] for asked in server.asked] == [
        *[("POST", f"/fax/{ID}/cancel")] * 2,
        ("GET", f"/fax/{ID}"),
    ]


def test_a_fax_is_sent_once_more_under_one_key_however_often_it_is_asked_for(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    made = {"id": ID, "status": "queued", "explanation": "x", "pages": 2}
    server = answering(None, (503, {"title": "x", "detail": "later"}), (202, made))
    words = ("--to", "+15550100000", "--send-at", "2026-11-20T18:00:00Z", "--provider", "phaxio")
    ended = run(embedded, "resend", ID, *words, "--url", server.url)
    assert (ended.code, ended.out) == (0, f"fax {ID} is accepted, 2 pages\n")
    assert f"status {ID} --events" in ended.err
    assert [asked[:2] for asked in server.asked] == [("POST", f"/fax/{ID}/resend")] * 3
    assert len(set(server.keys())) == 1
    assert json.loads(server.asked[-1][3]) == {
        "to": "+15550100000",
        "send_at": "2026-11-20T18:00:00Z",
        "provider_id": "phaxio",
    }

    server.answers = [(202, made)]
    ended = run(embedded, "resend", ID, "--idempotency-key", "k", "--url", server.url, "--json")
    assert (ended.code, ended.json["id"]) == (0, ID)
    assert (server.keys()[-1], server.asked[-1][3]) == ("k", b"{}")

    server.answers = [(409, {"title": "x", "detail": "only a fax that is over"})]
    ended = run(embedded, "resend", ID, "--url", server.url)
    assert (ended.code, ended.out) == (1, "")
    assert "only a fax that is over" in one_line(ended.err)


@pytest.mark.parametrize("deed", ["hold", "send-now"])
def test_a_fax_that_waits_is_held_or_sent_before_its_time(
    embedded: Installation, answering: Callable[..., Server], deed: str
) -> None:
    server = answering((200, {"id": ID, "status": "queued", "explanation": "It waits."}))
    ended = run(embedded, deed, ID, "--url", server.url)
    assert (ended.code, ended.out, ended.err) == (0, "queued: It waits.\n", "")
    assert server.asked[0][:2] == ("POST", f"/fax/{ID}/{deed}")

    server.answers = [(503, {"title": "x", "detail": "later"})] * 9
    server.asked.clear()
    assert run(embedded, deed, ID, "--url", server.url).code == 1
    assert len(server.asked) == 1, "a repeat would do it to what came of the first"


def test_a_held_fax_is_released_and_an_uncertain_one_settled(
    embedded: Installation, answering: Callable[..., Server]
) -> None:
    server = answering((200, {"id": ID, "status": "queued", "explanation": "It is tried again."}))
    ended = run(embedded, "release", ID, "--url", server.url)
    assert (ended.code, ended.out, ended.err) == (0, "queued: It is tried again.\n", "")

    server.answers = [(200, {"id": ID, "status": "delivered", "explanation": "Delivered."})]
    words = ("--outcome", "delivered", "--reason", "they called", "--url", server.url)
    ended = run(embedded, "decide", ID, *words, "--json")
    assert (ended.code, ended.json["status"]) == (0, "delivered")
    assert [asked[:2] for asked in server.asked] == [
        ("POST", f"/fax/{ID}/release"),
        ("POST", f"/fax/{ID}/decide"),
    ]
    assert json.loads(server.asked[1][3]) == {"outcome": "delivered", "reason": "they called"}

    server.answers = [(503, {"title": "x", "detail": "later"})] * 9
    for deed in (("release", ID, "--url", server.url), ("decide", ID, *words, "--attempt", "2")):
        server.asked.clear()
        assert run(embedded, *deed).code == 1
        assert len(server.asked) == 1, "a repeat would do it to what came of the first"
    assert json.loads(server.asked[0][3])["attempt"] == "2"

    server.answers = [(409, {"title": "x", "detail": "only an uncertain fax is decided"})]
    ended = run(embedded, "decide", ID, *words)
    assert (ended.code, ended.out) == (1, "")
    assert "only an uncertain fax is decided" in one_line(ended.err)
    assert run(embedded, "decide", ID, "--outcome", "lost", "--reason", "x").code == 2
