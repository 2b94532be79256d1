"""Faxes that wait or are to be stopped: held and released, ended by their deadline, cancelled in
whatever status."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import doctor, health, jobs, sending
from faxbot.actors import Actor
from faxbot.errors import (
    NotFound,
    NotPossibleNow,
    PluginError,
    Refused,
    StorageAway,
    Unreachable,
)
from faxbot.models import Artifact, Job
from faxbot.plugins.base import OutboundFax, State, Update
from faxbot.storage.local import LocalStorage
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.odd import Deed, raises
from tests.integration.site import ACTOR, Site, number, open_site


def cancel(site: Site, job_id: str) -> tuple[Job, bool]:
    return jobs.cancel(site.runtime, ACTOR, job_id)


# Cancelling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "held", "retrying"])
def test_before_the_carrier_has_it_a_cancel_ends_it_at_once(site: Site, status: str) -> None:
    ending = {"queued": "0000", "held": "0403", "retrying": "0429"}[status]
    job_id = site.fax() if status == "queued" else site.sent(ending)
    assert site.job(job_id).status == status

    job, ended = cancel(site, job_id)

    assert (job.status, ended) == ("cancelled", True)
    assert site.story(job_id).endswith(" CANCELLED")
    site.after(7200)
    assert site.job(job_id).next_at is None
    assert len(site.attempts(job_id)) == (0 if status == "queued" else 1)
    with pytest.raises(NotPossibleNow, match="cancelled already"):
        cancel(site, job_id)


def test_a_fax_the_carrier_has_is_cancelled_there_and_then_here(site: Site) -> None:
    passed_on: list[str] = []
    job_id = site.sent("0044")
    site.odd.does["cancel"] = lambda _usual, name: passed_on.append(name)
    site.odd.does["fetch"] = lambda _usual, name: Update(
        State.FAILED, external_id=name, cause="cancelled"
    )

    job, ended = cancel(site, job_id)
    assert (job.status, ended, len(site.rung)) == ("sent", False, 1)
    again, ended = cancel(site, job_id)
    assert (again.status, ended) == ("sent", False)
    site.work()

    assert passed_on == [site.job(job_id).external_id]
    assert site.story(job_id) == "QUEUED SUBMITTING SENT CANCEL_REQUESTED CANCELLED"
    assert site.attempt(job_id).outcome == "cancelled"


def test_a_cancel_whose_bell_was_lost_is_passed_on_by_the_sweep(site: Site) -> None:
    passed_on: list[str] = []
    job_id = site.sent("0044")
    site.odd.does["cancel"] = lambda _usual, name: passed_on.append(name)
    site.now += timedelta(seconds=1)
    cancel(site, job_id)
    site.rung.clear()

    site.after(5)

    assert len(passed_on) == 1


def test_a_cancel_asked_for_during_the_call_is_passed_on_once_the_carrier_has_it(
    site: Site,
) -> None:
    passed_on: list[str] = []
    job_id = site.fax("0044")

    def ask(usual: Any, fax: OutboundFax) -> object:
        site.now += timedelta(seconds=1)
        assert cancel(site, job_id)[1] is False
        return usual(fax)

    site.odd.does["send"] = ask
    site.odd.does["cancel"] = lambda _usual, name: passed_on.append(name)
    sending.attempt(site.runtime, job_id)
    site.rung.clear()
    assert site.story(job_id) == "QUEUED SUBMITTING CANCEL_REQUESTED SENT"

    site.after(5)

    assert passed_on == [site.job(job_id).external_id]


@pytest.mark.parametrize("silence", [600, 1200, 3600])
def test_a_cancel_that_comes_while_the_carrier_is_asked_is_passed_on_at_once(
    site: Site, silence: int
) -> None:
    passed_on: list[str] = []
    job_id = site.sent("0044")
    site.odd.does["cancel"] = lambda _usual, name: passed_on.append(name)

    def still(_usual: Any, name: str) -> Update:
        return Update(State.ACCEPTED, external_id=name)

    def ask(usual: Any, name: str) -> Update:
        site.odd.does["fetch"] = still
        site.now += timedelta(seconds=1)
        cancel(site, job_id)
        site.rung.clear()
        return still(usual, name)

    site.odd.does["fetch"] = still

    while site.wait_of(job_id) < silence:
        site.after(site.wait_of(job_id))
    site.odd.does["fetch"] = ask
    site.after(site.wait_of(job_id))
    assert passed_on == []
    site.after(5)

    assert len(passed_on) == 1
    assert site.wait_of(job_id) >= silence


def test_a_cancel_that_did_not_reach_the_carrier_is_passed_on_soon_and_then_ever_more_seldom(
    site: Site,
) -> None:
    job_id = site.sent("0044")
    at: list[datetime] = []

    def fail(_usual: Any, _name: str) -> object:
        at.append(site.now)
        raise Unreachable

    site.odd.does["cancel"] = fail
    site.odd.does["fetch"] = lambda _usual, name: Update(State.ACCEPTED, external_id=name)
    cancel(site, job_id)
    while site.job(job_id).status == "sent" and len(at) < 30:
        site.work()
        site.now += timedelta(seconds=site.wait_of(job_id))
        site.sweep()

    waits = [(after - before).total_seconds() for before, after in pairwise(at)]
    assert waits[:2] == [10, 10]
    assert waits == sorted(waits)
    assert waits[-1] == 3600


def test_a_cancel_that_comes_too_late_changes_nothing_about_a_delivery(site: Site) -> None:
    job_id = site.sent("0044")
    cancel(site, job_id)
    site.final_at_carrier(job_id)

    site.work()

    assert site.story(job_id) == "QUEUED SUBMITTING SENT CANCEL_REQUESTED DELIVERED"


FINAL: dict[str, Deed] = {
    "busy": lambda _usual, name: Update(State.FAILED, external_id=name, cause="busy"),
    "dead": lambda _usual, name: Update(State.FAILED, external_id=name, cause="number_dead"),
    "funds": lambda _usual, name: Update(State.FAILED, external_id=name, cause="funds"),
}


@pytest.mark.parametrize("end", FINAL)
def test_after_a_kept_cancel_any_end_but_delivery_is_cancelled_and_nothing_is_tried_again(
    site: Site, end: str
) -> None:
    job_id = site.sent("0044")
    site.odd.does["cancel"] = raises(Refused())
    site.odd.does["fetch"] = FINAL[end]
    cancel(site, job_id)

    site.work()

    assert site.story(job_id) == "QUEUED SUBMITTING SENT CANCEL_REQUESTED CANCELLED"
    assert site.job(job_id).next_at is None


def test_a_fax_that_the_carrier_cancelled_unasked_has_failed(site: Site) -> None:
    job_id = site.sent("0044")
    site.odd.does["fetch"] = lambda _usual, name: Update(
        State.FAILED, external_id=name, cause="cancelled"
    )

    site.after(600)

    assert site.story(job_id) == "QUEUED SUBMITTING SENT FAILED"
    assert (site.job(job_id).reason, site.attempt(job_id).outcome) == ("cancelled", "cancelled")


def test_an_uncertain_fax_keeps_the_wish_and_ends_when_it_is_proven_absent(site: Site) -> None:
    job_id = site.sent("0500")
    assert cancel(site, job_id)[1] is False

    for wait in (0, 60, 240, 600):
        site.after(wait)

    assert site.story(job_id) == "QUEUED SUBMITTING UNCERTAIN CANCEL_REQUESTED CANCELLED"
    assert len(site.attempts(job_id)) == 1


@pytest.mark.parametrize("refusal", ["0422", "0429", "0401"])
def test_a_cancel_asked_for_during_a_call_that_is_refused_ends_it(site: Site, refusal: str) -> None:
    job_id = site.fax(refusal)

    def ask(usual: Any, fax: OutboundFax) -> object:
        cancel(site, job_id)
        return usual(fax)

    site.odd.does["send"] = ask
    sending.attempt(site.runtime, job_id)

    assert site.story(job_id) == "QUEUED SUBMITTING CANCEL_REQUESTED CANCELLED"


def test_a_final_fax_and_one_of_another_account_cannot_be_cancelled(site: Site) -> None:
    failed, mine = site.sent("0400"), site.fax()

    with pytest.raises(NotPossibleNow, match="failed already"):
        cancel(site, failed)
    for wrong in (mine, "0" * 32, "no id", ""):
        with pytest.raises(NotFound, match="no fax with this id"):
            jobs.cancel(site.runtime, Actor("other", "k", frozenset({"*"})), wrong)
    assert site.story(mine) == "QUEUED"


# Held ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"FAX_DISABLED": "true"}, "disabled"), ({"FAX_BACKEND": "nobody"}, "no_provider")],
)
def test_what_an_operator_switched_off_is_held_and_goes_on_when_it_is_back(
    store: Installation, carrier_of_all: SimulatorProcess, changes: dict[str, str], reason: str
) -> None:
    with open_site(store, carrier_of_all, **changes) as site:
        job_id = site.sent()
        assert (site.job(job_id).status, site.job(job_id).reason) == ("held", reason)
        for _ in range(3):
            site.after(60)
        assert site.story(job_id) == "QUEUED HELD"
    with open_site(store, carrier_of_all) as site:
        site.after(240)
        assert site.story(job_id) == "QUEUED HELD RELEASED SUBMITTING SENT"
        assert [event.reason for event in site.events(job_id)[1:3]] == [reason, reason]


def test_a_document_that_is_gone_holds_its_fax_until_it_is_back(site: Site) -> None:
    job_id = site.submit("+15550100000").job_id
    folder = site.runtime.config.data_dir / "documents"
    (stored,) = (path for path in folder.rglob("*") if path.is_file())
    stored.rename(folder.with_name("away"))
    site.work()
    for _ in range(3):
        site.after(60)
    assert site.story(job_id) == "QUEUED HELD"
    assert site.job(job_id).reason == "document_gone"

    folder.with_name("away").rename(stored)
    site.after(60)
    assert site.story(job_id) == "QUEUED HELD RELEASED SUBMITTING SENT"


def test_while_the_disk_of_the_documents_is_not_mounted_a_fax_waits_and_goes_within_a_minute_of_its_return(
    site: Site,
) -> None:
    job_id = site.submit("+15550100000").job_id
    assert unfit_storage(site) == ""
    folder = site.runtime.config.data_dir / "documents"
    folder.rename(folder.with_name("away"))
    site.work()
    for _ in range(20):
        site.after(60)
    assert (site.story(job_id), site.job(job_id).reason) == ("QUEUED HELD", "document_gone")
    assert "mount the volume" in unfit_storage(site)
    assert site.job(job_id).faults == 0

    folder.rename(folder.with_name("wrong"))  # asked for its health, it was made
    folder.with_name("away").rename(folder)
    site.after(61)
    assert site.story(job_id) == "QUEUED HELD RELEASED SUBMITTING SENT"
    assert unfit_storage(site) == ""


def unfit_storage(site: Site) -> str:
    """What /health/ready and `faxbot doctor` say of it, as long as it is not fit."""
    part = health.parts(site.runtime)["storage"]
    (found,) = [each for each in doctor.look(site.runtime) if each.name == "storage"]
    assert (found.ok, found.sentence) == (part["ok"], part["detail"])
    return "" if part["ok"] else str(part["detail"])


def test_one_document_that_is_gone_and_none_at_all_make_no_storage_unfit(site: Site) -> None:
    assert unfit_storage(site) == ""
    job_id = site.submit(number()).job_id
    folder = site.runtime.config.data_dir / "documents"
    (stored,) = (path for path in folder.rglob("*") if path.is_file())
    stored.unlink()
    site.work()
    assert site.story(job_id) == "QUEUED HELD"
    assert unfit_storage(site) == ""


class Full(LocalStorage):
    """It keeps nothing more while it is told so, and gives what it has."""

    full = False

    def put(self, key: str, source: Path) -> None:
        if self.full:
            raise StorageAway("it is full")
        super().put(key, source)


def test_a_storage_that_does_not_keep_the_pages_is_a_fault_and_not_asked_each_minute(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, storage=Full) as site:
        job_id = site.submit("+15550100000").job_id
        site.rung.clear()
        site.runtime.plugins.get("local", Full).full = True
        with pytest.raises(PluginError, match="it is full"):
            sending.attempt(site.runtime, job_id)
        assert (site.story(job_id), site.job(job_id).faults) == ("QUEUED", 1)


def test_a_document_that_was_changed_holds_its_fax_until_it_is_what_was_stored(site: Site) -> None:
    job_id = site.submit("+15550100000").job_id
    folder = site.runtime.config.data_dir / "documents"
    (stored,) = (path for path in folder.rglob("*") if path.is_file())
    content = stored.read_bytes()
    stored.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    site.work()
    for _ in range(3):
        site.after(60)
    assert site.story(job_id) == "QUEUED HELD"
    assert site.job(job_id).reason == "document_gone"

    stored.write_bytes(content)
    site.after(60)
    assert site.story(job_id) == "QUEUED HELD RELEASED SUBMITTING SENT"


@pytest.mark.parametrize(
    "harm",
    [{"key": Artifact.key + "-gone"}, {"key": "2026/01/01/away"}, {"sha256": "0" * 64}],
    ids=["gone", "away", "changed"],
)
def test_fax_pages_that_are_gone_away_or_were_changed_are_made_again(
    site: Site, harm: dict[str, Any]
) -> None:
    site.odd.does["send"] = raises(Unreachable())
    job_id = site.fax()
    sending.attempt(site.runtime, job_id)
    del site.odd.does["send"]
    with site.runtime.database.writing() as connection:
        pages = sa.update(Artifact).filter_by(job_id=job_id, role="pages").values(harm)
        assert connection.execute(pages).rowcount == 1
    site.now += timedelta(hours=1)

    sending.attempt(site.runtime, job_id)

    assert site.story(job_id) == "QUEUED SUBMITTING RETRYING SUBMITTING SENT"


def test_a_refused_call_is_not_repeated_every_minute(site: Site) -> None:
    job_id = site.sent("0403")

    for _ in range(25):
        site.after(60)

    assert 2 <= len(site.attempts(job_id)) <= 3
    assert site.job(job_id).tries == 0


# Deadlines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [None, "0401", "0017"])
def test_a_deadline_ends_a_fax_within_a_minute_in_whatever_it_waits_for(
    site: Site, ending: str | None
) -> None:
    send_at = site.now + timedelta(hours=2) if ending is None else None
    job_id = site.fax(ending or "0000", send_at=send_at, expires_at=site.now + timedelta(hours=1))
    sending.attempt(site.runtime, job_id)
    if ending == "0017":
        site.odd.does["fetch"] = lambda _usual, name: Update(
            State.FAILED, external_id=name, cause="no_answer"
        )

    while site.job(job_id).next_at is not None:
        site.after(60)

    job, last = site.job(job_id), site.events(job_id)[-1]
    assert (job.status, last.type) == ("expired", "FAX_EXPIRED")
    assert job.expires_at is not None
    assert timedelta(0) <= last.recorded_at - job.expires_at <= timedelta(minutes=1)
