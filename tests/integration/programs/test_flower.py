"""Flower as `faxbot up --flower` runs it, asked for real: behind a password, bound to this machine, read-only, and
without arguments."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from flower.urls import handlers

from tests.ground import eventually
from tests.installation import Installation, Service, Stores
from tests.integration.command import one_line, run, run_process
from tests.integration.web import NUMBER
from tests.servers import free_port

OPEN = {r"/healthcheck", r"/static/(.*)", r"/login/?", r"/logout", r".*"}
"""What everybody may ask: whether it lives, its style sheets, and what is nowhere."""


class Window:
    """A faxbot with Flower."""

    def __init__(self, store: Installation) -> None:
        self.port = free_port()
        self.service = Service(store, "up", "--flower", FAXBOT_FLOWER_PORT=str(self.port))
        self.folder = store.data_dir
        self.auth = ("", "")

    def start(self) -> None:
        self.service.start()
        name, _, password = self.kept().read_text().strip().partition(":")
        self.auth = (name, password)
        eventually(lambda: self.ask("GET", "/api/workers?refresh=1").json(), 40, every=0.3)

    def kept(self) -> Path:
        return self.folder / "flower-password"

    def ask(
        self, method: str, path: str, auth: tuple[str, str] | None = None, **options: str
    ) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            url = f"http://127.0.0.1:{self.port}{path}"
            return session.request(method, url, auth=auth or self.auth, timeout=20, **options)  # type: ignore[arg-type]

    def process(self) -> psutil.Process:
        (found,) = [each for each in self.service.tree() if each.cmdline()[4:5] == ["flower"]]
        return found


@pytest.fixture(scope="module")
def window(stores: Stores) -> Iterator[Window]:
    window = Window(stores.embedded())
    window.start()
    yield window
    window.service.stop()


def path_of(pattern: str) -> str:
    if pattern == ".*":
        return "/nowhere"
    return re.sub(r"\(.*?\)", "worker@here", pattern).removesuffix("?")


def patterns() -> set[str]:
    return {
        getattr(each, "regex", re.compile(each[0] if isinstance(each, tuple) else "")).pattern
        for each in handlers
    }


ROUTES = sorted(each.removesuffix("$") for each in patterns())


@pytest.mark.parametrize("pattern", [each for each in ROUTES if each not in OPEN])
@pytest.mark.parametrize("auth", [("", ""), ("operator", "wrong"), ("operator", "")])
def test_without_the_password_nobody_is_let_in(
    window: Window, pattern: str, auth: tuple[str, str]
) -> None:
    path = path_of(pattern)
    for method in ("GET", "POST"):
        answer = window.ask(method, path, auth=auth)
        assert answer.status_code in (401, 405), (method, path)
        assert window.ask("GET", path, auth=auth).status_code != 200
    assert "faxbot" not in window.ask("GET", path, auth=auth).text


@pytest.mark.parametrize("pattern", ROUTES)
def test_who_has_the_password_changes_nothing(window: Window, pattern: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = window.ask(method, path_of(pattern))
        reads = (method, pattern) == ("POST", "/tasks/datatable")  # the table of tasks asks so
        assert answer.status_code in ((200, 400) if reads else (403, 404, 405)), (method, pattern)


def test_the_worker_goes_on_whatever_flower_is_asked(window: Window) -> None:
    (worker,) = window.ask("GET", "/api/workers").json()
    for deed in ("shutdown", "pool/restart", "pool/grow", "queue/cancel-consumer"):
        answer = window.ask("POST", f"/api/worker/{deed}/{worker}")
        assert (answer.status_code, "Read only" in answer.text) == (403, True), deed
    assert list(window.ask("GET", "/api/workers?refresh=1").json()) == [worker]


def test_it_listens_at_this_machine_alone(window: Window) -> None:
    bound = {
        each.laddr.ip
        for each in window.process().net_connections()
        if each.status == psutil.CONN_LISTEN
    }
    assert bound == {"127.0.0.1"}


def test_no_page_and_no_answer_has_an_argument(window: Window) -> None:
    text = ("letter.txt", b"To whom it may concern", "text/plain")
    sent = window.service.request(
        "POST", "/fax/send", data={"to": NUMBER}, files={"file": text}
    ).json()

    def pages() -> str:
        found = window.ask("GET", "/api/tasks").json()
        uuids = [uuid for uuid, task in found.items() if task["name"] == "faxbot.send_fax"]
        (worker,) = window.ask("GET", "/api/workers?refresh=1").json()
        paths = [
            "/tasks", "/workers", f"/worker/{worker}", "/broker", "/metrics", "/api/workers", "/api/tasks",
            *(f"/task/{uuid}" for uuid in uuids), *(f"/api/task/info/{uuid}" for uuid in uuids),
        ]  # fmt: skip
        return "\n".join(window.ask("GET", path).text for path in paths) if uuids else ""

    seen = eventually(pages, 30, every=0.2)
    tasks = window.ask("GET", "/api/tasks").json().values()

    assert sent["id"] not in seen
    assert {task["args"] for task in tasks if task["name"] == "faxbot.send_fax"} == {"[hidden]"}
    assert {task["kwargs"] for task in tasks} <= {"[hidden]", None}


def test_its_password_is_kept_for_its_owner_and_shown_nowhere(window: Window) -> None:
    kept = window.kept()
    eventually(lambda: "Flower  " in window.service.output())
    said = window.service.output()

    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert window.auth[0] == "operator"
    assert len(window.auth[1]) >= 32
    assert window.auth[1] not in said
    assert f"Flower         http://127.0.0.1:{window.port}  (name and password in {kept})" in said
    lines = [" ".join(each.cmdline()) for each in window.service.tree()]
    assert not any(window.auth[1] in line for line in lines)


def test_the_console_is_told_where_it_is(window: Window) -> None:
    webs = [each for each in window.service.tree() if each.cmdline()[4:5] == ["web"]]
    assert webs
    for each in webs:
        assert each.environ()["FAXBOT_FLOWER_URL"] == f"http://127.0.0.1:{window.port}"
        assert "FLOWER_BASIC_AUTH" not in each.environ()


def test_the_same_password_is_good_after_a_restart(embedded: Installation) -> None:
    window = Window(embedded)
    window.start()
    first = window.auth
    window.service.stop()
    window.start()
    assert window.auth == first
    window.service.stop()


def test_it_is_started_again_where_it_ends(window: Window) -> None:
    first = window.process()
    first.kill()
    eventually(lambda: _again(window, first), 40, every=0.3)


def _again(window: Window, first: psutil.Process) -> bool:
    try:
        return window.process().pid != first.pid and window.ask("GET", "/healthcheck").ok
    except (ValueError, requests.RequestException, psutil.Error):
        return False


def test_a_password_of_ones_own_is_taken_and_none_is_made(embedded: Installation) -> None:
    port, auth = free_port(), ("me", "my:own,password")
    service = Service(
        embedded, "up", "--flower", FAXBOT_FLOWER_PORT=str(port), FLOWER_BASIC_AUTH=":".join(auth),
        FLOWER_READ_ONLY="false", FLOWER_ADDRESS="0.0.0.0",  # noqa: S104 - must not be taken
    ).start()  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(url), 40, every=0.2)
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(f"{url}/workers", auth=auth, timeout=20).status_code == 200
            grow = session.post(f"{url}/api/worker/pool/grow/x", auth=auth, timeout=20)
        assert grow.status_code == 403
        assert not (embedded.data_dir / "flower-password").exists()
        eventually(lambda: "in FLOWER_BASIC_AUTH)" in service.output())
    finally:
        service.stop()


def _answers(url: str) -> bool:
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{url}/healthcheck", timeout=2).ok
    except requests.RequestException:
        return False


# What keeps it from starting ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("up", "--flower"), ("flower",)], ids=str)
def test_without_its_package_the_extra_is_named(
    embedded: Installation, words: tuple[str, ...]
) -> None:
    without = "import sys; sys.modules['flower'] = None; from faxbot.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without, *words],
        env={**embedded.env, "FAXBOT_PORT": "0", "FLOWER_BASIC_AUTH": "a:b"},
        cwd=embedded.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert 'pip install "faxbot[operations]"' in done.stderr.splitlines()[-1]


def test_a_port_that_is_taken_is_named_before_anything_starts(embedded: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        words = ("up", "--flower")
        ended = run_process(embedded, *words, FAXBOT_PORT="0", FAXBOT_FLOWER_PORT=port)
    assert (ended.code, "FAXBOT_FLOWER_PORT" in ended.err) == (1, True)
    assert "is ready" not in ended.err


def test_alone_it_needs_a_password(embedded: Installation) -> None:
    ended = run(embedded, "flower", FAXBOT_FLOWER_PORT=str(free_port()))
    assert (ended.code, "FLOWER_BASIC_AUTH" in one_line(ended.err)) == (1, True)


@pytest.mark.parametrize("auth", ["", "operator:short"])
def test_production_demands_a_long_password_and_makes_none(
    embedded: Installation, auth: str
) -> None:
    changes = {"FAXBOT_ENV": "production", "FLOWER_BASIC_AUTH": auth}
    for words in (("up", "--flower"), ("flower",)):
        ended = run_process(embedded, *words, FAXBOT_PORT="0", **changes)
        assert ended.code == 1
        assert "production needs FLOWER_BASIC_AUTH" in ended.err
        assert "short" not in ended.err
    assert not (embedded.data_dir / "flower-password").exists()


@pytest.mark.parametrize("auth", ["operator", "operator:", ":password", "a b:c", "ä:c"])
def test_credentials_that_are_none_are_refused_without_being_shown(
    embedded: Installation, auth: str
) -> None:
    ended = run(embedded, "flower", FLOWER_BASIC_AUTH=auth)
    assert "FLOWER_BASIC_AUTH must be a name and a password" in one_line(ended.err)
    assert auth not in ended.err.replace("operator:password", "")
