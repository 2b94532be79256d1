"""A new version while faxes are under way: processes of before and of now work on one schema, in any pairing.

The version of before is what the history has from just before the newest migration.
"""

from __future__ import annotations

import secrets
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from faxbot import db
from faxbot.config import Config
from tests.acceptance.site import PDF, SHORT
from tests.carrier import SimulatorProcess
from tests.containers import ROOT
from tests.ground import Ground, eventually
from tests.installation import FAXBOT, Installation, Service
from tests.servers import Postgres

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="an exported tree has no version of before"
)
EACH = 4
PATIENT = {
    **SHORT,
    "FAXBOT_LEASE_SECONDS": "10",
    "FAXBOT_HEARTBEAT_SECONDS": "2",
    "FAXBOT_PROVIDER_CALL_SECONDS": "10",
    "FAXBOT_PROVIDER_READ_SECONDS": "8",
    "FAXBOT_SETTLE_SECONDS": "5",
    "FAXBOT_BREAKER_REST_SECONDS": "1",
}
"""A dozen processes start beside each other: what is slow is not broken. A carrier that takes a fax only seconds after
its caller has gone would break its promise to list it by then, and be called for it again."""
ANSWERS = 60.0
"""Seconds within which each request must be answered."""


def git(*words: str) -> bytes:
    command = ["git", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, f"git {words[0]}: {done.stderr.decode()}"
    return done.stdout


@pytest.fixture
def before(ground: Ground) -> Path:
    """The code of before, to be put in front of ours on PYTHONPATH."""
    if git("rev-parse", "--is-shallow-repository").strip() != b"false":
        pytest.skip("the version of before is in the history: git fetch --unshallow")
    newest = f"migrations/versions/{db.head()}_*.py"
    added = git("log", "--diff-filter=A", "--format=%H", "-1", "--", newest).decode().strip()
    archive = git("archive", "--format=tar", f"{added}^", "faxbot", "migrations")
    folder = ground.new_folder("before")
    subprocess.run(["/bin/tar", "-x", "-C", folder], input=archive, check=True)
    (folder / "migrations").rename(folder / "faxbot" / "migrations")  # as it is installed
    return folder


@pytest.fixture
def empty(store: Installation, postgres_server: Postgres) -> Iterator[Installation]:
    """An installation whose database has no schema yet."""
    name = f"faxbot_upgrade_{secrets.token_hex(4)}"
    postgres_server.create_database(name)
    store.env["DATABASE_URL"] = postgres_server.url(name)
    yield store
    postgres_server.drop_database(name)


def upgrade(installation: Installation, **changes: str) -> str:
    """`faxbot db upgrade`: the revision."""
    done = subprocess.run(
        [FAXBOT, "db", "upgrade"],
        env={**installation.env, **changes},
        cwd=installation.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = db.current(Config.load(installation.env))
    assert found is not None
    return found


def submit(web: Service, phase: int) -> list[str]:
    ids = []
    for n in range(EACH):
        answer = web.request(
            "POST",
            "/fax/send",
            data={"to": f"+1555{phase}{n:02}0000"},
            files={"file": ("fax.pdf", PDF.read_bytes())},
            headers={"Idempotency-Key": f"{phase}-{n}"},
            timeout=ANSWERS,
        )
        assert answer.status_code == 202, answer.text
        ids.append(str(answer.json()["id"]))
    return ids


def end(service: Service) -> None:
    if service.process is not None:
        service.kill9()


def is_delivered(web: Service, path: str) -> bool:
    return bool(web.request("GET", path, timeout=ANSWERS).json()["status"] == "delivered")


def test_old_and_new_processes_send_each_fax_once_on_one_schema(
    empty: Installation, before: Path, ground: Ground
) -> None:
    old_code = {"PYTHONPATH": str(before)}
    with SimulatorProcess(ground.new_folder("carrier")) as carrier, ExitStack() as stack:
        words = {**PATIENT, **carrier.environ, "API_KEY": secrets.token_urlsafe(24)}

        def started(role: str, **changes: str) -> Service:
            service = Service(empty, role, **words, **changes).start()
            stack.callback(end, service)
            return service

        def delivered(web: Service, ids: list[str]) -> None:
            for each in ids:
                eventually(partial(is_delivered, web, f"/fax/{each}"), 90, every=0.2)

        first = upgrade(empty, **old_code)
        assert first != db.head()
        old_web, old_worker = started("web", **old_code), started("worker", **old_code)
        beat = started("beat", **old_code)
        delivered(old_web, submit(old_web, 1))

        under_way = submit(old_web, 2)
        assert upgrade(empty) == db.head()
        delivered(old_web, [*under_way, *submit(old_web, 3)])

        new_web = started("web")
        delivered(new_web, submit(new_web, 4))
        assert old_worker.process is not None
        assert old_worker.process.poll() is None, old_worker.output()

        under_way = submit(old_web, 5)
        new_worker = started("worker")
        assert old_worker.stop() == 0
        delivered(old_web, [*under_way, *submit(old_web, 6)])

        assert beat.stop() == 0
        started("beat")
        assert old_web.stop() == 0
        delivered(new_web, submit(new_web, 7))
        assert new_worker.stop() == 0
        with closing(sqlite3.connect(carrier.ledger_path)) as ledger:
            taken = [row[0] for row in ledger.execute("SELECT count(*) FROM faxes GROUP BY to_key")]
        assert taken == [1] * 7 * EACH, "each number has one fax"
