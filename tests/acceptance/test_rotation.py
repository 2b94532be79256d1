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

from faxbot import wiring
from faxbot.db import new_id, table, utcnow
from faxbot.models import Job
from tests.acceptance.site import PDF, SHORT, Site
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import eventually
from tests.installation import FAXBOT, Installation

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
ROWS = 8_000
FAXES, NUMBERS = 30, 15
SEED = 20261121


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
    out, err = process.communicate(timeout=timeout)
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
        while not self._stop.is_set():
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


def rotate_with_kills(store: Installation, site: Site, dice: random.Random) -> int:
    """Call it and kill it, until it is left to end; how often it was killed."""
    env, killed = site.service.env, 0
    moments = [dice.uniform(0.5, 3), dice.uniform(6.5, 8), *(dice.uniform(1, 4) for _ in range(3))]
    for seconds in moments:
        rotation = run(store, env, "config", "rotate-key")
        try:
            done(rotation, seconds)
        except subprocess.TimeoutExpired:
            rotation.kill()
            rotation.communicate()
            killed += 1
        else:
            break
        site.kill("worker")
    return killed


def test_under_load_and_under_kills_a_new_key_file_takes_the_place_of_the_old_one(
    store: Installation, start_service: StartService
) -> None:
    dice = random.Random(SEED)
    with SimulatorProcess(store.folder) as carrier:
        service = start_service(store, "up", **SHORT, **carrier.environ)
        site = Site(service, carrier)
        fill(store, carrier.environ)
        old = (store.data_dir / "master.key").read_bytes()
        code, out, _ = done(
            run(store, service.env, "keys", "create", "--name", "k", "--scope", "*")
        )
        assert code == 0
        token = out.strip()
        load = Load(site)
        before = {key: load.settled(key) for key in (secrets.token_hex(8) for _ in range(3))}
        load.sent |= before
        with load.going_on():
            killed = rotate_with_kills(store, site, dice)
            code, out, err = done(run(store, service.env, "config", "rotate-key"), 300)
            assert code == 0, err
        assert killed >= 2
        assert load.strange == []
        assert len(load.sent) > 10

        code, out, _ = done(run(store, service.env, "config", "rotate-key", "--status", "--json"))
        status = json.loads(out)
        assert (status["state"], status["left"], status["unknown"]) == ("resting", {}, {})
        assert (store.data_dir / "master.key").read_bytes() != old
        kept = [path for path in store.data_dir.glob("master.key.*") if path.read_bytes() == old]
        for path in kept:
            path.unlink()
        assert len(kept) == 1

        service.stop()
        service.start()
        for key, fax_id in load.sent.items():
            assert load.settled(key) == fax_id
        for fax_id in load.sent.values():
            assert site.final(fax_id, 120)["status"] == "delivered"
            assert site.at_carrier(fax_id) == 1
        headers = {"X-API-Key": token}
        page = service.request("GET", "/fax?limit=100", headers=headers)
        assert page.status_code == 200
        assert service.request("GET", page_after(page), headers=headers).status_code == 200
        assert the_log_is_clean(service.output())
        service.stop()


def page_after(page: requests.Response) -> str:
    return f"/fax?limit=100&cursor={page.json()['next']}"


def the_log_is_clean(output: str) -> bool:
    return not [line for line in output.splitlines() if "nsealable" in line or "Traceback" in line]


def test_with_keys_in_the_environment_every_process_is_restarted_before_and_after(
    store: Installation, start_service: StartService
) -> None:
    with SimulatorProcess(store.folder) as carrier:
        given = {**SHORT, **carrier.environ}
        first = start_service(store, "up", **given, CONFIG_MASTER_KEY=OLD)
        key = "0" * 16
        fax_id = Load(Site(first, carrier)).settled(key)
        port, api_key = str(first.port), first.key
        given |= {"FAXBOT_PORT": port, "API_KEY": api_key}

        # With the new key alone nothing begins to serve.
        wrong = {**first.env, "CONFIG_MASTER_KEY": NEW}
        code, _, err = done(run(store, wrong, "worker"))
        assert code == 1
        assert re.search(r"another master key .* do not open", err), err
        both = {**first.env, "CONFIG_MASTER_KEY": NEW, "CONFIG_MASTER_KEY_PREVIOUS": OLD}

        # The first service has the old one alone, and is at work: it objects.
        with heard_from(Site(first, carrier)):
            code, _, err = done(run(store, both, "config", "rotate-key"))
        assert code == 1
        assert "does not have the new master key" in err
        first.stop()

        second = start_service(
            store, "up", **given, CONFIG_MASTER_KEY=NEW, CONFIG_MASTER_KEY_PREVIOUS=OLD
        )
        assert Load(Site(second, carrier)).settled(key) == fax_id
        code, out, err = done(run(store, both, "config", "rotate-key", "--dry-run", "--json"))
        assert json.loads(out)["left"]["jobs.to_sealed"] == 1
        code, out, err = done(run(store, both, "config", "rotate-key"))
        assert code == 0, err
        assert "CONFIG_MASTER_KEY_PREVIOUS away" in out
        assert Load(Site(second, carrier)).settled(key) == fax_id
        second.stop()

        third = start_service(store, "up", **given, CONFIG_MASTER_KEY=NEW)
        site = Site(third, carrier)
        assert Load(site).settled(key) == fax_id
        assert site.final(fax_id)["status"] == "delivered"
        assert site.at_carrier(fax_id) == 1
        third.stop()


@contextmanager
def heard_from(site: Site) -> Iterator[None]:
    """Requests come all the time meanwhile."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.2):
            with suppress(requests.RequestException):
                site.service.request("GET", "/fax")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
