"""Limits: what all processes count together is exact, and costs next to nothing."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import identity, limits, production, wiring
from faxbot.actors import CLI, Actor
from faxbot.config import Config
from faxbot.errors import (
    DatabaseAway,
    FailedLogins,
    FaxbotError,
    RequestsPerMinute,
    Unauthenticated,
)
from faxbot.models import FailedLogin, RequestCount
from faxbot.runtime import Runtime
from faxbot.tallies import PARTS, REMEMBERED, Tallies
from tests.installation import Installation
from tests.integration import test_identity
from tests.integration.web import new_key
from tests.processes import begun_together
from tests.threads import at_once

ACTOR = Actor("default", "0123456789ab", frozenset({"*"}))
LIMIT = 240
ADDRESS = "203.0.113.7"
SPAN = timedelta(minutes=15)


@dataclass
class Clock:
    """Both clocks of a process, which only a test moves."""

    now: datetime = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
    seconds: float = 1000.0

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def process(runtime: Runtime, clock: Clock) -> Runtime:
    return another(runtime, clock)


def another(runtime: Runtime, clock: Clock, **settings: Any) -> Runtime:
    """As another process has it, with limits of these settings."""
    wanted = {"requests_per_minute": LIMIT, **settings}
    return replace(
        runtime,
        config=replace(runtime.config, **wanted),
        tallies=Tallies(runtime.database, lambda: clock.seconds),
        now=lambda: clock.now,
    )


def statements(runtime: Runtime) -> AbstractContextManager[list[str]]:
    """What is asked of the database meanwhile: SELECT, or INSERT INTO and the table."""
    return test_identity.statements(
        runtime, lambda text: " ".join(text.split()[: 1 if text.startswith("SELECT") else 3])
    )


def cut_off(runtime: Runtime) -> None:
    """From now on the database is away for single statements, as while it restarts."""

    def refuse(*_: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception("the database is away"))

    sa.event.listen(runtime.database.reader, "before_cursor_execute", refuse)


def admitted(runtime: Runtime, actor: Actor = ACTOR, most: int = 10_000) -> int:
    """How many requests pass before the first that does not."""
    for passed in range(most):
        try:
            limits.admit(runtime, actor)
        except RequestsPerMinute:
            return passed
    return most


def refusal(runtime: Runtime, actor: Actor = ACTOR) -> RequestsPerMinute:
    with pytest.raises(RequestsPerMinute) as refused:
        limits.admit(runtime, actor)
    return refused.value


# Requests a minute ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 9, 10, 11, 60, LIMIT])
def test_exactly_the_limit_passes_in_a_minute(runtime: Runtime, clock: Clock, limit: int) -> None:
    one, two = (another(runtime, clock, requests_per_minute=limit) for _ in range(2))

    for _ in range(2):
        half = admitted(one, most=limit // 2)
        assert half + admitted(two) + admitted(one) == limit
        assert admitted(one) + admitted(two) == 0
        clock.forward(60)


def test_threads_of_one_process_have_the_limit_together(process: Runtime) -> None:
    passed = at_once(8, lambda _number: admitted(process))

    assert sum(passed) == LIMIT


_TAKER = """
import sys, threading, time
from datetime import datetime
from faxbot.config import Config
from faxbot.db import Database
from faxbot.tallies import Tallies

tallies, limit = Tallies(Database(Config.load())), int(sys.argv[1])
now = datetime.fromisoformat(sys.argv[2])
passed = []

def take():
    while not tallies.take("default", "key:0123456789ab", limit, now):
        passed.append(1)
        time.sleep(0.001)  # what a request takes: the others come in between

