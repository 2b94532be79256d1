"""Fixtures of the simulator's tests: a client, a fax for it, and whoever takes the callbacks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from faxbot.hidden import Hidden
from faxbot.plugins.base import Context, OutboundFax, TransportPlugin, Update
from faxbot.providers.http import HttpClient
from faxbot.providers.simulator import SimulatorProvider
from tests.callbacks import Receiver

PAGES = 3
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "fax.tiff"
    page = Image.new("1", (1728, 2200), 1)
    page.save(path, compression="group4", save_all=True, append_images=[page] * (PAGES - 1))
    return path


Connect = Callable[..., SimulatorProvider]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """connect(url, secret): a provider, closed at the end."""
    clients: list[HttpClient] = []

    def make(url: str, secret: str = "test-secret") -> SimulatorProvider:
        clients.append(HttpClient([url], read=3.0))
        provider = SimulatorProvider()
        context = Context(logging.getLogger("test"), lambda: datetime.now(UTC), clients[-1])
        provider.initialize({"baseUrl": url, "secret": secret}, context)
        return provider

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> str:
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:24]


@pytest.fixture
def fax(document: Path, receiver: Receiver, tag: str) -> Callable[[str], OutboundFax]:
    """fax("0017"): one attempt to a number with these last digits."""

    def make(last_digits: str) -> OutboundFax:
        return OutboundFax(
            tag=tag,
            to=Hidden(f"+1555010{last_digits}"),
            document=document,
            media_type="image/tiff",
            pages=PAGES,
            resolution="fine",
            callback_url=receiver.url,
        )

    return make


MakeFax = Callable[[str], OutboundFax]


def look_up(provider: TransportPlugin, tag: str, ending: str = "0000") -> Update:
    """What the provider finds under a tag of a fax that make() made a moment ago."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    return provider.look_up(tag, to=Hidden(f"+1555010{ending}"), since=since)


def offline(now: datetime = NOW, *, secret: str = "test-secret") -> SimulatorProvider:
    """A provider that is never let near a network."""
    provider = SimulatorProvider()
    context = Context(logging.getLogger("test"), lambda: now, HttpClient([]))
    provider.initialize({"baseUrl": "http://nobody.invalid", "secret": secret}, context)
    return provider
