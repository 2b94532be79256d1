"""The terminal for administrators at this machine: off by default, for who really is there, `faxbot` commands that only
look, one at a time, for so long, so much of what they say, and each written down."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import click
import psutil
import pytest
import requests
import sqlalchemy as sa
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from faxbot import cli, terminal, wiring
from faxbot.actors import SCOPES, VIEWER, Actor
from faxbot.audit import Action
from faxbot.db import table
from faxbot.errors import InvalidFields
from faxbot.models import AuditEvent
from faxbot.runtime import Runtime
from faxbot.terminal import COMMANDS
from faxbot.web.app import create_app
from tests.canary import Search, words
from tests.ground import eventually, is_alive
from tests.installation import Installation, Service
from tests.integration.test_audit_deeds import words_of
from tests.integration.web import (
    ACCESS,
    assert_problem,
    browser_of,
    client_of,
    new_key,
    new_user,
    send,
)

ID = "0193f2c4a1b27c3d8e4f5a6b7c8d9e0f"
DOOR = "/admin/terminal"
HERE = {"Host": "127.0.0.1:8080"}


@pytest.fixture
def runtime(store: Installation) -> Iterator[Runtime]:
    with closing(wiring.build(store.config(ENABLE_LOCAL_ADMIN="true"))) as runtime:
        yield runtime


@contextmanager
def serving(store: Installation, **changes: str) -> Iterator[Service]:
    """A web server with one process, which can be reached."""
    settings = {"ENABLE_LOCAL_ADMIN": "true", "FAXBOT_WEB_WORKERS": "1", **changes}
    service = Service(store, "web", **settings)
    service.start(wait=False)
    try:
        eventually(lambda: _answers(service), 30, every=0.05)
        yield service
    finally:
        service.stop()


def _answers(service: Service) -> bool:
    with suppress(requests.RequestException):
        return service.request("GET", "/health", timeout=2).ok
    return False


def plain_client(runtime: Runtime, key: str | None) -> FlaskClient:
    client = create_app(runtime).test_client()
    client.environ_base["HTTP_HOST"] = HERE["Host"]
    if key:
        client.environ_base["HTTP_X_API_KEY"] = key
    return client


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return plain_client(runtime, new_key(runtime, "admin"))


def runs(client: FlaskClient, command: str, **headers: str) -> TestResponse:
    return client.post(DOOR, json={"command": command}, headers=headers)


def ended(client: FlaskClient, command: str) -> dict[str, Any]:
    answer = runs(client, command)
    assert answer.status_code == 200, answer.data
    found: dict[str, Any] = json.loads(answer.data)
    return found


def written(runtime: Runtime) -> list[Any]:
    runtime.notes.flush()
    events = table(AuditEvent)
    found = runtime.database.rows(sa.select(events).order_by(events.c.id), {})
    return [row for row in found if row.action == Action.TERMINAL_USED]


# What may be run ------------------------------------------------------------------------------------

_CHANGES = "it changes something"
_SHOWS = "it shows secrets, or what people wrote"
_FILES = "it reads or writes files"
_STAYS = "it runs until it is ended, or asks"
_LONG = "it may take for ever"
REFUSED = {
    **dict.fromkeys(
        (
            "up", "demo", "web", "worker", "beat", "listen", "flower", "setup", "events", "carrier simulator",
            "carrier phaxio", "carrier sinch",
        ),
        _STAYS,
    ),
    **dict.fromkeys(
        (
            "send", "plugins new", "plugins test", "audit export", "config export", "config import",
            "config migrate-env",
        ),
        _FILES,
    ),
    **dict.fromkeys(("retention holds",), _SHOWS),
    **dict.fromkeys(("retention run",), _LONG),
    **dict.fromkeys(
        (
            "cancel", "release", "decide", "resend", "hold", "send-now", "prepare", "keys create", "keys revoke",
            "keys rotate", "db upgrade", "providers activate", "providers deactivate", "providers enable",
            "providers pause", "providers reset", "providers resume", "providers test", "users bind", "users create",
            "users disable", "users enable", "users password", "users role", "users unlock", "webhooks create",
            "webhooks delete", "webhooks replay", "webhooks rotate", "webhooks test", "retention hold",
            "retention lift", "notifications test", "config backup", "config rollback", "config rotate-key",
            "config set", "restored declare", "restored deny",
        ),
        _CHANGES,
    ),
}  # fmt: skip
"""Commands that may not be run there, and why."""


def all_commands() -> dict[str, click.Command]:
    context, found = click.Context(cli.cli), dict[str, click.Command]()
    for name in cli.COMMANDS:
        top = cli.cli.get_command(context, name)
        assert top is not None
        for words_ in words_of(top, name):
            command = top
            for word in words_.split()[1:]:
                assert isinstance(command, click.Group)
                command = command.commands[word]
            found[words_] = command
    return found


def test_every_command_may_be_run_or_says_why_not() -> None:
    offered = [each.words for each in COMMANDS]
    assert sorted([*offered, *REFUSED]) == sorted(all_commands())


@pytest.mark.parametrize("offered", COMMANDS, ids=lambda each: each.words)
def test_what_is_offered_is_what_the_command_takes(offered: terminal.Command) -> None:
    command = all_commands()[offered.words]
    options = {name: each for each in command.params for name in each.opts}
    for name, form in offered.options.items():
        option = options[name]
        assert isinstance(option, click.Option)
        assert option.is_flag == (form is None)
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    needed = [each for each in arguments if each.required]
    assert len(needed) == (offered.argument is not None)
    assert len(offered.help) > 10


def test_it_says_what_may_be_run(admin: FlaskClient) -> None:
    shown = json.loads(admin.get(DOOR).data)
    assert [each["usage"].split(" [")[0] for each in shown["items"]][:3] == [
        "doctor",
        "status FAX_ID",
        "list",
    ]
    assert shown["seconds"] == 30


@pytest.mark.parametrize("offered", COMMANDS, ids=lambda each: each.words)
def test_each_of_them_can_be_run(runtime: Runtime, offered: terminal.Command) -> None:
    """Also where it fails it fails by its own words, not by ours."""
    key = plain_client(runtime, new_key(runtime, "admin", "fax:read", "webhooks:manage"))
    argument = {"FAX_ID": ID, "NAME": "FAX_HEADER", "WEBHOOK_ID": ID}.get(
        (offered.argument or ("",))[0], "simulator" if offered.argument else ""
    )
    found = ended(key, f"faxbot {offered.words} {argument}")

    fails = {"status", "list", "webhooks deliveries", "doctor"}  # no server here, and no webhook
    assert found["exit_code"] in ((0, 1) if offered.words in fails else (0,)), found
    assert "a fault of its own" not in found["output"]
    assert not found["truncated"]


BAD = {
    "nothing": "",
    "blanks": "   ",
    "faxbot alone": "faxbot",
    "faxbot twice": "faxbot faxbot doctor",
    "no such command": "format",
    "a shell": "bash -c id",
    "python": "python -c 1",
    "a path": "/bin/sh",
    "another faxbot": "/tmp/faxbot doctor",
    "half a command": "keys",
    "another half": "list keys",
    "a longer word": "doctors",
    "upper case": "DOCTOR",
    "and": "doctor && id",
    "then": "doctor; id",
    "then, tied": "doctor;id",
    "pipe": "doctor | cat",
    "redirection": "doctor > /tmp/x",
    "input": "doctor < /etc/passwd",
    "background": "doctor &",
    "substitution": "status $(id)",
    "backticks": "status `id`",
    "a variable": "config get $CONFIG_MASTER_KEY",
    "a glob": "config get *",
    "a brace": "config get {A,B}",
    "home": "config get ~root",
    "a comment": "doctor # --json",
    "new line": "doctor\nid",
    "new line at the end": "doctor\n",
    "carriage return": "doctor\rid",
    "nul": "doctor\x00",
    "tab": "doctor\t--json",
    "escape": "doctor \x1b[2J",
    "a dash of another kind": "doctor \u2014json",
    "a minus sign": "doctor \u2212\u2212json",
    "a blank of another kind": "doctor\u00a0--json",
    "a digit of another script": "list --limit \u0663",
    "an option of another command": "doctor --events",
    "an option that names a file": "doctor --config=/etc/passwd",
    "the server": "list --url=http://198.51.100.7",
    "the key": "list --key=secret",
    "abbreviated": "doctor --js",
    "abbreviated by one": "list --limi 5",
    "short": "doctor -j",
    "help": "doctor --help",
    "version": "--version",
    "twice": "doctor --json --json",
    "a value for a flag": "doctor --json=1",
    "an empty value for a flag": "doctor --json=",
    "no value": "list --limit",
    "an option as value": "list --limit --json",
    "an option as value, tied": "list --status=--json",
    "not a number": "list --limit 5e3",
    "a minus number": "list --limit -5",
    "an option before its command": "--json doctor",
    "an argument too many": "doctor now",
    "a file": "plugins validate /etc/passwd",
    "a file by an @": "plugins show @/etc/passwd",
    "standard input": "plugins validate -",
    "behind two dashes": "plugins validate -- /etc/passwd",
    "two dashes": "doctor --",
    "no argument": "status",
    "an empty argument": 'status ""',
    "two arguments": f"status {ID} {ID}",
    "an id that is an option": "status --url=http://198.51.100.7",
    "an id that is an option, in quotes": 'status "--url=http://198.51.100.7"',
    "an id with a dash before it": f"status -{ID}",
    "an id with an end": f"status {ID}x",
    "an id with a new line": f"status '{ID}\n'",
    "upper case digits": f"status {ID.upper()}",
    "a number in place of an id": "status +14158370017",
    "a way up": "plugins show ../../etc",
    "the whole of a fax": f"status {ID} --json",
    "an open quote": "status '",
    "a backslash at the end": "doctor \\",
    "secrets": "config export --reveal",
    "a change": "config set FAX_HEADER x",
    "words in one": "'keys list'",
    "ten thousand letters": "a" * 10_000,
    "ten thousand words": "doctor " * 1_500,
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_nothing_else_is_run(name: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        terminal.recognised(BAD[name])
    (sentence,) = refused.value.errors["command"]
    assert len(sentence) < 200
    words_ = [word for word in BAD[name].split() if len(word) > 8 and word.isalnum()]
    assert not any(word in sentence for word in words_)


@given(st.text(max_size=60) | st.lists(st.sampled_from(
    [*(word for each in COMMANDS for word in each.words.split()), "--json", "--limit", "5", "--", "-", "=", "'", ID,
     "--limit=5", "--url=x", "simulator", "@x", ";", "|", "$(id)", "--status"]), max_size=7).map(" ".join))  # fmt: skip
def test_what_is_run_has_nothing_but_what_the_table_offers(line: str) -> None:
    try:
        call = terminal.recognised(line)
    except InvalidFields:
        return
    own = call.command.words.split()
    assert call.words[: len(own)] == own
    rest = call.words[len(own) :]
    if call.command.argument:
        dashes, argument = rest[-2:]
        assert dashes == "--"
        assert call.command.argument[1].fullmatch(argument)
        rest = rest[:-2]
    for word in rest:
        name, _, value = word.partition("=")
        form = call.command.options[name]
        assert (form.fullmatch(value) is not None) if form else word == name


def test_a_command_is_taken_as_people_write_it() -> None:
    lines = {
        "doctor": ["doctor"],
        "  faxbot   doctor  --json ": ["doctor", "--json"],
        "list --json --limit 5 --status failed": ["list", "--json", "--limit=5", "--status=failed"],
        f"status --events {ID}": ["status", "--events", "--", ID],
        'config get "FAX_HEADER"': ["config", "get", "--", "FAX_HEADER"],
        "audit verify --since=2026-11-20": ["audit", "verify", "--since=2026-11-20"],
    }
    for line, expected in lines.items():
        assert terminal.recognised(line).words == expected


def test_what_is_refused_is_refused_over_http_and_written_down_without_its_words(
    admin: FlaskClient, runtime: Runtime
) -> None:
    refused = assert_problem(runs(admin, "status +14158370017"), 422, "invalid-fields")
    (row,) = written(runtime)

    assert Search(words(["0017"])).hits(json.dumps(refused).encode()) == []
    assert (row.outcome, row.details) == ("refused", {"why": "invalid-fields"})
    for body in ({}, {"command": None}, {"command": ["doctor"]}, {"command": "doctor", "cwd": "/"}):
        assert_problem(admin.post(DOOR, json=body), 422, "invalid-fields")


# Who may ----------------------------------------------------------------------------------------------


def test_off_by_default_its_address_is_like_any_unknown_one(store: Installation) -> None:
    with closing(wiring.build(store.config())) as runtime:
        for key in (None, new_key(runtime, "*")):
            client = plain_client(runtime, key)
            for method in ("GET", "POST", "DELETE"):
                here = client.open(DOOR, method=method, json={"command": "doctor"})
                nowhere = client.open("/admin/nothing", method=method, json={})
                bodies = [json.loads(each.data) for each in (here, nowhere)]
                for body in bodies:
                    del body["request_id"]
                assert here.status_code == nowhere.status_code == 404
                assert bodies[0] == bodies[1]
        assert DOOR not in client.get("/openapi.json").get_data(as_text=True)


ELSEWHERE: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "another machine": ({"REMOTE_ADDR": "192.0.2.7"}, {}),
    "another machine, by IPv6": ({"REMOTE_ADDR": "2001:db8::7"}, {}),
    "this network": ({"REMOTE_ADDR": "192.168.1.7"}, {}),
    "this machine by its own address": ({"REMOTE_ADDR": "10.0.0.5"}, {}),
    "no address": ({"REMOTE_ADDR": ""}, {}),
    "a socket": ({"REMOTE_ADDR": "unix:"}, {}),
    "through a proxy": ({}, {"X-Forwarded-For": "192.0.2.7"}),
    "through a proxy that says it is we": ({}, {"X-Forwarded-For": "127.0.0.1"}),
    "through a proxy that says nothing": ({}, {"X-Forwarded-For": ""}),
    "through a newer proxy": ({}, {"Forwarded": "for=127.0.0.1"}),
    "through nginx": ({}, {"X-Real-IP": "127.0.0.1"}),
    "through one that names the host": ({}, {"X-Forwarded-Host": "127.0.0.1"}),
    "through one that names the scheme": ({}, {"X-Forwarded-Proto": "http"}),
    "through a cache": ({}, {"Via": "1.1 cache"}),
    "through a tunnel": ({}, {"CF-Connecting-IP": "127.0.0.1"}),
    "by another name": ({}, {"Host": "fax.example.org"}),
    "by a name that leads here": ({}, {"Host": "127.0.0.1.example.org"}),
    "by a name that looks like ours": ({}, {"Host": "localhost.example.org:8080"}),
    "by a name that ends like ours": ({}, {"Host": "example.localhost"}),
    "by every address": ({}, {"Host": "0.0.0.0:8080"}),
    "by two names": ({}, {"Host": "127.0.0.1, example.org"}),
    "by a name with a zone": ({}, {"Host": "127.0.0.1%25.example.org"}),
    "by user and name": ({}, {"Host": "127.0.0.1@example.org"}),
    "by no name": ({"HTTP_HOST": ""}, {}),
    "from a page elsewhere": ({}, {"Origin": "https://fax.example.org"}),
    "from a page of nowhere": ({}, {"Origin": "null"}),
}


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_who_may_be_elsewhere_is_refused(admin: FlaskClient, runtime: Runtime, name: str) -> None:
    environ, headers = ELSEWHERE[name]
    for method in ("GET", "POST"):
        refused = admin.open(
            DOOR, method=method, json={"command": "doctor"} if method == "POST" else None,
            environ_overrides=environ, headers=headers,
        )  # fmt: skip
        body = assert_problem(refused, 403, "forbidden")
        assert "sits at this machine" in body["detail"]
    assert written(runtime) == []


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost:8080"),
        ("127.0.0.1", "LOCALHOST"),
        ("::1", "[::1]:8080"),
        ("::ffff:127.0.0.1", "127.0.0.1:8080"),
        ("127.8.9.10", "127.8.9.10"),
    ],
)
def test_who_is_here_is_let_in(admin: FlaskClient, address: str, host: str) -> None:
    answer = admin.get(DOOR, environ_overrides={"REMOTE_ADDR": address}, headers={"Host": host})
    assert answer.status_code == 200, answer.data


@pytest.mark.parametrize(
    "settings",
    [
        {"PUBLIC_API_URL": "https://fax.example.org"},
        {"FAXBOT_TRUSTED_PROXIES": "127.0.0.1"},
        {"FAXBOT_TRUSTED_PROXIES": "10.0.0.5"},
    ],
)
def test_where_a_proxy_stands_in_front_nobody_is_let_in(
    store: Installation, settings: dict[str, str]
) -> None:
    with closing(wiring.build(store.config(ENABLE_LOCAL_ADMIN="true", **settings))) as runtime:
        client = plain_client(runtime, new_key(runtime, "*"))
        assert_problem(client.get(DOOR), 403, "forbidden")


def test_without_the_scope_and_without_a_proof_nobody_is_let_in(runtime: Runtime) -> None:
    nobody = plain_client(runtime, None)
    operator = plain_client(runtime, new_key(runtime, "operate", "fax:read"))
    stranger = plain_client(runtime, new_key(runtime, "*", account_id="another"))
    for method in ("GET", "POST"):
        assert_problem(nobody.open(DOOR, method=method), 401, "unauthenticated")
        assert_problem(operator.open(DOOR, method=method), 403, "forbidden")
    assert_problem(runs(stranger, "doctor"), 403, "forbidden")
    assert written(runtime) == []


SAME = {
    "doctor": "GET /admin/diagnostics",
    "status": "GET /fax/<fax_id>",
    "list": "GET /fax",
    "db check": None,
    "keys list": "GET /admin/api-keys",
    "users list": "GET /admin/users",
    "config list": "GET /admin/config",
    "config get": "GET /admin/config",
    "config backups": "GET /admin/config/backups",
    "providers list": "GET /admin/providers",
    "providers show": "GET /admin/providers/<provider_id>",
    "plugins list": "GET /plugins",
    "plugins show": "GET /plugins/<plugin_id>/config",
    "plugins validate": "GET /plugins/health",
    "webhooks list": "GET /webhooks",
    "webhooks deliveries": "GET /webhooks/<webhook_id>/deliveries",
    "notifications list": "GET /admin/notifications",
    "retention list": "GET /admin/retention",
    "restored status": None,
    "audit verify": "GET /admin/audit/verify",
}
"""By which route the same is to be had; None: by none."""


@pytest.mark.parametrize("offered", COMMANDS, ids=lambda each: each.words)
def test_a_command_gives_what_the_same_key_gets_from_the_api(offered: terminal.Command) -> None:
    route = SAME[offered.words]
    asked = ACCESS[route] if route else "admin"
    for scope in SCOPES:
        actor = Actor("default", "a key", frozenset({"admin", scope}))
        assert actor.may(offered.scope) == actor.may(asked), scope


def test_who_lacks_the_scope_of_a_command_is_told_which(admin: FlaskClient) -> None:
    for command in (f"status {ID}", "list", "webhooks list", f"webhooks deliveries {ID}"):
        scope = "fax:read" if "webhooks" not in command else "webhooks:manage"
        assert scope in assert_problem(runs(admin, command), 403, "forbidden")["detail"]


def test_a_browser_needs_its_token_and_a_role(runtime: Runtime) -> None:
    boss, viewer = new_user(runtime), new_user(runtime, VIEWER)
    signed_in, made_to = browser_of(runtime, boss), browser_of(runtime, boss, csrf=False)
    for client in (signed_in, made_to):
        client.environ_base["HTTP_HOST"] = HERE["Host"]
    signed_in.set_cookie("faxbot_session", _cookie(signed_in), domain="127.0.0.1")
    made_to.set_cookie("faxbot_session", _cookie(made_to), domain="127.0.0.1")

    assert ended(signed_in, "db check")["exit_code"] == 0
    assert_problem(runs(made_to, "db check"), 403, "csrf-token")
    other = runs(signed_in, "db check", **{"Sec-Fetch-Site": "cross-site"})
    assert_problem(other, 403, "forbidden")
    assert_problem(browser_of(runtime, viewer).get(DOOR), 403, "forbidden")
    (row,) = written(runtime)
    assert (row.actor_kind, row.actor) == ("user", boss.id)


def _cookie(client: FlaskClient) -> str:
    found = client.get_cookie("faxbot_session")
    assert found is not None
    return found.value


# How it is run ------------------------------------------------------------------------------------------


def test_what_was_run_is_written_down_with_who_and_how_it_ended(
    admin: FlaskClient, runtime: Runtime
) -> None:
    answer = runs(admin, "config get FAX_HEADER --json")
    ended(admin, "config get Zyzzyva")
    reader = plain_client(runtime, new_key(runtime, "admin", "fax:read"))
    ended(reader, f"status {ID}")
    rows = written(runtime)

    assert [(row.details, row.outcome) for row in rows] == [
        ({"command": "config get", "options": ["--json"], "exit_code": 0}, "done"),
        ({"command": "config get", "options": [], "exit_code": 1}, "failed"),
        ({"command": "status", "options": [], "exit_code": 1}, "failed"),
    ]
    assert [(row.object_kind, row.object_id) for row in rows] == [
        (None, None),
        (None, None),
        ("fax", ID),
    ]
    assert (rows[0].request_id, rows[0].address) == (answer.headers["X-Request-Id"], "127.0.0.1")
    assert rows[0].actor_kind == "key"
    assert "Zyzzyva" not in str(rows)


def test_its_exit_code_and_both_of_its_streams_are_told(admin: FlaskClient) -> None:
    good, bad = ended(admin, "db check"), ended(admin, "config get NO_SUCH")
    assert (good["exit_code"], "as this version needs it" in good["output"]) == (0, True)
    assert (bad["exit_code"], bad["output"].startswith("faxbot: ")) == (1, True)


def test_it_runs_with_the_settings_of_the_service_and_no_input(store: Installation) -> None:
    with closing(
        wiring.build(store.config(ENABLE_LOCAL_ADMIN="true", FAX_HEADER="St. Elsewhere"))
    ) as runtime:
        found = ended(
            plain_client(runtime, new_key(runtime, "admin")), "config get FAX_HEADER --json"
        )
    assert json.loads(found["output"])["value"] == "St. Elsewhere"
    assert json.loads(found["output"])["source"] == "env"


def test_what_takes_too_long_is_ended_and_says_so(
    admin: FlaskClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "SECONDS", 0.05)
    found = ended(admin, "doctor")
    (row,) = written(runtime)

    assert found == {"exit_code": None, "output": "", "truncated": False}
    assert (row.outcome, row.details["exit_code"]) == ("failed", None)
    assert children() == []


def test_of_what_says_too_much_the_beginning_is_shown(
    admin: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ended(admin, "config list")
    assert len(whole["output"]) > 2_000
    monkeypatch.setattr(terminal, "MOST_OUTPUT", 1_000)
    found = ended(admin, "config list")

    assert found == {"exit_code": 0, "output": whole["output"][:1_000], "truncated": True}


def children() -> list[psutil.Process]:
    """Commands that the terminal runs."""
    ours = psutil.Process().children(recursive=True)
    return [each for each in ours if _is_command(each)]


def _is_command(process: psutil.Process) -> bool:
    try:
        # Carriers of other tests are children, too.
        return "from faxbot.cli import main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def test_one_runs_at_a_time(admin: FlaskClient, runtime: Runtime) -> None:
    answers: list[dict[str, Any]] = []
    other = plain_client(runtime, new_key(runtime, "admin"))
    thread = threading.Thread(target=lambda: answers.append(ended(other, "db check")))
    thread.start()
    (child,) = eventually(children, 10, every=0.01)
    child.suspend()
    assert child.pid == os.getpgid(child.pid), "in a group of its own"
    refused = assert_problem(runs(admin, "db check"), 409, "not-possible-in-this-state")
    child.resume()
    thread.join(30)

    assert "Another command" in refused["detail"]
    assert [each["exit_code"] for each in answers] == [0]
    assert ended(admin, "db check")["exit_code"] == 0


def test_it_does_not_outlive_the_process_that_runs_it(store: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as carrier:  # which takes calls and says nothing
        carrier.settimeout(30)
        url = f"http://127.0.0.1:{carrier.getsockname()[1]}"
        with serving(store, SIMULATOR_BASE_URL=url, SIMULATOR_SECRET="s") as service:
            thread = threading.Thread(target=_ask_and_be_cut_off, args=(service,))
            thread.start()
            call, _ = carrier.accept()
            (child,) = [each for each in service.tree() if _is_command(each)]
            worker = child.parent()
            assert worker is not None
            worker.kill()
            eventually(lambda: not is_alive(child), 5, every=0.05)
            thread.join(30)
            call.close()


def _ask_and_be_cut_off(service: Service) -> None:
    with pytest.raises(requests.RequestException):
        service.request("POST", DOOR, json={"command": "doctor"})


# What it shows ------------------------------------------------------------------------------------------


def test_no_command_shows_a_number_or_a_secret(store: Installation) -> None:
    with serving(store) as service:
        _shows_none(store, service)


def _shows_none(store: Installation, service: Service) -> None:
    with closing(wiring.build(store.config())) as runtime:
        client = client_of(runtime, new_key(runtime, "fax:send"))
        sent = json.loads(send(client, to="+14158370017").data)
    shown = bytearray()
    for each in COMMANDS:
        argument = {"FAX_ID": sent["id"], "NAME": "API_KEY", "WEBHOOK_ID": ID}.get(
            (each.argument or ("",))[0], "simulator" if each.argument else ""
        )
        answer = service.request(
            "POST", DOOR, json={"command": f"{each.words} {argument}"}, timeout=40
        )
        assert answer.status_code == 200, answer.text
        shown += answer.content
    assert sent["id"].encode() in shown
    assert Search(words(["0017"])).hits(bytes(shown)) == []
    for secret in (service.key, store.config().master_key or "\x00"):
        assert secret.encode() not in shown
    log = service.log.read_text()
    assert "8370017" not in log


def test_what_cannot_be_written_down_is_not_shown(
    admin: FlaskClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    really = terminal._run

    def then_nothing_is_written(*arguments: Any) -> terminal.Ended:
        found = really(*arguments)
        seen.append(found.output)
        with runtime.database.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE audit_events RENAME TO audit_gone"))
        return found

    monkeypatch.setattr(terminal, "_run", then_nothing_is_written)
    answer = runs(admin, "db check")
    with runtime.database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE audit_gone RENAME TO audit_events"))

    assert answer.status_code in (500, 503)  # SQLite calls a table that is gone operational
    assert len(seen) == 1
    assert seen[0] not in answer.get_data(as_text=True)
