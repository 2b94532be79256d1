"""A fax that is over is sent once more: a new fax with its own copy of the documents, once for each key, whoever
dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import sqlalchemy as sa

from faxbot import artifacts, decisions, jobs, legalholds, resending, spool
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.errors import (
    DatabaseAway,
    FaxRemoved,
    InvalidFields,
    KeyReused,
    NotFound,
    NotPossibleNow,
    PagesPerDay,
    StorageAway,
)
from faxbot.hidden import Hidden
from faxbot.jobs import Answer
from faxbot.models import Artifact, AuditEvent, IdempotencyKey, Job
from faxbot.resending import Changes
from faxbot.storage.local import LocalStorage
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.site import ACTOR, Site, number, open_site, tiff
from tests.integration.test_submit import refusing
from tests.integration.web import NUMBER, assert_problem, client_of, new_key

DAY = timedelta(days=1)
HEADER = "St. Mary"


def over(site: Site, **wish: Any) -> str:
    """A fax of two documents that was cancelled before anybody called for it."""
    uploads = (site.upload(tiff(1)), site.upload(tiff(2), pages=2))
    wish = {"header": HEADER, "tags": {"case": "1"}, "priority": 200, **wish}
    job_id = site.submit(wish.pop("to", number()), uploads=uploads, **wish).job_id
    jobs.cancel(site.runtime, ACTOR, job_id)
    site.rung.clear()
    site.now += timedelta(seconds=1)
    return job_id


def resend(site: Site, job_id: str, *, key: str | None = None, **changes: Any) -> Answer:
    return resending.resend(
        site.runtime,
        ACTOR,
        job_id,
        Changes(**changes),
        key=key,
        present=lambda job: json.dumps(jobs.describe(site.runtime, job)).encode(),
    )


def documents(site: Site, job_id: str) -> list[bytes]:
    found, _ = artifacts.of_job(site.runtime.database, job_id)
    return [b"".join(artifacts.read(site.runtime, each)) for each in found]


def deeds(site: Site) -> list[tuple[str, Any]]:
    with site.runtime.database.reading() as session:
        found = session.scalars(sa.select(AuditEvent).filter_by(action=Action.FAX_RESENT.value))
        return [(str(each.object_id), each.details) for each in found]


def age(site: Site, job_id: str, by: timedelta) -> None:
    """As if it had ended, and all of it been made, so long ago."""
    at = site.now - by
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values(updated_at=at))


# What it is -----------------------------------------------------------------------------------------


def test_it_is_a_new_fax_with_all_that_the_first_one_had(site: Site) -> None:
    first = over(site, resolution="standard", expires_at=site.now + DAY)
    answer = resend(site, first)
    one, two = site.job(first), site.job(answer.job_id)

    assert (two.id != one.id, two.resend_of, two.status) == (True, first, "queued")
    for name in ("to_key", "resolution", "priority", "tags", "pages", "account_id"):
        assert getattr(two, name) == getattr(one, name), name
    assert (two.send_at, two.expires_at) == (None, None)
    assert jobs.number(site.runtime, two) == jobs.number(site.runtime, one)
    assert jobs.header(site.runtime, two).reveal() == HEADER
    assert documents(site, two.id) == documents(site, first) == [tiff(1), tiff(2)]
    assert json.loads(answer.body)["resend_of"] == first
    assert site.rung == [("faxbot.send_fax", two.id)]
    site.work()
    assert site.at_carrier(two.id) == 1
    assert (site.story(first), deeds(site)) == (
        "QUEUED CANCELLED",
        [(first, {"status": "cancelled", "as": two.id})],
    )


def test_what_is_asked_for_is_otherwise(site: Site) -> None:
    first, to, later = over(site), Hidden(number()), site.now + DAY
    made = site.job(resend(site, first, to=to, send_at=later, provider_id="simulator").job_id)

    assert jobs.number(site.runtime, made) == to
    assert (made.send_at, made.next_at, made.wanted_provider_id) == (later, later, "simulator")
    assert site.rung == []


@pytest.mark.parametrize(
    ("ending", "status"), [("0400", "failed"), ("cancel", "cancelled"), ("0044", "delivered")]
)
def test_however_it_ended_it_can_be_sent_once_more_and_the_trail_says_how_that_was(
    site: Site, ending: str, status: str
) -> None:
    first = over(site) if ending == "cancel" else site.sent(ending)
    if status == "delivered":
        site.final_at_carrier(first)
        site.after(600)
    assert site.job(first).status == status
    second = resend(site, first).job_id
    assert deeds(site) == [(first, {"status": status, "as": second})]


@pytest.mark.parametrize("status", ["queued", "held", "sent", "uncertain"])
def test_what_is_not_over_is_not_sent_once_more(site: Site, status: str) -> None:
    first = site.sent("0500" if status == "uncertain" else "0044") if status in (
        "sent", "uncertain",
    ) else site.fax()  # fmt: skip
    if status == "held":
        decisions.hold(site.runtime, ACTOR, first)
    with pytest.raises(NotPossibleNow, match=f"this one is {status}"):
        resend(site, first)
    assert site.count(Job) == 1


def test_one_of_many_is_sent_once_more_once_however_often_and_by_whomever_it_is_asked(
    site: Site,
) -> None:
    first = site.sent("0400")
    others = [ACTOR, ACTOR, Actor("default", "another", frozenset({"fax:send"}))]
    made = {resending.as_one_of_many(site.runtime, actor, first).job_id for actor in others}
    assert len(made) == 1
    assert resending.sent_anew(site.runtime, [first, *made]) == {first}
    assert (site.count(Job), len(deeds(site))) == (2, 1)


@pytest.mark.parametrize("status", ["delivered", "cancelled", "queued", "sent once more"])
def test_one_of_many_that_did_not_fail_or_was_sent_once_more_already_is_left_as_it_is(
    site: Site, status: str
) -> None:
    first, why = site.sent("0400") if status == "sent once more" else site.fax(), status
    if status == "sent once more":
        resend(site, first, to=Hidden(number()))
    elif status == "cancelled":
        jobs.cancel(site.runtime, ACTOR, first)
    elif status == "delivered":
        first = site.sent("0044")
        site.final_at_carrier(first)
        site.after(600)
    before = site.count(Job)
    with pytest.raises(NotPossibleNow, match=why):
        resending.as_one_of_many(site.runtime, ACTOR, first)
    assert site.count(Job) == before


def test_one_whose_provider_is_not_active_any_more_is_sent_with_another_that_somebody_names(
    site: Site,
) -> None:
    first = over(site)
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).values(wanted_provider_id="phaxio"))
    with pytest.raises(InvalidFields) as refused:
        resend(site, first)
    assert (
        "It was for phaxio, which is not active any more" in refused.value.errors["provider_id"][0]
    )
    assert site.count(Job) == 1
    made = site.job(resend(site, first, provider_id="simulator").job_id)
    assert made.wanted_provider_id == "simulator"


def test_nobody_else_may(site: Site) -> None:
    first = over(site)
    for actor, job_id in ((Actor("other", "k", frozenset("*")), first), (ACTOR, "0" * 32)):
        with pytest.raises(NotFound):
            resending.resend(
                site.runtime, actor, job_id, Changes(), key=None, present=lambda _job: b""
            )


def test_a_fax_that_was_sent_once_more_can_be_so_again(site: Site) -> None:
    second = resend(site, over(site)).job_id
    jobs.cancel(site.runtime, ACTOR, second)
    third = site.job(resend(site, second).job_id)
    assert (third.resend_of, documents(site, third.id)) == (second, [tiff(1), tiff(2)])


def test_its_pages_count_as_pages_of_the_day(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_PAGES_PER_DAY="5") as site:
        first = over(site)
        before = site.stored()
        with pytest.raises(PagesPerDay, match="3 pages"):
            resend(site, first, key="k")
        assert (site.count(Job), site.stored(), deeds(site)) == (1, before, [])


# Each with bytes of its own -------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", ["true", "false"])
def test_retention_removes_each_by_its_own_age_and_a_legal_hold_keeps_its_own(
    store: Installation, carrier_of_all: SimulatorProcess, sealed: str
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_SEAL_DOCUMENTS=sealed) as site:
        first = over(site)
        site.now += 31 * DAY
        second = resend(site, first).job_id
        site.purge()
        assert (documents(site, first), len(documents(site, second))) == ([], 2)
        site.work()
        assert site.at_carrier(second) == 1

        kept = over(site)
        legalholds.hold(site.runtime, ACTOR, legalholds.FAX, kept, "asked")
        again = resend(site, kept).job_id
        jobs.cancel(site.runtime, ACTOR, again)
        site.now += 31 * DAY
        site.purge()
        assert (len(documents(site, kept)), documents(site, again)) == (2, [])
        assert len(documents(site, resend(site, kept, to=Hidden(number())).job_id)) == 2


def test_what_is_not_whole_any_more_is_not_sent(site: Site) -> None:
    """Retention removes documents one after another: a fax with some of its pages would be another one."""
    purged, partly, going, damaged, lost = (over(site) for _ in range(5))
    with site.runtime.database.transaction() as session:
        of = sa.delete(Artifact).where
        session.execute(of(Artifact.job_id == purged))
        session.execute(of(Artifact.job_id == partly, Artifact.position == 1))
        change = sa.update(Artifact)
        session.execute(change.where(Artifact.job_id == going).values(deleted_at=site.now))
        session.execute(change.where(Artifact.job_id == damaged).values(sha256="0" * 64))
        session.execute(change.where(Artifact.job_id == lost).values(key=Artifact.key + "-gone"))
    before = site.stored()
    for first in (purged, partly, going, damaged, lost):
        with pytest.raises(NotPossibleNow, match="send it anew with the document"):
            resend(site, first, key="k")
    assert (site.count(Job), site.stored()) == (5, before)
    assert site.count(IdempotencyKey) == 0


def test_a_fax_whose_number_was_removed_goes_to_one_that_is_given(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    never = {"ARTIFACT_TTL_DAYS": "0"}
    with open_site(store, carrier_of_all, **never) as site:
        first, to = over(site), Hidden(number())
        site.now += 31 * DAY
        site.purge()
        assert site.job(first).to_sealed == b""
        with pytest.raises(NotPossibleNow, match="say where to"):
            resend(site, first)
        assert jobs.number(site.runtime, site.job(resend(site, first, to=to).job_id)) == to


class Away(LocalStorage):
    """A storage that refuses what `refuses` names."""

    refuses = ""

    def open(self, key: str) -> BinaryIO:
        if self.refuses == "open":
            raise StorageAway("it is away")
        return super().open(key)

    def put(self, key: str, source: Path) -> None:
        if self.refuses == "put":
            raise StorageAway("it is away")
        super().put(key, source)


@pytest.mark.parametrize("refuses", ["open", "put"])
def test_a_storage_that_is_away_takes_nothing(
    store: Installation, carrier_of_all: SimulatorProcess, refuses: str
) -> None:
    with open_site(store, carrier_of_all, storage=Away) as site:
        first, before = over(site), site.stored()
        site.runtime.plugins.get("local", Away).refuses = refuses
        with pytest.raises(StorageAway):
            resend(site, first)
        assert (site.count(Job), site.stored()) == (1, before)


# Once for each key ----------------------------------------------------------------------------------


def test_a_repeat_gets_the_first_answer_also_when_the_document_and_then_all_is_gone(
    site: Site,
) -> None:
    first = over(site)
    answer = resend(site, first, key="k")
    for _ in range(2):
        again = resend(site, first, key="k")
        assert (again.replayed, again.body, again.status) == (True, answer.body, 202)
        with site.runtime.database.transaction() as session:
            session.execute(sa.delete(Artifact).where(Artifact.job_id == first))
    assert (site.count(Job), len(deeds(site))) == (2, 1)

    jobs.cancel(site.runtime, ACTOR, answer.job_id)
    site.now += 30.5 * DAY
    site.purge()
    stands = json.loads(resend(site, first, key="k").body)
    assert (stands["id"], stands["to"]) == (answer.job_id, None)
    with site.runtime.database.transaction() as session:
        session.execute(sa.delete(Job).where(Job.id == answer.job_id))
    with pytest.raises(FaxRemoved):
        resend(site, first, key="k")


def test_a_key_names_one_request_and_those_that_make_new_faxes_have_their_own(site: Site) -> None:
    first, other, to = over(site), over(site), Hidden(number())
    made = resend(site, first, key="k").job_id
    for job_id, changes in (
        (other, {}),
        (first, {"to": to}),
        (first, {"send_at": site.now + DAY}),
        (first, {"provider_id": "simulator"}),
    ):
        with pytest.raises(KeyReused):
            resend(site, job_id, key="k", **changes)
    assert site.submit(number(), key="k").replayed is False
    assert resend(site, first, key="k").job_id == made
    assert resend(site, first, key="l").job_id != made


@pytest.mark.parametrize(
    "table", ["idempotency_keys", "jobs", "events", "artifacts", "audit_events"]
)
def test_when_any_part_cannot_be_recorded_nothing_is(site: Site, table: str) -> None:
    first, before = over(site), site.stored()
    with refusing(site, table), pytest.raises(sa.exc.DBAPIError):
        resend(site, first, key="k")
    assert (site.count(Job), site.stored(), deeds(site)) == (1, before, [])
    assert resend(site, first, key="k").replayed is False


def test_one_whose_commit_was_not_answered_keeps_its_documents(site: Site) -> None:
    first, engine = over(site), site.runtime.database.engine

    def lose_the_answer(connection: sa.Connection) -> None:
        sa.event.remove(engine, "commit", lose_the_answer)
        if site.runtime.database.is_sqlite:
            connection.exec_driver_sql("COMMIT")
        else:
            connection.connection.commit()
        raise sa.exc.OperationalError("COMMIT", None, OSError("the connection is gone"))

    sa.event.listen(engine, "commit", lose_the_answer)
    with pytest.raises(DatabaseAway):
        resend(site, first, key="k")
    answer = resend(site, first, key="k")
    assert (answer.replayed, site.count(Job)) == (True, 2)
    assert documents(site, answer.job_id) == documents(site, first)


# Whoever dies ---------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys
import sqlalchemy as sa
from faxbot import resending, wiring
from faxbot.actors import Actor
from faxbot.config import Config

point, job_id = sys.argv[1:]
runtime = wiring.build(Config.load())

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def executed(connection, cursor, statement, *_):
    if statement.startswith(point):
        die()

def audit(event, arguments):
    if event == point and "upload-" in str(arguments[0]):
        die()

if point == "COMMIT":
    sa.event.listen(runtime.database.engine, "commit", die)
elif point == "committed":
    seen = []
    engine = runtime.database.engine
    sa.event.listen(engine, "commit", seen.append)
    sa.event.listen(engine, "checkin", lambda *_: die() if seen else None)
elif point.startswith("os."):
    sys.addaudithook(audit)
else:
    sa.event.listen(runtime.database.engine, "after_cursor_execute", executed)
actor = Actor("default", "env", frozenset({"*"}))
resending.resend(runtime, actor, job_id, resending.Changes(), key="k", present=lambda job: b"{}")
"""
POINTS = {
    "os.link": "a copy is in the spool, and its note is made",
    "os.remove": "its bytes are stored",
    "INSERT INTO idempotency_keys": "all are stored",
    "INSERT INTO jobs": "the fax is written",
    "INSERT INTO audit_events": "who sent it is written",
    "COMMIT": "all is written",
    "committed": "all is committed",
}
"""Where a process is killed, by what it was doing there."""


