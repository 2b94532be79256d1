"""What a listening provider hears is kept before it is acknowledged, and after a gap every fax that it has is asked
after; whatever the provider does, the listener goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import callbacks, health, hearing, schema, sending, sweeps
from faxbot.errors import NotFound, OutcomeUnknown
from faxbot.events import Status
from faxbot.models import Callback, ProviderHistory
from faxbot.plugins.base import Gap, Notice, State, Update
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration import odd
from tests.integration.odd import Odd
from tests.integration.site import Site, open_site
from tests.threads import at_once

TRAITS = ("send_fax", "status_callback", "status_lookup", "listens", "accepts:image/tiff")


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    """The simulator's client is the one that listens, as its test says."""
    with open_site(store, carrier_of_all, FAX_BACKEND="listening") as site:
        plugins = odd.plugins(site.runtime, others={"listening": TRAITS})
        site.runtime = replace(site.runtime, plugins=plugins)
        yield site


@pytest.fixture
def listening(site: Site) -> Odd:
    return site.runtime.plugins.get("listening", Odd)


class Line:
    """What the provider hears, in order; `listen()` may be called again and again."""

    def __init__(self, *heard: object) -> None:
        self.heard = list(heard)
        self.acknowledged: list[bytes] = []
        self.begun = 0
        self.stop = threading.Event()

    def notice(self, body: bytes) -> Notice:
        return Notice(body, lambda: self.acknowledged.append(body))

    def __call__(self, _usual: object, _argument: object) -> Iterator[Any]:
        self.begun += 1
        return self._all()

    def _all(self) -> Iterator[Any]:
        while self.heard:
            next_one = self.heard.pop(0)
            if isinstance(next_one, Exception):
                raise next_one
            yield next_one
        self.stop.set()
        yield None


def listen(site: Site, line: Line) -> None:
    """Until all of it was heard."""
    site.runtime.plugins.get("listening", Odd).does["listen"] = line
    hearing.listen(site.runtime, "listening", line.stop)


def bodies(site: Site) -> int:
    return site.count(Callback)


def test_a_notice_is_kept_before_it_is_acknowledged_and_applied_as_a_callback_is(
    site: Site, listening: Odd
) -> None:
    job_id = site.sent()
    tag = site.attempt(job_id).tag
    line = Line()
    kept: list[int] = []
    line.heard = [Notice(b"over", lambda: kept.append(bodies(site)))]
    listening.does["read_callback"] = odd.answers([Update(State.DELIVERED, tag=tag)])

    listen(site, line)
    assert kept == [1]
    site.work()

    assert site.job(job_id).status == Status.DELIVERED
    assert site.events(job_id)[-1].source == "callback"


def test_what_was_not_acknowledged_and_comes_again_is_kept_once(site: Site) -> None:
    """Two listeners hear the same, and one died between keeping and acknowledging."""
    line, other = Line(), Line()
    line.heard = [line.notice(b"one"), line.notice(b"one"), line.notice(b"two")]
    other.heard = [other.notice(b"two"), other.notice(b"one")]

    listen(site, line)
    listen(site, other)

    assert bodies(site) == 2
    assert line.acknowledged == [b"one", b"one", b"two"]
    assert other.acknowledged == [b"two", b"one"]


def test_a_notice_that_cannot_be_kept_is_not_acknowledged(site: Site) -> None:
    line = Line()
    line.heard = [line.notice(b"lost?"), line.notice(b"never reached")]
    away = replace(site.runtime.config, database_url="postgresql://127.0.0.1:9/none")
    runtime = replace(site.runtime, database=type(site.runtime.database)(away))
    site.runtime.plugins.get("listening", Odd).does["listen"] = line

    def end_soon() -> None:
        eventually(lambda: len(line.heard) == 1)
        line.stop.set()

    at_once(2, lambda n: end_soon() if n else hearing.listen(runtime, "listening", line.stop))

    assert line.acknowledged == []
    assert len(line.heard) == 1
    runtime.database.close()


