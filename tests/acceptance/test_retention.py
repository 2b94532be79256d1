"""Retention by the workers themselves, killed again and again: all that is old goes once and is proven, nothing else
goes, and faxes are sent meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from faxbot import jobs, wiring
from faxbot.actors import CLI
from faxbot.artifacts import Upload
from faxbot.db import table, utcnow
from faxbot.hidden import Hidden
from faxbot.jobs import Submission
from faxbot.models import Artifact, FaxEvent, Job, RetentionProof, RetentionRun
from faxbot.runtime import Runtime
from faxbot.spool import SpoolFile
from tests.acceptance.site import SHORT, Site, kill
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.site import tiff

OLD, YOUNG = 900, 20


def submit(runtime: Runtime, days: int) -> str:
    """A fax that was cancelled so many days ago."""
    at = utcnow() - timedelta(days=days)
    then = replace(runtime, now=lambda: at)
    file = SpoolFile(runtime.config.spool_dir)
    file.write(tiff())
    upload = Upload(file.path, file.sha256, file.size, "image/tiff", 1, "fine")
    submission = Submission(
        to=Hidden("+15550100000"), uploads=(upload,), send_at=at + timedelta(days=1)
    )
    answer = jobs.submit(then, CLI, submission, key=f"{at}", present=lambda _: b"{}")
    file.remove()
    jobs.cancel(then, CLI, answer.job_id)
    return answer.job_id


def removed(runtime: Runtime) -> dict[str, int]:
    query = sa.select(RetentionProof.class_.label("name"), RetentionProof.deleted)
    return {row.name: row.deleted for row in runtime.database.rows(query, {})}


@pytest.mark.waits
def test_workers_that_are_killed_in_the_middle_remove_all_that_is_old_and_nothing_else(
    store: Installation, start_service: StartService
) -> None:
    with SimulatorProcess(store.folder) as carrier:
        runtime = wiring.build(store.config(**carrier.environ))
        young = [submit(runtime, 20) for _ in range(YOUNG)]
        for _ in range(OLD):
            submit(runtime, 40)
        service = start_service(store, "up", **SHORT, **carrier.environ)
        site = Site(service, carrier)
        assert service.request("POST", "/admin/retention/run").status_code == 202
        has_begun: tuple[Callable[[dict[str, int]], bool], ...] = (
            lambda found: found.get("document", 0) > 0,
            lambda found: found.get("document", 0) > OLD // 2,
            lambda found: found.get("numbers", 0) > 0,
        )
        for begun in has_begun:
            eventually(lambda begun=begun: begun(removed(runtime)), 60, every=0.01)  # type: ignore[misc]
            kill(service, "worker")
        sent = site.send()

        def is_over() -> bool:
            states = runtime.database.rows(sa.select(RetentionRun.state), {})
            return {row.state for row in states} == {"done"}

        eventually(is_over, 90, every=0.2)
        assert site.final(sent)["status"] == "delivered"
        assert site.at_carrier(sent) == 1
        proofs = runtime.database.rows(sa.select(table(RetentionProof)), {})
        assert {row.outcome for row in proofs} == {"done"}
        for name in ("document", "numbers"):
            these = [row for row in proofs if getattr(row, "class") == name]
            assert sum(row.expected for row in these) == sum(row.deleted for row in these) == OLD
        kept = [row.job_id for row in runtime.database.rows(sa.select(table(Artifact)), {})]
        assert {*kept} == {*young, sent}
        numbered = sa.select(Job.id).where(Job.purged_at.is_(None))
        assert {row.id for row in runtime.database.rows(numbered, {})} == {*young, sent}
        purged = sa.select(FaxEvent.reason, sa.func.count()).where(FaxEvent.type == "FAX_PURGED")
        counted = runtime.database.rows(purged.group_by(FaxEvent.reason), {})
        assert sorted(tuple(row) for row in counted) == [("document", OLD), ("numbers", OLD)]
        documents = runtime.config.data_dir / "documents"
        files = [path for path in documents.rglob("*") if path.is_file()]
        assert len(files) == len(kept)
        ready = service.request("GET", "/health/ready").json()
        assert [each["code"] for each in ready["alarms"]] == []
        runtime.close()
        service.stop()
