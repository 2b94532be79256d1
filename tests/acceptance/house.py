"""A running faxbot with everything that listens to it, and the channels: each says where something can be read by who
may not read faxes, and how a careless faxbot would write it there.

To add a channel: one row in CHANNELS, and what it needs in House.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
import sqlalchemy as sa
from celery import Celery

from faxbot.cli.logs import JsonLines
from faxbot.runtime import Runtime
from faxbot.web.app import create_app
from faxbot.web.auth import OPEN
from tests.canary import Monitor, Watch, Wiretap, contents, dump
from tests.ground import eventually
from tests.installation import FAXBOT, Installation, Service
from tests.integration.command import Ended, run
from tests.mailserver import MailServer
from tests.receiver import Receiver
from tests.servers import free_port
from tests.stream import listen


class Window:
    """Flower as faxbot runs it; what it is asked with, and where."""

    def __init__(self, store: Installation, stack: ExitStack) -> None:
        port, password = free_port(), secrets.token_hex(8)
        self._log = store.folder / "flower.log"
        process = store.ground.start(
            [FAXBOT, "flower"],
            store.folder,
            {
                **store.env,
                "FLOWER_BASIC_AUTH": f"operator:{password}",
                "FAXBOT_FLOWER_PORT": str(port),
            },
            self._log,
        )
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        self._session = stack.enter_context(requests.Session())
        self._session.trust_env = False
        self._session.auth = ("operator", password)
        self._url = f"http://127.0.0.1:{port}"

    def wait(self) -> None:
        """Until it knows the worker."""

        def knows_the_worker() -> bool:
            with suppress(requests.RequestException, ValueError):
                return bool(self._session.get(f"{self._url}/api/workers?refresh=1").json())
            return False

        try:
            eventually(knows_the_worker, 40, every=0.3)
        except AssertionError:
            raise AssertionError(self._log.read_text()) from None

    def shown(self) -> bytes:
        """Its API, its pages, its metrics."""
        api = ("/api/tasks", "/api/workers", "/api/queues/length")
        pages = (*api, "/metrics", "/tasks", "/workers")
        return b"\n".join(_shown(self._session.get(self._url + page)) for page in pages)


@dataclass
class House:
    """`service` answers requests; `services` are all that were started, it among them."""

    service: Service
    services: list[Service]
    runtime: Runtime
    monitor: Monitor
    watch: Watch
    temporary: Path
    wiretaps: Mapping[str, Wiretap]
    told: Callable[[], list[str]]
    """The addresses at which carriers were told to call back."""
    flower: Window | None = None
    receiver: Receiver | None = None
    """Whom every event is sent to."""
    mail: MailServer | None = None
    """Which takes what people are told."""
    server_log: Path | None = None
    """The database server's own."""
    refusals: list[bytes] = field(default_factory=list)
    """Answers that refuse, with their heads; and the heads of all others."""
    errors: list[bytes] = field(default_factory=list)
    """What commands log."""

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request; what is written where everybody looks is kept."""
        answer = self.service.request(method, path, **options)
        self.refusals.append(repr(sorted(answer.headers.items())).encode())
        if answer.status_code >= 400:
            self.refusals.append(answer.content)
        return answer

    def faxbot(self, *words: str | Path, stdin: str = "") -> Ended:
        """One command of an operator, with the settings of the services."""
        with pytest.MonkeyPatch.context() as patch, self._logged():
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            for folder in self.service.env.get("PYTHONPATH", "").split(":"):
                patch.syspath_prepend(folder)
            return run(self.service.installation, *words, **self.service.env)

    def faxbot_process(self, *words: str | Path, stdin: str) -> str:
        """The same as a process of its own, which everybody on the machine sees; what it prints."""
        folder = self.service.installation.folder
        done = subprocess.run(
            [FAXBOT, *words],
            input=stdin,
            env=self.service.env,
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    @contextmanager
    def _logged(self) -> Iterator[None]:
        written = io.StringIO()
        handler = logging.StreamHandler(written)
        handler.setFormatter(JsonLines("command"))
        logging.getLogger("faxbot").addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger("faxbot").removeHandler(handler)
            self.errors.append(written.getvalue().encode())

    def fax(self, fax_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.service.request("GET", f"/fax/{fax_id}").json()
        return body

    def attempts(self, fax_id: str) -> list[dict[str, Any]]:
        story = self.service.request("GET", f"/fax/{fax_id}/events").json()
        attempts: list[dict[str, Any]] = story["attempts"]
        return attempts

    def statement(self, text: str, **values: object) -> None:
        """One behind faxbot's back."""
        with self.runtime.database.engine.begin() as connection:
            connection.execute(sa.text(text), values)

    # What others can read, by channel.

    def broker(self) -> bytes:
        return bytes(self.monitor.seen)

    def logs(self) -> bytes:
        logs = [each.log for each in self.services]
        logs += [self.server_log] if self.server_log else []
        return b"".join([*(each.read_bytes() for each in logs), *self.errors])

    def window(self) -> bytes:
        assert self.flower is not None
        return self.flower.shown()

    def webhooks(self) -> bytes:
        assert self.receiver is not None
        receiver = self.receiver
        eventually(lambda: len(receiver.heard) > 20, 30)
        return b"\n".join(
            repr(sorted(each.headers.items())).encode() + each.body for each in self.receiver.heard
        )

    def mailbox(self) -> bytes:
        """What people are told, who may not read faxes; with whom it is from and to."""
        assert self.mail is not None
        mail = self.mail
        eventually(lambda: len(mail.taken) > 10, 30)
        return b"\n".join(
            repr((each.sender, each.recipients)).encode() + each.raw for each in self.mail.taken
        )

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
        return b"\n".join(self.service.request("GET", path).content for path in paths)

    def answers_that_refuse(self) -> bytes:
        return b"\n".join(self.refusals)

    def events(self) -> bytes:
        """Timelines, of which much else is made; but what people wrote when they decided, which readers are shown, and
        which is there where a fax was uncertain just when they came."""
        page = self.service.request("GET", "/fax?limit=100").json()
        fax_ids = [item["id"] for item in page["items"]]
        timelines = [self.service.request("GET", f"/fax/{each}/events").json() for each in fax_ids]
        for timeline in timelines:
            assert timeline.keys() == {"events", "attempts", "decisions"}
            del timeline["decisions"]
        return json.dumps(timelines, ensure_ascii=False).encode()

    def event_stream(self) -> bytes:
        """What is told of all faxes to who may hear of them and read none: page by page, and as it happens."""
        pages, cursor, more = [], "0-0", True
        while more:
            answer = self.service.request("GET", f"/events?cursor={cursor}")
            page = answer.json()
            pages.append(_shown(answer))
            cursor, more = page["next"], page["more"]
        with listen(self.service, cursor="0-0") as ear:
            while ear.last_id != cursor:
                ear.take()
            return b"\n".join([*pages, bytes(ear.heard)])

    def operators_pages(self) -> bytes:
        """What is shown to who runs the house and does not read faxes."""
        of_each = [f"/admin/providers/{each}" for each in self.wiretaps]
        of_each += [f"/plugins/{each}/config" for each in self.wiretaps]
        pages = (
            *of_each,
            "/admin/providers",
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
            "/plugin-registry",
            "/webhooks",
            "/admin/notifications",
            "/fax?limit=100",
        )
        return b"\n".join(_shown(self.service.request("GET", page)) for page in pages)

    def operators_commands(self) -> bytes:
        """What commands print that are not about one fax."""
        of_each = [("providers", "show", each) for each in self.wiretaps]
        commands = (
            *of_each,
            ("providers", "list"),
            ("list", "--limit", "100"),
            ("events",),
            ("keys", "list"),
            ("users", "list"),
            ("config", "list"),
            ("config", "export"),
            ("config", "backups"),
            ("audit", "export"),
            ("audit", "export", "--format", "csv"),
            ("audit", "verify"),
            ("plugins", "list"),
            ("doctor",),
            ("db", "check"),
            ("webhooks", "list"),
            ("notifications", "list"),
        )
        ended = [self.faxbot(*words) for words in commands]
        failed = [
            (*words, each.err)
            for words, each in zip(commands, ended, strict=True)
            if each.code not in ((0, 1) if words == ("doctor",) else (0,))
        ]
        assert not failed
        return "\n".join(f"{each.out}\n{each.err}" for each in ended).encode()

    def addresses(self) -> bytes:
        """What carriers are asked at, and where they are told to call back."""
        asked = [each.addresses() for each in self.wiretaps.values()]
        return b"\n".join([*asked, *(each.encode() for each in self.told())])

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
        """What is left in temporary folders, and in the data folder beside the database. Stored documents are sealed,
        so they are looked through too. While a worker prepares a fax its document lies in clear in a private folder."""
        spool = self.runtime.config.spool_dir
        eventually(lambda: not list(spool.glob("work-*")), 10, every=0.01)
        return contents(self.temporary) + contents(self.runtime.config.data_dir)