def test_after_a_gap_every_fax_that_the_provider_has_is_asked_after_and_no_other(
    site: Site, listening: Odd
) -> None:
    sent = [site.sent() for _ in range(3)]
    done = site.sent()
    tag = site.attempt(done).tag
    listening.does["read_callback"] = odd.answers([Update(State.DELIVERED, tag=tag)])
    line = Line()
    line.heard = [line.notice(b"over")]
    listen(site, line)
    listening.does["send"] = odd.raises(OutcomeUnknown())
    uncertain = site.fax()
    sending.attempt(site.runtime, uncertain)
    listening.does["look_up"] = odd.raises(OutcomeUnknown())
    site.work()
    wait = timedelta(seconds=10)
    assert all(
        (site.job(each).next_at or site.now) > site.now + wait for each in (*sent, uncertain)
    )

    listen(site, Line(Gap()))

    assert {site.job(each).next_at for each in (*sent, uncertain)} == {site.now}
    assert (site.job(done).status, site.job(done).next_at) == (Status.DELIVERED, None)
    sweeps.run(site.runtime)
    assert {row_id for _, row_id in site.rung} == {*sent, uncertain}


def test_a_database_that_is_put_back_meanwhile_is_no_end_and_no_fault_of_the_provider(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    line, stop = Line(), threading.Event()
    line.heard = [line.notice(b"one")]
    site.runtime.plugins.get("listening", Odd).does["listen"] = line
    schema.migrate(site.runtime.config, "base")

    def put_back() -> None:
        eventually(lambda: "not known whom to listen to" in caplog.text)
        schema.upgrade(site.runtime.config)
        eventually(lambda: line.acknowledged)
        stop.set()

    at_once(2, lambda n: put_back() if n else hearing.listen_to_all(site.runtime, stop))

    assert bodies(site) == 1


def test_a_notice_for_which_there_is_no_table_is_no_fault_of_the_provider(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "PAUSES", (0.0,))
    line = Line()
    line.heard = [line.notice(b"one")]
    with site.runtime.database.transaction() as session:
        session.execute(sa.text("ALTER TABLE callbacks RENAME TO elsewhere"))

    listen(site, line)

    assert (line.begun, line.acknowledged, site.count(ProviderHistory)) == (2, [], 0)


@pytest.mark.parametrize("heard", [RuntimeError("secret"), "no notice", 5])
def test_a_provider_whose_code_fails_is_listened_to_again_and_its_fault_is_counted(
    site: Site, heard: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hearing, "PAUSES", (0.0,))
    line = Line()
    line.heard = [line.notice(b"one"), heard, line.notice(b"two")]

    listen(site, line)

    assert (line.begun, line.acknowledged, bodies(site)) == (2, [b"one", b"two"], 2)
    with site.runtime.database.reading() as session:
        history = [row.type for row in session.scalars(sa.select(ProviderHistory))]
    assert history == ["PLUGIN_FAILED"]
    assert "secret" not in caplog.text
    assert [
        record.getMessage() for record in caplog.records if record.name == hearing.__name__
    ] == ["listening ended"]


def test_who_is_not_active_any_more_is_not_listened_to(site: Site) -> None:
    line = Line()
    line.heard = [None, None, None]
    runtime = site.runtime
    site.runtime.plugins.get("listening", Odd).does["listen"] = line
    other = replace(runtime.config, fax_backend="simulator")
    settings = type(runtime.settings)(other, runtime.database, runtime.keyring)

    hearing.listen(replace(runtime, settings=settings), "listening", line.stop)

    assert (len(line.heard), line.stop.is_set()) == (2, False)


def test_who_is_not_active_any_more_is_listened_to_until_its_last_fax_has_ended(
    site: Site, listening: Odd
) -> None:
    job_id = site.sent()
    tag = site.attempt(job_id).tag
    listening.does["read_callback"] = odd.answers([Update(State.DELIVERED, tag=tag)])
    other = replace(site.runtime.config, fax_backend="simulator")
    settings = type(site.runtime.settings)(other, site.runtime.database, site.runtime.keyring)
    runtime = replace(site.runtime, settings=settings)
    went_on: list[bool] = []

    def heard() -> Iterator[Notice | None]:
        yield None
        yield Notice(b"over", lambda: None)
        assert hearing.listeners(runtime.fresh()) == ["listening"]
        site.work()
        yield None
        went_on.append(True)

    listening.does["listen"] = lambda _usual, _none: heard()
    hearing.listen(runtime, "listening", threading.Event())

    assert site.job(job_id).status == Status.DELIVERED
    assert went_on == []
    assert hearing.listeners(runtime.fresh()) == []


def test_who_is_not_active_any_more_is_listened_to_while_a_fax_of_its_may_still_be_under_way(
    site: Site, listening: Odd
) -> None:
    listening.does["send"] = odd.raises(OutcomeUnknown())
    job_id = site.sent()
    tag = site.attempt(job_id).tag
    listening.does["read_callback"] = odd.answers([Update(State.DELIVERED, tag=tag)])
    other = replace(site.runtime.config, fax_backend="simulator")
    settings = type(site.runtime.settings)(other, site.runtime.database, site.runtime.keyring)
    runtime = replace(site.runtime, config=other, settings=settings)
    assert site.job(job_id).status == Status.UNCERTAIN
    assert hearing.listeners(runtime) == ["listening"]
    begun = site.now
    site.now += timedelta(seconds=other.silence_seconds)
    assert hearing.listeners(runtime) == []

    site.now = begun
    line = Line()
    line.heard = [line.notice(b"over")]
    listening.does["listen"] = line
    hearing.listen(runtime, "listening", line.stop)
    site.work()

    assert site.job(job_id).status == Status.DELIVERED
    assert hearing.listeners(runtime) == []


def test_who_never_had_a_fax_is_not_looked_for_among_all_that_are_under_way(site: Site) -> None:
    other = replace(site.runtime.config, fax_backend="simulator")
    settings = type(site.runtime.settings)(other, site.runtime.database, site.runtime.keyring)
    site.runtime = replace(site.runtime, config=other, settings=settings)
    site.sent()
    asked: list[str] = []

    def note(_connection: object, _cursor: object, text: str, *_: object) -> None:
        asked.append(text)

    for engine in (site.runtime.database.engine, site.runtime.database.reader):
        sa.event.listen(engine, "before_cursor_execute", note)

    assert hearing.listeners(site.runtime) == []
    assert [text for text in asked if "FROM jobs" in text] == []
    (question,) = asked
    health.ready(site.runtime)
    assert asked[1:].count(question) == 1


def test_a_provider_that_was_set_anew_is_listened_to_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "PAUSES", (0.0,))
    runtime, after = site.runtime, Line()
    went_on: list[bool] = []

    def saved() -> Iterator[None]:
        with runtime.database.transaction() as session:
            wish = {"listening": {"secret": "another account's"}}
            runtime.settings.write(session, wish, seen=0, now=site.now)
        runtime.settings.catch_up()
        runtime.fresh().plugins.get("listening", Odd).does["listen"] = after
        yield None
        went_on.append(True)

    runtime.plugins.get("listening", Odd).does["listen"] = lambda _usual, _none: saved()

    hearing.listen(runtime, "listening", after.stop)

    assert (after.begun, went_on) == (1, [])