@pytest.mark.parametrize("point", POINTS)
def test_whoever_is_killed_in_the_middle_leaves_one_fax_or_none_and_no_bytes(
    store: Installation, carrier_of_all: SimulatorProcess, point: str
) -> None:
    with open_site(store, carrier_of_all) as site:
        first = over(site)
        before = site.stored()
        died = subprocess.run(
            [sys.executable, "-c", PROGRAM, point, first],
            env={**store.env, **carrier_of_all.environ},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr.decode()
        assert (site.count(Job) == 2) == (point == "committed")

        answer = resend(site, first, key="k")
        assert answer.replayed is (point == "committed")
        assert (site.count(Job), len(deeds(site))) == (2, 1)
        assert documents(site, answer.job_id) == documents(site, first)
        site.now += timedelta(hours=3)
        spool.collect(site.runtime.config.spool_dir)
        artifacts.collect(site.runtime)
        assert site.stored() == before + 2
        assert not list((site.runtime.config.data_dir / "unsettled").iterdir())
        site.after(1)
        assert site.at_carrier(answer.job_id) == 1


# Over HTTP ------------------------------------------------------------------------------------------


def test_it_is_asked_for_over_http_with_a_body_or_without(site: Site) -> None:
    client = client_of(site.runtime, new_key(site.runtime, "fax:send", "fax:read"))
    first = over(site)
    path, key = f"/fax/{first}/resend", {"Idempotency-Key": "k"}
    made = client.post(path, headers=key)
    fax = json.loads(made.data)
    assert (made.status_code, fax["resend_of"], fax["status"]) == (202, first, "queued")
    assert made.headers["Location"] == f"/fax/{fax['id']}"
    again = client.post(path, headers=key, json={})
    assert (again.data, again.headers["Idempotency-Replayed"]) == (made.data, "true")

    wish = {"to": NUMBER, "send_at": (site.now + DAY).isoformat()}
    other = json.loads(client.post(path, json=wish).data)
    assert (other["to"], other["send_at"][:10]) == (
        NUMBER,
        f"{site.now + DAY:%Y-%m-%d}",
    )
    assert_problem(client.post(f"/fax/{fax['id']}/resend"), 409, "not-possible-in-this-state")


@pytest.mark.parametrize(
    ("wish", "status", "code", "field"),
    [
        ({"to": "nobody"}, 400, "malformed", "to"),
        ({"send_at": "tomorrow"}, 422, "invalid-fields", "send_at"),
        ({"send_at": "2999-01-01T00:00:00Z"}, 422, "invalid-fields", "send_at"),
        ({"provider_id": "nobody"}, 422, "invalid-fields", "provider_id"),
        ({"header": "x"}, 422, "invalid-fields", "unknown"),
    ],
)
def test_a_bad_wish_is_refused_by_the_name_of_its_field(
    site: Site, wish: dict[str, str], status: int, code: str, field: str
) -> None:
    client = client_of(site.runtime, new_key(site.runtime, "fax:send"))
    first, before = over(site), site.stored()
    problem = assert_problem(client.post(f"/fax/{first}/resend", json=wish), status, code)
    assert list(problem["errors"]) == [field]
    assert (site.count(Job), site.stored()) == (1, before)
