"""One drill: faxes are sent, a backup is taken, more is sent, all is lost, and the backup is brought back elsewhere.

The ledger that comes back knows nothing of what was done after it: each fax that waits in it is asked for at the
carrier before it is sent. Clients repeat, under the same keys, what they were not told the end of.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from faxbot.db import utcnow
from faxbot.events import TERMINAL, Status
from faxbot.restored import tag_of
from tests.acceptance.site import SHORT, Site
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation, Service
from tests.servers import Postgres, PostgresServer

ENDINGS = ("0000", "0000", "0000", "0044", "0066", "0504")
"""Delivered, all of them, by one call; of some the reply or the callback is lost."""
WORDS = {
    **SHORT,
    "FAXBOT_PROVIDER_CALL_SECONDS": "10",
    "FAXBOT_PROVIDER_READ_SECONDS": "8",
    "FAXBOT_SETTLE_SECONDS": "3",
    "FAXBOT_BREAKER_REST_SECONDS": "1",
}
"""A carrier that is slow on a busy machine keeps its promise to list what it took by then."""
LATER = 4.0
"""Seconds after which a third of the faxes may go: they wait when the backup is taken, and are sent after it."""


@dataclass
class Result:
    """What was counted; times in seconds."""

    seed: int
    backed_up: int = 0
    sent_since: int = 0
    """Of those in the backup that waited, and were at the carrier when all was lost."""
    accepted_since: int = 0
    told_since: int = 0
    """Of those accepted after the backup the ones of which clients knew the end."""
    repeated: int = 0
    rpo: float = 0.0
    until_accepting: float = 0.0
    until_settled: float = 0.0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    repeated_twice: list[str] = field(default_factory=list)
    """Accepted after the backup, sent, and sent again because the client repeated it."""

    @property
    def line(self) -> str:
        return (
            f"RTO {self.until_accepting:.1f} s to the first fax taken, {self.until_settled:.1f} s until every fax of "
            f"the backup had ended; RPO {self.rpo:.1f} s. In the backup {self.backed_up}, of those sent after it "
            f"{self.sent_since}: {len(self.lost)} lost, {len(self.twice)} sent twice. Accepted after it "
            f"{self.accepted_since}: {self.told_since} known to have ended, {self.repeated} repeated, "
            f"{len(self.repeated_twice)} of them sent before and again"
        )


@dataclass(frozen=True)
class Backup:
    """What was put aside: a dump or a copy of the database, and beside it the rest of the data folder."""

    database: Path
    folder: Path


def take(store: Installation, target: Path, postgres: Postgres | None) -> Backup:
    """As docs/operations.md says: the database first, then the documents, while everything runs."""
    target.mkdir()
    database = target / "ledger"
    if postgres is None:
        with (
            closing(sqlite3.connect(store.data_dir / "faxbot.db")) as source,
            closing(sqlite3.connect(database)) as copy,
        ):
            source.backup(copy)
    else:
        words = ("--format=custom", f"--file={database}", store.env["DATABASE_URL"])
        _run(_program(postgres, "pg_dump"), *words)
    folder = target / "data"
    leave = shutil.ignore_patterns("faxbot.db*", "spool", "locks", "*.sock", "*.pid")
    shutil.copytree(store.data_dir, folder, ignore=leave)
    return Backup(database, folder)


def bring_back(store: Installation, backup: Backup, postgres: Postgres | None) -> Installation:
    """The backup in a new place, with a new database."""
    folder = store.folder / "elsewhere"
    folder.mkdir()
    shutil.copytree(backup.folder, folder / "data")
    env = {**store.env, "FAX_DATA_DIR": str(folder / "data")}
    if postgres is None:
        shutil.copy(backup.database, folder / "data" / "faxbot.db")
    else:
        name = store.env["DATABASE_URL"].rpartition("/")[2] + "_back"
        postgres.create_database(name)
        env["DATABASE_URL"] = postgres.url(name)
        target = f"--dbname={env['DATABASE_URL']}"
        _run(_program(postgres, "pg_restore"), "--no-owner", target, str(backup.database))
    return replace(store, folder=folder, env=env)


def _program(postgres: Postgres, name: str) -> str:
    if isinstance(postgres, PostgresServer):
        return str(postgres.binaries / name)
    found = shutil.which(name)
    assert found is not None, f"no {name} on this machine"
    return found


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=120)


def lose(store: Installation, service: Service, postgres: Postgres | None) -> None:
    """Everything is gone: the processes, the data folder, the database."""
    service.kill9()
    shutil.rmtree(store.data_dir)
    if postgres is not None:
        postgres.drop_database(store.env["DATABASE_URL"].rpartition("/")[2])


class Clients:
    """Submit under keys, and know what they were told."""

    def __init__(self, luck: random.Random) -> None:
        self._luck = luck
        self.numbers: dict[str, str] = {}
        self.ids: dict[str, list[str]] = {}
        """By key the faxes that it stands for: one, and after a repeat two."""

    def submit(self, site: Site, key: str, send_at: datetime | None = None) -> None:
        ending = self.numbers.setdefault(key, f"{len(self.numbers):03}{self._luck.choice(ENDINGS)}")
        data = {"to": f"+1555{ending}"}
        if send_at is not None:
            data["send_at"] = send_at.isoformat()
        headers, files = {"Idempotency-Key": key}, {"file": ("fax.txt", f"fax {key}".encode())}
        answer = site.service.request("POST", "/fax/send", data=data, files=files, headers=headers)
        assert answer.status_code == 202, answer.text
        self.ids.setdefault(key, []).append(str(answer.json()["id"]))


def at_carrier(carrier: SimulatorProcess) -> Counter[str]:
    """How many faxes it took, by tag."""
    with closing(sqlite3.connect(carrier.ledger_path)) as ledger:
        rows = ledger.execute("SELECT tag, count(*) FROM faxes GROUP BY tag").fetchall()
    return Counter(dict(rows))


def taken(counted: Counter[str], ids: list[str]) -> int:
    return sum(counted[tag_of(fax_id, number)] for fax_id in ids for number in range(1, 9))


def _taken_of(carrier: SimulatorProcess, clients: Clients, keys: set[str]) -> int:
    counted = at_carrier(carrier)
    return sum(taken(counted, clients.ids[key]) for key in keys)


def drill(
    store: Installation,
    carrier: SimulatorProcess,
    postgres: Postgres | None,
    *,
    faxes: int,
    seed: int,
    say: Callable[[str], object] = lambda _text: None,
) -> Result:
    """Make one; `faxes` are in the backup, half as many come after it."""
    luck, result = random.Random(seed), Result(seed)
    words = {**WORDS, **carrier.environ}
    site = Site(Service(store, "up", **words).start(), carrier)
    clients = Clients(luck)
    before = [f"before-{n}" for n in range(faxes)]
    since = [f"since-{n}" for n in range(faxes // 2)]
    later = before[::3]
    for key in before:
        clients.submit(site, key, utcnow() + timedelta(seconds=LATER) if key in later else None)
    say("backup")
    waiting = {key for key in before if site.fax(clients.ids[key][0])["status"] == Status.QUEUED}
    backed_up_at = time.monotonic()
    backup = take(store, store.folder / "backup", postgres)
    result.backed_up = faxes
    for key in since:
        clients.submit(site, key)
    half = (len(waiting) + 1) // 2
    eventually(lambda: _taken_of(carrier, clients, waiting) >= half, 120, every=0.3)
    time.sleep(luck.uniform(0, 1))
    told = {key for key in since if site.fax(clients.ids[key][0])["status"] in TERMINAL}

    say("all is lost")
    result.rpo = time.monotonic() - backed_up_at
    lose(store, site.service, postgres)
    gone_at = time.monotonic()
    counted = at_carrier(carrier)
    result.sent_since = sum(taken(counted, clients.ids[key]) for key in waiting)
    result.accepted_since, result.told_since = len(since), len(told)

    back = bring_back(store, backup, postgres)
    site = Site(Service(back, "up", **words, API_KEY=site.service.key).start(wait=False), carrier)
    eventually(lambda: _accepts(site), 60, every=0.1)
    result.until_accepting = time.monotonic() - gone_at
    say("back")
    for key in since:
        if key not in told:
            clients.submit(site, key)
            result.repeated += 1
    kept = [clients.ids[key][-1] for key in [*before, *since] if key not in told]
    _await_all(site, [clients.ids[key][-1] for key in before])
    result.until_settled = time.monotonic() - gone_at
    _await_all(site, kept)

    counted = at_carrier(carrier)
    for key in [*before, *since]:
        count = taken(counted, clients.ids[key])
        if count == 0:
            result.lost.append(key)
        elif count > 1:
            (result.twice if key in before else result.repeated_twice).append(key)
    result.lost += [
        key for key in before if site.fax(clients.ids[key][-1])["status"] != Status.DELIVERED
    ]
    site.service.stop()
    return result


def _accepts(site: Site) -> bool:
    try:
        return site.service.request("GET", "/fax", timeout=2).status_code == 200
    except OSError:
        return False


def _await_all(site: Site, ids: list[str]) -> None:
    for fax_id in ids:
        site.final(fax_id, timeout=180)
