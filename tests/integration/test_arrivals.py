"""Faxes that come in: each noted once however often it is said, its document had, checked, stored and announced, and
nothing lost when the carrier, the plugin, the storage or a worker fails on the way."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pypdfium2
import pytest
import sqlalchemy as sa

from faxbot import alarms, artifacts, breaker, callbacks, fetching, health, inbound, legalholds
from faxbot import feed as feeds
from faxbot.actors import Actor
from faxbot.db import table, utcnow
from faxbot.errors import (
    AccountRefused,
    DatabaseAway,
    NotFound,
    NotPossibleNow,
    OutcomeUnknown,
    Refused,
    StorageAway,
    Unauthenticated,
    Unreachable,
)
from faxbot.events import Reception
from faxbot.feed import Feed
from faxbot.hidden import Hidden
from faxbot.inbound import Filters
from faxbot.models import Artifact, Callback, FaxEvent, InboundFax, ProviderHistory
from faxbot.plugins.base import LARGEST_IN_MEMORY, Arrival, CallbackRequest
from faxbot.providers.asterisk.spool import Spool
from faxbot.storage.local import LocalStorage
from tests.carrier import SimulatorProcess
from tests.documents import make
from tests.installation import Installation
from tests.integration.hooks import rows as deliveries
from tests.integration.hooks import subscribe
from tests.integration.odd import LateStorage, Vanished, answers, raises
from tests.integration.site import ACTOR, TASKS, Site, open_site, tiff

PDF = make.pdf(make.Sheet(), make.Sheet())
INBOUND = ("inbound_supported", "gives_document")
FROM, TO = "+15550100001", "+15550100002"


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, more=INBOUND) as site:
        yield site


def said(body: bytes = b"{}", file: Path | None = None) -> CallbackRequest:
    return CallbackRequest("POST", "http://127.0.0.1:9/callbacks/simulator", {}, body, file)


def gives(content: bytes = PDF) -> Callable[[object, Any], None]:
    """A carrier, or a request, that has this document."""

    def write(_usual: object, arguments: tuple[object, BinaryIO]) -> None:
        arguments[1].write(content)

    return write


def arrives(site: Site, *, body: bytes = b"{}", file: Path | None = None, **facts: Any) -> None:
    """The carrier tells of a fax that came."""
    facts = {"external_id": "in-1", "sender": Hidden(FROM), "recipient": Hidden(TO), **facts}
    arrival = Arrival(**facts)
    usual = site.odd.does.get("read_callback")

    def read(usually: Callable[[Any], Any], request: CallbackRequest) -> object:
        if b"".join(request.chunks()) == whole:
            return [arrival]
        return usual(usually, request) if usual else []

    whole = body if file is None else file.read_bytes()
    site.odd.does["verify_callback"] = answers(True)
    site.odd.does["read_callback"] = read
    site.receive(said(body, file))
    if file is not None:
        file.unlink(missing_ok=True)  # as web does


def faxes(site: Site) -> list[Any]:
    order = table(InboundFax).c.id
    return list(site.runtime.database.rows(sa.select(table(InboundFax)).order_by(order), {}))


def only(site: Site) -> Any:
    (fax,) = faxes(site)
    return fax


def events(site: Site) -> list[tuple[str, str, str | None]]:
    rows = site.runtime.database.rows(sa.select(table(FaxEvent)).order_by(FaxEvent.id), {})
    return [(row.type, row.status, row.cause) for row in rows if row.inbound_id]


def days(site: Site, count: int) -> None:
    """Its document is tried to be had once a day."""
    for _ in range(count):
        site.now += timedelta(days=1)
        fetching.fetch(site.runtime, only(site).id)


def given_up(site: Site) -> None:
    """Until nobody tries any more."""
    site.work()
    days(site, 15)
    assert only(site).next_at is None


def content(site: Site, **how: Any) -> bytes:
    with artifacts.Workspace(site.runtime) as workspace:
        path, _ = inbound.document(site.runtime, only(site).id, workspace, **how)
        return path.read_bytes()


def owners(site: Site) -> list[str]:
    """What is stored, by its role; each with bytes that are there."""
    rows = site.runtime.database.rows(sa.select(table(Artifact)), {})
    for row in rows:
        assert b"".join(artifacts.read(site.runtime, row))
    assert site.stored() == len(rows)
    return sorted(row.role for row in rows)


def test_a_fax_comes_in_and_is_announced_once_its_document_is_stored(site: Site) -> None:
    site.odd.does["document"] = gives()
    arrives(site, pages=7)
    callbacks.apply(site.runtime, site.rung.pop(0)[1])
    assert only(site).status == Reception.FETCHING
    assert events(site) == []
    site.work()
    fax = only(site)
    assert (fax.status, fax.pages, fax.size, fax.next_at) == ("received", 2, len(PDF), None)
    assert content(site) == PDF
    assert events(site) == [("FAX_RECEIVED", "received", None)]
    shown = inbound.describe(site.runtime, inbound.find(site.runtime, ACTOR, fax.id))
    assert (shown["from"], shown["fr"], shown["to"]) == (FROM, FROM, TO)
    assert owners(site) == ["document"]


def test_it_is_told_in_the_feed_under_its_own_id(site: Site) -> None:
    site.odd.does["document"] = gives()
    arrives(site)
    site.work()
    feed = Feed(site.runtime.database)
    for filters in (feeds.Filters(), feeds.Filters(fax_id=only(site).id)):
        told = feed.page(ACTOR.account_id, filters, feeds.BEGINNING, limit=9, upto=feed.settled())
        (event,) = (feeds.describe(row) for row in told.rows)
        assert event["type"] == "FAX_RECEIVED"
        assert event["data"]["fax_id"] == only(site).id
        assert event["data"]["status"] == "received"


def test_subscribers_are_told_of_it_without_its_numbers(site: Site) -> None:
    webhook_id, _ = subscribe(site.runtime, "https://hook.example.org/", "FAX_RECEIVED")
    site.odd.does["document"] = gives()
    arrives(site)
    for _ in range(2):  # the callback, and its document; nothing goes out to the subscriber
        task, row_id = site.rung.pop(0)
        TASKS[task](site.runtime, row_id)
    (delivery,) = deliveries(site.runtime, webhook_id)
    told = json.loads(delivery.body)
    assert (told["type"], told["data"]["fax_id"]) == ("FAX_RECEIVED", only(site).id)
    assert (told["data"]["status"], told["data"]["pages"]) == ("received", 2)
    assert not any(number.lstrip("+") in delivery.body for number in (FROM, TO))


def test_a_repeat_changes_nothing_whichever_way_and_when_it_comes(site: Site) -> None:
    site.odd.does["document"] = site.odd.does["attached"] = gives()
    arrives(site)
    arrives(site, body=b"again, before")
    site.work()
    arrives(site)
    arrives(site, body=b"again, after", attached=True)
    arrives(site, body=b"contradicting", cause="busy")
    site.work()
    assert only(site).status == Reception.RECEIVED
    assert events(site) == [("FAX_RECEIVED", "received", None)]
    assert owners(site) == ["document"]


def test_the_document_in_the_request_is_taken_and_the_carrier_not_asked(site: Site) -> None:
    site.odd.does["attached"] = gives()
    site.odd.does["document"] = raises(AssertionError())
    arrives(site, attached=True)
    site.work()
    assert content(site) == PDF


def large(site: Site) -> Path:
    """A body that is too large for a row, in the spool as web leaves it there."""
    site.runtime.config.spool_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = site.runtime.config.spool_dir / "upload-large"
    path.write_bytes(b"head " + PDF + b" " * LARGEST_IN_MEMORY)
    return path


def cut_out(_usual: object, arguments: tuple[CallbackRequest, BinaryIO]) -> None:
    request, target = arguments
    assert request.body == b""
    target.write(b"".join(request.chunks())[5 : 5 + len(PDF)])


def test_a_large_body_lies_in_storage_until_its_document_is_taken_out(site: Site) -> None:
    site.odd.does["attached"] = cut_out
    arrives(site, body=b"", file=large(site), attached=True)
    assert owners(site) == ["request"]
    site.work()
    assert content(site) == PDF
    assert owners(site) == ["document"]
    # A repeat of the same body is known by its hash, and kept no second time.
    arrives(site, body=b"", file=large(site), attached=True)
    site.work()
    assert site.count(Callback) == 1
    assert owners(site) == ["document"]


def test_the_first_document_of_a_fax_is_not_given_up_for_another(site: Site) -> None:
    """The bodies of the others are of no use to anybody."""
    site.odd.does["attached"] = raises(Unreachable())
    for number in range(3):
        file = large(site)
        file.write_bytes(file.read_bytes() + bytes([number]))
        arrives(site, body=b"", file=file, attached=True)
        site.work()
    site.odd.does["attached"] = cut_out
    site.sweep()
    assert owners(site) == ["request"]
    site.after(60)
    assert only(site).status == Reception.RECEIVED
    assert owners(site) == ["document"]


def test_a_large_body_that_brings_no_fax_is_not_kept(site: Site) -> None:
    site.odd.does["verify_callback"] = answers(True)
    site.odd.does["read_callback"] = answers([])
    site.receive(said(b"", large(site)))
    assert owners(site) == ["request"]
    site.work()
    assert owners(site) == []


def test_where_the_request_has_none_after_all_the_carrier_is_asked(site: Site) -> None:
    site.odd.does["attached"] = raises(Refused())
    site.odd.does["document"] = gives()
    arrives(site, attached=True)
    site.work()
    assert only(site).status == Reception.RECEIVED


def test_a_fax_that_failed_on_its_way_is_no_document_and_says_why(site: Site) -> None:
    arrives(site, cause="busy")
    site.work()
    fax = only(site)
    assert (fax.status, fax.next_at) == ("failed", None)
    assert events(site) == [("FAX_RECEIVE_FAILED", "failed", "busy")]
    assert owners(site) == []
    with pytest.raises(NotFound), artifacts.Workspace(site.runtime) as workspace:
        inbound.document(site.runtime, fax.id, workspace)


def test_one_that_was_said_to_have_failed_and_came_is_received(site: Site) -> None:
    site.odd.does["document"] = gives()
    arrives(site, cause="busy")
    site.work()
    arrives(site, body=b"but it came")
    site.work()
    assert [event for event, _, _ in events(site)] == ["FAX_RECEIVE_FAILED", "FAX_RECEIVED"]


TROUBLE = {
    "away": (raises(Unreachable()), "unreachable"),
    "not there yet": (raises(OutcomeUnknown()), "outcome-unknown"),
    "gone": (raises(Refused()), "refused"),
    "a bug": (raises(ZeroDivisionError()), "plugin"),
    "no document": (gives(b"<html>come back later</html>"), "not-a-document"),
    "nothing": (gives(b""), "not-a-document"),
}


@pytest.mark.parametrize("kind", TROUBLE)
def test_a_document_that_cannot_be_had_is_tried_again_later_and_shown_until_it_is_there(
    site: Site, kind: str
) -> None:
    site.odd.does["document"], code = TROUBLE[kind]
    arrives(site)
    site.work()
    fax = only(site)
    assert (fax.status, fax.next_at) == ("fetching", site.now + timedelta(seconds=30))
    shown = inbound.describe(site.runtime, fax)["error"]
    assert (shown["code"], shown["retryable"]) == (code, True)
    assert owners(site) == []
    site.after(29)
    assert only(site).tries == 1
    site.after(1)
    assert (only(site).tries, only(site).next_at) == (2, site.now + timedelta(seconds=60))

    with pytest.raises(NotPossibleNow):
        inbound.mark(site.runtime, ACTOR, only(site).id, read=True)

    site.odd.does["document"] = gives()
    site.after(60)
    assert only(site).status == Reception.RECEIVED
    assert inbound.describe(site.runtime, only(site))["error"] is None


@pytest.mark.parametrize("kind", TROUBLE)
def test_a_request_whose_document_is_of_no_use_leads_to_the_carriers_copy(
    site: Site, kind: str
) -> None:
    site.odd.does["attached"], _ = TROUBLE[kind]
    site.odd.does["document"] = gives()
    arrives(site, attached=True)
    site.work()
    assert only(site).status == Reception.RECEIVED


def test_a_request_with_several_documents_is_unreadable(site: Site) -> None:
    site.odd.does["verify_callback"] = answers(True)
    both = [Arrival(name, attached=True) for name in ("in-1", "in-2")]
    site.odd.does["read_callback"] = answers(both)
    site.receive(said())
    site.work()
    assert faxes(site) == []


def test_trouble_of_our_own_is_not_held_against_the_plugin(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, more=INBOUND, storage=LateStorage) as site:
        site.odd.does["document"] = gives()
        arrives(site)
        site.work()
        assert only(site).cause == "storage"
        assert site.count(ProviderHistory) == 0
        assert owners(site) == []


def test_after_two_weeks_nobody_has_it_and_that_is_said(site: Site) -> None:
    site.odd.does["document"] = raises(Unreachable())
    arrives(site)
    site.work()
    tries = 0
    while (fax := only(site)).status == Reception.FETCHING:
        assert fax.next_at - site.now <= timedelta(hours=1)
        site.now = fax.next_at
        fetching.fetch(site.runtime, fax.id)
        tries += 1
    assert 14 * 24 <= tries <= 14 * 24 + 12
    assert events(site) == [("FAX_RECEIVE_FAILED", "failed", "no-document")]
    site.odd.does["document"] = gives()
    arrives(site, body=b"said once more")
    site.work()
    assert only(site).status == Reception.RECEIVED


def test_one_that_is_said_again_after_two_weeks_has_two_weeks_again(site: Site) -> None:
    site.odd.does["document"] = raises(Unreachable())
    arrives(site)
    given_up(site)
    assert only(site).status == Reception.FAILED
    arrives(site, body=b"said once more")
    site.work()
    assert only(site).status == Reception.FETCHING
    site.odd.does["document"] = gives()
    site.after(60)
    assert inbound.unread(site.runtime, ACTOR)["count"] == 1, "nobody has read this"


class FarStorage(LocalStorage):
    """Its service may be away."""

    is_away = False

    def path(self, key: str) -> Path | None:
        if self.is_away:
            raise StorageAway
        return super().path(key)

    def open(self, key: str) -> BinaryIO:
        if self.is_away:
            raise StorageAway
        return super().open(key)


def disable(site: Site, disabled: bool, /) -> None:
    """The plugin."""
    now = site.now
    with site.runtime.database.transaction() as session:
        state = breaker.locked(session, ACTOR.account_id, "simulator", now)
        state.disabled_at = now if disabled else None
    site.runtime.breakers.forget()


def send_away(site: Site, away: bool, /) -> None:
    """The storage."""
    site.runtime.plugins.get("local", FarStorage).is_away = away


@pytest.mark.parametrize("hinder", [disable, send_away])
def test_a_document_that_lies_here_is_had_however_long_what_hinders_here_lasts(
    store: Installation, carrier_of_all: SimulatorProcess, hinder: Callable[[Site, bool], None]
) -> None:
    with open_site(store, carrier_of_all, more=INBOUND, storage=FarStorage) as site:
        site.odd.does["attached"] = cut_out
        arrives(site, body=b"", file=large(site), attached=True)
        callbacks.apply(site.runtime, site.rung.pop(0)[1])
        hinder(site, True)
        days(site, 40)
        site.purge()
        assert only(site).status == Reception.FETCHING
        assert only(site).next_at - site.now <= timedelta(hours=1)
        assert "received" in [alarm["code"] for alarm in health.ready(site.runtime)["alarms"]]
        hinder(site, False)
        site.after(3600)
        assert only(site).status == Reception.RECEIVED
        assert content(site) == PDF


def kept_for_it(site: Site) -> list[Path]:
    """The stored body of the request in which the document is, of a fax that is to be taken from there."""
    site.odd.does["attached"], site.odd.does["document"] = cut_out, raises(Refused())
    arrives(site, body=b"", file=large(site), attached=True)
    callbacks.apply(site.runtime, site.rung.pop(0)[1])
    documents = site.runtime.config.data_dir / "documents"
    return [path for path in documents.rglob("*") if path.is_file()]


def test_where_the_storage_misses_its_bytes_the_document_can_be_had_when_they_are_back(
    site: Site,
) -> None:
    (body,) = kept_for_it(site)
    body.rename(site.runtime.config.data_dir / "elsewhere")
    given_up(site)
    assert only(site).status == Reception.FAILED
    site.now += timedelta(days=60)
    site.purge()
    (site.runtime.config.data_dir / "elsewhere").rename(body)
    inbound.fetch(site.runtime, ACTOR, only(site).id)
    site.work()
    assert content(site) == PDF


def test_while_the_disk_of_the_documents_is_not_mounted_none_of_them_is_given_up(
    site: Site,
) -> None:
    kept_for_it(site)
    documents = site.runtime.config.data_dir / "documents"
    documents.rename(documents.with_name("elsewhere"))
    days(site, 20)
    assert only(site).status == Reception.FETCHING
    documents.with_name("elsewhere").rename(documents)
    days(site, 1)
    assert content(site) == PDF


@pytest.mark.parametrize("error", [Unreachable(), AccountRefused(), ZeroDivisionError()])
def test_a_document_in_its_request_is_not_given_up_while_the_request_may_be_opened_yet(
    site: Site, error: Exception
) -> None:
    site.odd.does["attached"] = site.odd.does["document"] = raises(error)
    arrives(site, attached=True)
    site.work()
    days(site, 20)
    assert only(site).status == Reception.FETCHING


def test_an_account_that_a_carrier_refuses_says_nothing_of_its_document(site: Site) -> None:
    site.odd.does["document"] = raises(AccountRefused())
    arrives(site)
    site.work()
    days(site, 20)
    site.odd.does["document"] = raises(Unreachable())
    days(site, 13)
    assert only(site).status == Reception.FETCHING, "only now the two weeks are counted"
    days(site, 1)
    assert only(site).status == Reception.FAILED


def test_time_in_which_nobody_was_here_to_try_is_not_counted(site: Site) -> None:
    """The installation is off, and its first try after that fails for another reason."""
    site.odd.does["document"] = raises(Unreachable())
    arrives(site)
    site.work()
    days(site, 10)
    site.now += timedelta(days=20)
    days(site, 1)
    assert only(site).status == Reception.FETCHING
    days(site, 3)
    assert only(site).status == Reception.FETCHING
    days(site, 1)
    assert only(site).status == Reception.FAILED


# Tried once more ------------------------------------------------------------------------------------


def test_a_person_has_one_tried_once_more_that_was_given_up(site: Site) -> None:
    site.odd.does["document"] = raises(Unreachable())
    arrives(site)
    given_up(site)
    said = inbound.describe(site.runtime, only(site))["error"]
    assert "once more" in said["message"]
    inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
    site.odd.does["document"] = gives()
    again = inbound.fetch(site.runtime, ACTOR, only(site).id)
    assert (again.status, again.cause, again.read_at) == ("fetching", None, None)
    site.work()
    assert only(site).status == Reception.RECEIVED
    assert [event for event, _, _ in events(site)] == ["FAX_RECEIVE_FAILED", "FAX_RECEIVED"]


def test_one_that_is_tried_once_more_has_two_weeks_again(site: Site) -> None:
    site.odd.does["document"] = raises(Unreachable())
    arrives(site)
    given_up(site)
    site.now += timedelta(days=9)
    inbound.fetch(site.runtime, ACTOR, only(site).id)
    site.work()
    days(site, 13)
    assert only(site).status == Reception.FETCHING
    days(site, 1)
    assert [cause for _, _, cause in events(site)] == ["no-document", "no-document"]


def test_where_there_is_nothing_to_be_had_no_try_is_made(site: Site) -> None:
    site.odd.does["document"] = gives()
    arrives(site)
    arrives(site, body=b"2", external_id="in-2", cause="busy")
    site.work()
    site.odd.does["document"] = raises(Unreachable())
    arrives(site, body=b"3", external_id="in-3")
    site.work()
    before = faxes(site)
    assert {fax.status for fax in before} == {"received", "failed", "fetching"}
    for fax in before:
        with pytest.raises(NotPossibleNow):
            inbound.fetch(site.runtime, ACTOR, fax.id)
    assert (faxes(site), site.rung) == (before, [])


def test_the_only_copy_of_one_that_was_given_up_is_kept_until_a_person_gives_it_up(
    site: Site,
) -> None:
    """What its plugin made nothing of, a later version of it may."""
    site.odd.does["attached"] = site.odd.does["document"] = raises(Refused())
    arrives(site, body=b"", file=large(site), attached=True)
    given_up(site)
    assert only(site).status == Reception.FAILED
    for _ in range(3):
        site.now += timedelta(days=40)
        site.sweep()
        site.purge()
    assert owners(site) == ["request"]
    assert inbound.describe(site.runtime, only(site))["from"] == FROM
    site.odd.does["attached"] = cut_out
    inbound.fetch(site.runtime, ACTOR, only(site).id)
    site.work()
    assert content(site) == PDF


def test_one_that_a_person_gave_up_goes_by_its_age_and_is_tried_no_more(site: Site) -> None:
    site.odd.does["attached"] = site.odd.does["document"] = raises(Refused())
    arrives(site, body=b"", file=large(site), attached=True)
    given_up(site)
    inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
    site.now += timedelta(days=31)
    site.purge()
    site.purge()
    assert (owners(site), only(site).numbers_sealed) == ([], b"")
    with pytest.raises(NotPossibleNow):
        inbound.fetch(site.runtime, ACTOR, only(site).id)


@pytest.mark.parametrize("attached", [True, False], ids=["attached", "fetched"])
def test_a_person_gives_one_up_that_will_never_be_had_and_it_goes_by_its_age(
    site: Site, attached: bool
) -> None:
    """Its account is closed; what came with its callback proves nothing."""
    site.odd.does["attached"] = site.odd.does["document"] = raises(AccountRefused())
    if attached:
        arrives(site, body=b"", file=large(site), attached=True)
    else:
        arrives(site)
    site.work()
    days(site, 20)
    assert (only(site).status, bool(owners(site))) == ("fetching", attached)
    inbound.give_up(site.runtime, ACTOR, only(site).id)
    assert events(site) == [("FAX_RECEIVE_FAILED", "failed", "no-document")]
    fetching.fetch(site.runtime, only(site).id)
    assert (only(site).status, only(site).next_at) == ("failed", None)

    inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
    assert health.ready(site.runtime)["alarms"] == []
    site.now += timedelta(days=41)
    site.purge()
    site.purge()
    assert (owners(site), only(site).numbers_sealed) == ([], b"")


def test_one_that_a_person_gave_up_is_tried_once_more_and_received_when_it_can_be(
    site: Site,
) -> None:
    site.odd.does["attached"] = site.odd.does["document"] = raises(AccountRefused())
    arrives(site, attached=True)
    site.work()
    inbound.give_up(site.runtime, ACTOR, only(site).id)
    site.odd.does["attached"] = gives()
    inbound.fetch(site.runtime, ACTOR, only(site).id)
    site.work()
    assert only(site).status == Reception.RECEIVED


def test_a_document_that_is_had_while_a_person_gives_it_up_is_received_and_unread(
    site: Site,
) -> None:
    def meanwhile(_usual: object, arguments: tuple[object, BinaryIO]) -> None:
        inbound.give_up(site.runtime, ACTOR, only(site).id)
        inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
        arguments[1].write(PDF)

    site.odd.does["document"] = meanwhile
    arrives(site)
    site.work()
    assert (only(site).status, only(site).cause, only(site).read_at) == ("received", None, None)
    assert content(site) == PDF


def test_only_one_whose_document_is_being_had_can_be_given_up(site: Site) -> None:
    site.odd.does["document"] = gives()
    arrives(site)
    arrives(site, body=b"2", external_id="in-2", cause="busy")
    site.work()
    before = faxes(site)
    assert {fax.status for fax in before} == {"received", "failed"}
    for fax in before:
        with pytest.raises(NotPossibleNow):
            inbound.give_up(site.runtime, ACTOR, fax.id)
    assert faxes(site) == before


def test_who_marks_one_as_read_while_another_has_it_tried_once_more_has_not_read_its_document(
    site: Site,
) -> None:
    site.odd.does["document"] = raises(Unreachable())
    arrives(site)
    given_up(site)
    inbound_id = only(site).id
    site.interrupt("SELECT inbound_faxes", lambda: inbound.fetch(site.runtime, ACTOR, inbound_id))
    with pytest.raises(NotPossibleNow):
        inbound.mark(site.runtime, ACTOR, inbound_id, read=True)
    site.odd.does["document"] = gives()
    site.work()
    assert (only(site).status, only(site).read_at) == ("received", None)
    assert inbound.unread(site.runtime, ACTOR)["count"] == 1


# Where it lies in a folder here ---------------------------------------------------------------------

LIES_HERE = "in-1795289227-530475496"


@pytest.fixture
def folder(
    store: Installation, carrier_of_all: SimulatorProcess, tmp_path: Path
) -> Iterator[tuple[Site, Path]]:
    """A site whose provider finds its documents as Asterisk does, in a folder that is not mounted yet."""
    with open_site(store, carrier_of_all, more=(*INBOUND, "keeps_documents")) as site:
        spool = Spool(str(tmp_path / "received"))

        def taken(_usual: object, external_id: str) -> None:
            spool.demand()
            spool.forget(external_id)

        site.odd.does |= {"document": lambda _usual, both: spool.copy(*both), "taken": taken}
        yield site, tmp_path / "received"


def test_what_a_callback_names_here_is_claimed_once_and_before_it_is_kept(
    folder: tuple[Site, Path],
) -> None:
    site, _ = folder
    kept: list[int] = []

    def claim(_usual: object, _request: CallbackRequest) -> None:
        kept.append(len(site.runtime.database.rows(sa.select(table(Callback).c.id), {})))
        raise ZeroDivisionError

    site.odd.does["claim"] = claim
    for _ in range(2):
        arrives(site, external_id=LIES_HERE)
    assert kept == [0], "not again for a repeat, and what it raises loses nothing"
    arrives(site, external_id=f"{LIES_HERE}1", body=b'{"another": 1}')
    assert kept == [0, 1]
    site.work()
    assert {fax.external_id for fax in faxes(site)} == {LIES_HERE, f"{LIES_HERE}1"}


def test_while_the_database_is_away_a_callback_claims_what_the_next_one_may_overwrite(
    folder: tuple[Site, Path],
) -> None:
    site, _ = folder
    claimed: list[object] = []

    def away(*_: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception("the database is away"))

    site.odd.does["claim"] = lambda _usual, request: claimed.append(request)
    site.runtime.fresh()  # as every web process has been set up
    sa.event.listen(site.runtime.database.reader, "before_cursor_execute", away)
    try:
        with pytest.raises(DatabaseAway):
            arrives(site, external_id=LIES_HERE)
    finally:
        sa.event.remove(site.runtime.database.reader, "before_cursor_execute", away)
    assert len(claimed) == 1
    arrives(site, external_id=LIES_HERE)
    site.work()
    assert (only(site).external_id, len(claimed)) == (LIES_HERE, 2)


def test_a_request_that_is_not_the_carriers_claims_nothing(folder: tuple[Site, Path]) -> None:
    site, _ = folder
    claimed: list[object] = []
    site.odd.does["claim"] = lambda _usual, request: claimed.append(request)
    site.odd.does["verify_callback"] = answers(False)
    with pytest.raises(Unauthenticated):
        site.receive(said())
    assert not claimed


def mounted(folder: Path) -> Path:
    """With the document of the fax in it."""
    folder.mkdir()
    (folder / f"{LIES_HERE}.tif").write_bytes(tiff())
    return folder / f"{LIES_HERE}.tif"


def test_a_folder_that_is_not_there_for_weeks_says_nothing_of_the_documents_in_it(
    folder: tuple[Site, Path],
) -> None:
    site, path = folder
    arrives(site, external_id=LIES_HERE)
    site.work()
    days(site, 20)
    assert (only(site).status, only(site).cause) == ("fetching", AccountRefused.code)
    document = mounted(path)
    days(site, 1)
    assert (only(site).status, document.exists()) == ("received", False)


def test_one_whose_folder_was_empty_for_weeks_stays_until_a_person_gives_it_up_and_goes_with_its_file(
    folder: tuple[Site, Path],
) -> None:
    """A mount point without its mount is an empty folder."""
    site, path = folder
    path.mkdir()
    arrives(site, external_id=LIES_HERE)
    given_up(site)
    path.rmdir()
    for _ in range(2):
        site.now += timedelta(days=40)
        site.purge()
        site.sweep()
    assert inbound.describe(site.runtime, only(site))["from"] == FROM

    inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
    site.now += timedelta(days=31)
    site.purge()
    for _ in range(2):
        site.after(86_400)
    assert (only(site).numbers_sealed, only(site).status) == (b"", "failed")
    (alarm,) = health.ready(site.runtime)["alarms"]
    assert (alarm["code"], "not let go" in alarm["detail"]) == ("received", True)
    site.now += timedelta(days=40)
    site.purge()
    assert len(faxes(site)) == 1, "its file may lie there yet"

    document = mounted(path)
    site.after(86_400)
    assert not document.exists()
    site.purge()
    assert (faxes(site), health.ready(site.runtime)["alarms"]) == ([], [])


def test_one_that_a_person_is_done_with_comes_back_with_its_document_only(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    """As where what told of it first is removed by then, and an Asterisk's database has it still."""
    with open_site(
        store, carrier_of_all, more=INBOUND, STORAGE_RETENTION_CALLBACKS_DAYS="7"
    ) as site:
        site.odd.does["document"] = raises(Unreachable())
        arrives(site)
        site.work()
        inbound.give_up(site.runtime, ACTOR, only(site).id)
        inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
        site.now += timedelta(days=8)
        site.purge()
        assert site.count(Callback) == 0
        arrives(site)
        site.work()
        assert (only(site).status, only(site).cause) == ("failed", "no-document")
        assert only(site).read_at is not None
        assert only(site).next_at is None

        site.odd.does["attached"] = gives()
        arrives(site, body=b'{"now with": "it"}', attached=True)
        site.work()
        assert (only(site).status, only(site).read_at) == ("received", None)


