"""A ledger that comes from a backup sends nothing that may have been sent after it, before its carriers were asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import (
    alarms,
    artifacts,
    claims,
    decisions,
    followup,
    heartbeats,
    jobs,
    recall,
    restored,
    sending,
    waiting,
)
from faxbot.actors import ADMIN
from faxbot.errors import NotSent, OutcomeUnknown, Throttled, Unreachable
from faxbot.models import Attempt, Heartbeat, Job
from faxbot.plugins.base import State, Update
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration import odd
from tests.integration.console import deed, page, words
from tests.integration.odd import answers, raises
from tests.integration.site import ACTOR, Site, open_site
from tests.integration.web import browser_of, new_user
from tests.servers import Postgres

MINUTE = 60.0


@dataclass
class Copies:
    """Backups of a site's ledger, and sites over what was restored from them."""

    store: Installation
    carrier: SimulatorProcess
    postgres: Postgres | None
    stack: ExitStack
    made: int = 0

    def take(self, site: Site) -> str:
        """A copy of its ledger as it is now."""
        heartbeats.beat(site.runtime, ["queued"])  # of just before
        return self.take_as_it_is(site)

    def take_as_it_is(self, site: Site) -> str:
        """The same of a ledger of which nobody knows where it lay, for all that it says."""
        self.made += 1
        if self.postgres is None:
            target = self.store.folder / f"backup-{self.made}.db"
            with (
                closing(sqlite3.connect(self.store.data_dir / "faxbot.db")) as source,
                closing(sqlite3.connect(target)) as copy,
            ):
                source.backup(copy)
            return str(target)
        site.runtime.database.close()
        source_name = site.runtime.config.database.rpartition("/")[2]
        name = f"{source_name}_{self.made}"
        self.postgres.create_database(name, template=source_name)
        self.stack.callback(self.postgres.drop_database, name)
        return name

    def restore(self, site: Site, backup: str, **changes: Any) -> Site:
        """A site that is as that one, over the ledger of then."""
        if self.postgres is None:
            copy = self.store.data_dir / "faxbot.db"
            for end in ("-wal", "-shm"):
                copy.with_name(copy.name + end).unlink(missing_ok=True)
            site.runtime.database.close()
            laid_down = copy.with_name("new.db")
            laid_down.write_bytes(Path(backup).read_bytes())
            laid_down.replace(copy)
            installation = self.store
        else:
            url = self.postgres.url(backup)
            installation = replace(self.store, env={**self.store.env, "DATABASE_URL": url})
        new = self.stack.enter_context(open_site(installation, self.carrier, **changes))
        new.now = site.now
        return new


@pytest.fixture
def copies(
    request: pytest.FixtureRequest, store: Installation, carrier_of_all: SimulatorProcess
) -> Iterator[Copies]:
    postgres = None if store.store == "embedded" else request.getfixturevalue("postgres_server")
    with ExitStack() as stack:
        yield Copies(store, carrier_of_all, postgres, stack)


def settle(site: Site, minutes: int = 8) -> None:
    for _ in range(minutes):
        site.after(MINUTE)


def at_carrier(site: Site, job_id: str) -> int:
    """How many faxes the carrier took for it, whatever the ledger knows of them."""
    tags = [restored.tag_of(job_id, number, each) for number in range(1, 16) for each in range(3)]
    return sum(len(site.carrier.faxes(tag)) for tag in tags)


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all) as site:
        yield site


# Noticed ----------------------------------------------------------------------------------------------


def test_a_ledger_that_was_never_copied_doubts_nothing(site: Site) -> None:
    site.sweep()
    job_id = site.sent("0044")

    assert site.runtime.restores.notice(site.now) is None
    assert site.story(job_id) == "QUEUED SUBMITTING SENT"


def test_a_copy_is_noticed_with_the_time_until_which_it_knows_all(
    site: Site, copies: Copies
) -> None:
    backup = copies.take(site)
    taken_at = site.now
    site.now += timedelta(hours=1)
    new = copies.restore(site, backup)

    for _ in range(2):
        known = new.runtime.restores.notice(new.now)
        assert known == restored.Restore(at=site.now, backup_at=taken_at)
        new.after(5)


