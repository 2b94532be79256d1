"""A running faxbot beside a carrier of the test's own, whose ledger can be asked how often each fax
came."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from faxbot import breaker
from faxbot.events import TERMINAL
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Service

PDF = Path(__file__).resolve().parents[2] / "examples" / "three-pages.pdf"
# Short times, so that what waits in days of service is seen in seconds; a call has as long as a busy machine may need.
SHORT = {
    "FAXBOT_SWEEP_SECONDS": "0.3",
    "FAXBOT_RING_AGAIN_SECONDS": "0.5",
    "FAXBOT_LEASE_SECONDS": "5",
    "FAXBOT_HEARTBEAT_SECONDS": "1",
    "FAXBOT_LOOK_UP_SECONDS": "0.5",
    "FAXBOT_SETTLE_SECONDS": "0.5",
    "FAXBOT_POLL_FIRST_SECONDS": "1",
    "FAXBOT_HELD_CHECK_SECONDS": "0.5",
    "FAXBOT_PROVIDER_READ_SECONDS": "8",
    "FAXBOT_PROVIDER_CALL_SECONDS": "10",
    "FAXBOT_NUMBER_GAP_SECONDS": "0.1",
}


def children(service: Service) -> dict[str, psutil.Process]:
    """The supervisor's own children by role: `broker`, `carrier`, `web`, `worker`, `beat`; without what it adopted
    and has not ended yet."""
    found = {}
    for child in psutil.Process(service.pid).children():
        with suppress(psutil.NoSuchProcess):  # it may be ending at this moment
            words = child.cmdline()
            if "faxbot.cli" in words:
                found[words[words.index("faxbot.cli") + 1]] = child
            elif "unixsocket" in " ".join(words):
                found["broker"] = child
    return found


def kill(service: Service, role: str) -> None:
    """kill -9 a role's first process, and wait until it was started again."""
    old = eventually(lambda: children(service).get(role))
    assert old is not None
    old.kill()
    eventually(lambda: (new := children(service).get(role)) is not None and new.pid != old.pid, 20)


@dataclass
class Site:
    """A running faxbot and its carrier."""

    service: Service
    carrier: SimulatorProcess

    def send(self, ending: str = "0000", **fields: Any) -> str:
        """Submit the example to +1555010 + `ending`; gives the fax's id."""
        files = fields.pop("files", None) or {"file": ("a name", PDF.read_bytes())}
        answer = self.service.request(
            "POST", "/fax/send", data={"to": f"+1555010{ending}", **fields}, files=files
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def fax(self, fax_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.service.request("GET", f"/fax/{fax_id}").json()
        return body

    def timeline(self, fax_id: str) -> dict[str, list[dict[str, Any]]]:
        body: dict[str, Any] = self.service.request("GET", f"/fax/{fax_id}/events").json()
        return body

    def final(self, fax_id: str, timeout: float = 40.0) -> dict[str, Any]:
        """The fax once it is final."""
        eventually(lambda: self.fax(fax_id)["status"] in TERMINAL, timeout, every=0.1)
        return self.fax(fax_id)

    def at_carrier(self, fax_id: str) -> int:
        """How many faxes the carrier took for this one."""
        tags = [attempt["tag"] for attempt in self.timeline(fax_id)["attempts"]]
        return sum(len(self.carrier.faxes(tag)) for tag in tags)

    def pause(self, provider_id: str) -> None:
        """Have no fax go by this provider from now on: a process goes by what it read up to a second before."""
        self._change(provider_id, "pause")
        time.sleep(breaker.KNOWN_FOR.total_seconds())

    def resume(self, provider_id: str) -> None:
        self._change(provider_id, "resume")

    def _change(self, provider_id: str, deed: str) -> None:
        path, note = f"/admin/providers/{provider_id}/{deed}", {"note": "a test"}
        answer = self.service.request("POST", path, json=note)
        assert answer.ok, answer.text

    def child(self, role: str) -> psutil.Process | None:
        """The role's first process, e.g. `worker`; None while it is being started again."""
        return children(self.service).get(role)

    def kill(self, role: str) -> None:
        """kill -9 a role's first process, and wait until it was started again."""
        kill(self.service, role)
