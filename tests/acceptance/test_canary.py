"""The canary: a number, a name, a file name and a text go through all that a running faxbot does, errors too, and
are then looked for wherever somebody may look who may not read faxes. First each channel shows that it would tell."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
import sqlalchemy as sa
from celery import Celery

from faxbot import wiring
from faxbot.events import TERMINAL
from faxbot.runtime import Runtime
from faxbot.web.app import create_app
from faxbot.web.auth import OPEN
from tests.acceptance.site import SHORT, Site
from tests.canary import (
    FILE_NAME,
    HEADER,
    NAME,
    TEXT,
    Monitor,
    Search,
    Watch,
    Wiretap,
    contents,
    dump,
    forms,
    number,
    words,
)
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import eventually
from tests.installation import FAXBOT, Installation
from tests.servers import free_port

ENDINGS = (
    "0000",
    "0017",
    "0022",
    "0044",
    "0404",
    "0409",
    "0415",
    "0429",
    "0433",
    "0500",
    "0504",
    "0999",
)
"""Delivered, busy, told twice, only asked for, dead, broken off, refused, throttled, barred, 5xx, reply lost, a word
that no list has."""
KINDS = words(ENDINGS)
DOCUMENT = f"{TEXT}\n{NAME}, {number('0000')}\n".encode()
SECRET = f"{NAME} {number('0000')} {TEXT}"


@dataclass
class House:
    """A running faxbot with everything that listens to it."""

    site: Site
    wiretap: Wiretap
    monitor: Monitor
    watch: Watch
    runtime: Runtime
    flower: requests.Session
    flower_url: str
    temporary: Path
    refusals: list[bytes] = field(default_factory=list)
    """Answers that refuse, with their heads; and the heads of all others."""

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request; what is written where everybody looks is kept."""
        answer = self.site.service.request(method, path, **options)
        self.refusals.append(repr(sorted(answer.headers.items())).encode())
        if answer.status_code >= 400:
            self.refusals.append(answer.content)
        return answer

    # What others can read, by channel.

    def broker(self) -> bytes:
        return bytes(self.monitor.seen)

    def logs(self) -> bytes:
        return self.site.service.log.read_bytes()

    def window(self) -> bytes:
        """What Flower shows: its API, its pages, its metrics."""
        pages = (
            "/api/tasks",
            "/api/workers",
            "/api/queues/length",
            "/metrics",
            "/tasks",
            "/workers",
        )
        return b"\n".join(_shown(self.flower.get(self.flower_url + page)) for page in pages)

    def open_answers(self) -> bytes:
        """What everybody may ask."""
        app = create_app(self.runtime)
        paths = [
            rule.rule
            for rule in app.url_map.iter_rules()
            if "GET" in (rule.methods or ())
            and not rule.arguments
            and getattr(app.view_functions[rule.endpoint], "access", "") == OPEN
        ]
        assert "/health/ready" in paths
        return b"\n".join(self.site.service.request("GET", path).content for path in paths)

    def answers_that_refuse(self) -> bytes:
        return b"\n".join(self.refusals)

    def events(self) -> bytes:
        """What webhooks and the event stream are made of, and timelines."""
        fax_ids = [
            item["id"]
            for item in self.site.service.request("GET", "/fax?limit=100").json()["items"]
        ]
        return b"\n".join(
            _shown(self.site.service.request("GET", f"/fax/{each}/events")) for each in fax_ids
        )

    def operators_pages(self) -> bytes:
        """What is shown to who runs the house and does not read faxes."""
        pages = (
            "/admin/providers",
            "/admin/providers/simulator",
            "/admin/webhooks",
            "/admin/config",
            "/admin/config/backups",
            "/admin/features",
            "/admin/audit",
            "/admin/audit/verify",
            "/admin/api-keys",
            "/admin/users",
            "/plugins",
            "/plugins/health",
            "/plugins/simulator/config",
            "/plugin-registry",
            "/fax?limit=100",
        )
        return b"\n".join(_shown(self.site.service.request("GET", page)) for page in pages)

    def addresses(self) -> bytes:
        """What carriers are asked at, and where they are told to call back."""
        told = [fax["callback_url"] for fax in self.site.carrier.faxes() if "callback_url" in fax]
        return self.wiretap.addresses() + "\n".join(told).encode()

    def command_lines(self) -> bytes:
        self.watch.look()
        return "\n".join(sorted(self.watch.command_lines)).encode()

    def names_of_files(self) -> bytes:
        self.watch.look()
        return "\n".join(sorted(self.watch.names)).encode()

    def database(self) -> bytes:
        """Its rows, and, of SQLite, the files as they lie there, with what was deleted."""
        lying = self.runtime.config.data_dir.glob("faxbot.db*")
        return dump(self.runtime.database.engine) + b"".join(each.read_bytes() for each in lying)

    def folders(self) -> bytes:
        """What is left in temporary folders, and in the data folder beside the database and the stored documents."""
        data = self.runtime.config.data_dir
        return contents(self.temporary) + contents(
            data, lambda path: "documents" in path.relative_to(data).parts
        )