def _shown(answer: requests.Response) -> bytes:
    """What it shows; in a page that is not there nothing is found either."""
    assert answer.status_code == 200, (answer.url, answer.status_code, answer.text)
    return answer.content


# What a careless faxbot would do with a number's last seven digits -------------------------------------


def _publish(house: House, leak: str) -> None:
    broker = house.runtime.config.broker
    with redis.Redis.from_url(broker.replace("redis+socket", "unix")) as client:
        client.publish("careless", base64.b64encode(b"to:" + leak.encode()))
    eventually(lambda: b"careless" in house.broker())


def _write(file: Path, leak: str) -> None:
    with file.open("ab") as opened:
        opened.write(f"fax to +1 415 {leak[:3]}-{leak[3:]}\n".encode())


def _name_a_task_so(house: House, leak: str) -> None:
    """Of a task's arguments nothing is told (test_flower)."""
    app = Celery(broker=house.runtime.config.broker, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": "faxbot:"}
    with app.events.default_dispatcher() as events:
        events.send("task-received", uuid=secrets.token_hex(16), name=f"faxbot.to_{leak}")
    app.close()
    eventually(lambda: leak.encode() in house.window(), 20, every=0.3)


def _send_an_event(house: House, leak: str) -> None:
    body = json.dumps({"type": "FAX_SENT", "data": {"sequence": 1, "to": leak}})
    house.statement(
        "UPDATE webhook_deliveries SET body = :body WHERE id = (SELECT max(id) FROM webhook_deliveries)",
        body=body,
    )
    (row,) = house.runtime.database.rows(
        sa.text("SELECT max(id) AS id FROM webhook_deliveries"), {}
    )
    assert house.service.request("POST", f"/webhooks/deliveries/{row.id}/replay").ok
    eventually(lambda: leak.encode() in house.webhooks(), 20, every=0.1)


def _name_a_fax_so(house: House, leak: str) -> None:
    house.statement(
        "INSERT INTO notices (account_id, plugin_id, fax_id, sequence, kind, occurred_at, created_at) "
        "SELECT account_id, plugin_id, :leak, 1, kind, occurred_at, created_at FROM notices ORDER BY id LIMIT 1",
        leak=leak,
    )
    eventually(lambda: leak.encode() in house.mailbox(), 20, every=0.1)


def _ask_by_number(house: House, leak: str) -> None:
    wiretap = list(house.wiretaps.values())[-1]
    with requests.Session() as session:
        session.trust_env = False
        session.get(f"{wiretap.url}/v1/faxes?to={leak}", timeout=5)


def _show_on_a_command_line(house: House, leak: str) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)", f"--to={leak}"]
    installation = house.service.installation
    process = installation.ground.start(command, installation.folder, {}, house.service.log)
    eventually(lambda: leak.encode() in house.command_lines())
    process.kill()
    process.wait()


