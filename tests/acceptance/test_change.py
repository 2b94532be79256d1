"""A running faxbot gets another account at its carrier: every process goes by it within five seconds, and none is
started anew."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.acceptance.site import SHORT, Site, children
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import Ground
from tests.installation import Installation

PROMISED = 5.0  # seconds


@pytest.fixture
def carrier(store: Installation) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(store.folder) as carrier:
        yield carrier


@pytest.fixture
def second(ground: Ground) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(ground.new_folder("second"), secret="another-secret") as carrier:
        yield carrier


def test_another_account_is_used_by_all_processes_within_five_seconds(
    store: Installation,
    carrier: SimulatorProcess,
    second: SimulatorProcess,
    start_service: StartService,
) -> None:
    service = start_service(store, "up", **SHORT, **carrier.environ, FAXBOT_WORKER_PROCESSES="3")
    site, other = Site(service, carrier), Site(service, second)
    began = {role: process.pid for role, process in children(service).items()}
    before = [site.send(to=f"+15550{number:02}0000") for number in range(9)]
    assert {site.final(each)["status"] for each in before} == {"delivered"}

    settings = {"baseUrl": second.url, "secret": second.secret}
    wish = {"settings": settings, "note": "another account"}
    answer = service.request("PUT", "/plugins/simulator/config", json=wish)
    saved_at = time.monotonic()
    assert answer.status_code == 200, answer.text
    time.sleep(max(0.0, saved_at + PROMISED - time.monotonic()))

    after = [site.send(to=f"+15550{number:02}0000") for number in range(10, 19)]
    assert {site.final(each)["status"] for each in after} == {"delivered"}
    assert [site.at_carrier(each) for each in (*before, *after)] == [1] * 9 + [0] * 9
    assert [other.at_carrier(each) for each in (*before, *after)] == [0] * 9 + [1] * 9
    assert "another-secret" not in service.output()
    assert began == {role: process.pid for role, process in children(service).items()}


def test_the_simulated_carrier_is_the_same_one_after_a_restart(
    embedded: Installation, start_service: StartService
) -> None:
    """Else what it does not know would prove nothing, and people would have to decide."""

    def port() -> str:
        service = start_service(embedded, "up", **SHORT)
        words = children(service)["carrier"].cmdline()
        service.stop()
        return words[words.index("--port") + 1]

    assert port() == port()
