"""`faxbot up` and `faxbot demo` with everything real: ready, crashed, killed, stopped, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from reportlab.pdfgen.canvas import Canvas

from tests.acceptance.site import children
from tests.conftest import BOTH, StartService
from tests.ground import BUSY, eventually, is_alive
from tests.installation import FAXBOT, Installation, Service, Stores

STORES = BOTH
TO = ("--to", "+15550100000")


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PDF of two pages."""
    path = tmp_path_factory.mktemp("document") / "two.pdf"
    canvas = Canvas(str(path))
    for page in (1, 2):
        canvas.drawString(100, 700, f"page {page}")
        canvas.showPage()
    canvas.save()
    return path


@pytest.fixture(scope="module")
def running(stores: Stores) -> Iterator[Service]:
    """One `faxbot up -v` for the tests that leave it as it was."""
    installation = stores.embedded()
    # What a kill may leave of the file in which Celery's own choice of a clock keeps its memory.
    (installation.data_dir / "beat-schedule").write_bytes(b"cut off in the middle")
    service = Service(installation, "up", "-v").start()
    yield service
    assert service.stop() == 0


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(embedded: Installation) -> Iterator[Run]:
    """run(*words, **changes): `faxbot words...` to its end; nothing of the installation may run after that."""

    def run(*words: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in (FAXBOT, *words)]
        env = {**embedded.env, "FAXBOT_PORT": "0", **changes}
        return subprocess.run(
            command,
            env=env,
            cwd=embedded.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield run
    assert not embedded.processes()


def send(service: Service, document: Path, *words: str) -> dict[str, Any]:
    """`faxbot send` through the service, as its users do; the fax as JSON. It must be delivered."""
    env = {**service.installation.env, "FAXBOT_URL": service.url, "FAXBOT_API_KEY": service.key}
    command: list[str | Path] = [
        FAXBOT,
        "send",
        document,
        *TO,
        "--wait",
        "--timeout",
        "60",
        "--json",
        *words,
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, f"{done.stderr}{service.output()}"
    fax: dict[str, Any] = json.loads(done.stdout)
    return fax


def test_a_fax_goes_all_the_way_and_nothing_is_left(
    store: Installation, start_service: StartService, document: Path
) -> None:
    if store.store == "embedded":
        (store.data_dir / "faxbot.db").chmod(0o600)  # the one file that the test's set-up made
    service = start_service(store, "up")
    roles = {"web", "worker", "beat", "carrier"}
    assert set(children(service)) == roles | ({"broker"} if store.store == "embedded" else set())

    fax = send(service, document)

    assert (fax["status"], fax["pages"], fax["pages_sent"]) == ("delivered", 2, 2)
    eventually(lambda: "faxbot is ready at" in service.output())
    assert service.url in service.output()
    # What everybody on the machine can see of a process:
    secret = (store.data_dir / "simulator-secret").read_text()
    assert not [p for p in service.tree() if any(secret in word for word in p.cmdline())]

    assert service.stop(signal.SIGINT) == 0  # Ctrl-C

    assert "faxbot is stopping" in service.output()
    assert not store.processes()
    assert not [path.name for path in store.data_dir.iterdir() if path.is_socket()]
    readable = [path for path in store.data_dir.rglob("*") if path.stat().st_mode & 0o077]
    assert readable == []


def test_a_killed_supervisor_takes_everything_along_and_the_next_one_carries_on(
    embedded: Installation, start_service: StartService, document: Path
) -> None:
    service = start_service(embedded, "up")
    fax = send(service, document)
    assert len(service.tree()) >= 10

    service.kill9(timeout=3)

    assert not embedded.processes()
    again = start_service(embedded, "up")
    assert again.request("GET", f"/fax/{fax['id']}").json()["status"] == "delivered"
    assert send(again, document)["status"] == "delivered"


def test_every_role_comes_back_after_a_kill_and_leaves_no_child_behind(
    embedded: Installation, start_service: StartService, document: Path
) -> None:
    service = start_service(embedded, "up")
    send(service, document)  # so that the children that open documents are there, too
    supervisor = psutil.Process(service.pid)
    for role, process in children(service).items():
        below = process.children(recursive=True)
        process.kill()
        eventually(lambda role=role, old=process: children(service).get(role, old) != old, 15)  # type: ignore[misc]
        eventually(lambda below=below: not any(map(is_alive, below)), 3)  # type: ignore[misc]
        assert f"{role} ended (signal 9); it starts again in 0.5 s" in service.output()

    eventually(lambda: service.request("GET", "/health/ready").status_code == 200, 20)
    assert send(service, document)["status"] == "delivered"
    zombies = [p for p in supervisor.children(recursive=True) if p.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []


def test_a_killed_clock_starts_again_without_a_fright(running: Service) -> None:
    def starts() -> int:
        return running.output().count("beat: Starting...")

    eventually(lambda: starts() == 1)
    children(running)["beat"].kill()
    eventually(lambda: starts() == 2)

    lines = [line for line in running.output().splitlines() if line.startswith("beat ")]
    assert [line for line in lines if "ERROR" in line or "Traceback" in line] == []


def test_in_a_second_terminal_all_is_found_well(running: Service) -> None:
    def ended(*words: str) -> int:
        env = running.installation.env
        return subprocess.run(
            [FAXBOT, *words], env=env, capture_output=True, check=False
        ).returncode

    # Just after the start there are sweeps of which the doctor has not heard yet.
    eventually(lambda: ended("doctor") == 0, 60)
    assert ended("providers", "test", "simulator") == 0
    assert ended("plugins", "test", "simulator") == 0


ASKS_THE_CARRIER = """
import os, pathlib, urllib.request
port = pathlib.Path(os.environ["FAX_DATA_DIR"], "simulator-port").read_text()
url, headers = f"http://127.0.0.1:{port}/v1/faxes?tag=none", {"Authorization": "Bearer mine"}
urllib.request.urlopen(urllib.request.Request(url, headers=headers)).close()
"""


def test_the_carrier_takes_the_secret_of_the_environment(run: Run, embedded: Installation) -> None:
    ended = run("up", "--", sys.executable, "-c", ASKS_THE_CARRIER, SIMULATOR_SECRET="mine")
    assert ended.returncode == 0, ended.stderr
    assert (embedded.data_dir / "simulator-secret").read_text() == "mine"


def test_a_restart_of_web_refuses_nobody(running: Service) -> None:
    web = children(running)["web"]
    tree = [web, *web.children(recursive=True)]
    web.kill()
    eventually(lambda: not any(map(is_alive, tree)))

    # Nobody serves now; the socket is the supervisor's, and who comes waits for the next web.
    assert running.request("GET", "/health", timeout=20 * BUSY).status_code == 200


def test_a_second_one_on_the_same_data_says_who_is_there(
    running: Service,
) -> None:
    second = subprocess.run(
        [FAXBOT, "up"],
        env={**running.installation.env, "FAXBOT_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=20 * BUSY,
        check=False,
    )

    assert second.returncode == 1
    assert f"another faxbot up (process {running.pid}) works in" in second.stderr
    assert "FAX_DATA_DIR" in second.stderr
    assert running.request("GET", "/health").status_code == 200


@pytest.mark.parametrize("role", ["up", "web"])
def test_a_taken_port_is_one_line_that_names_the_setting(run: Run, role: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run(role, FAXBOT_PORT=str(taken.getsockname()[1]))

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "FAXBOT_PORT" in ended.stderr.splitlines()[-1]


def test_an_address_of_another_machine_is_one_line_that_names_the_setting(run: Run) -> None:
    ended = run("up", FAXBOT_HOST="192.0.2.1")

    assert ended.returncode == 1
    assert "FAXBOT_HOST" in ended.stderr.splitlines()[-1]


def test_production_without_a_master_key_starts_nothing_and_says_why(run: Run) -> None:
    ended = run("up", FAXBOT_ENV="production")

    assert ended.returncode == 1
    assert "CONFIG_MASTER_KEY" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_production_makes_no_first_key(run: Run, embedded: Installation) -> None:
    key = b64encode(os.urandom(32)).decode()
    production = {"FAXBOT_ENV": "production", "PUBLIC_API_URL": "https://fax.example.org"}
    ended = run("up", "--", "true", CONFIG_MASTER_KEY=key, **production)

    assert ended.returncode == 0, ended.stderr
    assert not (embedded.data_dir / "first-api-key").exists()


def test_a_command_runs_when_all_is_ready_and_decides_the_exit_code(
    run: Run, document: Path
) -> None:
    # As in the help: `faxbot` is this one, whatever the PATH says.
    ended = run("up", "--", "faxbot", "send", document, *TO, "--wait", PATH="/usr/bin:/bin")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1].split()[2:] == [
        "FAX_DELIVERED",
        "2",
        "of",
        "2",
        "pages",
        "confirmed",
    ]

    told = 'echo "$FAXBOT_URL"; echo "$FAXBOT_API_KEY"; exit 7'
    ended = run("up", "--", "sh", "-c", told, FAXBOT_API_KEY="of-another-installation")
    assert ended.returncode == 7
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\nfbk_live_\S+\n", ended.stdout)


ACTIVATES = """
import json, os, psutil, time, urllib.request
wish = {"slot": "outbound", "note": "a line", "untested": True}
request = urllib.request.Request(
    os.environ["FAXBOT_URL"] + "/admin/providers/asterisk/activate",
    json.dumps(wish).encode(),
    {"X-API-Key": os.environ["FAXBOT_API_KEY"], "Content-Type": "application/json"},
)
urllib.request.urlopen(request).close()
until = time.monotonic() + 160
while not any("listen" in each.cmdline() for each in psutil.Process(os.getppid()).children()):
    assert time.monotonic() < until, "nobody listens"
    time.sleep(0.2)
"""


def test_a_line_that_a_command_activates_is_listened_to(run: Run, tmp_path: Path) -> None:
    line = {"ASTERISK_AMI_PASSWORD": "secret", "ASTERISK_FOLDER": str(tmp_path)}
    ended = run("up", "--", sys.executable, "-c", ACTIVATES, **line)
    assert ended.returncode == 0, ended.stderr


def test_a_command_that_is_not_there_ends_everything(run: Run) -> None:
    ended = run("up", "no-such-command")

    assert ended.returncode == 1
    assert "no-such-command cannot be run: No such file or directory" in ended.stderr


def test_the_demo_delivers_one_fax_and_up_still_has_it(
    run: Run, embedded: Installation, start_service: StartService, document: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # the demo finds a port of its own then
        ended = run("demo", document, FAXBOT_PORT=str(taken.getsockname()[1]))

    assert ended.returncode == 0, ended.stderr
    accepted, *timeline = ended.stdout.partition("\n\n")[0].splitlines()
    assert [line.split()[2] for line in timeline][:3] == [
        "FAX_QUEUED",
        "FAX_SUBMITTING",
        "FAX_SENT",
    ]
    assert timeline[-1].split()[2] == "FAX_DELIVERED"
    token = (embedded.data_dir / "first-api-key").read_text().strip()
    service = start_service(embedded, "up")
    fax = service.request("GET", f"/fax/{accepted.split()[1]}", headers={"X-API-Key": token}).json()
    assert fax["status"] == "delivered"
    eventually(lambda: "stop           Ctrl-C" in service.output())
    assert f"API key        in {embedded.data_dir}/first-api-key" in service.output()
    assert token not in service.output()  # a log keeps no key
    (example,) = re.findall(r"-F file=@('[^']+'|\S+)", service.output())
    assert (embedded.folder / shlex.split(example)[0]).is_file()


def test_what_the_demo_says_at_its_end_can_be_pasted(
    run: Run, embedded: Installation, document: Path
) -> None:
    ended = run("demo", document, FAXBOT_PORT="0")

    assert ended.returncode == 0, ended.stderr
    _, serve, send = ended.stdout.partition("The fax and its timeline")[2].splitlines()
    assert f"FAX_DATA_DIR={embedded.data_dir} " in serve
    assert f"FAX_DATA_DIR={embedded.data_dir} " in send
    assert ":0/" not in serve
    assert document.name in send


def test_a_demo_whose_fax_is_held_ends_and_says_why_and_what_helps(
    run: Run, document: Path
) -> None:
    refused = ("--to", "+15550100401", "--wait", "--timeout", "30")
    ended = run("up", "--", "faxbot", "send", document, *refused)
    assert ended.returncode == 1
    assert "FAX_HELD" in ended.stdout

    ended = run("demo", document, "--timeout", "30")  # the carrier rests now

    assert ended.returncode == 1
    assert "On hold: " in ended.stdout
    assert "still held after 30 s" in ended.stderr
    assert "FAX_DATA_DIR=faxdata-fresh" in ended.stderr


def test_where_the_first_key_is_gone_it_says_how_to_make_one_that_shows_what_was_sent(
    embedded: Installation, start_service: StartService
) -> None:
    other = ("keys", "create", "--name", "mine", "--scope", "*")
    subprocess.run([FAXBOT, *other], env=embedded.env, capture_output=True, timeout=60, check=True)
    service = start_service(embedded, "up")
    eventually(lambda: "Ctrl-C" in service.output())
    assert "keys create --name NAME --scope fax:send --scope fax:read" in service.output()


def test_a_person_at_a_terminal_is_shown_the_first_key(embedded: Installation) -> None:
    screen, terminal = os.openpty()
    env = {**embedded.env, "FAXBOT_PORT": "0"}
    process = subprocess.Popen([FAXBOT, "up"], env=env, cwd=embedded.folder, stderr=terminal)
    os.close(terminal)
    os.set_blocking(screen, False)
    shown = bytearray()

    def ready() -> bool:
        with suppress(BlockingIOError):
            shown.extend(os.read(screen, 65536))
        return b"Ctrl-C" in shown

    try:
        eventually(ready, 60)
        token = (embedded.data_dir / "first-api-key").read_text().strip()
        assert token.encode() in shown
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        os.close(screen)


@pytest.mark.parametrize("wrong", [{"FAX_BACKEND": "phaxio"}, {"FAXBOT_ENV": "production"}])
def test_the_demo_sends_to_no_real_carrier_and_not_in_production(
    run: Run, document: Path, wrong: dict[str, str]
) -> None:
    ended = run("demo", document, **wrong)

    assert ended.returncode == 1
    assert next(iter(wrong)) in ended.stderr


def test_a_deep_data_folder_with_odd_characters_works(
    embedded: Installation, run: Run, document: Path
) -> None:
    deep = embedded.folder / "50% of #1? & ü" / ("d" * 60)
    ended = run("up", "--", FAXBOT, "send", document, *TO, "--wait", FAX_DATA_DIR=str(deep))

    assert ended.returncode == 0, ended.stderr
    config = embedded.config(FAX_DATA_DIR=str(deep))
    assert not config.broker_socket.is_relative_to(deep)
    assert not config.broker_socket.parent.exists()


def test_odd_characters_in_the_socket_s_own_path_work(
    embedded: Installation, run: Run, document: Path
) -> None:
    odd = embedded.folder / "50% of #1?"
    ended = run("up", "--", FAXBOT, "send", document, *TO, "--wait", FAX_DATA_DIR=str(odd))

    assert ended.returncode == 0, ended.stderr
    assert embedded.config(FAX_DATA_DIR=str(odd)).broker_socket.parent == odd


def test_a_folder_for_the_socket_that_belongs_to_somebody_else_is_refused(
    embedded: Installation, run: Run
) -> None:
    deep = str(embedded.folder / ("d" * 100))
    place = embedded.config(FAX_DATA_DIR=deep).broker_socket.parent
    place.symlink_to(embedded.folder)
    try:
        ended = run("up", FAX_DATA_DIR=deep)
    finally:
        place.unlink()

    assert ended.returncode == 1
    assert "belongs to somebody else: set FAX_DATA_DIR to a shorter path" in ended.stderr


def test_what_lies_there_from_before_costs_the_broker_s_messages_at_most(
    embedded: Installation, run: Run, document: Path
) -> None:
    (embedded.data_dir / "up.lock").write_text("1\n")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(embedded.data_dir / "broker.sock"))
    assert run("up", "--", "true").returncode == 0, "a stale socket and a lock file of nobody"

    files = list((embedded.data_dir / "broker").rglob("*.aof"))
    assert files
    for path in files:
        path.write_bytes(b"this is no append-only file\r\n" * 10)

    ended = run("up", "--", FAXBOT, "send", document, *TO, "--wait")

    assert ended.returncode == 0, ended.stderr
    assert (embedded.data_dir / "broker.unreadable").is_dir()


def test_a_broker_binary_that_is_none_names_its_setting(run: Run) -> None:
    ended = run("up", FAXBOT_REDIS_SERVER="/no/such/server")
    assert ended.returncode == 1
    assert "FAXBOT_REDIS_SERVER" in ended.stderr.splitlines()[-1]

    ended = run("up", FAXBOT_REDIS_SERVER=shutil.which("false") or "")
    assert ended.returncode == 1
    assert "broker ended 5 times at its start (exit code 1)" in ended.stderr


def test_a_provider_that_is_not_there_is_said_and_the_rest_serves(
    embedded: Installation,
) -> None:
    service = Service(embedded, "up", FAX_BACKEND="carrier-pigeon")
    folder = embedded.folder
    service.process = embedded.ground.start(
        [FAXBOT, "up"], folder, service.env, service.log, cwd=folder
    )
    try:
        eventually(lambda: "but is not ready: " in service.output(), 30)
        early, _, late = service.output().partition("faxbot answers at")
        assert "FAX_BACKEND=carrier-pigeon: There is no plugin 'carrier-pigeon'" in early
        assert "There is no plugin 'carrier-pigeon'" in late
        assert service.request("GET", "/health").status_code == 200
    finally:
        service.stop()


def raw(service: Service, request: bytes) -> bytes:
    """What the server answers to these bytes, until it hangs up."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_the_server_says_little_and_logs_nothing_that_a_client_sent(running: Service) -> None:
    number = "15550104242"
    with requests.Session() as session:
        for _ in range(3):
            answer = session.get(f"{running.url}/fax?to=%2B{number}", timeout=10)
            assert "Server" not in answer.headers
            assert answer.headers["Connection"] == "keep-alive"
    for nonsense in (
        b"GET /+%s HTTP/9.9\r\n\r\n",
        b"SEND +%s\r\n\r\n",
        b"GET / HTTP/1.1\r\n+%s\r\n\r\n",
    ):
        head, _, body = raw(running, nonsense % number.encode()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in head
        assert json.loads(body)["status"] == 400
        assert number.encode() not in body

    said = running.output()
    assert "faxbot" in said  # it does speak
    assert number not in said


def test_a_frozen_worker_does_not_keep_it_from_ending(
    embedded: Installation, start_service: StartService
) -> None:
    service = start_service(embedded, "up")
    children(service)["worker"].suspend()

    service.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    eventually(lambda: "faxbot is stopping" in service.output())
    assert service.stop() == 0  # the second signal: at once