def _pause(house: House, leak: str) -> None:
    note = {"note": f"he of {leak}"}
    assert house.ask("POST", "/admin/providers/simulator/pause", json=note).ok


def _name_a_provider_so(house: House, leak: str, seen: Callable[[], bytes]) -> None:
    wish = {"": {"FAX_BACKENDS": leak}}
    settings = house.runtime.settings
    with house.runtime.database.transaction() as session:
        settings.write(session, wish, seen=settings.read().version, now=house.runtime.now())
    eventually(lambda: leak.encode() in seen(), 20, every=0.3)


def _be_refused(house: House, leak: str) -> None:
    _name_a_provider_so(house, leak, lambda: house.ask("GET", "/health/ready").content)


@dataclass(frozen=True)
class Channel:
    """Where something is read, and how a leak would come there."""

    seen: Callable[[House], bytes]
    plant: Callable[[House, str], object]


CHANNELS: dict[str, Channel] = {
    "broker": Channel(House.broker, _publish),
    "logs": Channel(House.logs, lambda house, leak: _write(house.service.log, leak)),
    "flower": Channel(House.window, _name_a_task_so),
    "events": Channel(
        House.events,
        lambda house, leak: house.statement("UPDATE attempts SET cause = :leak", leak=leak),
    ),
    "event stream": Channel(
        House.event_stream,
        lambda house, leak: house.statement(
            "INSERT INTO events (account_id, job_id, sequence, type, schema_version, status, cause, source, "
            "occurred_at, recorded_at) SELECT account_id, job_id, sequence + 1000, type, schema_version, status, "
            ":leak, source, occurred_at, recorded_at FROM events ORDER BY id DESC LIMIT 1",
            leak=leak,
        ),
    ),
    "webhooks": Channel(House.webhooks, _send_an_event),
    "mailbox": Channel(House.mailbox, _name_a_fax_so),
    "operators' pages": Channel(House.operators_pages, _pause),
    "operators' commands": Channel(House.operators_commands, _pause),
    "addresses": Channel(House.addresses, _ask_by_number),
    "command lines": Channel(House.command_lines, _show_on_a_command_line),
    "names of files": Channel(
        House.names_of_files, lambda house, leak: (house.temporary / f"{leak}.pdf").touch()
    ),
    "database": Channel(
        House.database,
        lambda house, leak: house.statement(
            "UPDATE jobs SET tags = :tags", tags=json.dumps({"patient": leak})
        ),
    ),
    "folders": Channel(
        House.folders, lambda house, leak: _write(house.temporary / "careless", leak)
    ),
    # From here on the house does not work any more.
    "answers that refuse": Channel(House.answers_that_refuse, _be_refused),
    "open answers": Channel(
        House.open_answers,
        lambda house, leak: _name_a_provider_so(house, leak, house.open_answers),
    ),
}
