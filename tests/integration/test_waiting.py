"""What waits for a person, by cause: every held and uncertain fax is in one group, and nothing else is."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import decisions, resending, waiting
from faxbot.actors import Actor
from faxbot.errors import OutcomeUnknown
from faxbot.hidden import Hidden
from faxbot.models import Job
from faxbot.resending import Changes
from faxbot.waiting import Cause, Group
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site, number
from tests.integration.test_plans import DONE

REFUSED = Cause("held", "account_refused")


def groups(site: Site) -> dict[Cause, Group]:
    return {group.cause: group for group in waiting.groups(site.runtime, ACTOR)}


def uncertain(site: Site) -> str:
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    return site.sent()


def test_faxes_that_wait_for_the_same_are_one_group_the_eldest_first(site: Site) -> None:
    first = site.sent("0401")
    held_at = site.now
    site.now += timedelta(minutes=10)
    others = [site.sent("0401") for _ in range(2)]
    found = groups(site)
    assert found.keys() == {REFUSED}
    group = found[REFUSED]
    assert group.ids == (first, *sorted(others))  # two of one millisecond have no order
    assert (group.since, group.more, group.provider_ids) == (held_at, False, ("simulator",))
    assert [fax["id"] for fax in group.faxes] == list(group.ids)
    assert all("555" not in fax["to"] for fax in group.faxes)


def test_one_that_is_held_again_has_waited_all_the_time(site: Site) -> None:
    job_id = site.sent("0401")
    held_at = site.now
    site.now += timedelta(minutes=30)
    decisions.release(site.runtime, ACTOR, job_id)
    site.work()
    assert (site.job(job_id).status, groups(site)[REFUSED].since) == ("held", held_at)


def test_one_that_was_mended_is_gone_and_an_uncertain_one_is_there_until_it_is_settled(
    site: Site,
) -> None:
    job_id = uncertain(site)
    (found,) = waiting.groups(site.runtime, ACTOR)
    assert (found.cause.status, found.ids) == ("uncertain", (job_id,))
    assert waiting.faxes_of(site.runtime, ACTOR, found.cause) == [job_id]
    decisions.decide(site.runtime, ACTOR, job_id, "delivered", "they called")
    assert waiting.groups(site.runtime, ACTOR) == []
    assert waiting.faxes_of(site.runtime, ACTOR, found.cause) == []


def test_what_was_not_sent_is_shown_for_three_days_where_a_try_might_help(site: Site) -> None:
    made_at = site.now
    busy, never = site.sent("0017"), site.sent("0075")
    while site.job(busy).status != "failed":
        assert site.now < made_at + waiting.LATELY
        site.after(1800)
    assert site.job(never).status == "failed"
    (found,) = waiting.groups(site.runtime, ACTOR)
    assert (found.cause, found.ids) == (Cause("failed", "busy"), (busy,))
    site.now = made_at + waiting.LATELY + timedelta(seconds=1)
    assert waiting.groups(site.runtime, ACTOR) == []


def test_what_was_not_sent_is_gone_once_it_is_sent_once_more_also_to_another_number(
    site: Site,
) -> None:
    failed = [site.sent("0400") for _ in range(3)]
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).values(reason="busy"))
    resending.as_one_of_many(site.runtime, ACTOR, failed[0])
    to = Changes(to=Hidden(number()))
    resending.resend(site.runtime, ACTOR, failed[1], to, key=None, present=lambda _: b"")
    assert waiting.faxes_of(site.runtime, ACTOR, Cause("failed", "busy")) == failed[2:]


def test_nobody_sees_what_waits_in_another_account(site: Site) -> None:
    site.sent("0401")
    stranger = Actor("other", "k", frozenset({"*"}))
    assert waiting.groups(site.runtime, stranger) == []
    assert waiting.faxes_of(site.runtime, stranger, REFUSED) == []


def test_more_than_somebody_can_work_on_is_not_counted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        site.sent("0401")
    limited = waiting._OLDEST.limit(3)
    monkeypatch.setattr(waiting, "MOST", 2)
    monkeypatch.setattr(waiting, "_OLDEST", limited)
    found = waiting.groups(site.runtime, ACTOR)
    assert [(len(group.ids), group.more) for group in found] == [(2, True)]


def test_nothing_walks_through_what_is_done(on_postgresql: Site) -> None:
    site, walked = on_postgresql, list[str]()
    site.receive(site.callback(site.final_at_carrier(site.sent("0044"))))
    with site.runtime.database.transaction() as session:
        for statement in DONE:
            session.execute(sa.text(statement))
    site.sent("0401")

    def explain(connection: sa.Connection, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if text.lstrip().startswith("SELECT"):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN {text}", values)
            plan = str(cursor.fetchall())
            cursor.close()
            if re.search(r"Seq Scan on (jobs|events)\b", plan):
                walked.append(f"{text}\n{plan}")

    for engine in (site.runtime.database.engine, site.runtime.database.reader):
        sa.event.listen(engine, "before_cursor_execute", explain)
    assert waiting.groups(site.runtime, ACTOR)
    assert walked == []
