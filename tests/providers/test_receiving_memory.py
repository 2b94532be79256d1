"""A received fax of 50 MB passes through each provider in less than 64 MB of memory, whichever way it comes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faxbot.carriers.pages import blank_pdf
from faxbot.carriers.sinch.submission import JSON, MULTIPART
from tests import phaxio_carrier, sinch_carrier
from tests.callbacks import Receiver
from tests.carrier import CarrierProcess, SimulatorProcess
from tests.ground import eventually
from tests.phaxio_carrier import PhaxioProcess
from tests.sinch_carrier import SinchProcess

SIZE = 50 * 1024 * 1024
MOST = 64 * 1024 * 1024
PASSES = 240.0
PROGRAM = """
import hashlib, json, logging, sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from faxbot.plugins import manifest
from faxbot.plugins.base import Arrival, CallbackRequest, Context
from faxbot.providers.http import HttpClient

name, kind, carrier, settings, url, headers, ways, folder = json.loads(sys.argv[1])
module = import_module(f"faxbot.providers.{name}")
about = manifest.read(Path(module.__file__).with_name("manifest.json"))
provider = getattr(module, kind)()
context = Context(logging.getLogger("test"), lambda: datetime.now(UTC), HttpClient([carrier]))
provider.initialize(manifest.validated(about, settings), context)

def memory(which):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))

def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

def take(body, how):
    request = CallbackRequest("POST", url, headers, b"", body)
    assert provider.verify_callback(request)
    (arrival,) = provider.read_callback(request)
    assert isinstance(arrival, Arrival) and arrival.attached
    target = Path(folder, "document")
    with target.open("wb") as file:
        if how == "attached":
            provider.attached(request, file)
        else:
            provider.document(arrival.external_id, file)
    return digest(target)

Path("/proc/self/clear_refs").write_text("5")  # the peak is the present
before = memory("VmRSS")
digests = [take(Path(folder, "body"), how) for how in ways]
print(json.dumps([digests, memory("VmHWM") - before]))
"""


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path) as process:
        yield process


@pytest.fixture
def phaxio(tmp_path: Path) -> Iterator[PhaxioProcess]:
    with PhaxioProcess(tmp_path) as process:
        yield process


@pytest.fixture
def sinch(tmp_path: Path) -> Iterator[SinchProcess]:
    with SinchProcess(tmp_path) as process:
        yield process


def passes(
    carrier: CarrierProcess,
    receive: Callable[[str], object],
    folder: Path,
    provider: tuple[str, str, dict[str, Any]],
    ways: tuple[str, ...] = ("attached", "document"),
) -> None:
    """Has the fax come in, and a process of its own take it in these ways."""
    with Receiver() as here:
        receive(here.url)
        request = eventually(lambda: list(here.callbacks), timeout=60)[0].request
        url = here.url.partition("/callbacks")[0] + request.url
    (folder / "body").write_bytes(request.body)
    assert len(request.body) > SIZE
    name, kind, settings = provider
    words = [name, kind, carrier.url, settings, url, dict(request.headers), ways, str(folder)]
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(words)],
        check=True,
        capture_output=True,
        text=True,
        timeout=PASSES,
    )
    digests, extra = json.loads(found.stdout)
    assert digests == [hashlib.sha256(blank_pdf(1, SIZE)).hexdigest()] * len(ways)
    assert extra < MOST, f"{extra >> 20} MB"


def test_at_the_simulator(simulator: SimulatorProcess, tmp_path: Path) -> None:
    settings = {"baseUrl": simulator.url, "secret": simulator.secret}
    provider = ("simulator", "SimulatorProvider", settings)
    passes(simulator, lambda url: simulator.receive("0000", url, bytes=SIZE), tmp_path, provider)


def test_at_phaxio(phaxio: PhaxioProcess, tmp_path: Path) -> None:
    settings = {
        "apiKey": phaxio_carrier.KEY,
        "apiSecret": phaxio_carrier.SECRET,
        "callbackToken": phaxio_carrier.TOKEN,
        "baseUrl": f"{phaxio.url}/v2.1",
    }
    provider = ("phaxio", "PhaxioProvider", settings)
    passes(phaxio, lambda url: phaxio.receive(url, bytes=str(SIZE)), tmp_path, provider)


@pytest.mark.parametrize(("kind", "stored"), [(MULTIPART, True), (MULTIPART, False), (JSON, False)])
def test_at_sinch(sinch: SinchProcess, tmp_path: Path, kind: str, stored: bool) -> None:
    """Taken from the webhook where Sinch keeps none, and its own copy where it does."""
    user, _, password = sinch_carrier.HOOK.partition(":")
    settings = {
        "projectId": sinch_carrier.PROJECT,
        "apiKey": sinch_carrier.KEY,
        "apiSecret": sinch_carrier.SECRET,
        "webhookUser": user,
        "webhookPassword": password,
        "baseUrl": f"{sinch.url}/v3",
        "authBaseUrl": sinch.url,
    }
    provider = ("sinch", "SinchProvider", settings)

    def receive(url: str) -> str:
        return sinch.receive(url, bytes=SIZE, contentType=kind, stored=stored)

    ways = ("attached", "document") if stored else ("attached",)
    passes(sinch, receive, tmp_path, provider, ways)