threads = [threading.Thread(target=take) for _ in range(3)]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(passed), flush=True)
"""


def test_many_processes_with_threads_let_exactly_the_limit_through(store: Installation) -> None:
    limit, now = 1000, datetime.now(UTC)
    passed = begun_together(_TAKER, [(str(limit), now.isoformat())] * 4, store.env)

    assert sum(passed) == limit
    assert len([some for some in passed if some]) > 1, "they had nothing to share"


def test_a_process_that_gets_no_more_requests_keeps_a_tenth_from_the_others_at_most(
    runtime: Runtime, clock: Clock
) -> None:
    silent, busy = another(runtime, clock), another(runtime, clock)
    limits.admit(silent, ACTOR)

    assert LIMIT - LIMIT // PARTS <= admitted(busy) < LIMIT


def test_what_was_not_used_is_no_use_in_the_next_minute(runtime: Runtime, clock: Clock) -> None:
    one, two = another(runtime, clock), another(runtime, clock)
    limits.admit(one, ACTOR)
    clock.forward(60)

    assert admitted(one) + admitted(two) == LIMIT


def test_who_comes_when_he_is_told_to_is_let_in_and_not_a_second_before(
    process: Runtime, clock: Clock
) -> None:
    admitted(process)
    wait = refusal(process).retry_after
    assert 0 < wait <= 60

    clock.forward(wait - 0.5)
    assert refusal(process).retry_after == pytest.approx(0.5)
    clock.forward(0.5)
    assert admitted(process) == LIMIT


def test_the_minutes_of_keys_do_not_all_begin_at_once(process: Runtime) -> None:
    waits = set()
    for _ in range(12):
        actor = replace(ACTOR, id=secrets.token_hex(6))
        admitted(process, actor)
        waits.add(round(refusal(process, actor).retry_after))

    assert len(waits) > 3


def test_keys_accounts_and_people_have_each_their_own(process: Runtime) -> None:
    assert admitted(process) == LIMIT

    for other in (
        replace(ACTOR, id="ba9876543210"),
        replace(ACTOR, account_id="other"),
        replace(ACTOR, kind="user"),
    ):
        assert admitted(process, other) == LIMIT


def test_it_costs_a_statement_now_and_then_and_none_for_what_is_refused(
    process: Runtime,
) -> None:
    busy = replace(process, config=replace(process.config, requests_per_minute=600))
    with statements(busy) as asked:
        assert admitted(busy) == 600
    assert asked == ["INSERT INTO request_counts"] * 55, (
        "54 parts, and one who is told that there is no more"
    )

    with statements(busy) as asked:
        for _ in range(50):
            refusal(busy)
    assert asked == []


def test_where_it_is_off_nothing_is_asked(runtime: Runtime, clock: Clock) -> None:
    off = another(runtime, clock, requests_per_minute=0)
    with statements(off) as asked:
        assert admitted(off, most=1000) == 1000

    assert asked == []
    assert runtime.config.requests_per_minute == 0


def test_a_limit_that_is_changed_holds_at_once(process: Runtime) -> None:
    def at(limit: int) -> Runtime:
        return replace(process, config=replace(process.config, requests_per_minute=limit))

    assert admitted(process) == LIMIT
    assert admitted(at(LIMIT + 30)) == 30
    assert admitted(at(LIMIT + 10)) == 0
    assert admitted(at(LIMIT + 40)) == 10


def test_a_machine_whose_clock_is_a_little_ahead_changes_nothing(
    runtime: Runtime, clock: Clock
) -> None:
    ahead = Clock(clock.now + timedelta(seconds=30), clock.seconds)
    here, there = another(runtime, clock), another(runtime, ahead)
    passed = 0
    for _ in range(12):  # over two minutes and a bit
        passed += admitted(there) + admitted(here)
        clock.forward(10)
        ahead.forward(10)

    assert 2 * LIMIT <= passed <= 4 * LIMIT
    assert passed % LIMIT == 0


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_was_wrong_shuts_nobody_out(runtime: Runtime, clock: Clock, days: int) -> None:
    wrong = Clock(clock.now + timedelta(days=days))
    process = another(runtime, wrong)
    assert admitted(process) == LIMIT

    wrong.now = clock.now
    assert admitted(process) == LIMIT
    assert admitted(another(runtime, clock)) == 0


def test_without_the_database_a_process_hands_out_what_it_has_and_then_says_so(
    process: Runtime,
) -> None:
    limits.admit(process, ACTOR)
    cut_off(process)

    for _ in range(LIMIT // PARTS - 1):
        limits.admit(process, ACTOR)
    with pytest.raises(DatabaseAway):
        limits.admit(process, ACTOR)
    with pytest.raises(DatabaseAway):
        limits.admit(process, replace(ACTOR, id="another"))


def test_a_thousand_keys_need_a_thousand_rows_and_the_sweep_removes_what_is_over(
    process: Runtime, clock: Clock
) -> None:
    for number in range(1000):
        limits.admit(process, replace(ACTOR, id=f"key-{number}"))
    assert count(process, RequestCount) == 1000

    clock.forward(3000)
    limits.admit(process, ACTOR)
    assert limits.forget(process) == 0
    clock.forward(700)
    assert limits.forget(process) == 1000
    assert count(process, RequestCount) == 1


def test_a_process_remembers_no_more_keys_than_it_can_hold(runtime: Runtime, clock: Clock) -> None:
    forgetful = Tallies(runtime.database, most_known=20)
    one = replace(another(runtime, clock, requests_per_minute=10), tallies=forgetful)
    assert admitted(one) == 10
    for number in range(30):
        clock.forward(0.001)
        assert admitted(one, replace(ACTOR, id=f"key-{number}")) == 10

    assert admitted(one) == 0, "what it has forgotten the database knows"


def count(runtime: Runtime, model: type[Any]) -> int:
    with runtime.database.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(model)) or 0


# Failed logins --------------------------------------------------------------------------------------


def wrong_key() -> str:
    return f"fbk_live_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


def tries(runtime: Runtime, address: str | None = ADDRESS, presented: str | None = None) -> str:
    """How a wrong key is refused."""
    try:
        identity.authenticate(runtime, presented or wrong_key(), address)
    except FaxbotError as error:
        return error.code
    return "let in"


def bar(runtime: Runtime, address: str = ADDRESS) -> None:
    """Use up what an address may fail."""
    said = [tries(runtime, address) for _ in range(runtime.config.login_failures)]
    assert set(said) == {"unauthenticated"}
    assert tries(runtime, address) == "failed-logins"


def test_after_so_many_wrong_keys_no_more_are_looked_at(process: Runtime, clock: Clock) -> None:
    bar(process)
    clock.forward(600)
    with pytest.raises(FailedLogins) as refused:
        identity.authenticate(process, wrong_key(), ADDRESS)
    assert refused.value.retry_after == pytest.approx(300)

    clock.forward(299)
    assert tries(process) == "failed-logins"
    clock.forward(2)
    bar(process)


def test_all_processes_count_together_and_each_learns_it_by_one_failure(
    runtime: Runtime, clock: Clock
) -> None:
    processes = [another(runtime, clock) for _ in range(4)]
    said = [tries(processes[number % 4]) for number in range(20)]
    assert said == ["unauthenticated"] * 20

    for process in processes:
        with statements(process) as asked:
            assert tries(process) == "failed-logins"
        assert len(asked) <= 2


def test_failures_at_the_same_time_are_counted_exactly(process: Runtime) -> None:
    said = at_once(8, lambda _number: [tries(process) for _ in range(5)])
    counts = Counter(one for some in said for one in some)

    assert counts == {"failed-logins": 20, "unauthenticated": 20}


def test_a_barred_address_costs_no_write_and_one_question_in_seconds(
    process: Runtime, clock: Clock
) -> None:
    bar(process)
    with statements(process) as asked:
        assert {tries(process) for _ in range(100)} == {"failed-logins"}
        assert tries(process, presented="garbage") == "failed-logins"
    assert asked == []

    clock.forward(REMEMBERED)
    with statements(process) as asked:
        assert {tries(process) for _ in range(100)} == {"failed-logins"}
    assert asked == ["SELECT"]


def test_a_good_key_is_let_in_from_a_barred_address(process: Runtime, clock: Clock) -> None:
    good, revoked = new_key(process), new_key(process)
    for key in (good, revoked):
        identity.authenticate(process, key, ADDRESS)
    with process.database.transaction() as session:
        identity.revoke_key(session, revoked.split("_")[2], clock.now)
    bar(process)
    later = new_key(process)

    with statements(process) as asked:
        assert identity.authenticate(process, good, ADDRESS).id == good.split("_")[2]
    assert asked == ["SELECT"]
    with statements(process) as asked:
        assert tries(process, presented=revoked) == "failed-logins"
        assert tries(process, presented=f"{good[:22]}{wrong_key()[22:]}") == "failed-logins"
    assert asked == []
    clock.forward(REMEMBERED)
    identity.authenticate(process, later, ADDRESS)


def test_a_secret_that_was_good_once_costs_no_more_than_an_invented_one_from_a_barred_address(
    process: Runtime, clock: Clock
) -> None:
    second = timedelta(seconds=1)
    rotated = new_key(process)
    with process.database.transaction() as session:
        _, expired = identity.create_key(
            session,
            process.keyring,
            name="old",
            scopes=["fax:send"],
            now=clock.now,
            expires_at=clock.now + second,
        )
        key_id = rotated.split("_")[2]
        identity.rotate_key(session, process.keyring, CLI, key_id, overlap=second, now=clock.now)
    clock.forward(0.5)
    bar(process)
    for good_still in (expired, rotated):
        identity.authenticate(process, good_still, ADDRESS)

    clock.forward(REMEMBERED)
    assert tries(process) == "failed-logins"
    with statements(process) as asked:
        assert tries(process, presented=expired) == "failed-logins"
        assert tries(process, presented=rotated) == "failed-logins"
    assert asked == []


@pytest.mark.parametrize(
    ("length", "ending"),
    [(production.UNGUESSABLE - 1, "failed-logins"), (production.UNGUESSABLE, "let in")],
)
def test_the_key_of_the_environment_is_let_in_when_it_cannot_be_guessed(
    runtime: Runtime, clock: Clock, length: int, ending: str
) -> None:
    key = "k" * length
    process = another(runtime, clock, api_key=key)
    assert tries(process, presented=key) == "let in"
    bar(process)

    assert tries(process, presented=key) == ending
    assert tries(process, "198.51.100.9", presented=key) == "let in"


def test_other_addresses_are_not_concerned_and_a_site_with_ipv6_is_one(process: Runtime) -> None:
    bar(process, "2001:db8:0:1::1")

    assert tries(process, "2001:db8:0:1:ffff::2") == "failed-logins"
    assert tries(process, "2001:db8:0:2::1") == "unauthenticated"
    assert tries(process) == "unauthenticated"
    assert count(process, FailedLogin) == 3


def test_who_shows_no_key_fails_nothing(process: Runtime) -> None:
    with statements(process) as asked:
        for _ in range(30):
            with pytest.raises(Unauthenticated):
                identity.authenticate(process, None, ADDRESS)

    assert asked == []


def test_without_an_address_nothing_is_counted(process: Runtime) -> None:
    assert {tries(process, None) for _ in range(30)} == {"unauthenticated"}
    assert count(process, FailedLogin) == 0


def test_where_it_is_off_nothing_is_counted(runtime: Runtime, clock: Clock) -> None:
    process = another(runtime, clock, login_failures=0)

    assert {tries(process) for _ in range(30)} == {"unauthenticated"}
    limits.login_allowed(process, ADDRESS)
    limits.login_failed(process, ADDRESS)
    assert count(process, FailedLogin) == 0


def test_a_limit_that_is_raised_opens_the_door_again(process: Runtime) -> None:
    bar(process)
    more = replace(process, config=replace(process.config, login_failures=23))

    assert [tries(more) for _ in range(4)] == ["unauthenticated"] * 3 + ["failed-logins"]


def test_passwords_are_not_looked_at_from_a_barred_address_and_keys_are(
    runtime: Runtime, clock: Clock
) -> None:
    one, two = another(runtime, clock), another(runtime, clock)
    for number in range(20):
        limits.login_allowed((one, two)[number % 2], ADDRESS)
        limits.login_failed((one, two)[number % 2], ADDRESS)

    for process in (one, two):
        with pytest.raises(FailedLogins) as refused:
            limits.login_allowed(process, ADDRESS)
        assert refused.value.retry_after == pytest.approx(900)
        with statements(process) as asked, pytest.raises(FailedLogins):
            limits.login_allowed(process, ADDRESS)
        assert asked == []
        assert tries(process) == "unauthenticated"
    clock.forward(901)
    limits.login_allowed(one, ADDRESS)


def test_keys_that_are_wrong_keep_nobody_from_his_password(process: Runtime) -> None:
    bar(process)

    limits.login_allowed(process, ADDRESS)


def test_it_is_logged_once_and_without_the_address(
    runtime: Runtime, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "faxbot"):
        for process in (another(runtime, clock), another(runtime, clock)):
            for _ in range(25):
                tries(process)

    (record,) = [each for each in caplog.records if each.name == "faxbot.limits"]
    assert (record.levelno, vars(record)["login"]) == (logging.WARNING, "key")
    assert ADDRESS not in str(vars(record))


def test_without_the_database_nobody_is_told_whether_a_key_is_wrong(process: Runtime) -> None:
    cut_off(process)

    assert {tries(process), tries(process, presented="garbage")} == {"database-away"}


def test_failures_that_are_over_are_removed(process: Runtime, clock: Clock) -> None:
    bar(process)
    clock.forward(SPAN.total_seconds() + 3500)
    assert limits.forget(process) == 0
    clock.forward(200)
    assert limits.forget(process) == 1


@pytest.mark.parametrize("days", [-400, 400])
def test_failures_by_a_clock_that_was_wrong_bar_nobody(
    runtime: Runtime, clock: Clock, days: int
) -> None:
    wrong = Clock(clock.now + timedelta(days=days))
    bar(another(runtime, wrong))

    bar(another(runtime, clock))
    limits.login_allowed(another(runtime, clock), ADDRESS)


def test_what_may_be_set(store: Installation) -> None:
    config = store.config(MAX_REQUESTS_PER_MINUTE="30", FAXBOT_LOGIN_FAILURES="5")
    assert isinstance(config, Config)
    saved = config.with_saved({"MAX_REQUESTS_PER_MINUTE": "60", "FAXBOT_PAGES_PER_DAY": "100"})

    assert (config.requests_per_minute, config.login_failures, config.login_minutes) == (30, 5, 15)
    assert (saved.requests_per_minute, saved.pages_per_day) == (60, 100)
    with wiring_of(config) as runtime:
        assert admitted(runtime) == 30


@contextmanager
def wiring_of(config: Config) -> Iterator[Runtime]:
    runtime = wiring.build(config)
    fixed = runtime.now()
    try:
        yield replace(runtime, now=lambda: fixed)
    finally:
        runtime.close()