def test_listeners_are_started_for_those_that_need_one_and_end_together(site: Site) -> None:
    line = Line()
    line.heard = [line.notice(b"one")]
    site.runtime.plugins.get("listening", Odd).does["listen"] = line
    stop = threading.Event()

    def end() -> None:
        eventually(lambda: line.acknowledged)
        stop.set()

    at_once(2, lambda n: end() if n else hearing.listen_to_all(site.runtime, stop))

    assert hearing.listeners(site.runtime) == ["listening"]
    assert [each.name for each in threading.enumerate() if each.name.startswith("listen ")] == []


def test_fitness_says_when_nobody_listens(site: Site) -> None:
    def said() -> tuple[bool, str]:
        part = health.ready(site.runtime)["parts"]["listeners"]
        return part["ok"], part["detail"]

    site.runtime = replace(site.runtime, started_at=site.now)
    assert said() == (True, "all listen")
    site.now += timedelta(seconds=61)
    ok, detail = said()
    assert (ok, "nobody listens to listening" in detail.lower()) == (False, True)
    listen(site, Line())
    assert said() == (True, "all listen")
    site.now += timedelta(seconds=61)
    assert not said()[0]


def test_who_has_just_been_activated_is_not_called_unheard_before_a_listener_could_know(
    site: Site,
) -> None:
    def is_fit() -> bool:
        return bool(health.ready(site.runtime)["parts"]["listeners"]["ok"])

    site.runtime = replace(site.runtime, started_at=site.now - timedelta(hours=1))
    assert not is_fit()
    with site.runtime.database.transaction() as session:
        wish = {"": {"FAX_BACKENDS": "listening,simulator"}}
        site.runtime.settings.write(session, wish, seen=0, now=site.now)
    assert is_fit()
    site.now += timedelta(seconds=61)
    assert not is_fit()


def test_a_stranger_cannot_bring_a_notice_over_http(site: Site) -> None:
    """Only what was heard has no address; and a provider that is only listened to takes no callbacks."""
    runtime = replace(
        site.runtime,
        plugins=odd.plugins(
            site.runtime,
            others={"listening": [each for each in TRAITS if each != "status_callback"]},
        ),
    )
    with pytest.raises(NotFound):
        callbacks.receive(runtime, "listening", site.signed(b"{}"))