def _shown(answer: requests.Response) -> bytes:
    """What it shows; in a page that is not there nothing is found either."""
    assert answer.status_code == 200, (answer.url, answer.status_code)
    return answer.content


CHANNELS: dict[str, Callable[[House], bytes]] = {
    "broker": House.broker,
    "logs": House.logs,
    "flower": House.window,
    "open answers": House.open_answers,
    "answers that refuse": House.answers_that_refuse,
    "events": House.events,
    "operators' pages": House.operators_pages,
    "addresses": House.addresses,
    "command lines": House.command_lines,
    "names of files": House.names_of_files,
    "database": House.database,
    "folders": House.folders,
}


@pytest.fixture
def house(store: Installation, start_service: StartService) -> Iterator[House]:
    temporary = store.folder / "tmp"
    temporary.mkdir(mode=0o700)
    with ExitStack() as stack:
        carrier = stack.enter_context(SimulatorProcess(store.folder))
        wiretap = stack.enter_context(Wiretap(carrier.url))
        watch = Watch(store.folder, temporary, store.data_dir)
        stack.callback(watch.close)
        settings = {**SHORT, **carrier.environ, "SIMULATOR_BASE_URL": wiretap.url}
        service = start_service(store, "up", "--verbose", **settings, TMPDIR=str(temporary))
        runtime = wiring.build(store.config())
        stack.callback(runtime.close)
        monitor = Monitor(runtime.config.broker)
        stack.callback(monitor.close)
        flower, url = stack.enter_context(window(store))
        yield House(
            Site(service, carrier), wiretap, monitor, watch, runtime, flower, url, temporary
        )


class window:  # noqa: N801 - used as a context manager
    """Flower as compose starts it; what it is asked with, and where."""

    def __init__(self, store: Installation) -> None:
        self._store, self._port = store, free_port()
        self._password = secrets.token_hex(8)

    def __enter__(self) -> tuple[requests.Session, str]:
        log = self._store.folder / "flower.log"
        self._process = self._store.ground.start(
            [
                *(FAXBOT.with_name("celery"), "--app", "faxbot.tasks.operations", "flower"),
                *("--read-only", f"--port={self._port}", "--address=127.0.0.1"),
            ],
            self._store.folder,
            {**self._store.env, "FLOWER_BASIC_AUTH": f"operator:{self._password}"},
            log,
        )
        session = requests.Session()
        session.trust_env = False
        session.auth = ("operator", self._password)
        url = f"http://127.0.0.1:{self._port}"

        def knows_the_worker() -> bool:
            with suppress(requests.RequestException, ValueError):
                return bool(session.get(f"{url}/api/workers?refresh=1", timeout=5).json())
            return False

        try:
            eventually(knows_the_worker, 40, every=0.3)
        except AssertionError:
            self._process.kill()
            raise AssertionError(log.read_text()) from None
        return session, url

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)


# Every road ------------------------------------------------------------------------------------------


