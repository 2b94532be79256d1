"""A process dies at each place where it hurts, everything goes on, and the fax has arrived once.

The builds die by SIGKILL at a sentence that is planted in them, the first time they come there; all processes are real.
What retention must outlive is not here: there is none yet.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import requests

from faxbot.events import TERMINAL
from tests.acceptance.site import PDF, SHORT
from tests.carrier import SimulatorProcess
from tests.conftest import BOTH
from tests.ground import Ground, eventually
from tests.installation import Installation, Service
from tests.planted import Planted, build
from tests.receiver import Receiver, verified
from tests.servers import RedisServer, free_port

STORES = BOTH

ROLES = ("worker", "beat", "web")
TIMES = {
    **SHORT,
    "FAXBOT_LEASE_SECONDS": "1.5",
    "FAXBOT_HEARTBEAT_SECONDS": "0.4",
    "FAXBOT_LOOK_UP_SECONDS": "0.2",
    "FAXBOT_SETTLE_SECONDS": "0.2",
    "FAXBOT_PROVIDER_CALL_SECONDS": "1",
    "FAXBOT_PROVIDER_READ_SECONDS": "1",
    "FAXBOT_WEBHOOK_NETWORKS": "127.0.0.1",
    "FAXBOT_WEBHOOK_PORTS": "1024-65535",
}
HERE = """
import os, signal

