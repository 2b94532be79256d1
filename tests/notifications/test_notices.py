"""Of what people are told, once each, and in how many messages: the ledger of notices, over a real mail server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import (
    alarms,
    decisions,
    health,
    jobs,
    messenger,
    notices,
    notifiers,
    notifying,
)
from faxbot.db import new_id
from faxbot.errors import AccountRefused, OutcomeUnknown, Refused, Throttled
from faxbot.events import Event, Notable, Status
from faxbot.messenger import Messenger
from faxbot.models import Job, Notice
from faxbot.notifications.email import EmailNotifier
from faxbot.notifying import LEASE, MOST_DOUBTS, SCHEDULE
from faxbot.plugins.base import Notification, State, Update
from faxbot.results import record_event
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration import people
from tests.integration.odd import answers, raises
from tests.integration.site import ACTOR, Site, open_site
from tests.integration.test_arrivals import arrives, gives
from tests.mailserver import HANG, KEEP_AND_DROP, MailServer

HOUR = 3600.0


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer) -> Iterator[Site]:
    with open_site(store, carrier_of_all, **mail.environ) as site:
        yield site


def failed(site: Site) -> str:
    site.odd.does["send"] = raises(Refused(cause="number_dead"))
    return site.sent()


def delivered(site: Site) -> str:
    site.odd.does.pop("send", None)
    job_id = site.sent()
    site.receive(site.callback(site.final_at_carrier(job_id)))
    site.work()
    assert site.job(job_id).status == "delivered"
    return job_id


def held(site: Site) -> str:
    site.odd.does["send"] = raises(AccountRefused())
    return site.sent()


def uncertain(site: Site) -> str:
    site.odd.does["send"] = site.odd.does["look_up"] = raises(OutcomeUnknown())
    return site.sent()


def told(site: Site) -> list[tuple[str, str]]:
    """Of which fax what has been noted."""
    return [(row.fax_id, row.kind) for row in people.notices(site.runtime)]


def noted(site: Site, count: int, kind: Notable = Notable.FAILED) -> None:
    """So many notices at once, as after a storm."""
    row = {
        "account_id": "default", "plugin_id": "email", "sequence": 3, "kind": kind.value,
        "why": "busy", "occurred_at": site.now, "created_at": site.now,
    }  # fmt: skip
    rows = [{**row, "fax_id": new_id(site.now)} for _ in range(count)]
    with site.runtime.database.writing() as connection:
        connection.execute(sa.insert(Notice), rows)


# Of what --------------------------------------------------------------------------------------------


def expired(site: Site) -> str:
    job_id = site.fax(expires_at=site.now + timedelta(minutes=1))
    site.rung.clear()
    site.after(61)
    return job_id


def decided(outcome: str) -> Callable[[Site], str]:
    def decide(site: Site) -> str:
        job_id = uncertain(site)
        decisions.decide(site.runtime, ACTOR, job_id, outcome, "they called")
        return job_id

    return decide


def received(site: Site) -> str:
    site.odd.does["document"] = gives()
    arrives(site)
    site.work()
    return "received"


def receive_failed(site: Site) -> str:
    arrives(site, cause="page_failed")
    site.work()
    return "received"


def cancelled(site: Site) -> str:
    job_id = site.submit("+15550100000").job_id
    jobs.cancel(site.runtime, ACTOR, job_id)
    return job_id


def said_delivered(site: Site) -> str:
    """A try has failed, and then the carrier says that it arrived."""
    job_id = site.sent("0017")
    site.receive(site.callback(site.final_at_carrier(job_id)))
    site.work()
    assert site.job(job_id).status == "retrying"
    late = Update(State.DELIVERED, tag=site.attempt(job_id).tag, pages_sent=1)
    site.odd.does["read_callback"] = answers([late])
    site.odd.does["verify_callback"] = answers(True)
    site.receive(site.signed(b"{}"))
    site.work()
    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "said_delivered")
    return job_id


@pytest.mark.parametrize(
    ("happens", "kind", "why"),
    [
        (delivered, "delivered", None),
        (decided("delivered"), "delivered", None),
        (failed, "failed", "number_dead"),
        (decided("failed"), "failed", None),
        (expired, "failed", "expired"),
        (received, "received", None),
        (receive_failed, "receive_failed", "page_failed"),
        (said_delivered, "held", "said_delivered"),
        (cancelled, None, None),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_people_are_told_once_of_what_ends_a_fax_or_needs_a_person(
    site: Site, mail: MailServer, happens: Callable[[Site], str], kind: str | None, why: str | None
) -> None:
    happens(site)
    site.sweep()
    site.sweep()

    rows = people.notices(site.runtime)
    assert [(row.kind, row.why) for row in rows] == ([(kind, why)] if kind else [])
    assert len(mail.taken) == len(rows)
    for row, sent in zip(rows, mail.taken, strict=True):
        assert row.fax_id in sent.text


def test_of_what_the_setting_does_not_name_nobody_is_told(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    wish = {**mail.environ, "EMAIL_EVENTS": "held,delivered"}
    with open_site(store, carrier_of_all, **wish) as site:
        job_id = delivered(site)
        failed(site)
        held(site)
        site.after(HOUR + 60)
        assert {kind for _, kind in told(site)} == {"delivered", "held"}
        assert (job_id, "delivered") in told(site)


def test_nobody_is_told_while_no_plugin_is_active(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    with open_site(store, carrier_of_all, **{**mail.environ, "FAXBOT_NOTIFICATIONS": ""}) as site:
        failed(site)
        site.after(HOUR + 60)
        assert told(site) == []
        assert mail.visits == 0


def test_what_was_taken_back_is_not_told(site: Site) -> None:
    job_id = site.sent()

    def fails() -> None:
        with site.runtime.database.transaction() as session:
            job = session.get_one(Job, job_id)
            assert record_event(
                session, job, Event.DELIVERED, status=Status.DELIVERED, now=site.now, source="poll"
            )
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert told(site) == []


def test_the_database_takes_one_notice_for_an_event_and_a_plugin(site: Site) -> None:
    failed(site)
    (row,) = people.notices(site.runtime)
    again = {name: value for name, value in row._mapping.items() if name != "id"}
    with pytest.raises(sa.exc.IntegrityError), site.runtime.database.engine.begin() as connection:
        connection.execute(sa.insert(Notice), again)


# What waits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [held, uncertain])
def test_of_a_wait_people_are_told_once_when_it_has_lasted(
    site: Site, mail: MailServer, waits: Callable[[Site], str]
) -> None:
    job_id = waits(site)
    site.after(HOUR)
    assert told(site) == []
    for _ in range(40):
        site.after(179)

    assert told(site) == [(job_id, "held")]
    assert [each.subject for each in mail.taken] == ["[faxbot] Fax waits for a person"]
    site.now += 2 * notices.LOOK_EVERY
    assert notices.note_waits(site.runtime) == 0, "those behind it have their turn"


def test_of_a_wait_that_lasts_for_months_people_are_told_once_and_it_is_forgotten_when_it_is_over(
    site: Site, mail: MailServer
) -> None:
    job_id = uncertain(site)
    site.after(HOUR + 1)
    assert told(site) == [(job_id, "held")]
    for _ in range(5):
        site.after(20 * 24 * HOUR)
    assert told(site) == [(job_id, "held")]
    assert len(mail.taken) == 1
    decisions.decide(site.runtime, ACTOR, job_id, "failed", "nobody knows")
    for _ in range(4):
        site.after(20 * 24 * HOUR)
    assert told(site) == []


def test_old_notices_of_faxes_that_still_wait_are_looked_at_once_an_hour_when_the_others_are_gone(
    site: Site,
) -> None:
    job_id = uncertain(site)
    row = {
        "account_id": "default", "plugin_id": "email", "kind": Notable.HELD.value, "why": None,
        "notification_id": new_id(site.now), "occurred_at": site.now, "created_at": site.now,
    }  # fmt: skip
    stay = [{**row, "fax_id": job_id, "sequence": 1000 + n} for n in range(notices.SOME + 100)]
    go = [{**row, "fax_id": new_id(site.now), "sequence": 3} for _ in range(notices.SOME + 200)]
    with site.runtime.database.writing() as connection:
        connection.execute(sa.insert(Notice), [*stay, *go])
    site.now += notices.KEPT + timedelta(seconds=1)
    looks: list[str] = []

    def counts(_connection: object, _cursor: object, text: str, *_: object) -> None:
        if text.startswith("DELETE FROM notices "):
            looks.append(text)

    for engine in {site.runtime.database.engine, site.runtime.database.reader}:
        sa.event.listen(engine, "before_cursor_execute", counts)

    def looked() -> tuple[int, int]:
        """What one sweep forgot, and with how many looks at notices."""
        looks.clear()
        return notices.tidy(site.runtime), len(looks)

    assert [looked(), looked()] == [(notices.SOME, 2), (200, 2)]
    for _ in range(5):
        site.now += timedelta(minutes=10)
        assert looked() == (0, 0)
    site.now += timedelta(minutes=10)
    assert [looked(), looked()] == [(0, 2), (0, 0)]
    assert told(site) == [(job_id, "held")] * len(stay)


def test_a_fax_that_is_let_go_and_held_again_all_the_time_is_told_of_once(site: Site) -> None:
    others = [site.fax() for _ in range(2)]
    job_id = held(site)
    for other in others:
        jobs.cancel(site.runtime, ACTOR, other)
    site.rung.clear()
    for _ in range(90):
        site.after(120)
    assert site.story(job_id).count("HELD") > 3
    assert told(site) == [(job_id, "held")]


def test_a_new_wait_is_told_of_again(site: Site) -> None:
    job_id = uncertain(site)
    site.after(HOUR + 1)
    decisions.decide(site.runtime, ACTOR, job_id, "retry", "they have nothing")
    for _ in range(3):
        site.after(120)
    assert site.job(job_id).status == "uncertain"
    assert told(site) == [(job_id, "held")]
    site.after(HOUR + 1)
    assert told(site) == [(job_id, "held"), (job_id, "held")]


def test_what_was_told_at_once_is_not_told_as_a_wait(site: Site) -> None:
    job_id = said_delivered(site)
    site.after(3 * HOUR)
    assert told(site) == [(job_id, "held")]


# How many messages ----------------------------------------------------------------------------------


def test_while_little_happens_each_notice_has_its_own_mail(site: Site, mail: MailServer) -> None:
    ids = [failed(site) for _ in range(3)]
    site.sweep()
    assert [each.subject for each in mail.taken] == ["[faxbot] Fax not delivered"] * 3
    assert all(fax_id in sent.text for fax_id, sent in zip(ids, mail.taken, strict=True))
    assert len({each.id for each in mail.taken}) == 3


def test_a_storm_is_one_mail(site: Site, mail: MailServer) -> None:
    noted(site, 3000)
    site.sweep()
    (sent,) = mail.taken
    assert sent.subject == "[faxbot] 3000 faxes: 3000 not delivered"
    assert "... and 2900 more" in sent.text


def test_a_storm_that_goes_on_stays_within_the_limit_and_all_of_it_is_told(
    site: Site, mail: MailServer
) -> None:
    """A fax fails every minute, for three hours."""
    at: list[Any] = []
    for n in range(180):
        noted(site, 1)
        people.tell(site.runtime)
        at += [n * 60] * (len(mail.taken) - len(at))
        site.now += timedelta(minutes=1)
    for _ in range(6):
        people.tell(site.runtime)
        site.now += timedelta(minutes=2)

    most = max(sum(begin <= each < begin + HOUR for each in at) for begin in at)
    limit = site.runtime.config.notices_per_hour
    assert limit - 2 <= most <= limit
    assert sum(row.notices for row in people.messages(site.runtime)) == 180
    gaps = [after - before for before, after in pairwise(at)]
    assert max(gaps) <= 400, "nobody waits for long"


def test_the_limit_can_be_set(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    with open_site(store, carrier_of_all, **mail.environ, FAXBOT_NOTICES_PER_HOUR="2") as site:
        for _ in range(61):
            noted(site, 1)
            site.after(60)
        assert [row.notices for row in people.messages(site.runtime)] == [1, 60]


# When the server does not take it -------------------------------------------------------------------


def test_what_is_not_taken_is_sent_again_less_and_less_often_with_the_same_id(
    site: Site, mail: MailServer
) -> None:
    mail.data = lambda _mail: "451 later"
    failed(site)
    site.sweep()
    noted(site, 4)
    begun, at = site.now, [0.0]
    for _ in range(270):
        site.now += timedelta(seconds=30)
        people.tell(site.runtime)
        at += [(site.now - begun).total_seconds()] * (len(mail.handed) - len(at))
    gaps = [after - before for before, after in pairwise(at)]
    for gap, wanted in zip(gaps, SCHEDULE, strict=False):
        assert wanted <= gap <= wanted + 31
    assert len({each.id for each in mail.handed}) == 1, "the others wait behind it"

    mail.data = lambda _mail: "250 OK"
    site.after(HOUR)
    site.sweep()
    assert [row.status for row in people.messages(site.runtime)] == ["sent"] * 5
    assert len(mail.taken) == 5


def test_a_message_that_is_never_taken_is_given_up_and_the_next_one_tells_the_rest(
    site: Site, mail: MailServer
) -> None:
    mail.data = lambda _mail: "451 later"
    failed(site)
    site.sweep()
    noted(site, 50)
    for _ in range(25):
        site.after(HOUR)
    first, second = people.messages(site.runtime)
    assert (first.status, first.cause) == ("given_up", "unreachable")
    assert 20 < first.tries < 35
    assert (second.status, second.notices) == ("waiting", 50)
    mail.data = lambda _mail: "250 OK"
    site.after(HOUR)
    assert [each.subject for each in mail.taken] == ["[faxbot] 50 faxes: 50 not delivered"]


def test_a_message_that_is_refused_for_good_does_not_hold_the_others_up(
    site: Site, mail: MailServer
) -> None:
    job_id = failed(site)
    mail.data = lambda each: "554 spam" if job_id in each.text else "250 OK"
    site.sweep()
    other = failed(site)
    for _ in range(4):
        site.after(301)
    statuses = {row.cause: row.status for row in people.messages(site.runtime)}
    assert statuses == {"refused": "given_up", None: "sent"}
    assert [other in each.text for each in mail.taken] == [True]


def test_of_a_message_that_may_have_arrived_a_repeat_has_the_same_id_and_there_are_few(
    site: Site, mail: MailServer
) -> None:
    mail.data = lambda _mail: KEEP_AND_DROP
    failed(site)
    for _ in range(30):
        site.after(HOUR)
    assert len(mail.taken) == MOST_DOUBTS
    assert len({each.id for each in mail.taken}) == 1
    (row,) = people.messages(site.runtime)
    assert (row.status, row.cause) == ("given_up", "outcome-unknown")


TWO = ["desk@practice.example", "nurse@practice.example"]


def test_who_is_refused_once_for_now_has_the_message_with_the_others(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    asked: list[str] = []

    def greylists(address: str) -> str:
        asked.append(address)
        return "450 greylisted" if asked.count(address) == 1 and address == TWO[1] else "250 OK"

    mail.recipient = greylists
    with open_site(store, carrier_of_all, **{**mail.environ, "EMAIL_TO": ",".join(TWO)}) as site:
        failed(site)
        site.sweep()
        assert mail.handed == [], "it is sent to all, or to nobody yet"
        site.after(61)
        site.after(HOUR)
        assert [each.recipients for each in mail.taken] == [TWO]
        (row,) = people.messages(site.runtime)
        assert (row.status, row.cause, row.tries) == ("sent", None, 2)


def test_who_is_refused_for_now_for_ever_does_not_keep_the_others_from_it(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    mail.recipient = lambda address: "452 full" if address == TWO[1] else "250 OK"
    with open_site(store, carrier_of_all, **{**mail.environ, "EMAIL_TO": ",".join(TWO)}) as site:
        failed(site)
        for seconds in (0, 61, 301):
            site.after(seconds)
        assert mail.handed == []
        site.after(901)
        assert [each.recipients for each in mail.taken] == [TWO[:1]]
        (row,) = people.messages(site.runtime)
        assert (row.status, row.cause, row.tries) == ("sent", "partly-put-off", 4)
        assert "refused for some of those who were to be told" in alarm(site)
        site.after(HOUR)
        assert len(mail.taken) == 1, "who has it gets it no second time"


def waited_for(site: Site, mail: MailServer) -> None:
    """One message, as long as it waits for the second one's full mailbox."""
    mail.recipient = lambda address: "452 full" if address == TWO[1] else "250 OK"
    failed(site)
    for seconds in (0, 61, 301, 901):
        assert mail.taken == []
        site.after(seconds)
    assert [each.recipients for each in mail.taken] == [TWO[:1]]
    mail.taken.clear()


