"""API keys: a secret that is nowhere kept, one question per request, and every wrong key looks like
every other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import identity
from faxbot.actors import CLI, SCOPES, Actor
from faxbot.db import utcnow
from faxbot.errors import Forbidden, InvalidFields, NotFound, Unauthenticated
from faxbot.identity import authenticate, create_key, list_keys, revoke_key
from faxbot.models import ApiKey
from faxbot.runtime import Runtime
from tests.threads import at_once, is_noting

OTHER = replace(CLI, account_id="other")
TOKEN = re.compile(r"fbk_live_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


def new_key(runtime: Runtime, **wish: Any) -> str:
    with runtime.database.transaction() as session:
        _, token = create_key(
            session,
            runtime.keyring,
            **{"name": "test", "scopes": ["fax:send"], "now": runtime.now(), **wish},
        )
    return token


def row_of(runtime: Runtime, token: str) -> ApiKey:
    with runtime.database.reading() as session:
        return session.get_one(ApiKey, token.split("_")[2])


@contextmanager
def statements(
    runtime: Runtime, told: Callable[[str], str] = lambda text: text.split()[0]
) -> Iterator[list[str]]:
    """What is asked of the database meanwhile, in the words of `told`; transactions' own are left out."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if not text.startswith("BEGIN") and not is_noting():
            asked.append(told(text))

    engines = (runtime.database.engine, runtime.database.reader)
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", note)
    yield asked
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", note)


