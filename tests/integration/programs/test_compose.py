"""The commands, environments and health checks of compose.yaml and the Dockerfiles, run for real
without an engine.

Host names and published paths are replaced by addresses and folders of the test; every other word
is the file's own.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from faxbot import production
from faxbot.config import Config
from faxbot.events import TERMINAL, Event
from tests.containers import compose, environment, only, stages
from tests.ground import BUSY, Ground, eventually, processes_of
from tests.servers import PostgresServer, RedisServer, free_port

BIN = Path(sys.executable).parent
OURS = ("carrier", "web", "worker", "listen", "beat", "flower")


class Site:
    """compose.yaml on this machine: the same services as processes, each in a folder for its
    volume."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.folder = ground.new_folder("site")
        self.ports = {name: free_port() for name in ("web", "carrier", "flower", "redis")}
        self.postgres = PostgresServer(ground)
        self.postgres.start()
        self.postgres.create_database("faxbot")
        self.flower_password = secrets.token_hex(8)
        self.services = compose(
            {
                "POSTGRES_PASSWORD": str(sa.make_url(self.postgres.admin_url).password),
                "REDIS_PASSWORD": secrets.token_hex(8),
                "FLOWER_PASSWORD": self.flower_password,
                "SIMULATOR_SECRET": secrets.token_hex(8),
                "CONFIG_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
                # The simulated carrier calls back without TLS; see the test of production below.
                "FAXBOT_ENV": "development",
            }
        )["services"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _local(self, name: str, text: str) -> str:
        """`text` of the service `name`, with addresses and folders of this machine."""
        volume = self.services[name].get("volumes", ["nothing:/data"])[0].split(":")[0]
        words = {
            "@postgres:5432/": f"@127.0.0.1:{self.postgres.port}/",
            "@redis:6379/": f"@127.0.0.1:{self.ports['redis']}/",
            "//carrier:8091": f"//127.0.0.1:{self.ports['carrier']}",
            "//web:8080": f"//127.0.0.1:{self.ports['web']}",
            "127.0.0.1:8080": f"127.0.0.1:{self.ports['web']}",
            "127.0.0.1:8091": f"127.0.0.1:{self.ports['carrier']}",
            "127.0.0.1:5555": f"127.0.0.1:{self.ports['flower']}",
            "0.0.0.0": "127.0.0.1",  # noqa: S104 - inside a container
        }
        for theirs, here in words.items():
            text = text.replace(theirs, here)
        folders = {"data": self.folder / volume, "tmp": self.folder / f"tmp-{name}"}
        return re.sub(r"^/(data|tmp)\b", lambda match: str(folders[match[1]]), text)

    def _image(self, name: str) -> list[Any]:
        return stages(self.services[name]["build"]["dockerfile"])[-1]

    def env(self, name: str) -> dict[str, str]:
        """What the process finds in its environment: the image's, then compose's."""
        service = self.services[name]
        merged = {**environment(self._image(name)), **service["environment"]}
        here = {key: self._local(name, value) for key, value in merged.items()}
        here["PATH"] = f"{BIN}:/usr/bin:/bin"
        if name == "flower":
            here["FAXBOT_FLOWER_PORT"] = str(self.ports["flower"])
        if name == "web":
            here["FAXBOT_PORT"] = str(self.ports["web"])
        return here

    def command(self, name: str) -> list[str]:
        """What the container runs."""
        words = self.services[name].get("command") or only(self._image(name), "CMD").command()
        extra = ["--port", str(self.ports["carrier"])] if name == "carrier" else []
        return [*(self._local(name, word) for word in words), *extra]

    def start(self, name: str) -> None:
        """Start a service of ours, and leave it running."""
        self.processes[name] = self._started(name, [], self.log(name))

    def scale(self, name: str, count: int) -> None:
        """`docker compose up --scale NAME=COUNT`: containers of one service, told apart by their host names, which
        here is a word more."""
        for one in (f"{name}-{n}" for n in range(1, count + 1)):
            self.processes[one] = self._started(name, ["--name", one], self.log(one))

    def _started(self, name: str, more: list[str], log: Path) -> subprocess.Popen[bytes]:
        words = [*self.command(name), *more]
        return self._ground.start(
            [BIN / words[0], *words[1:]], self.folder, self.env(name), log, cwd=self.folder
        )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def run(self, name: str, *words: str) -> str:
        """`docker compose run --rm NAME WORDS`, or the service's own command: its output when it
        exits with 0."""
        done = self._run(name, list(words) or self.command(name))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attempted(self, name: str, *words: str) -> str:
        """The same, and nothing where it fails."""
        done = self._run(name, list(words))
        return done.stdout if done.returncode == 0 else ""

    def _run(self, name: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            executable=BIN / words[0] if (BIN / words[0]).exists() else None,
            env=self.env(name),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60 * BUSY,
        )

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """The service's health check, compose's before the image's."""
        check = self.services[name].get("healthcheck", {}).get("test")
        words = check[1:] if check else only(self._image(name), "HEALTHCHECK").command()
        return self._run(name, [self._local(name, word) for word in words])

    def is_healthy(self, name: str) -> bool:
        return self.check(name).returncode == 0

    def wait_until_healthy(self, name: str) -> None:
        """AssertionError with what the check and the service said when it takes a minute."""
        try:
            eventually(lambda: self.is_healthy(name), timeout=60, every=0.2)
        except AssertionError:
            said = f"{self.check(name).stderr}\n{self.log(name).read_text()}"
            raise AssertionError(f"{name} does not get healthy:\n{said}") from None

    def start_redis(self) -> None:
        """Redis by compose's own words, on our port."""
        words = self.services["redis"]["command"]
        volume = self.folder / "redis"
        volume.mkdir()
        self.processes["redis"] = self._ground.start(
            [RedisServer.binaries()[0], *words[1:], "--port", str(self.ports["redis"])],
            self.folder,
            {},
            self.log("redis"),
            cwd=volume,
        )

    def http(self, name: str, method: str, path: str, **options: Any) -> requests.Response:
        """One call to a port that compose publishes."""
        url = f"http://127.0.0.1:{self.ports[name]}{path}"
        with requests.Session() as session:
            return session.request(method, url, timeout=10, **options)

    def stop(self) -> dict[str, int]:
        """`docker compose stop`: each service's exit code after its image's signal, within its
        grace period."""
        codes = {}
        for name in reversed(self.processes):
            process = self.processes[name]
            service = name.partition("-")[0]
            if service in OURS:
                how = only(self._image(service), "STOPSIGNAL").rest
                process.send_signal(signal.Signals[how])
                grace = self.services[service].get("stop_grace_period", "10s").removesuffix("s")
                codes[name] = process.wait(float(grace))
            else:
                process.terminate()
                process.wait(10)
        return codes


@pytest.fixture
def site(ground: Ground) -> Iterator[Site]:
    site = Site(ground)
    yield site
    for process in processes_of(site.folder):
        process.kill()
    for started in site.processes.values():
        started.wait()
    site.postgres.stop()


def test_a_fax_goes_through_the_services_of_compose(site: Site) -> None:
    headers = begin(site, *OURS)
    for name in ("carrier", "web", "worker", "flower"):
        site.wait_until_healthy(name)

    letter = ("letter.txt", b"To whom it may concern", "text/plain")
    accepted = site.http(
        "web",
        "POST",
        "/fax/send",
        headers=headers,
        data={"to": "+15550100000"},
        files={"file": letter},
    )

    assert accepted.status_code == 202, accepted.text
    path = f"/fax/{accepted.json()['id']}"

    def is_final() -> bool:
        return site.http("web", "GET", path, headers=headers).json()["status"] in TERMINAL

    eventually(is_final, timeout=60, every=0.2)
    timeline = site.http("web", "GET", path + "/events", headers=headers).json()
    assert timeline["events"][-1]["type"] == Event.DELIVERED
    assert_flower_shows_and_changes_nothing(site)
    # Nobody is there who speaks by himself, and it waits.
    assert site.processes["listen"].poll() is None, site.log("listen").read_text()
    assert site.stop() == dict.fromkeys(OURS, 0)
    assert not any(site.is_healthy(name) for name in ("carrier", "web", "worker", "flower"))
    assert processes_of(site.folder) == []


def test_three_workers_of_compose_share_the_work_and_send_each_fax_once(site: Site) -> None:
    headers = begin(site, "carrier", "web", "beat")
    for name in ("carrier", "web"):
        site.wait_until_healthy(name)
    site.scale("worker", 3)
    eventually(lambda: len(sent_by(site)) == 3, timeout=90, every=0.5)

    ids = []
    for n in range(30):
        letter = ("letter.txt", f"letter {n}".encode(), "text/plain")
        data = {"to": f"+1555{n:03}0000"}
        accepted = site.http(
            "web", "POST", "/fax/send", headers=headers, data=data, files={"file": letter}
        )
        assert accepted.status_code == 202, accepted.text
        ids.append(accepted.json()["id"])

    def shown(path: str) -> dict[str, Any]:
        found: dict[str, Any] = site.http("web", "GET", f"/fax/{path}", headers=headers).json()
        return found

    eventually(lambda: {shown(each)["status"] for each in ids} == {"delivered"}, 120, every=0.5)
    sent = eventually(lambda: found if len(found := sent_by(site)) == 3 else None, timeout=60)
    assert sent is not None
    assert all(sent.values()), f"one had nothing to do: {sent}"
    assert [len(shown(f"{each}/events")["attempts"]) for each in ids] == [1] * len(ids)
    assert set(site.stop().values()) == {0}
    assert processes_of(site.folder) == []


def begin(site: Site, *names: str) -> dict[str, str]:
    """Start these services on a new database; the headers of who may do everything."""
    site.start_redis()
    assert "at revision" in site.run("migrate")
    said = site.run("migrate", "faxbot", "keys", "create", "--name", "first", "--scope", "*")
    (key,) = (word for word in said.split() if word.startswith("fbk_live_"))
    for name in names:
        site.start(name)
    return {"X-API-Key": key}


def sent_by(site: Site) -> dict[str, int]:
    """How many faxes each worker that answers was rung for."""
    words = ("celery", "--app", "faxbot.tasks.operations", "inspect", "--json", "--timeout", "4", "stats")  # fmt: skip
    said = site.attempted("worker", *words)
    workers = json.loads(said) if said else {}
    return {name: each["total"].get("faxbot.send_fax", 0) for name, each in workers.items()}


def test_nothing_of_a_worker_is_bound_to_one_container() -> None:
    service = compose(
        {**dict.fromkeys(("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD"), "pass-word")}
        | {"CONFIG_MASTER_KEY": "A" * 43 + "="}
    )["services"]["worker"]

    assert not {"container_name", "hostname", "ports", "network_mode"} & set(service)
    assert service["volumes"] == ["documents:/data"], "shared by all of them, and by web"
    check = only(stages(service["build"]["dockerfile"])[-1], "HEALTHCHECK").rest
    assert "worker@$(hostname)" in check, "each asks itself"


def assert_flower_shows_and_changes_nothing(site: Site) -> None:
    auth = ("operator", site.flower_password)
    workers = eventually(
        lambda: site.http("flower", "GET", "/api/workers?refresh=1", auth=auth).json()
    )
    (worker,) = workers
    shutdown = f"/api/worker/shutdown/{worker}"

    assert site.http("flower", "GET", "/api/workers").status_code == 401
    assert site.http("flower", "POST", shutdown).status_code == 401
    assert site.http("flower", "POST", shutdown, auth=auth).status_code == 403
    assert site.processes["worker"].poll() is None


def test_in_production_every_service_has_what_it_demands_once_its_public_address_is_set() -> None:
    named = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD")
    given = {**dict.fromkeys(named, "pass-word"), "CONFIG_MASTER_KEY": "A" * 43 + "="}
    for address, missing in (("", ["PUBLIC_API_URL"]), ("https://fax.example.org", [])):
        services = compose({**given, "PUBLIC_API_URL": address})["services"]
        for name in ("web", "worker", "beat", "listen", "migrate"):
            config = Config.load(services[name]["environment"])
            found = production.of_config(config)

            assert config.production
            demanded = [each for each in found if each.needed_in_production]
            assert [each.setting for each in demanded if not each.ok] == missing, name