def here(how=signal.SIGKILL):
    try:
        os.close(os.open(os.environ["CRASH_MARK"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), how)
"""
DIES = "__import__('crash').here()\n"
STOPS = f"__import__('crash').here({int(signal.SIGSTOP)})\n"


def before(module: str, line: str, deed: str = DIES) -> Planted:
    """The deed on a line of its own before this one."""
    indent = line[: len(line) - len(line.lstrip())]
    return Planted(module, line, f"{indent}{deed}{line}")


POINTS: dict[str, Planted] = {
    "C1 stored, transaction not begun": before(
        "jobs.py",
        "        with runtime.database.writing() as connection:\n            if key is not None:\n",
    ),
    "C2 committed and rung, reply not sent": before(
        "jobs.py", "    return Answer(202, body, False, job.id)\n"
    ),
    "C3 committed, bell not rung": before(
        "jobs.py", "    artifacts.settle(runtime, documents)\n    if job.next_at is not None"
    ),
    "C4 rung five times": Planted(
        "jobs.py",
        "        claims.announce(runtime, Status.QUEUED, job.id, now, urgency)\n",
        "        for _ in range(5):\n"
        "            claims.announce(runtime, Status.QUEUED, job.id, now, urgency)\n",
    ),
    "C5 claimed, before the intent": before(
        "sending.py", "        this = _intend(runtime, job, prepared)\n"
    ),
    "C5 while rendering": before(
        "artifacts.py",
        "    pages = runtime.renderer.render(sources, target, resolution=job.resolution)\n",
    ),
    "C6 intent committed, call not begun": before(
        "sending.py", "        result, raised = _call(runtime, job, this, prepared)\n"
    ),
    "C7 accepted by the carrier, reply not read": before(
        "sending.py", "    if not isinstance(receipt, Receipt)"
    ),
    "C8 reply read, outcome not committed": before(
        "sending.py",
        "    now = runtime.now()\n    with runtime.database.transaction() as session:\n"
        "        current, known = locked_with(session, this.id, fence=job.fence)\n",
    ),
    "C9 callback before our commit": before(
        "sending.py",
        "        _conclude(runtime, job, this, prepared, result, took)\n",
        "__import__('time').sleep(1.5)\n",
    ),
    "C10 callback applied, not acknowledged": Planted(
        "tasks/callbacks.py",
        "    callbacks.apply(runtime(), callback_id)\n",
        f"    callbacks.apply(runtime(), callback_id)\n    {DIES}",
    ),
    "C16 stopped behind the intent, past its lease": before(
        "sending.py", "        result, raised = _call(runtime, job, this, prepared)\n", STOPS
    ),
    "C16 stopped behind the call, past its lease": before(
        "sending.py", "        _conclude(runtime, job, this, prepared, result, took)\n", STOPS
    ),
}
DO_NOT_DIE = ("C4", "C9")
WEBHOOK_POINTS: dict[str, Planted] = {
    "C11 event committed, webhook not sent": before(
        "courier.py", "        target, started_at = endpoint.target, runtime.now()\n"
    ),
    "C12 webhook taken, not recorded": before(
        "courier.py", "            standings = _written(runtime, tried)\n"
    ),
}


class System:
    """The roles of one installation as processes; what dies in them is started again by themselves."""

    def __init__(
        self,
        installation: Installation,
        carrier: SimulatorProcess,
        path: Path,
        times: Mapping[str, str] = TIMES,
    ) -> None:
        self.carrier = carrier
        self.mark = path / "mark"
        port = free_port()
        words = {
            "PUBLIC_API_URL": f"http://127.0.0.1:{port}",
            **times,
            **carrier.environ,
            "PYTHONPATH": str(path),
            "CRASH_MARK": str(self.mark),
            "FAXBOT_WEB_WORKERS": "1",
        }
        ports = {"web": {"FAXBOT_PORT": str(port)}}
        self.roles = {
            role: Service(installation, role, **words, **ports.get(role, {})) for role in ROLES
        }

    @property
    def web(self) -> Service:
        return self.roles["web"]

    def start(self) -> None:
        for role in ROLES:
            self.roles[role].start()

    def stop(self) -> None:
        for role in self.roles.values():
            if role.process is not None:
                self.let_go_on(role)
                role.kill9()

    def let_go_on(self, role: Service) -> None:
        for process in role.tree() if role.process and role.process.poll() is None else ():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def submit(self, key: str) -> str:
        """Submit one fax as a client does that repeats its request until it is answered."""
        return eventually(lambda: self._try(key), 60, every=0.2)

    def _try(self, key: str) -> str:
        with suppress(requests.RequestException):
            answer = self.web.request(
                "POST",
                "/fax/send",
                data={"to": "+15550100000"},
                files={"file": PDF.read_bytes()},
                headers={"Idempotency-Key": key},
            )
            if answer.status_code == 202:
                return str(answer.json()["id"])
        return ""

    def story(self, fax_id: str) -> dict[str, Any]:
        with suppress(requests.RequestException):
            found: dict[str, Any] = self.web.request("GET", f"/fax/{fax_id}/events").json()
            return found
        return {"events": [{"status": "not read"}], "attempts": []}

    def end_of(self, fax_id: str) -> dict[str, Any]:
        """The timeline once it is final."""
        eventually(lambda: self.story(fax_id)["events"][-1]["status"] in TERMINAL, 60, every=0.1)
        return self.story(fax_id)

    def at_carrier(self, story: dict[str, Any]) -> int:
        return sum(len(self.carrier.faxes(attempt["tag"])) for attempt in story["attempts"])


@pytest.fixture
def start(store: Installation, ground: Ground, tmp_path: Path) -> Iterator[Callable[..., System]]:
    """start(planted): a running system of such a build."""
    with ExitStack() as stack:

        def starting(*planted: Planted) -> System:
            path = build(tmp_path, *planted)
            (path / "crash.py").write_text(HERE)
            stack.enter_context(_broker(store, ground))
            carrier = stack.enter_context(SimulatorProcess(store.folder))
            system = System(store, carrier, path)
            stack.callback(system.stop)
            system.start()
            return system

        yield starting


@contextmanager
def _broker(store: Installation, ground: Ground) -> Iterator[None]:
    """The embedded store has no broker of its own here: one beside it, that is emptied by nobody."""
    if "CELERY_BROKER_URL" in store.env:
        yield
        return
    server = RedisServer(ground)
    server.start()
    store.env["CELERY_BROKER_URL"] = server.url
    try:
        yield
    finally:
        server.stop()


@pytest.mark.parametrize("point", POINTS)
def test_wherever_a_process_dies_the_fax_arrives_once(
    start: Callable[..., System], point: str
) -> None:
    system = start(POINTS[point])
    fax_id = system.submit("the-same-key")
    if point.startswith("C16"):
        eventually(system.mark.exists, 20)
        time.sleep(float(TIMES["FAXBOT_LEASE_SECONDS"]) + 1)
        system.let_go_on(system.roles["worker"])
    assert system.submit("the-same-key") == fax_id
    story = system.end_of(fax_id)

    assert story["events"][-1]["type"] == "FAX_DELIVERED"
    assert system.at_carrier(story) == 1
    if not point.startswith(DO_NOT_DIE):
        eventually(system.mark.exists)  # the fax may have ended by another road, a moment before
    assert system.mark.exists() is not point.startswith(DO_NOT_DIE)
    numbers = [event["sequence"] for event in story["events"]]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("point", WEBHOOK_POINTS)
def test_wherever_a_process_dies_every_event_arrives_under_one_id(
    start: Callable[..., System], point: str
) -> None:
    system = start(WEBHOOK_POINTS[point])
    with Receiver() as receiver:
        wish = {"name": "records", "url": receiver.url}
        webhook = system.web.request("POST", "/webhooks", json=wish).json()
        tested = system.web.request("POST", f"/webhooks/{webhook['id']}/test").json()
        assert tested["activated"] is True
        fax_id = system.submit("the-same-key")
        story = system.end_of(fax_id)
        told = {event["sequence"]: event["type"] for event in story["events"]}

        def heard() -> dict[int, set[str]]:
            found: dict[int, set[str]] = {}
            for each in receiver.heard[1:]:
                assert verified(each, webhook["secret"])["data"]["fax_id"] == fax_id
                found.setdefault(each.event["data"]["sequence"], set()).add(each.id)
            return found

        eventually(lambda: heard().keys() == told.keys(), 30)
        path = f"/webhooks/{webhook['id']}/deliveries"
        eventually(
            lambda: {
                each["status"] for each in system.web.request("GET", path).json()["items"]
            } == {"delivered"},
            30,
        )  # fmt: skip

    assert system.mark.exists()
    assert all(len(ids) == 1 for ids in heard().values()), "the same webhook-id on every try"
    again = len(receiver.heard) - 1 - len(told)
    assert again > 0 if point.startswith("C12") else again == 0


def test_c14_what_came_while_the_clock_was_dead_is_caught_up(start: Callable[..., System]) -> None:
    """And nobody was rung for: the worker was away, too."""
    system = start()
    for role in ("beat", "worker"):
        system.roles[role].kill9()
    faxes = [system.submit(f"key-{number}") for number in range(3)]
    system.roles["beat"].start()
    system.roles["worker"].start()

    assert [system.at_carrier(system.end_of(fax_id)) for fax_id in faxes] == [1, 1, 1]


def test_c15_a_broker_that_is_emptied_costs_nothing(start: Callable[..., System]) -> None:
    system = start()
    system.roles["worker"].kill9()
    faxes = [system.submit(f"key-{number}") for number in range(3)]
    with redis.Redis.from_url(system.web.env["CELERY_BROKER_URL"]) as broker:
        broker.flushall()
    system.roles["worker"].start()

    assert [system.at_carrier(system.end_of(fax_id)) for fax_id in faxes] == [1, 1, 1]


def test_the_matrix_is_whole() -> None:
    numbers = {point.split()[0] for point in (*POINTS, *WEBHOOK_POINTS)}
    elsewhere = {"C14", "C15"}
    planned = {"C13"}  # retention
    assert numbers | elsewhere | planned == {f"C{number}" for number in range(1, 17)}