def emptied(site: Site, path: Path) -> None:
    """One that a person gave up has no numbers any more, and its folder is not there."""
    path.mkdir()
    arrives(site, external_id=LIES_HERE)
    given_up(site)
    path.rmdir()
    inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
    site.now += timedelta(days=31)
    site.purge()
    assert only(site).numbers_sealed == b""


def never_let_go(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """What the log names a person to remove, and of which faxes."""
    ends = [each for each in caplog.records if each.message == "received document never let go"]
    assert {each.levelname for each in ends} <= {"ERROR"}
    said = [vars(each) for each in ends]
    return [(each["inbound_id"], each["provider_id"], each["left"]) for each in said]


def test_one_that_was_given_up_and_whose_folder_never_comes_back_ends_and_the_log_names_it(
    folder: tuple[Site, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Its installation has left Asterisk."""
    site, path = folder
    emptied(site, path)
    its_id = only(site).id
    for _ in range(27):
        site.after(86_400)
    (alarm,) = health.ready(site.runtime)["alarms"]
    assert (alarm["code"], never_let_go(caplog)) == ("received", [])

    for _ in range(33):
        site.after(86_400)
    assert health.ready(site.runtime)["alarms"] == []
    assert never_let_go(caplog) == [(its_id, "simulator", "file in the plugin's folder")]
    site.purge()
    assert (faxes(site), events(site)) == ([], [])


def test_one_try_after_weeks_in_which_nobody_was_here_is_not_the_last(
    folder: tuple[Site, Path], caplog: pytest.LogCaptureFixture
) -> None:
    site, path = folder
    emptied(site, path)
    site.now += timedelta(days=40)
    site.after(0)
    assert (only(site).next_at > site.now, never_let_go(caplog)) == (True, [])
    document = mounted(path)
    site.after(86_400)
    assert (document.exists(), never_let_go(caplog)) == (False, [])


def test_of_one_that_was_held_the_four_weeks_begin_when_the_last_hold_is_lifted(
    folder: tuple[Site, Path], caplog: pytest.LogCaptureFixture
) -> None:
    site, path = folder
    emptied(site, path)
    its_id = only(site).id
    legalholds.hold(site.runtime, ACTOR, legalholds.INBOUND, its_id, "a lawsuit")
    for _ in range(40):
        site.after(86_400)
    legalholds.lift(site.runtime, ACTOR, legalholds.INBOUND, its_id)
    for _ in range(27):
        site.after(86_400)
    assert (only(site).next_at > site.now, never_let_go(caplog)) == (True, [])
    document = mounted(path)
    site.after(86_400)
    assert (document.exists(), never_let_go(caplog)) == (False, [])


def starts_slowly(
    site: Site, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]
) -> None:
    """The first worker that wants the plugin waits for its start, and something is done meanwhile."""
    usual = site.runtime.plugins.get
    done: list[str] = []

    def get(plugin_id: str, base: type[Any]) -> Any:
        plugin = usual(plugin_id, base)
        if not done:
            done.append(plugin_id)
            meanwhile()
        return plugin

    monkeypatch.setattr(site.runtime.plugins, "get", get)


def test_the_file_of_one_that_is_held_while_its_plugin_starts_stays(
    folder: tuple[Site, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, path = folder
    emptied(site, path)
    its_id, document = only(site).id, mounted(path)
    hold = (site.runtime, ACTOR, legalholds.INBOUND, its_id)
    starts_slowly(site, monkeypatch, lambda: legalholds.hold(*hold, "a lawsuit"))
    site.now += timedelta(days=1)
    fetching.fetch(site.runtime, its_id)
    assert (document.exists(), only(site).next_at - site.now) == (True, timedelta(days=1))
    legalholds.lift(*hold)
    site.after(86_400)
    assert not document.exists()


def test_the_file_of_one_that_is_said_again_while_its_plugin_starts_stays_till_it_is_had(
    folder: tuple[Site, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, path = folder
    emptied(site, path)
    its_id, document = only(site).id, mounted(path)

    def said_again() -> None:
        arrives(site, body=b"with it", external_id=LIES_HERE, attached=True)
        callbacks.apply(site.runtime, site.rung.pop(0)[1])

    site.odd.does["attached"] = gives()
    site.rung.clear()
    starts_slowly(site, monkeypatch, said_again)
    site.now += timedelta(days=1)
    fetching.fetch(site.runtime, its_id)
    assert (only(site).status, document.exists()) == ("fetching", True)
    site.work()
    assert (only(site).status, document.exists()) == ("received", False)


def test_one_that_is_found_there_after_it_was_given_up_is_had_when_a_person_asks(
    folder: tuple[Site, Path],
) -> None:
    site, path = folder
    path.mkdir()
    arrives(site, external_id=LIES_HERE)
    given_up(site)
    path.rmdir()
    site.now += timedelta(days=90)
    site.purge()
    document = mounted(path)
    inbound.fetch(site.runtime, ACTOR, only(site).id)
    site.work()
    assert (only(site).status, document.exists()) == ("received", False)


def test_the_file_of_one_that_is_held_stays_though_it_was_given_up(
    folder: tuple[Site, Path],
) -> None:
    site, path = folder
    path.mkdir()
    arrives(site, external_id=LIES_HERE)
    given_up(site)
    inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
    path.rmdir()
    site.now += timedelta(days=31)
    site.purge()
    legalholds.hold(site.runtime, ACTOR, legalholds.INBOUND, only(site).id, "a lawsuit")
    document = mounted(path)
    for _ in range(2):
        site.after(86_400)
    assert (document.exists(), health.ready(site.runtime)["alarms"]) == (True, [])
    legalholds.lift(site.runtime, ACTOR, legalholds.INBOUND, only(site).id)
    site.after(86_400)
    assert not document.exists()


# What is said of them -------------------------------------------------------------------------------


def test_one_that_nobody_has_raises_the_alarm_until_somebody_marks_it(site: Site) -> None:
    site.odd.does["document"] = raises(Unreachable())
    arrives(site)
    given_up(site)
    assert [alarm["code"] for alarm in health.ready(site.runtime)["alarms"]] == ["received"]
    inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
    assert health.ready(site.runtime)["alarms"] == []


def test_one_that_waits_for_its_document_for_an_hour_raises_the_alarm(site: Site) -> None:
    site.odd.does["document"] = raises(Unreachable())
    arrives(site)
    site.work()
    site.after(3600)
    assert health.ready(site.runtime)["alarms"] == []
    site.after(1)
    (alarm,) = health.ready(site.runtime)["alarms"]
    assert (alarm["code"], alarm["count"]) == ("received", 1)


@pytest.mark.parametrize("moment", ["document", "taken"])
def test_a_worker_that_dies_leaves_the_fax_to_the_next_and_no_bytes_behind(
    site: Site, moment: str
) -> None:
    site.odd.does |= {"document": gives(), moment: raises(Vanished())}
    arrives(site)
    callbacks.apply(site.runtime, site.rung.pop(0)[1])
    with pytest.raises(Vanished):
        fetching.fetch(site.runtime, only(site).id)
    told: list[object] = []
    site.odd.does |= {"document": gives(), "taken": lambda _usual, name: told.append(name)}
    site.rung.clear()
    site.after(299)
    assert (only(site).status == Reception.RECEIVED) is (moment == "taken"), "it is another's"
    site.after(2)
    assert only(site).status == Reception.RECEIVED
    assert told == ["in-1"], "whoever comes next lets go"
    assert owners(site) == ["document"]
    assert events(site) == [("FAX_RECEIVED", "received", None)]


def test_two_workers_that_have_it_at_once_store_it_once(site: Site) -> None:
    arrives(site)
    callbacks.apply(site.runtime, site.rung.pop(0)[1])
    inbound_id = only(site).id

    def meanwhile(_usual: object, arguments: tuple[object, BinaryIO]) -> None:
        arguments[1].write(PDF)
        site.odd.does["document"] = gives()
        later = replace(site.runtime, now=lambda: site.now + timedelta(minutes=6))
        fetching.fetch(later, inbound_id)

    site.odd.does["document"] = meanwhile
    fetching.fetch(site.runtime, inbound_id)
    assert events(site) == [("FAX_RECEIVED", "received", None)]
    assert owners(site) == ["document"]


def test_a_tiff_is_kept_as_it_came_and_shown_as_pdf(site: Site) -> None:
    site.odd.does["document"] = gives(tiff(3))
    arrives(site)
    site.work()
    assert only(site).pages == 3
    assert content(site, as_it_came=True) == tiff(3)
    assert len(pypdfium2.PdfDocument(io.BytesIO(content(site)))) == 3
    assert owners(site) == ["document", "pages"]


WITHOUT_LENGTHS = tiff().replace(struct.pack("<HH", 279, 4), struct.pack("<HH", 65_000, 4))
"""Where its strip lies is said, and not how long it is."""


@pytest.mark.parametrize(
    "broken",
    [tiff(2)[:150], b"II+\0" + bytes(60), b"MM\0*" + b"\xff" * 60, WITHOUT_LENGTHS],
    ids=["cut off", "BigTIFF", "no directory", "no lengths"],
)
def test_a_damaged_tiff_is_kept_as_it_came_and_not_refused(site: Site, broken: bytes) -> None:
    assert broken != tiff()
    site.odd.does["document"] = gives(broken)
    arrives(site, pages=2)
    site.work()
    site.after(60)
    site.after(120)  # it may have been for want of memory that no PDF could be made
    assert only(site).status == Reception.RECEIVED
    assert content(site, as_it_came=True) == broken
    assert owners(site) == ["document"], "no blank page is shown in its place"


@pytest.mark.parametrize("broken", [b"%PDF-1.4 and then nothing", PDF[: len(PDF) // 2]])
def test_a_damaged_document_is_kept_as_it_came_and_not_refused(site: Site, broken: bytes) -> None:
    site.odd.does["document"] = gives(broken)
    arrives(site, pages=2)
    site.work()
    assert (only(site).status, only(site).pages) == ("received", 2)
    assert content(site) == broken


def test_the_plugin_is_told_when_it_may_let_go_and_its_trouble_is_none_of_the_fax(
    site: Site,
) -> None:
    told: list[str] = []

    def taken(_usual: object, external_id: str) -> None:
        told.append(external_id)
        assert only(site).status == Reception.RECEIVED
        if len(told) == 1:
            raise ZeroDivisionError

    site.odd.does |= {"document": gives(), "taken": taken}
    arrives(site)
    site.work()
    assert told == ["in-1"]
    assert only(site).status == Reception.RECEIVED
    site.after(3600)
    assert told == ["in-1", "in-1"], "where it could not let go it is told again"
    site.after(3600)
    assert told == ["in-1", "in-1"]


def test_a_plugin_that_cannot_let_go_is_told_again_each_day_and_the_alarm_says_so(
    site: Site,
) -> None:
    told: list[str] = []

    def taken(_usual: object, external_id: str) -> None:
        told.append(external_id)
        raise PermissionError

    site.odd.does |= {"document": gives(), "taken": taken}
    arrives(site)
    site.work()
    inbound.mark(site.runtime, ACTOR, only(site).id, read=True)
    assert health.ready(site.runtime)["alarms"] == []
    days(site, 40)
    assert len(told) == 41
    assert only(site).next_at - site.now == timedelta(days=1)
    (alarm,) = health.ready(site.runtime)["alarms"]
    assert (alarm["code"], alarm["count"]) == ("received", 1)
    assert "not let go" in alarm["detail"]

    for _ in range(2):
        site.now += timedelta(days=40)
        site.purge()
    assert owners(site) == [], "what is stored here goes by its age all the same"
    assert (only(site).numbers_sealed, only(site).callback_id) == (b"", None)

    site.odd.does["taken"] = answers(None)
    days(site, 1)
    assert only(site).next_at is None
    assert "received" not in [each["code"] for each in health.ready(site.runtime)["alarms"]]
    site.sweep()
    site.work()  # its carrier is asked for its copy
    site.now += timedelta(days=40)
    site.purge()
    assert faxes(site) == []


def test_one_that_was_received_and_is_removed_is_not_asked_for_ever_to_be_let_go(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.odd.does |= {"document": gives(), "taken": raises(PermissionError())}
    arrives(site)
    site.work()
    its_id = only(site).id
    days(site, 60)
    assert never_let_go(caplog) == [], "as long as it is here"
    site.purge()
    assert only(site).numbers_sealed == b""
    days(site, 27)
    assert (only(site).next_at > site.now, never_let_go(caplog)) == (True, [])
    days(site, 1)
    assert only(site).next_at is None
    assert never_let_go(caplog) == [(its_id, "simulator", "file in the plugin's folder")]
    assert "received" not in [each["code"] for each in health.ready(site.runtime)["alarms"]]


def test_what_is_said_while_faxes_are_not_wanted_is_kept_and_received_when_they_are(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    for wish in ({"INBOUND_ENABLED": "false"}, {"FAX_INBOUND_BACKENDS": "phaxio"}):
        with open_site(store, carrier_of_all, more=INBOUND, **wish) as site:
            arrives(site, body=b"", file=large(site), attached=True)
            site.sweep()
            assert faxes(site) == []
            assert owners(site) == ["request"]
    with open_site(store, carrier_of_all, more=INBOUND) as site:
        site.odd.does["attached"] = cut_out
        arrives(
            site, body=b"", file=large(site), attached=True
        )  # a repeat, so that the test's plugin reads it
        site.after(10)
        assert [fax.status for fax in faxes(site)] == ["received"]
        assert owners(site) == ["document"]


ODD_FACTS: list[dict[str, Any]] = [
    {"external_id": ""},
    {"external_id": "x" * 256},
    {"external_id": "a\nb"},
    {"external_id": None},
]


UNREAD = [
    (Unreachable(), 28),
    (Unreachable(cause="unconfirmed"), 28),
    (AccountRefused(), 28),
    (ValueError(), 28),
    (OutcomeUnknown(), 28),
    # No worker ran for longer than anything is put off.
    (Unreachable(), -40),
    (AccountRefused(), -40),
]


@pytest.mark.parametrize(("error", "days"), UNREAD)
def test_a_fax_whose_news_could_not_be_read_for_weeks_is_received_when_it_can_be(
    site: Site, error: Exception, days: int
) -> None:
    arrives(site)
    reads = site.odd.does["read_callback"]
    site.odd.does["read_callback"] = raises(error)
    site.now += timedelta(days=max(-days, 0))
    site.work()
    for _ in range(max(days, 3)):
        site.after(86400)
    assert faults(site) == isinstance(error, ValueError), "once, however often it is read"
    assert faxes(site) == []

    site.odd.does.update(read_callback=reads, document=gives())
    site.after(86400)
    assert only(site).status == Reception.RECEIVED


def faults(site: Site) -> int:
    """Of the plugin's own code, as they are noted."""
    noted = sa.select(ProviderHistory.id).where(ProviderHistory.type == "PLUGIN_FAILED")
    return len(site.runtime.database.rows(noted, {}))


def test_news_that_could_not_be_read_is_an_alarm_until_it_is(site: Site) -> None:
    arrives(site)
    reads = site.odd.does["read_callback"]
    site.odd.does.update(read_callback=raises(AccountRefused()), document=gives())
    site.after(60)
    assert alarms.raised(site.runtime) == []
    site.after(3600)
    (alarm,) = alarms.raised(site.runtime)
    assert (alarm.code, alarm.count) == ("callbacks", 1)
    assert alarm.detail.startswith("1 message of a carrier could not be read for more than 60 min")
    assert alarms.of_received(site.runtime) == [alarm]
    site.odd.does["read_callback"] = reads
    site.after(3600)
    assert (alarms.raised(site.runtime), only(site).status) == ([], Reception.RECEIVED)


@pytest.mark.parametrize(
    ("error", "raised", "outcome"),
    [
        (Unreachable(cause="unconfirmed"), [], "unreadable"),
        (Unreachable(), ["callbacks"], None),
        (AccountRefused(), ["callbacks"], None),
    ],
)
def test_news_that_its_carrier_was_asked_about_and_does_not_confirm_is_an_alarm_for_a_week(
    site: Site, error: Exception, raised: list[str], outcome: str | None
) -> None:
    """As of a fax that Sinch does not know; but what a person can mend is an alarm till somebody has."""
    arrives(site)
    reads = site.odd.does["read_callback"]
    site.odd.does.update(read_callback=raises(error), document=gives())
    site.work()
    for _ in range(6):
        site.after(86400)
    assert [alarm.code for alarm in alarms.raised(site.runtime)] == ["callbacks"]
    for _ in range(2):
        site.after(86400)
    assert [alarm.code for alarm in alarms.raised(site.runtime)] == raised
    (callback,) = site.runtime.database.rows(sa.select(table(Callback)), {})
    assert (callback.outcome, callback.next_at > site.now) == (outcome, True)

    site.odd.does["read_callback"] = reads
    site.after(86400)
    assert (only(site).status, alarms.raised(site.runtime)) == (Reception.RECEIVED, [])


def test_news_that_makes_no_sense_is_an_alarm_for_a_week_and_kept_no_longer_than_other_news(
    site: Site,
) -> None:
    arrives(site, external_id="")
    site.work()
    site.after(6 * 86400)
    assert [alarm.code for alarm in alarms.raised(site.runtime)] == ["callbacks"]
    site.after(86400)
    assert alarms.raised(site.runtime) == []
    site.now += timedelta(days=22)
    site.purge()
    assert site.count(Callback) == 1
    site.now += timedelta(days=2)
    site.purge()
    assert site.count(Callback) == 0


@pytest.mark.parametrize("facts", ODD_FACTS)
def test_news_without_a_name_is_unreadable_and_kept(site: Site, facts: dict[str, Any]) -> None:
    arrives(site, **facts)
    site.work()
    assert faxes(site) == []
    (kept,) = site.runtime.database.rows(sa.select(table(Callback)), {})
    assert kept.outcome == "unreadable"


def test_facts_that_are_none_are_left_out(site: Site) -> None:
    site.odd.does["document"] = gives()
    odd: dict[str, Any] = {
        "sender": FROM,
        "recipient": Hidden(b"7"),
        "pages": -1,
        "received_at": "now",
    }
    arrives(site, **odd, attached="yes")
    site.work()
    shown = inbound.describe(site.runtime, only(site))
    assert (shown["from"], shown["to"], shown["pages"]) == (None, None, 2)


# Links ----------------------------------------------------------------------------------------------


def test_a_link_opens_this_document_until_it_expires_and_no_other(site: Site) -> None:
    site.odd.does["document"] = gives()
    arrives(site)
    arrives(site, body=b"2", external_id="in-2")
    site.work()
    first, second = (fax.id for fax in faxes(site))
    token = inbound.link(site.runtime, ACTOR, first)["url"].partition("token=")[2]
    assert inbound.admit(site.runtime, first, token) == ACTOR.account_id
    other = "1" if token.endswith("0") else "0"
    for wrong in (token[:-1] + other, "", "f" * 8 + token[8:], token + "0"):
        with pytest.raises(Unauthenticated):
            inbound.admit(site.runtime, first, wrong)
    with pytest.raises(Unauthenticated):
        inbound.admit(site.runtime, second, token)
    site.now += timedelta(minutes=60, seconds=1)
    with pytest.raises(Unauthenticated):
        inbound.admit(site.runtime, first, token)


# Read and unread ------------------------------------------------------------------------------------


def test_who_read_it_first_stays_and_the_unread_are_counted_with_their_age(site: Site) -> None:
    site.odd.does["document"] = gives()
    for number in range(3):
        arrives(site, body=bytes([number]), external_id=f"in-{number}")
    site.work()
    site.now += timedelta(seconds=90)
    assert inbound.unread(site.runtime, ACTOR)["count"] == 3
    oldest = faxes(site)[0].id
    other = replace(ACTOR, id="somebody")
    read = inbound.mark(site.runtime, ACTOR, oldest, read=True)
    assert (read.read_by, read.read_at) == (ACTOR.id, site.now)
    assert inbound.mark(site.runtime, other, oldest, read=True).read_by == ACTOR.id
    left = inbound.unread(site.runtime, ACTOR)
    assert (left["count"], left["more"], left["oldest_seconds"]) == (2, False, 90)
    unread, _ = inbound.page(site.runtime, ACTOR, Filters(unread=True), limit=9, cursor=None)
    assert oldest not in {fax.id for fax in unread}
    inbound.mark(site.runtime, ACTOR, oldest, read=False)
    assert inbound.unread(site.runtime, ACTOR)["count"] == 3


def test_pages_by_cursor_hold_each_fax_once_and_filters_find_theirs(site: Site) -> None:
    site.odd.does["document"] = gives()
    for number in range(7):
        arrives(site, body=bytes([number]), external_id=f"in-{number}")
        site.work()
        site.now += timedelta(seconds=1)
    seen, cursor = [], None
    while True:
        found, cursor = inbound.page(site.runtime, ACTOR, Filters(), limit=3, cursor=cursor)
        seen += [fax.external_id for fax in found]
        if cursor is None:
            break
    assert seen == [f"in-{number}" for number in reversed(range(7))]
    one = faxes(site)[0]
    for filters, count in (
        (Filters(from_key=one.from_key), 7),
        (Filters(to_key=one.from_key), 0),
        (Filters(status="failed"), 0),
        (Filters(provider_id="simulator"), 7),
        (Filters(since=utcnow() + timedelta(days=1)), 0),
    ):
        found, _ = inbound.page(site.runtime, ACTOR, filters, limit=9, cursor=None)
        assert len(found) == count


def test_another_accounts_fax_is_as_unknown_as_none(site: Site) -> None:
    site.odd.does["document"] = gives()
    arrives(site)
    site.work()
    stranger: Actor = replace(ACTOR, account_id="another")
    for deed in (
        lambda: inbound.find(site.runtime, stranger, only(site).id),
        lambda: inbound.link(site.runtime, stranger, only(site).id),
        lambda: inbound.mark(site.runtime, stranger, only(site).id, read=True),
    ):
        with pytest.raises(NotFound):
            deed()
    assert inbound.page(site.runtime, stranger, Filters(), limit=9, cursor=None) == ([], None)
    assert inbound.unread(site.runtime, stranger)["count"] == 0
