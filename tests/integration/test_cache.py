"""What plugins keep for all processes: made once, whoever asks, and made again when it is good no longer."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from faxbot import cache
from faxbot.cache import SharedCache
from faxbot.db import utcnow
from faxbot.errors import AccountRefused, Unreachable
from faxbot.models import CachedValue
from faxbot.runtime import Runtime
from tests.integration.site import Site
from tests.threads import at_once

HOUR = 3600.0


class Carrier:
    """Gives a new token each time it is asked, and counts."""

    def __init__(self, seconds: float = HOUR) -> None:
        self.given: list[str] = []
        self.seconds = seconds

    def token(self) -> tuple[str, float]:
        self.given.append(f"token-{len(self.given) + 1}")
        return self.given[-1], self.seconds


class Vanished(BaseException):
    """The process is gone in the middle."""


def vanish() -> tuple[str, float]:
    raise Vanished


@pytest.fixture
def runtime(site: Site) -> Runtime:
    return site.runtime


def process(
    runtime: Runtime, ahead: timedelta = timedelta(), plugin_id: str = "sinch"
) -> SharedCache:
    """What another worker process has: nothing in common with this one but the database."""
    return SharedCache(runtime.database, runtime.keyring, plugin_id, lambda: utcnow() + ahead)


def test_ten_processes_at_once_ask_the_carrier_once(runtime: Runtime) -> None:
    carrier = Carrier()

    values = at_once(10, lambda _: process(runtime).get("token", carrier.token))

    assert (set(values), carrier.given) == ({"token-1"}, ["token-1"])


def test_what_is_good_no_longer_is_made_again_by_one(runtime: Runtime) -> None:
    carrier = Carrier(seconds=60)
    process(runtime).get("token", carrier.token)

    later = timedelta(seconds=61)
    values = at_once(10, lambda _: process(runtime, later).get("token", carrier.token))

    assert set(values) == {"token-2"}
    assert len(carrier.given) == 2


def test_a_value_that_a_carrier_takes_no_longer_is_replaced_by_one_for_all(
    runtime: Runtime,
) -> None:
    carrier = Carrier()
    processes = [process(runtime) for _ in range(10)]
    assert {each.get("token", carrier.token) for each in processes} == {"token-1"}

    values = at_once(
        10, lambda number: processes[number].get("token", carrier.token, stale="token-1")
    )

    assert (set(values), len(carrier.given)) == ({"token-2"}, 2)
    assert processes[0].get("token", carrier.token) == "token-2"


def test_who_fails_to_make_it_says_so_and_keeps_nobody_waiting(runtime: Runtime) -> None:
    def refuse() -> tuple[str, float]:
        raise AccountRefused

    with pytest.raises(AccountRefused):
        process(runtime).get("token", refuse)

    carrier = Carrier()
    assert process(runtime).get("token", carrier.token) == "token-1"


def test_while_one_makes_it_the_others_wait_and_take_his(runtime: Runtime) -> None:
    making, finish, carrier = threading.Event(), threading.Event(), Carrier()
    values: list[str] = []

    def slowly() -> tuple[str, float]:
        making.set()
        assert finish.wait(20)
        return "slow", HOUR

    first = threading.Thread(target=lambda: values.append(process(runtime).get("token", slowly)))
    first.start()
    assert making.wait(20)
    second = threading.Thread(
        target=lambda: values.append(process(runtime).get("token", carrier.token))
    )
    second.start()
    second.join(3 * cache.LOOK)
    assert second.is_alive(), "it did not wait"
    finish.set()
    first.join(20)
    second.join(20)

    assert (values, carrier.given) == (["slow", "slow"], [])
    assert runtime.database.held == 0


def test_who_vanishes_while_it_makes_it_is_waited_for_no_longer_than_it_may_take(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_GIVE_UP", sa.select(1))  # a process that is gone tidies nothing up
    with pytest.raises(Vanished):
        process(runtime).get("token", vanish)
    carrier = Carrier()

    monkeypatch.setattr(cache, "MAKING", timedelta(seconds=0.2))
    with pytest.raises(Unreachable):
        process(runtime).get("token", carrier.token)
    monkeypatch.undo()
    assert process(runtime, cache.MAKING).get("token", carrier.token) == "token-1"


def test_plugins_do_not_see_each_others_values_and_nobody_reads_them_in_the_database(
    runtime: Runtime,
) -> None:
    mine, others = Carrier(), Carrier()
    process(runtime).get("token", mine.token)
    process(runtime, plugin_id="other").get("token", others.token)

    assert (len(mine.given), len(others.given)) == (1, 1)
    with runtime.database.reading() as session:
        rows = session.scalars(sa.select(CachedValue)).all()
    assert len(rows) == 2
    assert all(b"token-1" not in (row.value_sealed or b"") for row in rows)


def cut_off(runtime: Runtime) -> None:
    """From now on the database is away for single statements, as while it restarts."""

    def refuse(*_: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception("the database is away"))

    sa.event.listen(runtime.database.reader, "before_cursor_execute", refuse)


def test_a_database_that_is_away_is_nothing_that_a_plugin_must_know_of(
    runtime: Runtime,
) -> None:
    cut_off(runtime)

    with pytest.raises(Unreachable):
        process(runtime).get("token", Carrier().token)


def test_what_was_made_is_used_though_it_cannot_be_kept(runtime: Runtime) -> None:
    carrier = Carrier()

    def token() -> tuple[str, float]:
        cut_off(runtime)
        return carrier.token()

    this = process(runtime)
    assert this.get("token", token) == "token-1"
    assert this.get("token", carrier.token) == "token-1"


def test_who_waited_for_a_making_that_failed_does_not_wait_for_his_own_as_well(
    runtime: Runtime,
) -> None:
    this, tries = process(runtime), 0
    made, asking = threading.Event(), threading.Barrier(8)

    def slowly() -> tuple[str, float]:
        nonlocal tries
        tries += 1
        made.set()
        if tries == 1:
            asking.wait(20)  # the others are at the door
        time.sleep(3 * cache.LOOK)
        raise AccountRefused

    def ask(number: int) -> str:
        if number:
            assert made.wait(20)
            asking.wait(20)
        try:
            return this.get("token", slowly)
        except AccountRefused:
            return "refused"

    assert at_once(8, ask) == ["refused"] * 8
    assert tries == 1
    assert this.get("token", Carrier().token) == "token-1"
