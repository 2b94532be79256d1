"""Another master key under load, with everything killed that can be: nothing is lost, nothing comes twice, nothing is
unreadable."""

from __future__ import annotations

import base64
import json
import random
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import requests
import sqlalchemy as sa

from faxbot import masterkeys, rotation, wiring
from faxbot.db import Database, new_id, table, utcnow
from faxbot.models import Job
from tests.acceptance.site import PDF, SHORT, Site
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import BUSY, eventually
from tests.installation import FAXBOT, Installation, Service

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
ROWS = 6_000
FAXES, NUMBERS = 12, 6


def run(store: Installation, env: Mapping[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [FAXBOT, *words],
        cwd=store.folder,
        env=dict(env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def done(process: subprocess.Popen[str], timeout: float = 120) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=timeout * BUSY)
    return process.returncode, out, err


def fill(store: Installation, env: Mapping[str, str]) -> None:
    """Faxes for another day, so many that sealing them anew takes seconds."""
    runtime = wiring.build(store.config(**env))
    runtime.fresh()
    now, columns = utcnow(), table(Job).c
    usual: dict[str, Any] = {
        "account_id": "default", "created_by": "env", "status": "queued", "resolution": "fine", "priority": 128,
        "tags": {}, "pages_sent": 0, "attempts": 0, "tries": 0, "faults": 0, "deaths": 0, "fence": 0,
        "last_sequence": 1, "created_at": now, "updated_at": now, "next_at": now + timedelta(days=30),
    }  # fmt: skip
    rows = []
    for n in range(ROWS):
        number = f"+1555{n:07}".encode()
        sealed = runtime.keyring.seal(number, "jobs.to:default")
        key = runtime.keyring.keyed_hash(number, "number")
        rows.append({**usual, "id": new_id(), "to_sealed": sealed, "to_key": key})
    assert set(usual) < set(columns.keys())
    with runtime.database.writing() as connection:
        connection.execute(sa.insert(table(Job)).inline(), rows)
    runtime.close()


@dataclass
class Load:
    """Clients that submit with keys, repeat what was not answered, and now and then what was."""

    site: Site
    sent: dict[str, str] = field(default_factory=dict)
    """By Idempotency-Key the fax."""
    strange: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def submit(self, key: str) -> str:
        data = {"to": f"+15550{int(key, 16) % NUMBERS:02}0000"}
        with suppress(requests.RequestException):
            answer = self.site.service.request(
                "POST",
                "/fax/send",
                data=data,
                files={"file": PDF.read_bytes()},
                headers={"Idempotency-Key": key},
            )
            if answer.status_code == 202:
                return str(answer.json()["id"])
            if answer.status_code not in (409, 503):
                self.strange.append(answer.text)
        return ""

    def settled(self, key: str) -> str:
        return eventually(lambda: self.submit(key), 60, every=0.2)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            if len(self.sent) < FAXES:
                key = secrets.token_hex(8)
                self.sent[key] = self.settled(key)
            again = random.choice(list(self.sent))
            if self.settled(again) != self.sent[again]:
                self.strange.append(f"{again} is another fax")

    @contextmanager
    def going_on(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


@contextmanager
def killed_at_the_end(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    yield process
    assert process.poll() is None, "it came to its end before it was killed"
    process.kill()
    process.communicate()


def rotate_with_kills(store: Installation, site: Site) -> None:
    """Call it and kill it: when the new key is announced, when it has begun to seal, and in the midst of the rows."""
    env, database = site.service.env, Database(store.config())

    def begun() -> subprocess.Popen[str]:
        return run(store, env, "config", "rotate-key")

    with killed_at_the_end(begun()):
        eventually(lambda: masterkeys.stand(database).upcoming, 60)
    with killed_at_the_end(begun()):
        eventually(lambda: masterkeys.stand(database).retiring, 60)
    site.kill("worker")
    with killed_at_the_end(begun()) as third:
        assert third.stderr is not None
        assert any(line.startswith("jobs: ") for line in third.stderr)
    site.kill("worker")
    assert masterkeys.stand(database).retiring
    database.close()


def status(store: Installation, env: Mapping[str, str]) -> dict[str, Any]:
    code, out, err = done(run(store, env, "config", "rotate-key", "--status", "--json"))
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def nothing_is_left(found: dict[str, Any]) -> bool:
    return (found["state"], found["left"], found["unknown"]) == ("resting", {}, {})


def test_under_load_and_under_kills_a_new_key_file_takes_the_place_of_the_old_one(
    embedded: Installation, start_service: StartService
) -> None:
    """What the two databases do differently is seen in tests/integration/test_rotation.py; here it is the one on which
    whoever seals anew is in everybody's way."""
    store = embedded
    with SimulatorProcess(store.folder) as carrier:
        service = start_service(store, "up", **SHORT, **carrier.environ)
        site = Site(service, carrier)
        fill(store, carrier.environ)
        old = (store.data_dir / "master.key").read_bytes()
        load = Load(site)
        before = {key: load.settled(key) for key in (secrets.token_hex(8) for _ in range(3))}
        load.sent |= before
        with load.going_on():
            rotate_with_kills(store, site)
            assert status(store, service.env)["left"]["jobs.to_sealed"] > 0
            code, _, err = done(run(store, service.env, "config", "rotate-key"))
            assert code == 0, err
        assert load.strange == []
        assert len(load.sent) > 6

        assert nothing_is_left(status(store, service.env))
        assert (store.data_dir / "master.key").read_bytes() != old
        (kept,) = [path for path in store.data_dir.glob("master.key.*") if path.read_bytes() == old]
        kept.unlink()
        for role in ("web", "worker"):
            site.kill(role)
        for key, fax_id in load.sent.items():
            assert load.settled(key) == fax_id
        for fax_id in load.sent.values():
            assert site.final(fax_id)["status"] == "delivered"
            assert site.at_carrier(fax_id) == 1
        page = service.request("GET", "/fax?limit=100")
        assert page.status_code == 200
        assert all(each["to"] for each in page.json()["items"])
        assert the_log_is_clean(service.output())
        service.stop()


def the_log_is_clean(output: str) -> bool:
    return not [line for line in output.splitlines() if "nsealable" in line or "Traceback" in line]


def test_with_keys_in_the_environment_who_lacks_one_is_heard_and_the_old_one_is_not_needed_any_more(
    store: Installation, start_service: StartService
) -> None:
    """With key files every process finds them, whatever the database is."""
    with SimulatorProcess(store.folder) as carrier:
        given = {**SHORT, **carrier.environ}
        both = {"CONFIG_MASTER_KEY": NEW, "CONFIG_MASTER_KEY_PREVIOUS": OLD}
        rotation.admit(store.config(CONFIG_MASTER_KEY=OLD))  # it was there first
        service = start_service(store, "up", **given, **both)
        site, load = Site(service, carrier), Load(Site(service, carrier))
        key = "0" * 16
        fax_id = load.settled(key)

        wrong = run(store, {**service.env, **alone(NEW)}, "worker")
        late = start_service(store, "web", **given, **alone(OLD), API_KEY=service.key)
        with heard_from(late):
            code, _, err = done(run(store, service.env, "config", "rotate-key"))
        assert code == 1
        assert "does not have the new master key" in err
        late.stop()
        code, _, err = done(wrong)
        assert code == 1
        assert re.search(r"another master key .* do not open", err), err

        code, out, err = done(run(store, service.env, "config", "rotate-key"))
        assert code == 0, err
        assert "CONFIG_MASTER_KEY_PREVIOUS away" in out
        assert load.settled(key) == fax_id
        assert site.final(fax_id)["status"] == "delivered"
        assert site.at_carrier(fax_id) == 1
        assert nothing_is_left(status(store, {**service.env, **alone(NEW)}))
        assert the_log_is_clean(service.output())
        service.stop()


def alone(key: str) -> dict[str, str]:
    return {"CONFIG_MASTER_KEY": key, "CONFIG_MASTER_KEY_PREVIOUS": ""}


@contextmanager
def heard_from(service: Service) -> Iterator[None]:
    """Requests come all the time meanwhile."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.2):
            with suppress(requests.RequestException):
                service.request("GET", "/fax")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