def everything_happens(house: House) -> list[str]:
    """All that clients, carriers and accidents do; the ids of the faxes."""
    faxes = [submitted(house, ending) for ending in ENDINGS]
    requests_that_are_refused(house, faxes[0])
    callbacks_with_too_much(house, faxes[0])
    house.site.kill("worker")
    people_read_and_decide(house, faxes)
    ends = ("delivered", "failed", "cancelled")
    eventually(lambda: house.site.fax(faxes[0])["status"] in ends, 40, every=0.2)
    statuses = eventually(lambda: settled(house, faxes), 60, every=0.3)
    assert {"delivered", "failed", "cancelled"} <= set(statuses)
    return faxes


def submitted(house: House, ending: str) -> str:
    answer = house.ask(
        "POST",
        "/fax/send",
        data={"to": number(ending), "header": HEADER},
        files={"file": (FILE_NAME, DOCUMENT)},
        headers={"Idempotency-Key": f"Mxyzptlk-{number(ending)}"},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def requests_that_are_refused(house: House, fax_id: str) -> None:
    """What clients do wrong with what is personal in their hands."""
    to = number("0000")
    latin = b"\xff\xfe\x00" + SECRET.encode("latin-1")
    file = {"file": (FILE_NAME, DOCUMENT)}
    forms_of_a_fax: list[dict[str, Any]] = [
        {"data": {"to": SECRET}, "files": file},
        {"data": {"to": to, SECRET: SECRET}, "files": file},
        {"data": {"to": to, "header": NAME}, "files": file},
        {"data": {"to": to, "send_at": SECRET}, "files": file},
        {"data": {"to": to, "provider_id": NAME}, "files": file},
        {"data": {"to": to}, "files": {NAME: (FILE_NAME, DOCUMENT)}},
        {"data": {"to": to}, "files": {"file": (FILE_NAME, b"%PDF-1.7\n" + DOCUMENT)}},
        {"data": {"to": to}, "files": {"file": (FILE_NAME, latin)}},
        {"data": {"to": to, "name": NAME}},
    ]
    json_of_a_search: list[dict[str, Any]] = [
        {"json": {"to": SECRET}},
        {"json": {NAME: to}},
        {"json": {"to": to, "tags": {"x": [NAME]}}},
        {"data": SECRET.encode(), "headers": {"Content-Type": "application/json"}},
    ]
    config_of_a_plugin = [
        {"settings": {"secret": SECRET}, "note": "n"},
        {"settings": {NAME: SECRET}, "note": "n"},
    ]
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        *(("POST", "/fax/send", options) for options in forms_of_a_fax),
        *(("POST", "/fax/search", options) for options in json_of_a_search),
        *(
            ("PUT", f"/plugins/{each}/config", {"json": wish})
            for each in ("simulator", NAME)
            for wish in config_of_a_plugin
        ),
        *(
            ("GET", path, {})
            for path in (f"/fax?to={to}", f"/fax?cursor={NAME}", f"/fax?{NAME}=1", f"/fax/{to}")
        ),
        *(("GET", path, {}) for path in (f"/{NAME}/{TEXT}", f"/fax/{fax_id}/pdf?token={NAME}")),
        ("POST", f"/fax/{NAME}/cancel", {}),
        ("DELETE", f"/fax/{to}", {}),
        ("GET", "/fax", {"headers": {"X-API-Key": to}}),
        ("POST", "/admin/session", {"json": {"name": NAME, "password": SECRET}}),
        ("POST", "/admin/session", {"json": {"name": to, "password": NAME}}),
        ("POST", "/admin/users", {"json": {"name": SECRET, "role": NAME, "password": to}}),
        ("PATCH", "/admin/config", {"json": {"values": {NAME: to, "FAX_HEADER": to}, "note": "n"}}),
        ("PATCH", "/admin/config", {"json": {NAME: to}}),
        (
            "POST",
            "/admin/config/import",
            {"json": {"document": {"options": {NAME: to}}, "note": "n"}},
        ),
        ("POST", "/admin/api-keys", {"json": {"name": "n", "scopes": [NAME]}}),
        ("GET", f"/admin/audit?{NAME}={to}", {}),
    ]
    for method, path, options in wrong:
        answer = house.ask(method, path, **options)
        assert 400 <= answer.status_code < 500, (path, answer.status_code, answer.text)
    heads = {"X-Request-Id": to.strip("+"), "User-Agent": SECRET.encode(), "Referer": f"/{to}"}
    assert house.ask("GET", f"/fax/{fax_id}", headers=heads).status_code == 200