def test_who_is_refused_for_now_for_ever_delays_one_message_and_none_behind_it(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    mail.recipient = lambda address: "452 full" if address == TWO[1] else "250 OK"
    with open_site(store, carrier_of_all, **{**mail.environ, "EMAIL_TO": ",".join(TWO)}) as site:
        for _ in range(3):
            failed(site)
        for seconds in (0, 61, 301):
            site.after(seconds)
        assert mail.handed == []
        site.after(901)
        site.sweep()
        assert [each.recipients for each in mail.taken] == [TWO[:1]] * 3
        for count in (4, 5):
            site.after(HOUR)
            failed(site)
            site.sweep()
            assert [each.recipients for each in mail.taken] == [TWO[:1]] * count
        assert {row.cause for row in people.messages(site.runtime)} == {"partly-put-off"}

        mail.recipient = lambda _address: "250 OK"
        failed(site)
        site.sweep()
        assert mail.taken[-1].recipients == TWO, "there is room for it again"


@pytest.mark.parametrize("ends", ["a message that all take", "a day"])
def test_who_is_refused_for_now_is_waited_for_anew_after(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer, ends: str
) -> None:
    with open_site(store, carrier_of_all, **{**mail.environ, "EMAIL_TO": ",".join(TWO)}) as site:
        waited_for(site, mail)
        if ends == "a day":
            site.now += timedelta(days=1)
        else:
            mail.recipient = lambda _address: "250 OK"
            failed(site)
            site.sweep()
            assert [each.recipients for each in mail.taken] == [TWO]
            mail.taken.clear()
        waited_for(site, mail)


def test_while_one_is_refused_for_good_another_who_is_refused_for_now_is_waited_for(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    says = {TWO[1]: "452 full", "gone@practice.example": "550 gone"}
    mail.recipient = lambda address: says.get(address, "250 OK")
    wish = {**mail.environ, "EMAIL_TO": ",".join([*TWO, "gone@practice.example"])}
    with open_site(store, carrier_of_all, **wish) as site:
        for seconds in (0, 61, 301, 901):
            failed(site)
            site.after(seconds)
        assert [each.recipients for each in mail.taken] == [TWO[:1]] * 4
        del says[TWO[1]]
        failed(site)
        site.after(1)  # an id says when it was made
        assert mail.taken[-1].recipients == TWO
        says[TWO[1]] = "450 greylisted"
        failed(site)
        site.after(1)
        assert len(mail.taken) == 5
        del says[TWO[1]]
        site.after(61)
        assert [each.recipients for each in mail.taken[4:]] == [TWO] * 2


def test_a_plugin_that_takes_nothing_for_now_is_asked_once_more_and_then_left_alone(
    store: Installation,
    carrier_of_all: SimulatorProcess,
    mail: MailServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []

    def takes_nothing(_self: object, notification: Notification) -> bool:
        asked.append(notification.put_off_long)
        raise Throttled

    with open_site(store, carrier_of_all, **{**mail.environ, "EMAIL_TO": ",".join(TWO)}) as site:
        waited_for(site, mail)
        monkeypatch.setattr(EmailNotifier, "notify", takes_nothing)
        failed(site)
        site.sweep()
        site.sweep()
        assert asked == [False, True]


def test_who_is_refused_for_now_when_the_server_is_back_after_hours_is_waited_for(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    mail.data = lambda _mail: "451 later"
    with open_site(store, carrier_of_all, **{**mail.environ, "EMAIL_TO": ",".join(TWO)}) as site:
        failed(site)
        for _ in range(6):
            site.after(HOUR)
        mail.data = lambda _mail: "250 OK"
        mail.recipient = lambda address: "450 greylisted" if address == TWO[1] else "250 OK"
        site.after(HOUR)
        assert mail.taken == []
        mail.recipient = lambda _address: "250 OK"
        site.after(HOUR)
        assert [each.recipients for each in mail.taken] == [TWO]


@contextmanager
def away(site: Site, times: int) -> Iterator[list[str]]:
    """From the moment in which `begun` is put into this list the database refuses so many transactions; each is put
    into it."""
    seen: list[str] = []

    def begins(_connection: sa.Connection) -> None:
        if seen and len(seen) <= times:
            seen.append("refused")
            raise sa.exc.OperationalError("BEGIN", None, OSError("the connection is gone"))

    sa.event.listen(site.runtime.database.engine, "begin", begins, insert=True)
    yield seen
    sa.event.remove(site.runtime.database.engine, "begin", begins)


def test_a_mail_that_was_taken_while_the_database_went_away_is_sent_once(
    site: Site, mail: MailServer
) -> None:
    failed(site)
    with away(site, 2) as seen:

        def takes(_mail: object) -> str:
            seen.append("begun")
            return "250 OK"

        mail.data = takes
        people.tell(site.runtime)
    for _ in range(5):
        site.after(60)
    assert len(mail.taken) == 1
    (row,) = people.messages(site.runtime)
    assert (row.status, row.cause, row.tries) == ("sent", None, 1)
    assert seen == ["begun", "refused", "refused"]


def test_what_came_of_a_mail_may_be_written_twice(site: Site) -> None:
    """The database had written it, and its answer was lost."""
    failed(site)
    (place,) = notifying.due(site.runtime, ["email"], site.now)
    mine = notifying.claim(site.runtime, place)
    assert mine is not None
    message = notifying.next_message(site.runtime, mine)
    assert message is not None
    written: list[Any] = []
    for _ in range(2):
        notifying.conclude(site.runtime, mine, message, cause="unreachable", sent=False)
        written += people.messages(site.runtime)
    assert written[0] == written[1]
    assert (written[1].status, written[1].doubts) == ("waiting", 0)


def test_a_process_that_ends_while_the_database_is_away_waits_no_longer_for_it(
    site: Site, mail: MailServer
) -> None:
    failed(site)
    with away(site, 1000) as seen:

        def takes(_mail: object) -> str:
            seen.append("begun")
            return "250 OK"

        mail.data = takes
        works = Messenger(site.runtime)
        works.wake()
        eventually(lambda: "refused" in seen)
        works.close()
        assert works.is_idle()


def test_a_fault_of_a_plugin_is_no_end_of_it(
    site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumbles(*_: object) -> bool:
        raise ZeroDivisionError("+1 415 837 0000")

    with monkeypatch.context() as patch:
        patch.setattr(EmailNotifier, "notify", stumbles)
        failed(site)
        site.sweep()
    (row,) = people.messages(site.runtime)
    assert (row.status, row.cause) == ("waiting", "ZeroDivisionError")
    site.after(61)
    assert len(mail.taken) == 1


# Who sends ------------------------------------------------------------------------------------------


def test_two_who_tell_at_once_tell_once(site: Site, mail: MailServer) -> None:
    for _ in range(8):
        failed(site)
    with ExitStack() as stack:
        several = [stack.enter_context(closing(Messenger(site.runtime))) for _ in range(3)]
        for each in several:
            each.wake()
        eventually(lambda: all(each.is_idle() for each in several), 30)
    people.tell(site.runtime)
    assert len(mail.taken) == 8
    assert Counter(each.id for each in mail.taken).most_common(1)[0][1] == 1


def test_what_a_process_that_died_has_begun_with_is_sent_by_another_one(
    site: Site, mail: MailServer
) -> None:
    failed(site)
    (place,) = notifying.due(site.runtime, ["email"], site.now)
    mine = notifying.claim(site.runtime, place)
    assert mine is not None
    assert notifying.claim(site.runtime, place) is None, "it is taken"
    message = notifying.next_message(site.runtime, mine)
    assert message is not None
    site.sweep()
    assert mail.handed == [], "nobody sends it while that one may live"

    site.after(LEASE.total_seconds() + 1)
    (sent,) = mail.taken
    assert message.notification.id in sent.id
    # It was only frozen, and comes back.
    notifying.conclude(site.runtime, mine, message, cause="unreachable", sent=False)
    (row,) = people.messages(site.runtime)
    assert (row.status, row.cause, row.tries) == ("sent", None, 2)


def test_a_server_that_hangs_holds_one_thread_and_nothing_of_the_database(
    site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messenger, "LONGEST_END", 0.1)
    mail.data = lambda _mail: HANG
    failed(site)
    works = Messenger(site.runtime)
    works.wake()
    eventually(lambda: mail.handed)
    assert site.runtime.database.held == 0, "something is open while we wait"
    for _ in range(5):
        works.wake()
    names = [each.name for each in threading.enumerate()]
    assert names.count("messenger") == 1
    # Faxes go meanwhile, and webhooks; they are other threads' business.
    delivered(site)
    works.close()
    eventually(works.is_idle, 20)


# How it stands --------------------------------------------------------------------------------------


def alarm(site: Site) -> str:
    found = [each for each in alarms.raised(site.runtime) if each.code == "notices"]
    return found[0].detail if found else ""


def test_notices_that_cannot_be_sent_raise_an_alarm_until_one_is(
    site: Site, mail: MailServer
) -> None:
    mail.sender = lambda _address: "550 no"
    failed(site)
    site.sweep()
    assert alarm(site) == "", "once is no trouble"
    for _ in range(3):
        site.after(301)
    assert "email: a message has failed 3 times (account-refused)" in alarm(site)
    assert "notices" not in [
        name for name, part in health.ready(site.runtime)["parts"].items() if not part["ok"]
    ]
    mail.sender = lambda _address: "250 OK"
    site.after(HOUR)
    assert alarm(site) == ""


def test_one_that_was_given_up_raises_it_until_a_test_arrives(site: Site, mail: MailServer) -> None:
    mail.data = lambda _mail: "554 spam"
    failed(site)
    for _ in range(4):
        site.after(901)
    assert "the last message was given up (refused)" in alarm(site)
    assert notifiers.test(site.runtime, ACTOR, "email")["ok"] is False
    assert "given up" in alarm(site)
    mail.data = lambda _mail: "250 OK"
    assert notifiers.test(site.runtime, ACTOR, "email") == {
        "ok": True,
        "detail": "A test notice is on its way.",
    }
    assert alarm(site) == ""


def test_recipients_that_are_refused_raise_it(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    mail.recipient = lambda address: "550 gone" if "gone" in address else "250 OK"
    wish = {**mail.environ, "EMAIL_TO": "desk@practice.example,gone@practice.example"}
    with open_site(store, carrier_of_all, **wish) as site:
        failed(site)
        site.sweep()
        assert len(mail.taken) == 1
        assert "refused for some of those who were to be told" in alarm(site)
        site.after(HOUR)
        assert len(mail.taken) == 1, "who has it gets it no second time"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"FAXBOT_NOTIFICATIONS": "emial"}, "There is no plugin 'emial'"),
        ({"FAXBOT_NOTIFICATIONS": "local"}, "local is no notification plugin"),
        ({"EMAIL_HOST": "", "EMAIL_TO": ""}, "EMAIL_HOST is not set"),
    ],
)
def test_what_is_set_wrongly_is_said_and_loses_nothing(
    store: Installation,
    carrier_of_all: SimulatorProcess,
    mail: MailServer,
    changes: dict[str, str],
    said: str,
) -> None:
    with open_site(store, carrier_of_all, **{**mail.environ, **changes}) as site:
        job_id = failed(site)
        site.after(1)
        assert site.job(job_id).status == "failed"
        assert said in alarm(site)
        assert [kind for _, kind in told(site)] == ["failed"]


def test_due_notices_that_nobody_sends_make_the_server_unfit(site: Site) -> None:
    failed(site)
    assert health.CHECKS["notices"](site.runtime) == "nothing overdue"
    site.now += timedelta(seconds=91)
    part = health.ready(site.runtime)["parts"]["notices"]
    assert (part["ok"], "faxbot worker" in part["detail"]) == (False, True)


def test_notices_that_wait_for_the_limit_or_for_the_next_try_are_not_overdue(
    site: Site, mail: MailServer
) -> None:
    for _ in range(10):
        noted(site, 1)
        site.sweep()
    noted(site, 5)
    site.after(200)
    assert len(mail.taken) == 10
    assert health.CHECKS["notices"](site.runtime) == "nothing overdue"
    mail.data = lambda _mail: "451 later"
    site.after(200)
    site.now += timedelta(seconds=50)
    assert health.CHECKS["notices"](site.runtime) == "nothing overdue"


def test_the_list_shows_what_waits_and_what_was_sent(site: Site, mail: MailServer) -> None:
    failed(site)
    site.sweep()
    mail.data = lambda _mail: "451 later"
    failed(site)
    site.after(1)
    noted(site, 2)
    found = notifiers.notifiers(site.runtime, ACTOR)
    (item,) = found["items"]
    assert (item["id"], item["active"], item["waiting"], item["fault"]) == ("email", True, 3, None)
    assert item["events"] == sorted(Notable)
    newest, first = found["messages"]
    assert (newest["status"], newest["cause"], newest["tries"]) == ("waiting", "unreachable", 1)
    assert (first["status"], first["notices"], first["cause"]) == ("sent", 1, None)


def test_what_is_over_is_forgotten_after_a_month_and_what_nobody_wants_after_a_day(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    with open_site(store, carrier_of_all, **mail.environ) as site:
        failed(site)
        site.sweep()
        site.after(30 * 24 * HOUR)
        assert len(people.notices(site.runtime)) == len(people.messages(site.runtime)) == 1
        site.after(2 * 24 * HOUR)
        assert people.notices(site.runtime) == people.messages(site.runtime) == []
        failed(site)
        later = site.now
    with open_site(store, carrier_of_all) as site:
        site.now = later
        site.after(23 * HOUR)
        assert len(people.notices(site.runtime)) == 1
        site.after(2 * HOUR)
        assert people.notices(site.runtime) == []


def test_a_wait_that_is_noted_by_two_sweeps_at_once_is_noted_once(site: Site) -> None:
    held(site)
    site.now += timedelta(seconds=HOUR + 1)
    with ExitStack() as stack:
        threads = [threading.Thread(target=notices.note_waits, args=(site.runtime,)) for _ in "ab"]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
    assert len(told(site)) == 1
