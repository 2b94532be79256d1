"""One call to the carrier by itself, one thread each: a bare requests session beside faxbot's own way out, and a bare
requests.post beside the provider of Phaxio with the same form."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import requests

from benchmarks import documents
from benchmarks.figures import Figures
from benchmarks.floor.settings import SHARED_WITH_CARRIER, Settings
from benchmarks.floor.start import start_carrier
from benchmarks.floor.worker import hand_over
from benchmarks.launch import Workshop
from benchmarks.service import DELIVERED_NUMBER
from benchmarks.stages import Length, Progress
from faxbot import wiring
from faxbot.config import Config
from faxbot.hidden import Hidden
from faxbot.plugins.base import OutboundFax, TransportPlugin

BARE = "requests.post"
CALLBACK = "https://fax.example.com/callbacks/phaxio?attempt=fb0&token=0"


def carrier_calls(figures: Figures, workshop: Workshop, length: Length, progress: Progress) -> None:
    """Add calls per second of both sides, in turn, for every round."""
    _, url = start_carrier(workshop, "calls", SHARED_WITH_CARRIER)
    page = workshop.folder / "page.tif"
    page.write_bytes(documents.fax_page().copy(0)[0])
    sides = [
        ("calls/rate", "floor", _floor(url, page)),
        ("calls/rate", "faxbot", _faxbot(url, page)),
        ("calls/phaxio", BARE, _bare_post(url, page)),
        ("calls/phaxio", "faxbot", _phaxio(url, page)),
    ]
    for number in range(length.rounds):
        progress(f"calls to the carrier, round {number + 1} of {length.rounds}")
        for what, side, call in sides if number % 2 else sides[::-1]:
            call()
            figures.add(what, side, _rate(call, length.read_seconds))


def _rate(call: Callable[[], None], seconds: float) -> float:
    begun = time.perf_counter()
    for count in itertools.count(1):
        call()
        passed = time.perf_counter() - begun
        if passed >= seconds:
            return count / passed
    raise AssertionError


def _floor(url: str, page: Path) -> Callable[[], None]:
    settings = Settings("", "", "", carrier_url=url, carrier_secret=SHARED_WITH_CARRIER)
    session = requests.Session()
    session.trust_env = False
    return lambda: _drop(
        hand_over(session, settings, secrets.token_hex(16), DELIVERED_NUMBER, page)
    )


def _faxbot(url: str, page: Path) -> Callable[[], None]:
    environment = {"SIMULATOR_BASE_URL": url, "SIMULATOR_SECRET": SHARED_WITH_CARRIER}
    provider = wiring.plugins(Config.load(environment)).get("simulator", TransportPlugin)
    return lambda: _drop(
        provider.send(
            OutboundFax(
                tag=secrets.token_hex(16),
                to=Hidden(DELIVERED_NUMBER),
                document=page,
                media_type="image/tiff",
                pages=1,
                resolution="fine",
                callback_url="",
            )
        )
    )


def _bare_post(url: str, page: Path) -> Callable[[], None]:
    """What a script does: the same form, without a session."""

    def call() -> None:
        with page.open("rb") as file:
            response = requests.post(  # noqa: TID251 - the bare call it is held against
                f"{url}/v2.1/faxes",
                data={
                    "to": DELIVERED_NUMBER,
                    "callback_url": CALLBACK,
                    "tag[faxbot]": secrets.token_hex(16),
                },
                files={"file": ("fax.tiff", file, "image/tiff")},
                auth=("key", "secret"),
                timeout=30,
            )
        response.raise_for_status()
        _drop(response.json()["data"]["id"])

    return call


def _phaxio(url: str, page: Path) -> Callable[[], None]:
    environment = {
        "PHAXIO_BASE_URL": f"{url}/v2.1",
        "PHAXIO_API_KEY": "key",
        "PHAXIO_API_SECRET": "secret",
    }
    provider = wiring.plugins(Config.load(environment)).get("phaxio", TransportPlugin)
    return lambda: _drop(
        provider.send(
            OutboundFax(
                tag=secrets.token_hex(16),
                to=Hidden(DELIVERED_NUMBER),
                document=page,
                media_type="image/tiff",
                pages=1,
                resolution="fine",
                callback_url=CALLBACK,
            )
        )
    )


def _drop(_: object) -> None:
    """A call is made for its time; what it answers was checked elsewhere."""
