"""The providers of Phaxio and Sinch keep the contract with the vendors' stand-ins, which are processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from faxbot.carriers.pages import blank_pdf
from faxbot.carriers.sinch.submission import JSON
from faxbot.hidden import Hidden
from faxbot.plugins.base import OutboundFax, TransportPlugin
from faxbot.providers.phaxio import PhaxioProvider
from faxbot.providers.sinch import SinchProvider
from faxbot.testing import ProviderContract, Recorded
from faxbot.testing.contract import LARGE
from tests import phaxio_carrier, sinch_carrier
from tests.callbacks import Receiver
from tests.ground import eventually
from tests.phaxio_carrier import PhaxioProcess
from tests.sinch_carrier import PROJECT, SinchProcess

NEWS: dict[str, dict[str, Any]] = {
    "0000": {"state": "delivered", "cause": None},
    "2017": {"state": "failed", "cause": "busy"},
}
"""What both post of a fax to a number with this ending; Phaxio's 0017 redials first."""


@pytest.fixture(scope="module")
def phaxio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhaxioProcess]:
    with PhaxioProcess(tmp_path_factory.mktemp("phaxio")) as process:
        yield process


@pytest.fixture(scope="module")
def sinch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SinchProcess]:
    with SinchProcess(tmp_path_factory.mktemp("sinch")) as process:
        yield process


def posted(
    provider: TransportPlugin,
    receiver: Receiver,
    fax: OutboundFax,
    news: Mapping[str, Mapping[str, Any]],
) -> list[Recorded]:
    """What the carrier really posts of a fax that arrives and of one that does not."""
    base = receiver.url.partition("/callbacks")[0]
    made = []
    for ending, facts in news.items():
        tag = f"{fax.tag[:-4]}{ending}"
        provider.send(replace(fax, tag=tag, to=Hidden(f"+1555010{ending}")))

        def found(tag: str = tag) -> Any:
            return [each for each in receiver.callbacks if tag.encode() in each.request.body]

        request = eventually(found)[0].request
        whole = replace(request, url=base + request.url)
        made.append(Recorded(ending, whole, ({**facts, "tag": tag},)))
    return made


def came(receive: Callable[..., str], wishes: list[tuple[Any, dict[str, Any]]]) -> list[Recorded]:
    """What the carrier really posts of faxes that come in: of each wish, the news in it."""
    made = []
    for wish, facts in wishes:
        with Receiver() as here:
            name = receive(here.url, **wish)
            (callback,) = eventually(lambda here=here: list(here.callbacks))  # type: ignore[misc]
            base = here.url.partition("/callbacks")[0]
        request = replace(callback.request, url=base + callback.request.url)
        document = blank_pdf(1, int(wish.get("bytes", 0)))
        made.append(
            Recorded(str(wish), request, ({**facts, "external_id": name},), document=document)
        )
    return made


WHOLE = {"cause": None, "attached": True, "pages": 1}
FAILED = {"cause": "handshake_failed", "attached": False, "pages": 0}


class TestPhaxio(ProviderContract):
    plugin = PhaxioProvider
    refused_number = "+15550100433"

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "apiKey": phaxio_carrier.KEY,
            "apiSecret": phaxio_carrier.SECRET,
            "callbackToken": phaxio_carrier.TOKEN,
            "baseUrl": f"{url}/v2.1",
        }

    @pytest.fixture
    def carrier(self, phaxio: PhaxioProcess) -> str:
        return phaxio.url

    @pytest.fixture
    def callback_url(self, receiver: Receiver) -> str:
        return receiver.url

    @pytest.fixture
    def received(self, phaxio: PhaxioProcess) -> list[Recorded]:
        wishes: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, WHOLE),
            ({"bytes": str(LARGE)}, WHOLE),
            ({"send_file": "false"}, {**WHOLE, "attached": False}),
            ({"error_type": "faxError", "error_id": "117"}, FAILED),
        ]
        return came(phaxio.receive, wishes)

    @pytest.fixture
    def recorded(
        self,
        provider: TransportPlugin,
        receiver: Receiver,
        fax: OutboundFax,
        received: list[Recorded],
    ) -> list[Recorded]:
        return posted(provider, receiver, fax, NEWS) + received


class TestSinch(ProviderContract):
    plugin = SinchProvider
    refused_number = "+15550100422"

    def settings(self, url: str) -> dict[str, Any]:
        parts = urlsplit(url)
        return {
            "projectId": PROJECT,
            "apiKey": sinch_carrier.KEY,
            "apiSecret": sinch_carrier.SECRET,
            "authMethod": "basic",
            "webhookUser": "contract",
            "webhookPassword": "a-long:webhook/password@",
            "baseUrl": f"{url}/v3",
            "authBaseUrl": f"{parts.scheme}://{parts.netloc}",
        }

    @pytest.fixture
    def carrier(self, sinch: SinchProcess) -> str:
        return sinch.url

    @pytest.fixture
    def callback_url(self, receiver: Receiver) -> str:
        return receiver.url

    @pytest.fixture
    def received(self, sinch: SinchProcess) -> list[Recorded]:
        own = {"proof": "contract:a-long%3Awebhook%2Fpassword%40"}
        wishes: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (own, WHOLE),
            ({**own, "bytes": LARGE, "stored": False}, WHOLE),
            ({**own, "bytes": LARGE, "stored": False, "contentType": JSON}, WHOLE),
            ({**own, "errorType": "FAX_ERROR", "errorCode": 117}, FAILED),
        ]
        return came(sinch.receive, wishes)

    @pytest.fixture
    def recorded(
        self,
        provider: TransportPlugin,
        receiver: Receiver,
        fax: OutboundFax,
        received: list[Recorded],
    ) -> list[Recorded]:
        return posted(provider, receiver, fax, NEWS) + received