def callbacks_with_too_much(house: House, fax_id: str) -> None:
    """Carriers, and who says he is one, tell more than is asked."""
    (attempt,) = eventually(lambda: house.site.timeline(fax_id)["attempts"])
    tag = attempt["tag"]
    more = {"to": number("0000"), "name": NAME, "note": TEXT}
    for body in (
        {"event": "fax.progress", "fax": {"id": "sim-x", "tag": tag, "status": SECRET, **more}},
        {"event": SECRET, "fax": {"id": SECRET, "tag": SECRET, "status": "failed", "code": SECRET}},
        {"event": "x", "fax": SECRET},
    ):
        raw = json.dumps(body).encode()
        at = str(int(time.time()))
        proof = hmac.new(
            house.site.carrier.secret.encode(), f"{at}.".encode() + raw, hashlib.sha256
        )
        head = {"X-Simulator-Signature": f"t={at},v1={proof.hexdigest()}"}
        assert house.ask("POST", "/callbacks/simulator", data=raw, headers=head).status_code == 200
        refused = house.ask("POST", f"/callbacks/simulator?attempt={NAME}&token={TEXT}", data=raw)
        assert refused.status_code == 401


def people_read_and_decide(house: House, faxes: list[str]) -> None:
    uncertain = faxes[ENDINGS.index("0504")]
    busy = faxes[ENDINGS.index("0017")]
    house.ask("POST", f"/fax/{uncertain}/decide", json={"outcome": "delivered", "reason": SECRET})
    eventually(lambda: house.site.fax(busy)["status"] in ("retrying", "sent"), 20)
    house.ask("POST", f"/fax/{busy}/cancel")
    house.ask("POST", f"/fax/{faxes[0]}/release")
    assert house.ask("POST", "/fax/search", json={"to": number("0000")}).json()["items"]
    assert house.ask("GET", f"/fax/{faxes[0]}").json()["to"] == number("0000")


def settled(house: House, faxes: list[str]) -> list[str]:
    """The statuses, once each fax has come to an end or waits for longer than a test can."""
    found = [house.site.fax(each) for each in faxes]
    open_ones = [fax for fax in found if fax["status"] not in (*TERMINAL, "retrying", "held")]
    return [] if open_ones else [fax["status"] for fax in found]


# The canary itself ----------------------------------------------------------------------------------


