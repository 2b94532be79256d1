"""Is it fit to work: every part is asked, each answers in a sentence, and whatever is broken, an answer comes."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from faxbot import claims, health, schema, sending, sweeps
from faxbot.errors import AccountRefused, NotSent, Throttled
from faxbot.models import Job
from tests.carrier import SimulatorProcess
from tests.ground import Ground
from tests.installation import Installation
from tests.integration.odd import raises
from tests.integration.site import Site, number, open_site
from tests.servers import RedisServer, free_port

PARTS = {
    "database", "settings", "broker", "storage", "provider", "queue", "sweeps", "listeners", "webhooks",
    "notices",
}  # fmt: skip


def faults(site: Site) -> dict[str, str]:
    """The parts that are not fit, and what they say."""
    state = health.ready(site.runtime)
    bad = {name: part["detail"] for name, part in state["parts"].items() if not part["ok"]}
    assert set(state["parts"]) == PARTS
    assert state["ready"] is (not bad)
    return bad


@pytest.fixture
def fit(site: Site, broker: str) -> Site:
    """A site with a running broker."""
    assert broker
    return site


def test_all_is_well(fit: Site) -> None:
    assert faults(fit) == {}


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_a_broker_that_does_not_answer_is_said_within_a_second(
    store: Installation, carrier_of_all: SimulatorProcess, ground: Ground, how: str
) -> None:
    server = RedisServer(ground)
    server.start()
    with open_site(store, carrier_of_all, CELERY_BROKER_URL=server.url) as site:
        if how == "stopped":
            server.kill9()
        else:
            server.freeze()
        begun = time.monotonic()
        bad = faults(site)

        assert set(bad) == {"broker"}
        assert "CELERY_BROKER_URL" in bad["broker"]
        assert time.monotonic() - begun < 10
    if server.process is not None:
        server.stop()


def test_a_schema_that_is_not_ours_says_what_mends_it(fit: Site) -> None:
    schema.migrate(fit.runtime.config, "base")

    bad = faults(fit)

    assert "faxbot db upgrade" in bad["database"]
    assert set(bad) == {"database", "settings", "queue", "webhooks"}


def test_a_database_that_is_away_is_said_and_nothing_breaks(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    away = f"postgresql://nobody:pass-word@127.0.0.1:{free_port()}/none"
    key = "A" * 43 + "="  # else nobody begins: who knows with which key that one is sealed?
    with open_site(store, carrier_of_all, DATABASE_URL=away, CONFIG_MASTER_KEY=key) as site:
        bad = faults(site)

    assert {"database", "queue"} <= set(bad)
    assert "pass-word" not in str(bad)


def test_a_storage_that_cannot_be_written_and_a_provider_that_does_not_load(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAX_BACKEND="nobody", STORAGE_BACKEND="none") as site:
        bad = faults(site)
        assert "nobody" in bad["provider"]
        assert "none" in bad["storage"]
    (store.data_dir / "documents").write_text("in the way")
    with open_site(store, carrier_of_all) as site:
        assert "FAX_DATA_DIR" in faults(site)["storage"]


def test_faxes_that_cannot_be_prepared_time_and_again_are_said(fit: Site) -> None:
    job_id = fit.submit(number()).job_id
    fit.rung.clear()
    shutil.rmtree(fit.runtime.config.spool_dir)
    fit.runtime.config.spool_dir.write_text("in the way of its workspace")
    said = []
    for _ in range(4):
        said.append(set(faults(fit)))
        fit.now += timedelta(seconds=fit.wait_of(job_id))
        with pytest.raises(OSError, match="File exists"):
            sending.attempt(fit.runtime, job_id)

    assert said == [set(), set(), set(), {"queue"}]
    assert "log" in faults(fit)["queue"]


def test_due_faxes_that_nobody_takes_are_said_and_those_in_good_hands_are_not(fit: Site) -> None:
    job_id = fit.submit(number()).job_id
    fit.submit(number(), send_at=fit.now + timedelta(hours=9))
    fit.now += timedelta(seconds=90)
    sweeps.run(fit.runtime)
    assert faults(fit) == {}
    fit.now += timedelta(seconds=1)
    assert set(faults(fit)) == {"queue"}

    assert claims.claim(fit.runtime, job_id) is not None
    assert faults(fit) == {}
    with fit.runtime.database.transaction() as session:
        session.execute(sa.update(Job).values(lease_until=None, status="held"))
    assert faults(fit) == {}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AccountRefused(), "rests until 2026-11-20T12:10:00Z: account_refused"),
        (Throttled(retry_after=90), "rests until 2026-11-20T12:01:30Z: throttled"),
    ],
)
def test_a_provider_that_rests_is_said_and_faxes_are_taken_all_the_same(
    fit: Site, error: NotSent, words: str
) -> None:
    fit.now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    fit.odd.does["send"] = raises(error)
    fit.sent()
    provider = health.ready(fit.runtime)["parts"]["provider"]
    fit.now += timedelta(minutes=11)
    later = health.ready(fit.runtime)["parts"]["provider"]

    assert (provider["ok"], provider["detail"]) == (True, f"simulator {words}")
    assert later["detail"] == "simulator is loaded"