def test_what_a_restored_ledger_does_first_does_not_hide_until_when_it_knows_all(
    store: Installation, carrier_of_all: SimulatorProcess, copies: Copies
) -> None:
    with open_site(store, carrier_of_all, FAX_DISABLED="true") as site:
        sending.attempt(site.runtime, site.fax("0000"))  # held, and an alarm after an hour
        backup, taken_at = copies.take(site), site.now
        site.now += timedelta(hours=3)
        new = copies.restore(site, backup)
        assert alarms.say(new.runtime) == 1
        new.sweep()

    restore = new.runtime.restores.notice(new.now)
    assert restore is not None
    assert (restore.backup_at, restore.ahead) == (taken_at, None)


def test_a_ledger_that_beats_in_the_future_does_not_say_until_when_it_knows_all(
    site: Site, copies: Copies
) -> None:
    site.now += timedelta(hours=9)
    backup = copies.take(site)
    site.now -= timedelta(hours=9)

    restore = copies.restore(site, backup).runtime.restores.notice(site.now)
    assert restore is not None
    assert restore.ahead is None


def test_what_was_sent_after_the_backup_is_found_and_not_sent_again(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    backup = copies.take(site)
    sending.attempt(site.runtime, job_id)
    fax = site.final_at_carrier(job_id)
    site.now += timedelta(minutes=5)

    new = copies.restore(site, backup)
    settle(new)

    assert new.story(job_id) == "QUEUED HELD RELEASED SUBMITTING SENT DELIVERED"
    assert [event.reason for event in new.events(job_id)[1:3]] == ["restored", "found_at_carrier"]
    attempt = new.attempt(job_id)
    assert (attempt.number, attempt.external_id, attempt.outcome) == (1, fax["id"], "delivered")
    assert at_carrier(new, job_id) == new.job(job_id).tries == 1
    new.add_up()


def test_what_was_not_sent_goes_when_it_is_proven_that_no_carrier_has_it(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    new = copies.restore(site, copies.take(site))
    restore = new.runtime.restores.notice(new.now)
    assert restore is not None
    looked: list[datetime] = []

    def look(usual: Callable[[str], Update], tag: str) -> Update:
        looked.append(new.now)
        return usual(tag)

    new.odd.does["look_up"] = look
    settle(new)

    assert new.story(job_id).startswith("QUEUED HELD RELEASED SUBMITTING SENT")
    assert new.events(job_id)[2].reason == "restored"
    assert at_carrier(new, job_id) == 1
    config = new.runtime.config
    over = config.lease_seconds + config.provider_call_seconds + config.settle_seconds
    after = {at for at in looked if (at - restore.at).total_seconds() >= over}
    assert len(after) == 2, "told twice, when every call of before was over"
    new.add_up()


def test_a_fax_that_a_carrier_had_at_the_backup_is_not_called_for_again_where_it_was_since(
    site: Site, copies: Copies
) -> None:
    job_id = site.sent("0017")
    site.final_at_carrier(job_id)
    backup = copies.take(site)
    for _ in range(4):  # polled, busy, and tried again
        site.after(6 * MINUTE)
    made = site.job(job_id).attempts
    assert made >= 2

    new = copies.restore(site, backup)
    for _ in range(12):
        new.after(MINUTE)

    story = new.story(job_id)
    assert "RETRYING HELD RELEASED SUBMITTING SENT" in story
    assert at_carrier(new, job_id) == new.job(job_id).attempts
    tags = [each.tag for each in new.attempts(job_id)]
    assert tags == [restored.tag_of(job_id, each) for each in range(1, len(tags) + 1)]
    assert len(tags) >= made
    assert [len(new.carrier.faxes(tag)) for tag in tags] == [1] * len(tags)
    new.add_up()


def test_tries_that_carriers_refused_after_the_backup_hide_no_later_one(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    backup = copies.take(site)
    site.odd.does["send"] = raises(NotSent(cause="trunk_down"))
    for _ in range(3):
        sending.attempt(site.runtime, job_id)
        site.now += timedelta(minutes=1)
    del site.odd.does["send"]
    sending.attempt(site.runtime, job_id)
    assert site.job(job_id).attempts == 4, site.story(job_id)
    site.final_at_carrier(job_id)

    new = copies.restore(site, backup)
    settle(new)

    assert (new.job(job_id).status, new.attempt(job_id).number) == ("delivered", 4)
    assert at_carrier(new, job_id) == 1


def test_an_uncertain_fax_is_looked_for_beyond_the_attempt_that_was_uncertain(
    site: Site, copies: Copies
) -> None:
    job_id = site.sent("0500")
    site.rung.clear()
    backup = copies.take(site)
    for minutes in (1, 1, 4, 10, 10):
        site.after(minutes * MINUTE)
    assert site.job(job_id).attempts > 1

    new = copies.restore(site, backup)
    for _ in range(12):
        new.after(MINUTE)

    assert "RECONCILED HELD" in new.story(job_id)
    assert at_carrier(new, job_id) == 0
    new.add_up()


# Noticed twice ----------------------------------------------------------------------------------------


def test_who_says_so_after_it_was_noticed_takes_back_nothing_of_what_is_in_doubt(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    backup, taken_at = copies.take(site), site.now
    site.now += timedelta(hours=3)
    new = copies.restore(site, backup)
    new.sweep()
    new.now += timedelta(minutes=1)
    recall.declare(new.runtime, ACTOR)

    assert new.runtime.restores.notice(new.now) == restored.Restore(new.now, taken_at)
    assert waits_for_a_person(new, job_id)


def test_a_second_loss_while_faxes_are_in_doubt_adds_to_the_first(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    backup, taken_at = copies.take(site), site.now
    site.now += timedelta(hours=3)
    second = copies.restore(site, backup)
    second.sweep()
    third = copies.restore(second, copies.take(second))

    restore = third.runtime.restores.notice(third.now)
    assert restore is not None
    assert (restore.backup_at, restore.ahead) == (taken_at, None)
    assert waits_for_a_person(third, job_id)


def test_a_second_loss_is_reckoned_by_itself_when_nothing_is_in_doubt_any_more(
    site: Site, copies: Copies
) -> None:
    backup = copies.take(site)
    site.now += timedelta(hours=3)
    second = copies.restore(site, backup)
    second.sweep()
    second.now += timedelta(minutes=1)
    job_id = second.fax("0000")
    backup, taken_at = copies.take(second), second.now
    third = copies.restore(second, backup)

    restore = third.runtime.restores.notice(third.now)
    assert restore is not None
    assert restore.backup_at == taken_at
    settle(third, 12)
    assert at_carrier(third, job_id) == 1


def test_a_backup_that_is_brought_back_twice_knows_of_what_people_released_in_between(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    first, again = copies.take(site), copies.take(site)
    second = copies.restore(site, first)
    sending.attempt(second.runtime, job_id)
    decisions.release(second.runtime, ACTOR, job_id)
    sending.attempt(second.runtime, job_id)
    second.final_at_carrier(job_id)

    third = copies.restore(second, again)
    settle(third)
    assert "HELD RELEASED SUBMITTING SENT DELIVERED" in third.story(job_id)
    assert at_carrier(third, job_id) == 1


# Not proven -------------------------------------------------------------------------------------------


def waits_for_a_person(site: Site, job_id: str) -> bool:
    settle(site)
    job = site.job(job_id)
    return (job.status, job.reason, at_carrier(site, job_id)) == ("held", "restored", 0)


@pytest.mark.parametrize("trait", ["absence_is_proof", "status_lookup"])
def test_where_absence_is_no_proof_it_stays_for_a_person_who_may_let_it_go(
    site: Site, copies: Copies, trait: str
) -> None:
    job_id = site.fax("0000")
    new = copies.restore(site, copies.take(site), without=[trait])

    assert waits_for_a_person(new, job_id)
    shown = jobs.describe(new.runtime, jobs.find(new.runtime, ACTOR, job_id))
    assert "restored from a backup" in shown["explanation"]
    decisions.release(new.runtime, ACTOR, job_id)
    new.work()
    assert at_carrier(new, job_id) == 1


def test_a_carrier_that_does_not_answer_proves_nothing(site: Site, copies: Copies) -> None:
    job_id = site.fax("0000")
    new = copies.restore(site, copies.take(site))
    new.odd.does["look_up"] = raises(Unreachable())

    assert waits_for_a_person(new, job_id)
    del new.odd.does["look_up"]
    settle(new)
    assert at_carrier(new, job_id) == 1


def test_after_hours_without_a_backup_nobody_knows_how_many_tries_there_were(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    backup = copies.take(site)
    site.now += timedelta(hours=3)

    assert waits_for_a_person(copies.restore(site, backup), job_id)


def test_another_carrier_that_is_set_up_may_have_had_it(site: Site, copies: Copies) -> None:
    job_id = site.fax("0000")
    new = with_another(copies.restore(site, copies.take(site)), "send_fax")
    assert waits_for_a_person(new, job_id)

    with_another(new, "status_lookup")
    settle(new, 12)
    assert at_carrier(new, job_id) == 1


def test_what_a_person_releases_is_not_taken_for_a_try_that_the_ledger_does_not_know(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    backup = copies.take(site)
    sending.attempt(site.runtime, job_id)
    of_before = site.final_at_carrier(job_id)["tag"]
    new = copies.restore(site, backup)
    new.odd.does["look_up"] = answers(Update(State.ABSENT))  # the carrier lists it late
    sending.attempt(new.runtime, job_id)
    decisions.release(new.runtime, ACTOR, job_id)
    del new.odd.does["look_up"]
    new.odd.does["send"] = raises(OutcomeUnknown())  # and did not take the one of now
    new.work()

    assert new.attempt(job_id).tag != of_before
    assert new.job(job_id).status == "uncertain"


TWO = ["send_fax", "status_lookup", "absence_is_proof", "accepts:image/tiff"]


def with_another(site: Site, *traits: str) -> Site:
    """As if a second carrier were installed, which is set as the first one."""
    site.runtime = replace(
        site.runtime, plugins=odd.plugins(site.runtime, others={"another": traits or TWO})
    )
    return site


def test_a_carrier_that_may_not_see_a_fax_is_not_asked_for_it_and_it_is_not_proven(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    backup = copies.take(site)
    new = with_another(copies.restore(site, backup, FAX_BACKENDS="simulator,another"))
    asked: list[str] = []
    another = new.runtime.plugins.get("another", odd.Odd)

    def look(usual: Callable[[str], Update], tag: str) -> Update:
        asked.append(tag)
        return usual(tag)

    another.does["look_up"] = look

    assert waits_for_a_person(new, job_id)
    assert asked == []


def test_what_wishes_for_a_carrier_was_nobody_elses(site: Site, copies: Copies) -> None:
    job_id = site.fax("0000", provider_id="simulator")
    backup = copies.take(site)
    new = with_another(copies.restore(site, backup, FAX_BACKENDS="simulator,another"))

    settle(new)
    assert at_carrier(new, job_id) == 1


def test_what_wishes_for_a_carrier_that_is_not_active_is_asked_of_nobody_and_not_proven(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000", provider_id="simulator")
    backup = copies.take(site)
    new = with_another(copies.restore(site, backup, FAX_BACKENDS="another"))

    assert waits_for_a_person(new, job_id)


def test_a_carrier_that_had_faxes_lately_and_is_not_set_up_any_more_may_have_had_it(
    site: Site, copies: Copies
) -> None:
    earlier, job_id = site.sent("0044"), site.fax("0000")
    with site.runtime.database.transaction() as session:
        its = sa.update(Attempt).where(Attempt.job_id == earlier).values(provider_id="gone")
        session.execute(its)

    assert waits_for_a_person(copies.restore(site, copies.take(site)), job_id)


def test_the_word_of_another_account_is_no_proof(site: Site, copies: Copies) -> None:
    site.sent("0044")
    job_id = site.fax("0000")
    elsewhere = site.carrier.url.replace("127.0.0.1", "localhost")
    new = copies.restore(site, copies.take(site), SIMULATOR_BASE_URL=elsewhere)

    assert waits_for_a_person(new, job_id)


def test_a_carrier_that_asks_each_time_to_come_again_in_a_second_hides_no_later_try(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    backup = copies.take(site)
    site.odd.does["send"] = raises(Throttled(retry_after=1))
    for tries in range(12):
        if tries == 11:
            del site.odd.does["send"]
        site.now += timedelta(seconds=max(1.0, site.wait_of(job_id)))
        sending.attempt(site.runtime, job_id)
    assert site.job(job_id).attempts == 12
    site.final_at_carrier(job_id)

    new = copies.restore(site, backup)
    settle(new)
    assert (new.job(job_id).status, at_carrier(new, job_id)) == ("delivered", 1)


def test_what_was_sent_after_people_had_said_that_nothing_was_lost_is_found(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    second = copies.restore(site, copies.take(site))
    sending.attempt(second.runtime, job_id)
    decisions.release(second.runtime, ACTOR, job_id)
    again = copies.take(second)
    recall.deny(second.runtime, ACTOR)
    second.work()
    second.final_at_carrier(job_id)

    third = copies.restore(second, again)
    settle(third)
    assert (third.job(job_id).status, at_carrier(third, job_id)) == ("delivered", 1)


def test_what_carriers_said_of_an_earlier_loss_is_no_second_word_on_this_one(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    second = copies.restore(site, copies.take(site))
    while second.job(job_id).waiting is None:
        second.after(MINUTE)
    third = copies.restore(second, copies.take(second))
    third.sweep()
    with third.runtime.database.transaction() as session:  # looked at seldom by now
        its = sa.update(Job).where(Job.id == job_id)
        session.execute(its.values(next_at=third.now + timedelta(hours=1)))
    third.after(3600)
    assert third.job(job_id).status == "held"
    third.after(MINUTE)
    assert at_carrier(third, job_id) == 1


def test_a_ledger_that_is_lost_while_pages_are_made_calls_for_nothing(site: Site) -> None:
    job_id = site.fax("0000")
    site.runtime.restores.notice(site.now)
    claimed = claims.claim(site.runtime, job_id)
    assert claimed is not None
    with artifacts.Workspace(site.runtime) as workspace:
        prepared = sending._prepare(site.runtime, claimed, workspace)
        recall.declare(site.runtime, ACTOR)
        with pytest.raises(sending.NotNow, match="restored"):
            sending._intend(site.runtime, claimed, prepared)


def test_a_ledger_of_a_version_whose_tags_nobody_knows_leaves_it_to_a_person(
    site: Site, copies: Copies
) -> None:
    earlier, job_id = site.sent("0044"), site.fax("0000")
    with site.runtime.database.transaction() as session:
        drawn = sa.update(Attempt).where(Attempt.job_id == earlier).values(tag="fb" + "0" * 32)
        session.execute(drawn)
    for _ in range(6):  # both call for a while in an upgrade
        site.now += timedelta(seconds=1)
        site.sent("0044")

    assert waits_for_a_person(copies.restore(site, copies.take(site)), job_id)


# What people are told ---------------------------------------------------------------------------------


def test_people_are_told_at_once_of_what_is_held_and_what_mends_it(
    site: Site, copies: Copies
) -> None:
    first, second = site.fax("0000"), site.fax("0000")
    new = copies.restore(site, copies.take(site), without=["absence_is_proof"])
    assert alarms.raised(new.runtime) == []
    settle(new, 1)

    (alarm,) = alarms.raised(new.runtime)
    assert (alarm.code, alarm.count) == ("restored", 2)
    assert "2 faxes are held since the database was restored" in alarm.detail
    (group,) = waiting.groups(new.runtime, ACTOR)
    assert group.cause == waiting.Cause("held", "restored")
    assert set(group.ids) == {first, second}
    browser = browser_of(new.runtime, new_user(new.runtime, ADMIN))
    shown = words(page(browser, "/admin/ui/needs-you"))
    assert "release what was not sent, and cancel what was" in shown
    assert "Not sent: release all" in shown
    assert "It is mended" not in shown
    assert "release what was not sent" in words(page(browser, f"/admin/ui/faxes/{first}"))
    asked = deed(browser, "/admin/ui/needs-you/ask", 200, deed="release", status="held", reason="restored")  # fmt: skip
    assert "maybe for the second time" in words(asked.text)

    decisions.release(new.runtime, ACTOR, first)
    jobs.cancel(new.runtime, ACTOR, second)
    assert alarms.raised(new.runtime) == []
    told = jobs.describe(new.runtime, jobs.find(new.runtime, ACTOR, second))
    assert (
        told["explanation"] == "Cancelled as asked. An earlier try may have arrived all the same."
    )


# Who is not in doubt ----------------------------------------------------------------------------------


def test_a_fax_that_comes_after_the_restore_goes_at_once(site: Site, copies: Copies) -> None:
    new = copies.restore(site, copies.take(site), without=["status_lookup"])
    new.sweep()
    new.now += timedelta(seconds=1)
    job_id = new.sent("0044")

    assert new.story(job_id) == "QUEUED SUBMITTING SENT"


def test_a_planned_fax_goes_at_its_time_when_it_is_proven_that_it_did_not_before(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000", send_at=site.now + timedelta(hours=4))
    new = copies.restore(site, copies.take(site))
    new.sweep()
    assert new.story(job_id) == "QUEUED"
    new.after(4 * 3600 + 1)
    settle(new)

    assert new.story(job_id).startswith("QUEUED HELD RELEASED SUBMITTING SENT")
    assert at_carrier(new, job_id) == 1


def test_a_planned_fax_that_a_person_had_sent_at_once_is_found(site: Site, copies: Copies) -> None:
    job_id = site.fax("0000", send_at=site.now + timedelta(hours=1))
    backup = copies.take(site)
    decisions.send_now(site.runtime, ACTOR, job_id)
    site.work()
    site.final_at_carrier(job_id)

    new = copies.restore(site, backup)
    new.sweep()
    new.after(3600 + 1)
    settle(new)
    assert (new.job(job_id).status, at_carrier(new, job_id)) == ("delivered", 1)


def test_a_clock_that_is_ahead_takes_no_fax_out_of_doubt(site: Site, copies: Copies) -> None:
    soon = site.now + timedelta(minutes=3)
    planned = site.fax("0000", send_at=soon)
    site.now += timedelta(minutes=2)
    ahead = site.fax("0000")
    site.now -= timedelta(minutes=2)
    new = copies.restore(site, copies.take(site))

    for job_id in (planned, ahead):
        assert new.runtime.restores.doubts(new.job(job_id), new.now)


# Deadlines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [False, True])
def test_a_deadline_does_not_end_what_may_have_been_sent(
    site: Site, copies: Copies, held: bool
) -> None:
    job_id = site.fax("0000", expires_at=site.now + timedelta(minutes=10))
    if held:
        decisions.hold(site.runtime, ACTOR, job_id)
    backup = copies.take(site)
    if held:
        decisions.release(site.runtime, ACTOR, job_id)
    sending.attempt(site.runtime, job_id)
    site.final_at_carrier(job_id)
    site.now += timedelta(minutes=20)

    new = copies.restore(site, backup)
    settle(new)
    assert (new.job(job_id).status, at_carrier(new, job_id)) == ("delivered", 1)


def test_a_deadline_ends_what_was_surely_not_sent(site: Site, copies: Copies) -> None:
    job_id = site.fax("0000", expires_at=site.now + timedelta(minutes=10))
    backup = copies.take(site)
    site.now += timedelta(minutes=20)

    new = copies.restore(site, backup)
    settle(new, 12)
    assert new.story(job_id) == "QUEUED HELD RELEASED EXPIRED"


def test_a_deadline_leaves_what_nobody_knows_to_a_person(site: Site, copies: Copies) -> None:
    job_id = site.fax("0000", expires_at=site.now + timedelta(minutes=2))
    new = copies.restore(site, copies.take(site), without=["absence_is_proof"])

    assert waits_for_a_person(new, job_id)
    decisions.release(new.runtime, ACTOR, job_id)
    new.work()
    assert new.job(job_id).status == "expired"


# How often carriers are asked -------------------------------------------------------------------------


def test_a_fax_is_asked_for_by_one_worker_at_a_time(site: Site, copies: Copies) -> None:
    job_id = site.fax("0000")
    new = copies.restore(site, copies.take(site))
    sending.attempt(new.runtime, job_id)
    asked: list[str] = []

    def look(usual: Callable[[str], Update], tag: str) -> Update:
        asked.append(tag)
        followup.review(new.runtime, job_id)
        return usual(tag)

    new.odd.does["look_up"] = look
    new.now += timedelta(minutes=2)
    followup.review(new.runtime, job_id)
    assert len(set(asked)) == len(asked) == 2 * restored.FEWEST_AHEAD


def test_a_question_that_takes_longer_than_a_turn_is_followed_by_another_turn(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    new = copies.restore(site, copies.take(site))
    sending.attempt(new.runtime, job_id)
    asked: list[str] = []

    def look(usual: Callable[[str], Update], tag: str) -> Update:
        asked.append(tag)
        new.now += timedelta(seconds=new.runtime.config.provider_call_seconds)
        followup.review(new.runtime, job_id)
        return usual(tag)

    new.odd.does["look_up"] = look
    new.now += timedelta(minutes=2)
    followup.review(new.runtime, job_id)
    assert len(set(asked)) == len(asked) == 2 * restored.FEWEST_AHEAD


def test_what_a_person_decides_while_carriers_are_asked_stands(site: Site, copies: Copies) -> None:
    job_id = site.fax("0000")
    new = copies.restore(site, copies.take(site))
    sending.attempt(new.runtime, job_id)

    def look(usual: Callable[[str], Update], tag: str) -> Update:
        if new.job(job_id).status == "held":
            decisions.release(new.runtime, ACTOR, job_id)
        return usual(tag)

    new.odd.does["look_up"] = look
    new.now += timedelta(minutes=2)
    followup.review(new.runtime, job_id)
    assert new.story(job_id) == "QUEUED HELD RELEASED"
    new.work()
    assert at_carrier(new, job_id) == 1


def test_a_carrier_is_asked_ever_more_seldom_at_last_once_an_hour(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    new = copies.restore(site, copies.take(site), without=["absence_is_proof"])
    asked: list[datetime] = []

    def look(usual: Callable[[str], Update], tag: str) -> Update:
        if tag == restored.tag_of(job_id, 1):
            asked.append(new.now)
        return usual(tag)

    new.odd.does["look_up"] = look
    for _ in range(120):
        new.after(5 * MINUTE)
    waits = [(after - before).total_seconds() / MINUTE for before, after in pairwise(asked)]
    assert waits == sorted(waits)
    assert max(waits) == 60 + 5 * (max(waits) > 60)
    assert len(asked) <= 20


# People -----------------------------------------------------------------------------------------------


def test_people_say_that_nothing_was_lost_and_all_goes(site: Site, copies: Copies) -> None:
    job_id = site.fax("0000")
    new = copies.restore(site, copies.take(site), without=["status_lookup"])
    assert waits_for_a_person(new, job_id)
    assert recall.waiting(new.runtime) == 1
    for _ in range(8):
        new.after(3600)  # by now nobody looks at it for an hour

    recall.deny(new.runtime, ACTOR)
    settle(new, 2)

    assert new.runtime.restores.notice(new.now) is None
    assert (at_carrier(new, job_id), recall.waiting(new.runtime)) == (1, 0)


def test_what_people_say_was_restored_from_a_version_that_noted_nothing_is_for_people(
    site: Site,
) -> None:
    job_id = site.fax("0000")
    heartbeats.beat(site.runtime, ["queued"])
    with site.runtime.database.transaction() as session:
        session.execute(sa.delete(Heartbeat).where(Heartbeat.name.startswith("ledger:")))
    recall.declare(site.runtime, ACTOR)

    assert waits_for_a_person(site, job_id)


def test_what_is_found_was_not_tried_before_it_was_taken_however_old_the_backup_may_be(
    site: Site, copies: Copies
) -> None:
    job_id = site.fax("0000")
    heartbeats.beat(site.runtime, ["queued"])
    with site.runtime.database.transaction() as session:
        session.execute(sa.delete(Heartbeat).where(Heartbeat.name.startswith("ledger:")))
    backup = copies.take_as_it_is(site)
    sending.attempt(site.runtime, job_id)
    site.final_at_carrier(job_id)
    new = copies.restore(site, backup)
    recall.declare(new.runtime, ACTOR)
    settle(new)

    assert new.job(job_id).status == "delivered"
    begun = new.attempt(job_id).intended_at
    assert begun == new.job(job_id).created_at - restored.CLOCKS


def test_people_say_that_a_ledger_was_restored_that_cannot_be_told_from_the_original(
    site: Site,
) -> None:
    job_id = site.fax("0000")
    site.runtime.restores.notice(site.now)
    heartbeats.beat(site.runtime, ["queued"])
    recall.declare(site.runtime, ACTOR)
    site.odd.does["look_up"] = answers(Update(State.ABSENT))
    sending.attempt(site.runtime, job_id)
    assert site.job(job_id).reason == "restored"

    settle(site)
    assert at_carrier(site, job_id) == 1