def refusal(runtime: Runtime, presented: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        authenticate(runtime, presented)
    return refused.value.detail


def test_a_key_opens_what_its_scopes_say(runtime: Runtime) -> None:
    token = new_key(runtime, scopes=["fax:send", "fax:read", "fax:send"], actor=OTHER)

    actor = authenticate(runtime, token)

    assert actor == Actor("other", token.split("_")[2], frozenset({"fax:send", "fax:read"}))
    actor.require("fax:read")
    for scope in set(SCOPES) - actor.scopes:
        with pytest.raises(Forbidden, match=re.escape(scope)):
            actor.require(scope)


def test_the_star_opens_all_and_managing_keys_implies_admin() -> None:
    star, manager = (Actor("default", "k", frozenset({scope})) for scope in ("*", "keys:manage"))

    assert all(star.may(scope) for scope in (*SCOPES, "anything"))
    assert {scope for scope in SCOPES if manager.may(scope)} == {"keys:manage", "admin", "operate"}


def test_the_secret_is_nowhere_kept(runtime: Runtime) -> None:
    tokens = [new_key(runtime) for _ in range(3)]
    secrets = [match[2] for token in tokens if (match := TOKEN.fullmatch(token))]
    assert len(set(secrets)) == 3

    with runtime.database.reading() as session:
        kept = str(
            [dict(row) for row in session.execute(sa.text("SELECT * FROM api_keys")).mappings()]
        )
    assert not [secret for secret in secrets if secret in kept]
    hashes = {row_of(runtime, token).secret_hash for token in tokens}
    assert all(re.fullmatch("[0-9a-f]{64}", kept) for kept in hashes)
    assert len(hashes) == 3


def test_every_wrong_key_looks_like_every_other_and_costs_the_same_question(
    runtime: Runtime,
) -> None:
    now = utcnow()
    right = new_key(runtime)
    expired = new_key(runtime, expires_at=now + timedelta(seconds=1))
    revoked, foreign = new_key(runtime), new_key(runtime)
    with runtime.database.transaction() as session:
        revoke_key(session, revoked.split("_")[2], now)
    late = replace(runtime, now=lambda: now + timedelta(seconds=1))
    prefix, key_id, secret = right[:9], right[9:21], right[22:]
    wrong = [
        expired,
        revoked,
        f"{prefix}{key_id}_{secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}",
        f"{prefix}{'0' * 12}_{secret}",
        f"{prefix}{foreign[9:21]}_{secret}",
    ]

    authenticate(late, right)
    with statements(runtime) as asked:
        said = {refusal(late, token) for token in wrong}
        authenticate(late, right)

    assert asked == ["SELECT"] * 6
    assert len(said) == 1
    garbage = ["", "x", right + "x", right[:-1], " " + right, right + "\n", "fbk_live_" + "é" * 60]
    assert {refusal(late, token) for token in garbage} == said


def test_when_a_key_was_used_is_written_every_ten_minutes_at_most(runtime: Runtime) -> None:
    token, begin = new_key(runtime), utcnow()
    noted: list[datetime | None] = []
    for minutes in (0, 1, 9.9, 10, 10.1, 15, 20.2):
        authenticate(
            replace(runtime, now=partial(begin.__add__, timedelta(minutes=minutes))), token
        )
        noted.append(row_of(runtime, token).last_used_at)

    used = [(at - begin) / timedelta(minutes=1) if at else None for at in noted]
    assert used == [0, 0, 0, 0, 10.1, 10.1, 20.2]


def test_many_requests_at_once_note_their_use_once(runtime: Runtime) -> None:
    token, written = new_key(runtime), []

    @sa.event.listens_for(runtime.database.engine, "after_cursor_execute")
    def note(_connection: Any, cursor: Any, text: str, *_: Any) -> None:
        if text.startswith("UPDATE"):
            written.append(cursor.rowcount)

    at_once(6, lambda _: authenticate(runtime, token))

    assert sum(written) == 1


def test_a_busy_database_refuses_nobody_for_want_of_a_note(runtime: Runtime) -> None:
    token = new_key(runtime)

    @sa.event.listens_for(runtime.database.engine, "before_cursor_execute")
    def refuse(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if text.startswith("UPDATE"):
            raise sa.exc.OperationalError(text, None, Exception("database is locked"))

    assert authenticate(runtime, token).id == token.split("_")[2]
    assert row_of(runtime, token).last_used_at is None


def test_a_revoked_key_is_over_at_once_and_for_good(runtime: Runtime) -> None:
    token, now = new_key(runtime), utcnow()
    key_id = token.split("_")[2]
    authenticate(runtime, token)

    with runtime.database.transaction() as session:
        for wanted, actor in ((key_id, OTHER), ("0" * 12, CLI)):
            with pytest.raises(NotFound):
                revoke_key(session, wanted, now, actor=actor)
        revoke_key(session, key_id, now)
        revoke_key(session, key_id, now + timedelta(days=1))
    refusal(runtime, token)
    assert row_of(runtime, token).revoked_at == now


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"scopes": ["fax:fly"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "nul\0"}, "name"),
        ({"expires_at": datetime.fromisoformat("2020-01-01T00:00:00Z")}, "expires_at"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(
    runtime: Runtime, wish: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidFields) as refused:
        new_key(runtime, **wish)

    assert list(refused.value.errors) == [field]
    with runtime.database.reading() as session:
        assert list_keys(session) == []


def test_keys_are_listed_newest_first_for_their_account(runtime: Runtime) -> None:
    begin = utcnow()
    mine = [new_key(runtime, now=begin + timedelta(seconds=n)).split("_")[2] for n in range(3)]
    new_key(runtime, actor=OTHER)

    with runtime.database.reading() as session:
        assert [key.id for key in list_keys(session)] == mine[::-1]


@pytest.mark.parametrize(
    ("changes", "presented", "scopes"),
    [
        ({}, None, None),
        ({"REQUIRE_API_KEY": "false"}, None, identity.ANONYMOUS),
        ({"REQUIRE_API_KEY": "false", "API_KEY": "k" * 40}, None, None),
        ({"REQUIRE_API_KEY": "false"}, "wrong", None),
        ({"API_KEY": "k" * 40}, "k" * 40, {"*"}),
        ({"API_KEY": "k" * 40}, "k" * 39, None),
        ({"API_KEY": "k" * 40}, "", None),
        ({}, "", None),
    ],
)
def test_who_comes_without_a_key_of_the_database(
    runtime: Runtime, changes: dict[str, str], presented: str | None, scopes: set[str] | None
) -> None:
    config = runtime.config.load({**runtime.config.environ, **changes})
    told = replace(runtime, config=config)

    if scopes is None:
        with pytest.raises(Unauthenticated):
            authenticate(told, presented)
    else:
        assert authenticate(told, presented).scopes == scopes
