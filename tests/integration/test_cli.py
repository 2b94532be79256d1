"""The `faxbot` command as people and programs meet it: help, exit codes, keys, plugins, and its two client commands."""

from __future__ import annotations

import io
import json
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest

from faxbot import cli, db, schema
from tests.ground import ENVIRONMENT
from tests.installation import FAXBOT, Installation
from tests.servers import free_port

ID = "0" * 31 + "1"
PDF = b"%PDF-1.7 stands for a document; the server decides what it is"


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(installation: Installation, changes: dict[str, str]) -> dict[str, str]:
    return {**installation.env, **changes}


def run(installation: Installation, *words: str | Path, **changes: str) -> Ended:
    """`faxbot words...` in the installation, with `changes` to its environment; in this process, which saves half a
    second of imports each time."""
    env = environment(installation, changes)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name in set(ENVIRONMENT) - set(env):
            patch.delenv(name)
        for name, value in env.items():
            patch.setenv(name, value)
        patch.chdir(installation.folder)
        code = cli.run([str(word) for word in words])
    return Ended(code, out.getvalue(), err.getvalue())


def run_process(installation: Installation, *words: str, **changes: str) -> Ended:
    """The same as a process of its own."""
    done = subprocess.run(
        [FAXBOT, *words],
        env=environment(installation, changes),
        cwd=installation.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def one_line(error: str) -> str:
    """The line an error consists of; fails on a traceback and on a second line."""
    assert "Traceback" not in error, error
    (line,) = error.splitlines()
    return line


# Help and misuse ----------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and every subcommand, by its words."""
    context = click.Context(cli.cli)
    for name in cli.COMMANDS:
        command = cli.cli.get_command(context, name)
        assert command is not None
        yield (name,)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.commands)


@pytest.mark.parametrize("words", [(), *commands()], ids=" ".join)
def test_every_command_explains_itself(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*words, "--help"]) == 0

    usage, sentence, *_ = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert usage.startswith(f"Usage: faxbot {' '.join(words)}".rstrip())
    assert sentence.startswith("  ")
    assert len(sentence.split()) > 3


def test_the_list_of_commands_says_what_the_commands_say() -> None:
    context = click.Context(cli.cli)
    for name, (_, line) in cli.COMMANDS.items():
        command = cli.cli.get_command(context, name)
        assert command is not None
        assert (command.short_help or "") == line or command.hidden


def loaded(*words: str) -> set[str]:
    """The modules that `faxbot words...` has in memory when it has printed its help."""
    program = f"import sys; from faxbot.cli import run; run({list(words)!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.split())


FOREIGN = {"alembic", "celery", "flask", "gunicorn", "pikepdf", "psycopg", "redis", "sqlalchemy"}


@pytest.mark.parametrize(
    ("words", "never"),
    [
        ((), FOREIGN | {"requests", "faxbot.supervisor"}),
        (("up",), FOREIGN | {"requests", "faxbot.tasks", "faxbot.web"}),
        (("demo",), FOREIGN | {"requests"}),
        (("send",), FOREIGN),
        (("db",), {"celery", "flask", "gunicorn", "faxbot.wiring"}),
        (("worker",), {"flask", "gunicorn", "faxbot.web"}),
        (("carrier",), FOREIGN),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_loads_nothing_that_only_others_need(
    words: tuple[str, ...], never: set[str]
) -> None:
    assert loaded(*words, "--help") & never == set()


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert re.fullmatch(r"faxbot \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["send", "--to", "+15550100000"],
        ["send", "no-such-file.pdf", "--to", "+15550100000"],
        ["send", __file__],
        ["send", __file__, "--to", "+15550100000", "--tag", "nameless"],
        ["send", __file__, "--to", "+15550100000", "--resolution", "superfine"],
        ["send", __file__, "--to", "+15550100000", "--priority", "256"],
        ["keys", "create", "--name", "n", "--scope", "fax:everything"],
        ["keys", "create", "--name", "n"],
        ["web", "--fd", "one"],
        ["carrier", "simulator", "--port", "70000"],
        ["up", "--no-such-option"],
    ],
)
def test_misuse_ends_with_2_and_a_hint(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == 2
    assert "Error: " in capsys.readouterr().err


def test_a_number_given_for_an_id_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["status", "+15550100000"]) == 2
    assert "5550100000" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["up"], ["web"], ["worker"], ["beat"], ["db", "check"], ["status", ID]]
)
def test_a_wrong_setting_is_one_line_that_names_it(
    embedded: Installation, words: list[str]
) -> None:
    ended = run_process(embedded, *words, FAXBOT_PORT="eighty")

    assert ended.code == 1
    assert one_line(ended.err) == "faxbot: FAXBOT_PORT is not a whole number"


def test_a_data_folder_that_cannot_be_is_one_line(embedded: Installation) -> None:
    (embedded.folder / "in-the-way").touch()
    for words in (["up"], ["db", "upgrade"], ["keys", "list"]):
        ended = run_process(embedded, *words, FAX_DATA_DIR="in-the-way")
        assert ended.code == 1
        assert "in-the-way" in ended.err.splitlines()[-1]
        assert "Traceback" not in ended.err


