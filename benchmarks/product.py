"""Brings faxbot up as an operator would, role by role through its command, with its settings as they come."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.carrier import HttpLedger, get_json
from benchmarks.client import Address
from benchmarks.floor.settings import SHARED_WITH_CARRIER
from benchmarks.floor.start import start_carrier
from benchmarks.launch import Child, NotStarted, Workshop, free_port, until
from benchmarks.processes import children
from benchmarks.service import Service
from benchmarks.sides import Side

HERE = Path(__file__).parent.parent

_ROLE = re.compile(r"faxbot\.cli (\w+)")
_PORT = re.compile(r"carrier simulator --port (\d+)")
_WARNINGS = ("--log-level", "warning")
_QUIET = dict.fromkeys(("web", "worker", "beat", "listen"), _WARNINGS)
"""As `faxbot up` starts its roles."""


@dataclass(frozen=True)
class Product:
    """One installation: its name among the sides and the environment of its commands."""

    workshop: Workshop
    name: str
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['FAXBOT_PORT']}"

    def command(self, *words: str) -> str:
        """Run one command of faxbot to its end and give what it printed; raises NotStarted."""
        done = subprocess.run(
            [sys.executable, "-m", "faxbot.cli", *words],
            env=dict(self.environment), cwd=self.workshop.folder, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise NotStarted(f"faxbot {' '.join(words)}: {done.stderr}")
        return done.stdout

    def start(self, role: str, *words: str) -> Child:
        """Start one role."""
        log = f"{self.name}-{role}".replace(" ", "-")
        return self.workshop.python(
            log, "faxbot.cli", role, *words, *_QUIET.get(role, ()), environment=self.environment
        )

    def web(self) -> Child:
        """Start web and wait until it answers."""
        child = self.start("web")
        until(self.answers, child, seconds=60)
        return child

    def answers(self, path: str = "/health") -> bool:
        """Whether web is there."""
        try:
            get_json(Address.of(self.url), path)
        except OSError:
            return False
        return True

    def service(self) -> Service:
        """With a new key from the database, as a client program has one."""
        words = ("keys", "create", "--name", "benchmark", "--scope", "*", "--json")
        key = json.loads(self.command(*words))["key"]
        return Service(Address.of(self.url), key)


def install(workshop: Workshop, name: str, database: str, redis: str, **settings: str) -> Product:
    """An installation with an up-to-date database (postgresql://..., or "" for SQLite) of which nothing runs yet."""
    folder = workshop.folder / f"{name}-data".replace(" ", "-")
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(HERE),
        "FAX_DATA_DIR": str(folder),
        "FAXBOT_PORT": str(free_port()),
        "CELERY_BROKER_URL": redis,
        **settings,
    }
    if database:
        environment["DATABASE_URL"] = database
    product = Product(workshop, name, environment)
    product.command("db", "upgrade")
    return product


def start_web(workshop: Workshop, name: str, database: str, redis: str) -> Side:
    """Web alone: what it accepts waits. All who listen do so with one key, which has a share of the places."""
    product = install(workshop, name, database, redis, FAXBOT_MAX_LISTENERS="1000")
    web = product.web()
    return Side(name, product.service(), {"web": [web.pid]})


def start_whole(workshop: Workshop, name: str, database: str, redis: str) -> Side:
    """All roles, and a carrier like the floor's."""
    carrier, url = start_carrier(workshop, name, SHARED_WITH_CARRIER)
    product = install(
        workshop,
        name,
        database,
        redis,
        SIMULATOR_BASE_URL=url,
        SIMULATOR_SECRET=SHARED_WITH_CARRIER,
    )
    web, worker, beat = product.web(), product.start("worker"), product.start("beat")
    roles = {
        "web": [web.pid],
        "worker": [worker.pid],
        "beat": [beat.pid],
        "carrier": [carrier.pid],
    }
    return Side(name, product.service(), roles, HttpLedger(url))


def start_embedded(workshop: Workshop, name: str) -> Side:
    """`faxbot up`: SQLite, the embedded broker and the simulator, all from one command."""
    product = install(workshop, name, "", "")
    up = product.start("up")
    until(lambda: product.answers("/health/ready"), up, seconds=60)
    roles, ledger = {}, None
    for child in children(up.pid):
        role = _ROLE.search(child.command)
        roles[role[1] if role else "broker"] = [child.pid]
        if port := _PORT.search(child.command):
            ledger = HttpLedger(f"http://127.0.0.1:{port[1]}")
    return Side(name, product.service(), roles, ledger)


def plugin_folder(workshop: Workshop) -> Path:
    """A folder for the Python path in which the plugin `nocarrier` is installed, by its entry point as any other."""
    package = workshop.folder / "plugins" / "nocarrier-1.0.0.dist-info"
    package.mkdir(parents=True, exist_ok=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: nocarrier\nVersion: 1.0.0\n")
    (package / "entry_points.txt").write_text(
        "[faxbot.plugins]\nnocarrier = benchmarks.nocarrier:NoCarrier\n"
    )
    return package.parent
