"""A worker that is asked to end gives back what it only prepares, at once and at no cost, and finishes its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest
import sqlalchemy as sa

from faxbot.db import utcnow
from faxbot.models import FaxEvent, Job
from faxbot.runtime import Runtime
from tests.acceptance.site import PDF
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.documents import hostile
from tests.ground import eventually
from tests.installation import Installation, Service


@pytest.fixture
def job(runtime: Runtime) -> Callable[[str], Job]:
    """The row of a fax."""

    def read(job_id: str) -> Job:
        with runtime.database.reading() as session:
            return session.get_one(Job, job_id)

    return read


def submit(web: Service, to: str, document: bytes) -> str:
    files: Mapping[str, tuple[str, bytes]] = {"file": ("a name", document)}
    return str(web.request("POST", "/fax/send", data={"to": to}, files=files).json()["id"])


@pytest.mark.usefixtures("broker")
def test_a_graceful_stop_gives_back_at_once_what_would_be_rendered_for_minutes(
    store: Installation, start_service: StartService, job: Callable[[str], Job]
) -> None:
    store.env["SIMULATOR_SECRET"] = "nobody is called here"
    web = start_service(store, "web")
    worker = start_service(store, "worker")
    fax_id = submit(web, "+15550100000", hostile.long_pdf())
    eventually(lambda: job(fax_id).lease_until, 30)
    worker.stop(timeout=15)

    given_back = job(fax_id)
    assert (given_back.status, given_back.lease_until) == ("queued", None)
    assert (given_back.attempts, given_back.deaths, given_back.faults) == (0, 0, 0)
    assert given_back.next_at is not None
    assert given_back.next_at <= utcnow()

    start_service(store, "worker", FAXBOT_SWEEP_SECONDS="0.3")
    start_service(store, "beat", FAXBOT_SWEEP_SECONDS="0.3")
    eventually(lambda: job(fax_id).fence == given_back.fence + 1, 20)
    assert job(fax_id).deaths == 0
    # One that was killed would have kept the others waiting as long as its lease.
    assert utcnow() - given_back.next_at < timedelta(seconds=store.config().lease_seconds)


@pytest.mark.usefixtures("broker")
def test_a_graceful_stop_waits_for_a_call_and_notes_what_came_of_it(
    store: Installation, start_service: StartService, runtime: Runtime, job: Callable[[str], Job]
) -> None:
    with SimulatorProcess(store.folder) as carrier:
        store.env.update({**carrier.environ, "FAXBOT_PROVIDER_READ_SECONDS": "4"})
        web = start_service(store, "web")
        worker = start_service(store, "worker")
        fax_id = submit(web, "+15550100509", PDF.read_bytes())  # taken, and no answer comes
        eventually(lambda: job(fax_id).status == "submitting", 30)
        worker.stop(timeout=20)

        with runtime.database.reading() as session:
            last = session.scalars(
                sa.select(FaxEvent).filter_by(job_id=fax_id).order_by(FaxEvent.sequence.desc())
            ).first()
        assert last is not None
        assert (last.type, last.source) == ("FAX_UNCERTAIN", "worker")
        assert job(fax_id).attempts == 1