# Keys ---------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_listed_and_revoked(store: Installation) -> None:
    words = (
        "--name",
        "billing",
        "--scope",
        "fax:send",
        "--scope",
        "fax:read",
        "--expires-at",
        "2099-12-31",
    )
    made = run(store, "keys", "create", *words, "--json").json

    assert re.fullmatch(r"fbk_live_[0-9a-f]{12}_\S{43}", made["key"])
    assert made["scopes"] == ["fax:read", "fax:send"]
    assert made["expires_at"] == "2099-12-31T00:00:00+00:00"
    listed = run(store, "keys", "list", "--json")
    assert made["key"].rpartition("_")[2] not in listed.out
    assert [(key["id"], key["state"]) for key in listed.json] == [(made["id"], "active")]

    assert run(store, "keys", "revoke", made["id"]).code == 0
    assert [key["state"] for key in run(store, "keys", "list", "--json").json] == ["revoked"]
    assert "revoked" in run(store, "keys", "list").out


def test_a_new_key_alone_is_what_goes_to_standard_output(embedded: Installation) -> None:
    ended = run(embedded, "keys", "create", "--name", "for a shell script", "--scope", "*")

    assert re.fullmatch(r"fbk_live_[0-9a-f]{12}_\S{43}\n", ended.out)
    assert "faxbot keys revoke" in ended.err


def test_an_unknown_key_id_and_a_bad_name_are_one_line(embedded: Installation) -> None:
    ended = run(embedded, "keys", "revoke", "0123456789ab")
    assert (ended.code, one_line(ended.err)) == (
        1,
        "faxbot: there is no key of that id: faxbot keys list shows all",
    )
    ended = run(embedded, "keys", "create", "--name", "", "--scope", "*")
    assert ended.code == 1
    assert "name: " in one_line(ended.err)


def test_a_database_without_schema_names_the_mend(embedded: Installation) -> None:
    ended = run(embedded, "keys", "list", FAX_DATA_DIR=str(embedded.folder / "new"))
    assert ended.code == 1
    assert "faxbot db upgrade" in one_line(ended.err)
    ended = run(embedded, "db", "check", FAX_DATA_DIR=str(embedded.folder / "new"))
    assert ended.code == 1
    assert "faxbot db upgrade" in one_line(ended.err)


def test_a_database_that_is_away_is_one_line(embedded: Installation) -> None:
    ended = run(
        embedded,
        "db",
        "upgrade",
        DATABASE_URL=f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none",
    )
    assert ended.code == 1
    assert "secret" not in one_line(ended.err)
    assert "database" in ended.err


def test_the_schema_can_be_checked_and_upgraded(store: Installation) -> None:
    assert run(store, "db", "check").code == 0
    assert run(store, "db", "upgrade").code == 0
    config = store.config()
    schema.migrate(config, "base")
    assert run(store, "db", "check").code == 1
    assert run(store, "db", "upgrade").code == 0
    assert db.current(config) == db.head()


# The first key ------------------------------------------------------------------------------------


def first_key(installation: Installation) -> Path:
    return installation.data_dir / "first-api-key"


def test_the_first_start_makes_one_key_for_its_owner_alone(embedded: Installation) -> None:
    assert run(embedded, "prepare").code == 0
    path = first_key(embedded)
    token = path.read_text()
    assert run(embedded, "prepare").code == 0

    assert path.read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (key,) = run(embedded, "keys", "list", "--json").json
    assert key["scopes"] == ["*"]
    assert token.startswith(f"fbk_live_{key['id']}_")


def test_a_revoked_first_key_takes_its_file_along_and_does_not_come_back(
    embedded: Installation,
) -> None:
    run(embedded, "prepare")
    (key,) = run(embedded, "keys", "list", "--json").json

    assert "first-api-key is gone" in run(embedded, "keys", "revoke", key["id"]).out
    assert not first_key(embedded).exists()
    run(embedded, "prepare")
    assert not first_key(embedded).exists()


def test_the_file_of_a_key_revoked_elsewhere_is_removed_at_the_next_start(
    embedded: Installation,
) -> None:
    run(embedded, "prepare")
    (key,) = run(embedded, "keys", "list", "--json").json
    token = first_key(embedded).read_text()
    run(embedded, "keys", "revoke", key["id"])
    first_key(embedded).write_text(token)

    run(embedded, "prepare")

    assert not first_key(embedded).exists()


def test_a_file_left_by_a_start_that_was_cut_off_is_replaced(embedded: Installation) -> None:
    # Written, and then killed before the commit: there is no such key.
    first_key(embedded).write_text("fbk_live_0123456789ab_" + "x" * 43)

    run(embedded, "prepare")

    (key,) = run(embedded, "keys", "list", "--json").json
    assert key["id"] in first_key(embedded).read_text()


def test_no_first_key_where_there_are_others_and_none_in_production(embedded: Installation) -> None:
    run(embedded, "keys", "create", "--name", "mine", "--scope", "*")
    run(embedded, "prepare")
    assert not first_key(embedded).exists()

    new = {"FAX_DATA_DIR": str(embedded.folder / "production"), "FAXBOT_ENV": "production"}
    assert run(embedded, "prepare", CONFIG_MASTER_KEY="A" * 43 + "=", **new).code == 0
    assert not (embedded.folder / "production" / "first-api-key").exists()


