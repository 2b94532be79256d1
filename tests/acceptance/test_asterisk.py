"""Real faxes through a real Asterisk and a running faxbot: delivered, busy, or cut off."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from faxbot.events import TERMINAL
from tests.acceptance.site import SHORT, children
from tests.conftest import StartService
from tests.ground import Ground, eventually
from tests.installation import Installation, Service
from tests.providers.asterisk.packages import Tree
from tests.providers.asterisk.server import AsteriskServer, FarEnd

LINE = b"One line of text.\n"
pytestmark = pytest.mark.waits


@pytest.fixture
def asterisk(ground: Ground, asterisk_tree: Tree) -> Iterator[AsteriskServer]:
    """One that a test may kill."""
    server = AsteriskServer(ground, asterisk_tree)
    server.start()
    yield server
    if server.process is not None:
        server.stop()


@pytest.fixture
def settings(asterisk: AsteriskServer) -> dict[str, str]:
    """Polls are far away: how a fax ended is heard, or not known."""
    return {
        **SHORT,
        "FAXBOT_LEASE_SECONDS": "10",
        "FAXBOT_POLL_FIRST_SECONDS": "600",
        "ASTERISK_AMI_PORT": str(asterisk.port),
        "ASTERISK_AMI_PASSWORD": asterisk.password,
        "ASTERISK_DIAL": asterisk.dial("trunk-g711"),
        "ASTERISK_T38": "false",
        "ASTERISK_FOLDER": str(asterisk.documents),
    }


@pytest.fixture
def service(store: Installation, settings: dict[str, str], start_service: StartService) -> Service:
    return start_service(store, "up", **settings, FAX_BACKEND="asterisk")


def send(service: Service, to: str) -> str:
    answer = service.request("POST", "/fax/send", data={"to": to}, files={"file": ("f.txt", LINE)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def status(service: Service, fax_id: str) -> str:
    return str(service.request("GET", f"/fax/{fax_id}").json()["status"])


def final(service: Service, fax_id: str, timeout: float = 90.0) -> str:
    eventually(lambda: status(service, fax_id) in TERMINAL, timeout, every=0.2)
    return status(service, fax_id)


def attempts(service: Service, fax_id: str) -> list[tuple[str, str | None]]:
    timeline = service.request("GET", f"/fax/{fax_id}/events").json()
    return [(each["outcome"], each["cause"]) for each in timeline["attempts"]]


def test_faxes_are_delivered_through_a_line_of_ones_own_and_calls_that_fail_say_why(
    service: Service, asterisk: AsteriskServer
) -> None:
    """Side by side: a fax takes a quarter of a minute. The listener is killed while they are on the line."""
    eventually(lambda: "faxbot" in asterisk.cli("manager show connected"), 30)
    numbers = [FarEnd.FAX.line(each) for each in range(3)]
    faxes = [send(service, number) for number in numbers]
    busy, wrong = send(service, FarEnd.BUSY), send(service, FarEnd.UNALLOCATED)
    assert final(service, wrong) == "failed"
    assert attempts(service, wrong) == [("failed", "number_dead")]
    eventually(lambda: status(service, busy) == "retrying", 10, every=0.1)
    assert attempts(service, busy) == [("failed", "busy")]
    eventually(
        lambda: {status(service, each) for each in faxes} <= {"sent", "delivered"}, 30, every=0.1
    )
    eventually(lambda: "listen" in children(service))
    children(service)["listen"].send_signal(signal.SIGKILL)

    with ThreadPoolExecutor(len(faxes)) as pool:
        assert list(pool.map(lambda each: final(service, each), faxes)) == ["delivered"] * 3
    for number in numbers:
        assert len(asterisk.received(number)) == 1
    eventually(lambda: not list(asterisk.documents.iterdir()), 60)


def test_an_asterisk_that_is_killed_in_the_middle_of_a_fax_leaves_it_uncertain_and_is_not_called_twice(
    service: Service, asterisk: AsteriskServer
) -> None:
    fax_id = send(service, FarEnd.FAX.line(50))
    eventually(lambda: "channels" in asterisk.cli("core show channels count"), 10)
    eventually(lambda: status(service, fax_id) == "sent", 20, every=0.1)
    eventually(
        lambda: "2 active channels" in asterisk.cli("core show channels count"), 20, every=0.1
    )

    asterisk.kill9()
    asterisk.start()

    eventually(lambda: status(service, fax_id) == "uncertain", 60, every=0.2)
    assert attempts(service, fax_id) == [("unknown", "unconfirmed")]
    listener = children(service)["listen"]
    assert listener.status() != psutil.STATUS_ZOMBIE
    assert send(service, FarEnd.BUSY)


def change(service: Service, provider_id: str, deed: str, **more: object) -> None:
    wish = {"slot": "outbound", "note": "we have a line now", **more}
    answer = service.request("POST", f"/admin/providers/{provider_id}/{deed}", json=wish)
    assert answer.status_code == 200, answer.text


def test_a_line_that_is_activated_later_is_listened_to_until_its_last_fax_has_ended(
    embedded: Installation,
    settings: dict[str, str],
    asterisk: AsteriskServer,
    start_service: StartService,
) -> None:
    """Also when it is not active any more by then; and nobody starts anything again."""
    service = start_service(embedded, "up", **settings)
    assert "listen" not in children(service)

    change(service, "asterisk", "activate")
    eventually(lambda: "faxbot" in asterisk.cli("manager show connected"), 30)
    fax_id = send(service, FarEnd.FAX.line(60))
    eventually(lambda: status(service, fax_id) == "sent", 20, every=0.1)
    change(service, "asterisk", "deactivate")

    assert final(service, fax_id) == "delivered"
    eventually(lambda: "faxbot" not in asterisk.cli("manager show connected"), 20)
    assert "listen" in children(service)