def plants(house: House) -> dict[str, Callable[[str], object]]:
    """By channel: what a careless faxbot would do with a number's last seven digits, `leak`."""
    config, service = house.runtime.config, house.site.service

    def publish(leak: str) -> None:
        with redis.Redis.from_url(config.broker.replace("redis+socket", "unix")) as client:
            client.publish("careless", base64.b64encode(b"to:" + leak.encode()))
        eventually(lambda: b"careless" in house.broker())

    def write(file: Path, leak: str) -> None:
        with file.open("ab") as opened:
            opened.write(f"fax to +1 415 {leak[:3]}-{leak[3:]}\n".encode())

    def change(statement: str, value: str) -> None:
        with house.runtime.database.transaction() as session:
            session.execute(sa.text(statement), {"value": value})

    def send_a_task(leak: str) -> None:
        app = Celery(broker=config.broker, set_as_current=False)
        app.conf.broker_transport_options = {"global_keyprefix": "faxbot:"}
        app.send_task("faxbot.sweep", kwargs={"to": leak}, queue="sweep")
        app.close()
        eventually(lambda: leak.encode() in house.window(), 20, every=0.3)

    def ask_by_number(leak: str) -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.get(f"{house.wiretap.url}/v1/faxes?to={leak}", timeout=5)

    def show_on_a_command_line(leak: str) -> None:
        command = [sys.executable, "-c", "import time; time.sleep(60)", f"--to={leak}"]
        installation = service.installation
        process = installation.ground.start(command, installation.folder, {}, service.log)
        eventually(lambda: leak.encode() in house.command_lines())
        process.kill()
        process.wait()

    return {
        "broker": publish,
        "logs": lambda leak: write(service.log, leak),
        "flower": send_a_task,
        "events": lambda leak: change("UPDATE attempts SET cause = :value", leak),
        "operators' pages": lambda leak: pause(house, leak),
        "addresses": ask_by_number,
        "command lines": show_on_a_command_line,
        "names of files": lambda leak: (house.temporary / f"{leak}.pdf").touch(),
        "database": lambda leak: change(
            "UPDATE jobs SET tags = :value", json.dumps({"patient": leak})
        ),
        "folders": lambda leak: write(house.temporary / "careless", leak),
        # From here on the house does not work any more.
        "answers that refuse": lambda leak: be_refused(house, leak),
        "open answers": lambda leak: name_a_provider_so(house, leak, house.open_answers),
    }


def name_a_provider_so(house: House, leak: str, seen: Callable[[], bytes]) -> None:
    wish = {"": {"FAX_BACKENDS": leak}}
    settings = house.runtime.settings
    with house.runtime.database.transaction() as session:
        settings.write(session, wish, seen=settings.read().version, now=house.runtime.now())
    eventually(lambda: leak.encode() in seen(), 20, every=0.3)


def be_refused(house: House, leak: str) -> None:
    name_a_provider_so(house, leak, lambda: house.ask("GET", "/health/ready").content)


def pause(house: House, leak: str) -> None:
    note = {"note": f"he of {leak}"}
    assert house.ask("POST", "/admin/providers/simulator/pause", json=note).ok


@pytest.mark.parametrize("kind", KINDS)
def test_the_search_finds_every_word_in_every_form_wherever_it_stands(kind: str) -> None:
    search = Search(KINDS)
    for word in KINDS[kind]:
        for form, written in forms(word).items():
            for between in (b"", b"\x00x", b"to="):
                assert search.hits(between + written + between), (word, form)
        for shift in range(3):
            whole = base64.b64encode(b"a" * shift + word.encode() + b", and more")
            assert search.hits(b'{"body": "' + whole + b'"}'), (word, shift)
            deeper = base64.b64encode(b"[" * shift + json.dumps([word]).encode())
            assert search.hits(deeper), (word, shift)


def test_the_search_does_not_find_what_is_not_there() -> None:
    random = secrets.token_hex(100_000).encode() + base64.b64encode(secrets.token_bytes(100_000))
    assert Search({**KINDS, "number": []}).hits(random) == []
    at = f'1795254{number("0017")[-7:-4]}.{ENDINGS[1]}12 [0 127.0.0.1:1] "PING"'.encode()
    assert Search(KINDS).hits(at) == []


def test_what_is_personal_goes_everywhere_and_is_found_nowhere(house: House) -> None:
    """0 hits, and then each channel is shown one leak and tells: none of them is silent because nobody looks there."""
    everything_happens(house)
    search = Search(KINDS)

    found = {name: search.hits(channel(house)) for name, channel in CHANNELS.items()}

    assert {name: hits for name, hits in found.items() if hits} == {}
    planted = plants(house)
    assert planted.keys() == CHANNELS.keys()
    # Each its own number: what was planted in one channel is no find of another.
    for (name, plant), ending in zip(planted.items(), ENDINGS, strict=True):
        its_own = Search({"number": words([ending])["number"]})
        assert not its_own.hits(CHANNELS[name](house)), f"{name}: it is there already"
        plant(number(ending)[-7:])
        assert its_own.hits(CHANNELS[name](house)), f"{name}: a leak that was planted is not found"
