"""The simulator's provider keeps the contract with its real carrier, a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from faxbot.carriers.pages import blank_pdf
from faxbot.hidden import Hidden
from faxbot.plugins.base import OutboundFax, TransportPlugin
from faxbot.providers.simulator import SimulatorProvider
from faxbot.testing import ProviderContract, Recorded
from faxbot.testing.contract import LARGE
from tests.callbacks import Receiver
from tests.carrier import SimulatorProcess
from tests.ground import eventually

SECRET = "the simulator's secret"
NEWS: dict[str, dict[str, Any]] = {
    "0000": {"state": "delivered", "cause": None, "pages_sent": 3},
    "0017": {"state": "failed", "cause": "busy"},
}
"""What the carrier posts of a fax to a number with this ending."""
CAME: dict[str, dict[str, Any]] = {
    "0000": {"cause": None, "attached": True, "pages": 2},
    "0011": {"cause": None, "attached": False, "pages": 2},
    "0031": {"cause": "dropped_early", "attached": False, "pages": 0},
}
"""What it posts of one that comes in from there."""


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("carrier"), secret=SECRET) as process:
        yield process


class TestSimulator(ProviderContract):
    plugin = SimulatorProvider
    refused_number = "+15550100433"

    def settings(self, url: str) -> dict[str, Any]:
        return {"baseUrl": url, "secret": SECRET}

    @pytest.fixture
    def carrier(self, process: SimulatorProcess) -> str:
        return process.url

    @pytest.fixture
    def callback_url(self, receiver: Receiver) -> str:
        return receiver.url

    @pytest.fixture
    def sent(
        self, provider: TransportPlugin, receiver: Receiver, fax: OutboundFax
    ) -> list[Recorded]:
        """What the carrier really posts of a fax that arrives and of one that does not."""
        made = []
        for ending, news in NEWS.items():
            tag = f"{fax.tag[:-4]}{ending}"
            provider.send(replace(fax, tag=tag, to=Hidden(f"+1555010{ending}")))
            callback = eventually(lambda tag=tag: receiver.of(tag))[0]  # type: ignore[misc]
            made.append(Recorded(ending, callback.request, ({**news, "tag": tag},)))
        return made

    @pytest.fixture
    def received(self, process: SimulatorProcess) -> list[Recorded]:
        """What the carrier really posts of faxes that come in."""
        made = []
        wishes = [(ending, {"pages": 2}, facts) for ending, facts in CAME.items()]
        wishes += [("0000", {"bytes": LARGE}, {"cause": None, "attached": True, "pages": 1})]
        for ending, wish, facts in wishes:
            with Receiver() as here:
                name = process.receive(ending, here.url, **wish)["id"]
                (callback,) = eventually(lambda here=here: list(here.callbacks))  # type: ignore[misc]
            document = blank_pdf(wish.get("pages", 1), wish.get("bytes", 0))
            news = ({**facts, "external_id": name},)
            made.append(Recorded(ending, callback.request, news, document=document))
        return made

    @pytest.fixture
    def recorded(self, sent: list[Recorded], received: list[Recorded]) -> list[Recorded]:
        """Both."""
        return sent + received
