"""The provider asterisk keeps the contract with a manager that is written from transcripts; what is said of HTTP there
is said of AMI here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from faxbot.errors import AccountRefused, NotSent, OutcomeUnknown, ProviderError
from faxbot.events import CAUSES
from faxbot.hidden import Hidden
from faxbot.plugins.base import CallbackRequest, OutboundFax, TransportPlugin, Update
from faxbot.plugins.manifest import Manifest
from faxbot.providers.asterisk import Asterisk
from faxbot.testing import ProviderContract
from faxbot.testing.ground import Connect
from faxbot.testing.recorded import Recorded
from faxbot.testing.standin import dead_url
from tests.misbehaving import Server
from tests.providers.ami import HANGS_UP, PASSWORD, error, greeting_then
from tests.providers.ami import Manager as Switchboard
from tests.providers.asterisk.pages import make_tiff

ODD: dict[str, bytes] = {
    "a page": b"HTTP/1.1 200 OK\r\n\r\n<html>",
    "nothing of ours": b"Response: Success\r\nActionID: another\r\n\r\n",
    "no response": b"ActionID: faxbot-1\r\n\r\n",
    "no text": b"\xff\xfe\x00\r\n\r\n",
    "half a message": b"Response: Success\r\nActionID: faxbot-1\r\n",
    "gone": HANGS_UP,
}
"""What is answered to an action."""
HOOK = "/_internal/asterisk/inbound"
REFUSALS = (
    *("Extension does not exist.", "Permission denied", "Invalid channel", "Channel not specified"),
    *("Uniqueid length exceeds maximum of 149\n", "Originate Access Forbidden", "Out of memory"),
)


SECRET = "internal-secret-of-the-contract"
EARLIER = {
    "tiff_path": "/var/spool/faxbot-received/1795289227.4.tif",
    "to_number": "+15550100900",
    "from_number": "+15550001111",
    "faxstatus": "SUCCESS",
    "faxpages": 2,
    "uniqueid": "1795289227.4",
}
RESULT = (
    "status=SUCCESS&error=&text=OK&pages=1&rate=14400&res=8031x3850&mode=audio&remote=%2B1%20555%20000%201111"
    "&ended=1795289243&from=%2B15550001111&to=%2B15550100900&begun=1795289227&channel=1795289227.6"
)
NAME = "in-17952892276-530475496"


def posted(kind: str, body: bytes) -> CallbackRequest:
    headers = {"content-type": kind, "x-internal-secret": SECRET}
    return CallbackRequest("POST", f"https://fax.example.com{HOOK}", headers, body)


def form(**parts: str) -> bytes:
    """As curl writes it; `file` is a file."""
    lines = []
    for name, value in parts.items():
        file = '; filename="fax.tif"\r\nContent-Type: image/tiff' if name == "file" else ""
        lines.append(
            f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{value}\r\n'
        )
    return ("".join(lines) + "--b--\r\n").encode()


class Impatient(Asterisk):
    connect_seconds = 2.0
    answer_seconds = 0.2


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiff(tmp_path_factory.mktemp("drawn") / "document.tif", 3)


class TestAsterisk(ProviderContract):
    """Tests that are written anew here take other fixtures than the contract's, hence another signature."""

    plugin = Asterisk

    def settings(self, url: str) -> dict[str, Any]:
        port = urlsplit(url).port
        return {"port": port, "password": PASSWORD, "folder": str(self._folder)}

    @pytest.fixture(autouse=True)
    def documents(self, tmp_path: Path) -> Path:
        self._folder = tmp_path / "documents"
        self._folder.mkdir()
        return self._folder

    @pytest.fixture
    def folder(self) -> Path:
        return Path(__file__).parents[2] / "faxbot" / "providers" / "asterisk"

    @pytest.fixture
    def document(self, drawn: Path, tmp_path: Path) -> Path:
        return Path(shutil.copy(drawn, tmp_path))

    @pytest.fixture
    def recorded(self) -> list[Recorded]:
        settings = {"inboundSecret": SECRET, "receivedFolder": "/var/spool/faxbot-received"}
        earlier = posted("application/json", json.dumps(EARLIER).encode())
        handed = posted(
            "multipart/form-data; boundary=b",
            form(uniqueid=NAME, result=RESULT, file="II*\0 and so on"),
        )
        read = {"external_id": "1795289227.4", "pages": 2, "attached": True}
        came = {"external_id": NAME, "pages": 1, "cause": None, "attached": True}
        return [
            Recorded("of an earlier Faxbot's dialplan", earlier, (read,), None, settings),
            Recorded("handed over", handed, (came,), None, settings),
        ]

    @pytest.fixture
    def received(self, recorded: list[Recorded]) -> list[Recorded]:
        """Those that bring their documents; the other one's lies in a folder."""
        content = "II*\0" + "many pages " * 500_000
        large = posted(
            "multipart/form-data; boundary=b", form(uniqueid=NAME, result=RESULT, file=content)
        )
        settings = recorded[-1].settings
        return [recorded[-1], Recorded("a large one", large, None, None, settings)]

    @pytest.fixture
    def switchboard(self) -> Iterator[Switchboard]:
        made = Switchboard()
        yield made
        made.close()

    @pytest.fixture
    def carrier(self, switchboard: Switchboard) -> str:
        return switchboard.url

    @pytest.fixture
    def refusing_carrier(self, switchboard: Switchboard) -> str:
        switchboard.answers["Originate"] = error("Invalid channel")
        return switchboard.url

    def _look_up(self, provider: TransportPlugin, tag: str) -> Update:
        """Of an attempt after the first that the provider saw of this Asterisk."""
        since = datetime.now(UTC) + timedelta(minutes=1)
        return provider.look_up(tag, to=Hidden(self.number), since=since)

    @pytest.fixture
    def impatient(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Connect:
        """connect() with a provider that waits for a moment only."""
        monkeypatch.setattr(type(self), "plugin", Impatient)
        return connect

    @pytest.mark.parametrize("how", ["not admitted", *ODD])
    def test_health_says_in_a_sentence_that_the_carrier_is_not_fit(
        self, impatient: Connect, manifest: Manifest, how: str
    ) -> None:
        refused = b"Response: Error\r\nActionID: faxbot-1\r\nMessage: Authentication failed\r\n\r\n"
        server = Server(greeting_then(ODD.get(how, refused)))
        health = self._health(impatient(server.url), manifest)
        server.close()
        assert not health.ok, "health() is ok all the same"
        assert " " in health.detail, "health() gives no sentence that tells what is wrong"

    @pytest.mark.parametrize("action", ["ListCommands", "ShowDialPlan", "PJSIPQualify"])
    @pytest.mark.parametrize("answer", ODD)
    def test_health_raises_nothing_whatever_is_answered(  # type: ignore[override]
        self,
        impatient: Connect,
        manifest: Manifest,
        switchboard: Switchboard,
        action: str,
        answer: str,
    ) -> None:
        switchboard.answers[action] = ODD[answer]
        assert not self._health(impatient(switchboard.url), manifest).ok

    def test_the_carriers_copy_is_a_pdf_and_none_is_no_document(  # type: ignore[override]
        self, connect: Connect, switchboard: Switchboard, fax: OutboundFax, manifest: Manifest
    ) -> None:
        """Of what it sent Asterisk keeps none; of what it received, the TIFF."""
        received = self._folder.with_name(f"{self._folder.name}-received")
        received.mkdir()
        (received / "in-1795289227-530475496.tif").write_bytes(b"II*\0")
        provider, copy = connect(switchboard.url), BytesIO()
        provider.document("in-1795289227-530475496", copy)
        assert copy.getvalue() == b"II*\0"
        for name in (provider.send(fax).external_id, "404404404", "in-17-530475497", "../x/y.tif"):
            self._raises(manifest, ProviderError, partial(provider.document, name, BytesIO()))

    def test_a_carrier_that_vanishes_after_reading_may_have_the_fax_and_is_not_called_again(  # type: ignore[override]
        self, connect: Connect, fax: OutboundFax, manifest: Manifest, switchboard: Switchboard
    ) -> None:
        switchboard.answers["Originate"] = HANGS_UP
        provider = connect(switchboard.url)
        self._raises(manifest, OutcomeUnknown, lambda: provider.send(fax))
        assert len(switchboard.of("Originate")) == 1, "that may be a second fax"
        assert list(self._folder.iterdir()), "Asterisk may be about to read the document"

    @pytest.mark.parametrize("answer", ODD)
    def test_an_answer_that_proves_nothing_leaves_the_outcome_open(  # type: ignore[override]
        self,
        impatient: Connect,
        fax: OutboundFax,
        manifest: Manifest,
        switchboard: Switchboard,
        answer: str,
    ) -> None:
        switchboard.answers["Originate"] = ODD[answer]
        provider = impatient(switchboard.url)
        self._raises(manifest, OutcomeUnknown, lambda: provider.send(fax))

    @pytest.mark.parametrize("status", REFUSALS)
    def test_a_status_that_refuses_proves_that_nothing_was_sent(  # type: ignore[override]
        self,
        connect: Connect,
        fax: OutboundFax,
        manifest: Manifest,
        switchboard: Switchboard,
        status: str,
    ) -> None:
        switchboard.answers["Originate"] = error(status)
        provider = connect(switchboard.url)
        refusal = self._raises(manifest, NotSent, lambda: provider.send(fax))
        assert refusal.cause in CAUSES, "its cause is not canonical (faxbot.events.CAUSES)"
        assert isinstance(refusal, AccountRefused) == (status != "Out of memory")
        assert not list(self._folder.iterdir()), "the document stays behind"

    @pytest.mark.parametrize("how", ["away", "not permitted", *ODD])
    def test_a_question_without_a_sound_answer_is_an_error_and_never_absence(  # type: ignore[override]
        self,
        impatient: Connect,
        manifest: Manifest,
        switchboard: Switchboard,
        tag: str,
        how: str,
    ) -> None:
        for action in ("DBGet", "Status", "Hangup"):
            switchboard.answers[action] = ODD.get(how) or error("Permission denied")
        provider = impatient(dead_url() if how == "away" else switchboard.url)
        self._raises(manifest, ProviderError, lambda: self._look_up(provider, tag))
        self._raises(manifest, ProviderError, lambda: provider.fetch("fax-7"))
        self._raises(manifest, ProviderError, lambda: provider.cancel("fax-7"))
