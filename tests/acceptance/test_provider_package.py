"""A provider of somebody else: a package, installed by pip beside faxbot in an environment of its own, sends a fax
without a line changed in faxbot; and the page on how to write one is right word for word."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers import ROOT, context
from tests.ground import BUSY, ENVIRONMENT, Ground, eventually
from tests.servers import free_port

PAGE = ROOT / "docs" / "howto" / "add-a-provider.md"
EXAMPLE = ROOT / "examples" / "faxbot-provider-example"
SECRET = "a-long-secret"
_PIP = {
    # Everything that is needed is there: nothing is asked of a network.
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_CONFIG_FILE": os.devnull,
}


@dataclass
class Place:
    """An environment with faxbot in it, as a stranger has one, and a folder to work in."""

    ground: Ground
    folder: Path
    env: dict[str, str]

    def run(self, script: str, cwd: Path) -> str:
        """What a shell says to these lines; they must succeed."""
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            cwd=cwd,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120 * BUSY,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, script: str, cwd: Path, sign: str) -> subprocess.Popen[bytes]:
        """Start these lines in a terminal of their own; returns when the sign is in their output."""
        log = cwd / f"{len(list(cwd.glob('*.log')))}.log"
        command = ["/bin/bash", "-euc", script]
        process = self.ground.start(command, self.folder, self.env, log, cwd=cwd)
        eventually(lambda: process.poll() is not None or sign in log.read_text(), 60, every=0.1)
        assert sign in log.read_text(), log.read_text()
        return process


@pytest.fixture(scope="module")
def place(ground: Ground) -> Place:
    """A new environment whose faxbot is a wheel built from these sources. The packages that faxbot needs are those of
    the environment that runs the tests; its faxbot is not."""
    folder = ground.new_folder("p")
    env = {name: ENVIRONMENT[name] for name in ("HOME", "LANG", "TZ") if name in ENVIRONMENT}
    env |= _PIP | {"PATH": f"{folder}/venv/bin:{ENVIRONMENT['PATH']}", "PYTHONUNBUFFERED": "1"}
    env |= {"FAX_DATA_DIR": str(folder / "data"), "FAXBOT_PORT": str(free_port())}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    (Path(site) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = folder / "venv" / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {python} -m pip "$@"\n')
    pip.chmod(0o700)
    sources = folder / "faxbot"
    for name in context():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, sources / name)
    place = Place(ground, folder, env)
    place.run("pip install --no-deps ./faxbot", folder)
    where = place.run("python -c 'import faxbot; print(faxbot.__file__)'", folder)
    assert where.startswith(str(folder))
    return place


def end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(30 * BUSY)


def test_the_example_package_sends_a_fax_in_an_environment_of_its_own(place: Place) -> None:
    package = place.folder / "example"
    shutil.copytree(EXAMPLE, package)
    port = free_port()
    settings = (
        f"FAX_BACKEND=example EXAMPLE_BASE_URL=http://127.0.0.1:{port} EXAMPLE_SECRET={SECRET}"
    )

    place.run("pip install --no-deps .", package)
    listed = json.loads(place.run("faxbot plugins list --json", place.folder))
    assert "example" in [plugin["id"] for plugin in listed["plugins"]]
    # Without settings for a call, its own tests are run: where it was installed from is known.
    assert " passed" in place.run("faxbot plugins test example", place.folder)
    carrier = place.start(
        f"exec python tests/carrier.py --port {port} --secret {SECRET}", package, "listening on"
    )
    service = place.start(f"export {settings}\nexec faxbot up", package, "ready")
    try:
        sent = place.run(
            f"faxbot send '{ROOT}/examples/three-pages.pdf' --to +15550100000 --wait --json",
            package,
        )
        fax = json.loads(sent)
        key = (place.folder / "data" / "first-api-key").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{place.env['FAXBOT_PORT']}/fax/{fax['id']}/events",
            headers={"X-API-Key": key},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            events = json.load(answer)["events"]
    finally:
        end(service, carrier)

    assert (fax["status"], fax["provider_id"], fax["pages_sent"]) == ("delivered", "example", 3)
    assert [event["type"] for event in events][-1] == "FAX_DELIVERED"


def blocks() -> list[tuple[str, str]]:
    """The page's code, as (what stands beside the fence, text)."""
    return re.findall(r"^```(\w+[^\n]*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_page_on_how_to_add_a_provider_works_word_for_word(place: Place) -> None:
    cwd = place.folder / "own"
    cwd.mkdir()
    running, said = [], ""
    signs = iter(["listening on", "ready"])
    try:
        for kind, text in blocks():
            if kind == "sh terminal":
                running.append(place.start(text, cwd, next(signs)))
            elif kind == "sh":
                said += place.run(f"{text}\npwd > {place.folder}/where", cwd)
                cwd = Path((place.folder / "where").read_text().strip())
            else:
                (cwd / kind.partition(" ")[2]).write_text(text)
    finally:
        end(*running)

    assert "FAX_DELIVERED" in said or "delivered" in said
    assert said.count("sound") == 2
    assert said.count(" passed") == 2