# Plugins ------------------------------------------------------------------------------------------


def test_plugins_are_listed_shown_and_validated(embedded: Installation) -> None:
    listed = run(embedded, "plugins", "list", "--json").json
    active = {plugin["id"] for plugin in listed["plugins"] if plugin["active"]}
    assert active == {"simulator", "local"}
    assert listed["broken"] == []
    assert "simulator" in run(embedded, "plugins", "list").out
    assert run(embedded, "plugins", "validate").code == 0

    secret = "0123456789abcdef" * 2
    here = {"SIMULATOR_BASE_URL": "http://127.0.0.1:8091", "SIMULATOR_SECRET": secret}
    shown = run(embedded, "plugins", "show", "simulator", **here)
    assert shown.code == 0
    assert "SIMULATOR_SECRET" in shown.out
    as_json = run(embedded, "plugins", "show", "simulator", "--json", **here)
    assert as_json.json["fault"] is None
    assert secret not in shown.out + as_json.out


def test_an_unsound_manifest_fails_validation_with_its_fault(embedded: Installation) -> None:
    path = embedded.folder / "manifest.json"
    path.write_text('{"id": "mine"}')
    ended = run(embedded, "plugins", "validate", path)

    assert ended.code == 1
    assert "manifest" in one_line(ended.err)


def test_an_unknown_plugin_is_one_line(embedded: Installation) -> None:
    ended = run(embedded, "plugins", "show", "carrier-pigeon")
    assert ended.code == 1
    assert "carrier-pigeon" in one_line(ended.err)


# The client commands, against a server of the test's own ------------------------------------------

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
    timer = threading.Timer(0.5, lambda: later.append(start_server([accepted()], port)[1]))
    timer.start()
    ended = run(embedded, "send", document, *TO, FAXBOT_PORT=str(port))
    timer.join()
    later[0].shutdown()
    later[0].server_close()

    assert ended.code == 0
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
            "faxbot: Some fields are not valid.; to: Not a number.",
        ),
        (
            problem("unauthenticated", 401, detail="An API key is needed."),
            "faxbot: An API key is needed. (--key, FAXBOT_API_KEY)",
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
    ended = run(embedded, "send", document, *TO, "--url", server.url)

    assert (ended.code, ended.out, one_line(ended.err)) == (1, "", line)
    assert len(server.asked) == 1


def test_nobody_there_says_so_at_once_and_gives_up_in_the_end(
    embedded: Installation, document: Path
) -> None:
    ended = run(embedded, "send", document, *TO, "--url", f"127.0.0.1:{free_port()}")

    assert ended.code == 1
    *retries, last = ended.err.splitlines()
    assert len(retries) == 4
    assert all(line.endswith(" s") and "trying again in" in line for line in retries)
    assert "cannot be reached: is faxbot up there? (--url, FAXBOT_URL)" in last


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
   +2.50 s  FAX_HELD              sending is switched off (FAX_DISABLED)
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
    server = answering(accepted(), told(*STORY), (200, {"id": ID, "status": "delivered"}))
    ended = run(embedded, "send", document, *TO, "--wait", "--json", "--url", server.url)

    assert (ended.code, ended.json["status"]) == (0, "delivered")


def test_waiting_ends_after_its_time(
    embedded: Installation, document: Path, answering: Callable[..., Server]
) -> None:
    server = answering(accepted(), told(STORY[0]))
    ended = run(embedded, "send", document, *TO, "--wait", "--timeout", "0.5", "--url", server.url)

    assert ended.code == 1
    assert (
        one_line(ended.err) == f"faxbot: still queued after 0.5 s; it goes on: faxbot status {ID}"
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


# The log of a role --------------------------------------------------------------------------------

LOGGING = """
import logging
from faxbot.cli import logs
from faxbot.errors import ConfigError
logs.configure("web", "info", {style!r})
log = logging.getLogger("faxbot.test")
log.debug("not shown")
log.info("told", extra={{"fax_id": "17"}})
for error in (ValueError("+15550100000 is no number"), ConfigError("FAX_HEADER is too long")):
    try:
        raise error
    except Exception:
        log.exception("failed")
"""


def log_lines(style: str) -> list[str]:
    program = LOGGING.format(style=style)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stderr.splitlines()


def test_a_log_line_is_json_and_repeats_nothing_that_a_library_said() -> None:
    told, foreign, ours = map(json.loads, log_lines("json"))

    assert told["message"] == "told"
    assert (told["role"], told["level"], told["fax_id"]) == ("web", "info", "17")
    assert foreign["exception"] == "ValueError"
    assert foreign["trace"]
    assert "5550100000" not in json.dumps(foreign)
    assert ours["exception"] == "FAX_HEADER is too long"


def test_text_lines_say_the_same_for_people() -> None:
    told, failed, *_ = log_lines("text")

    assert told == "INFO told fax_id=17"
    assert failed == "ERROR failed exception=ValueError"
