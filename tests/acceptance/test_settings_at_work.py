"""What is saved by one process holds in every other one of a running faxbot within five seconds, without a restart."""

from __future__ import annotations

import time
from typing import Any

from tests.conftest import StartService
from tests.ground import eventually
from tests.installation import Installation, Service
from tests.integration.command import run
from tests.threads import at_once

WITHIN = 5.0  # seconds
CALLS = 24
"""So many calls at the same time, each over a connection of its own, come to every web process."""
LETTER = ("letter.txt", b"Dear Sir")


def save(service: Service, name: str, *value: str) -> float:
    """When it was saved, by a process that is none of faxbot's."""
    ended = run(service.installation, "config", "set", name, *value)
    assert ended.code == 0, ended.err
    return time.monotonic()


def wait_until(moment: float) -> None:
    """Nothing is asked before: who looked later than that would be found out."""
    time.sleep(max(0.0, moment - time.monotonic()))


def two_documents(service: Service) -> int:
    files = [("file", LETTER), ("file", LETTER)]
    form = {"to": "+15550100000"}
    return service.request("POST", "/fax", data=form, files=files, timeout=30).status_code


def answers(service: Service) -> set[int]:
    return set(at_once(CALLS, lambda _: two_documents(service)))


def sent(service: Service, number: int) -> str:
    """The status of a fax, once a worker has had it."""
    form, files = {"to": f"+1555010{number:04}"}, {"file": LETTER}
    fax_id = service.request("POST", "/fax", data=form, files=files).json()["id"]

    def had() -> dict[str, Any] | None:
        fax: dict[str, Any] = service.request("GET", f"/fax/{fax_id}").json()
        return None if fax["status"] in ("queued", "submitting") else fax

    fax = eventually(had, 30.0)
    assert fax is not None
    return str(fax["status_reason"] or fax["status"])


def test_every_web_process_and_every_worker_goes_by_it_within_five_seconds(
    store: Installation, start_service: StartService
) -> None:
    service = start_service(
        store,
        "up",
        FAXBOT_WEB_WORKERS="3",
        FAXBOT_WORKER_PROCESSES="2",
        FAXBOT_MAX_DOCUMENTS="9",
        FAXBOT_HELD_CHECK_SECONDS="1",
    )
    assert "disabled" not in {sent(service, number) for number in range(4)}
    assert answers(service) == {202}  # every process has read the settings just now

    at = save(service, "FAXBOT_MAX_DOCUMENTS", "1")
    save(service, "FAX_DISABLED", "true")
    wait_until(at + WITHIN)
    assert answers(service) == {422}
    assert set(at_once(6, lambda number: sent(service, 10 + number))) == {"disabled"}

    at = save(service, "FAXBOT_MAX_DOCUMENTS", "--unset")
    save(service, "FAX_DISABLED", "--unset")
    wait_until(at + WITHIN)
    assert answers(service) == {202}
    assert "disabled" not in set(at_once(4, lambda number: sent(service, 20 + number)))
