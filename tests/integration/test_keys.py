"""API keys over HTTP and at the command: shown once, rotated with an overlap, ended; none may more than its maker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import identity, wiring
from faxbot.db import table
from faxbot.errors import Unauthenticated
from faxbot.models import ApiKey, AuditEvent
from faxbot.runtime import Runtime
from tests.installation import Installation
from tests.integration.clock import Clock
from tests.integration.command import first_key, run
from tests.integration.test_identity import statements
from tests.integration.web import assert_problem, client_of, new_key, new_user

KEYS = "/admin/api-keys"
NAME = {"name": "billing"}


@pytest.fixture
def admin(at: Runtime) -> FlaskClient:
    return client_of(at, new_key(at, "*"))


def body(response: Any, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.data
    found: dict[str, Any] = json.loads(response.data)
    return found


def made(client: FlaskClient, *scopes: str, **more: Any) -> dict[str, Any]:
    wish = {**NAME, "scopes": scopes or ("fax:read",), **more}
    return body(client.post(KEYS, json=wish), 201)


def rotated(client: FlaskClient, key: dict[str, Any], **wish: int) -> dict[str, Any]:
    return body(client.post(f"{KEYS}/{key['id']}/rotate", json=wish))


def works(runtime: Runtime, token: str) -> bool:
    try:
        identity.authenticate(runtime, token)
    except Unauthenticated:
        return False
    return True


def deeds(runtime: Runtime) -> list[tuple[str, str | None]]:
    """What the audit trail says was done to keys, by whom."""
    rows = table(AuditEvent)
    wanted = sa.select(rows).where(rows.c.object_kind == "key").order_by(rows.c.id)
    return [(row.action, row.actor) for row in runtime.database.rows(wanted, {})]


def test_a_key_is_made_shown_once_used_listed_and_ended(at: Runtime, admin: FlaskClient) -> None:
    key = made(admin, "fax:send", "fax:read")

    assert re.fullmatch(rf"fbk_live_{key['id']}_\S{{43}}", key["token"])
    assert key["key_id"] == key["id"]
    assert key["scopes"] == ["fax:read", "fax:send"]
    assert client_of(at, key["token"]).get("/fax").status_code == 200
    listed = admin.get(KEYS)
    assert key["token"][22:] not in listed.get_data(as_text=True)
    mine = next(one for one in body(listed)["items"] if one["id"] == key["id"])
    assert (mine["state"], mine["name"]) == ("active", "billing")
    assert mine["last_used_at"] == at.now().isoformat()

    ended = body(admin.delete(f"{KEYS}/{key['id']}"))
    assert (ended["state"], ended["warning"]) == ("revoked", None)
    assert not works(at, key["token"])
    assert body(admin.delete(f"{KEYS}/{key['id']}")) == ended


def test_after_a_rotation_both_secrets_live_until_the_overlap_is_over(
    at: Runtime, admin: FlaskClient, clock: Clock
) -> None:
    key = made(admin)
    renewed = rotated(admin, key)

    assert renewed["id"] == key["id"]
    assert renewed["token"] != key["token"]
    assert renewed["scopes"] == key["scopes"]
    assert renewed["old_secret_until"] == (clock.now + timedelta(hours=24)).isoformat()
    assert works(at, key["token"])
    assert works(at, renewed["token"])
    clock.pass_by(hours=24, microseconds=-1)
    assert works(at, key["token"])
    clock.pass_by(microseconds=1)
    assert not works(at, key["token"])
    assert works(at, renewed["token"])
    mine = next(one for one in body(admin.get(KEYS))["items"] if one["id"] == key["id"])
    assert mine["old_secret_until"] is None


def test_an_overlap_of_nothing_ends_the_old_secret_at_once(at: Runtime, admin: FlaskClient) -> None:
    key = made(admin)
    renewed = rotated(admin, key, overlap_hours=0)

    assert not works(at, key["token"])
    assert works(at, renewed["token"])


def test_a_second_rotation_leaves_two_secrets_and_a_revocation_none(
    at: Runtime, admin: FlaskClient
) -> None:
    tokens = [(key := made(admin))["token"]]
    tokens += [rotated(admin, key)["token"] for _ in range(2)]
    assert [works(at, token) for token in tokens] == [False, True, True]

    admin.delete(f"{KEYS}/{key['id']}")
    assert [works(at, token) for token in tokens] == [False, False, False]


def test_two_secrets_cost_no_further_question(at: Runtime, admin: FlaskClient) -> None:
    key = made(admin)
    renewed = rotated(admin, key)
    identity.authenticate(at, key["token"])

    with statements(at) as asked:
        for token in (key["token"], renewed["token"]):
            identity.authenticate(at, token)
    assert asked == ["SELECT"] * 2


def test_when_a_key_ends_can_be_changed_while_it_lives(
    at: Runtime, admin: FlaskClient, clock: Clock
) -> None:
    key = made(admin)
    address = f"{KEYS}/{key['id']}/expire"
    soon, later = ((clock.now + timedelta(hours=hours)).isoformat() for hours in (1, 2))

    assert body(admin.post(address, json={"expires_at": later}))["expires_at"] == later
    assert body(admin.post(address, json={"expires_at": None}))["expires_at"] is None
    body(admin.post(address, json={"expires_at": soon}))
    past = {"expires_at": clock.now.isoformat()}
    assert (
        "expires_at"
        in assert_problem(admin.post(address, json=past), 422, "invalid-fields")["errors"]
    )
    assert_problem(admin.post(address, json={}), 422, "invalid-fields")
    clock.pass_by(hours=1)
    assert not works(at, key["token"])
    assert_problem(admin.post(address, json={"expires_at": later}), 409, "has-ended")
    assert_problem(admin.post(f"{KEYS}/{key['id']}/rotate", json={}), 409, "has-ended")


def test_an_ended_key_does_not_come_back(admin: FlaskClient) -> None:
    key = made(admin)
    admin.delete(f"{KEYS}/{key['id']}")

    for deed, wish in (("rotate", {}), ("expire", {"expires_at": None})):
        assert_problem(admin.post(f"{KEYS}/{key['id']}/{deed}", json=wish), 409, "has-ended")


@pytest.mark.parametrize(
    ("mine", "given", "allowed"),
    [
        ("keys:manage", "keys:manage", True),
        ("keys:manage", "admin", True),
        ("keys:manage", "operate", True),
        ("admin", "keys:manage", True),
        ("admin", "fax:read", False),
        ("keys:manage", "fax:send", False),
        ("admin", "*", False),
        ("*", "*", True),
    ],
)
def test_nobody_gives_a_scope_that_he_lacks_or_takes_it_by_way_of_another_key(
    at: Runtime, admin: FlaskClient, mine: str, given: str, allowed: bool
) -> None:
    key, other = client_of(at, new_key(at, mine)), made(admin, given)
    wish = {**NAME, "scopes": [given]}
    longer = {"expires_at": (at.now() + timedelta(days=2)).isoformat()}
    body(admin.post(f"{KEYS}/{other['id']}/expire", json={"expires_at": longer["expires_at"]}))
    answers = [
        key.post(KEYS, json=wish),
        key.post(f"{KEYS}/{other['id']}/rotate", json={}),
        key.post(f"{KEYS}/{other['id']}/expire", json={"expires_at": None}),
    ]

    assert [answer.status_code for answer in answers] == ([201, 200, 200] if allowed else [403] * 3)
    if not allowed:
        assert given in assert_problem(answers[0], 403, "forbidden")["detail"]
        assert works(at, other["token"])
        # To end what may more than oneself takes nothing for oneself.
        sooner = {"expires_at": (at.now() + timedelta(days=1)).isoformat()}
        assert key.post(f"{KEYS}/{other['id']}/expire", json=sooner).status_code == 200
        assert key.delete(f"{KEYS}/{other['id']}").status_code == 200


Wish = Callable[[FlaskClient, str], Any]
DEEDS: list[Wish] = [
    lambda client, key_id: client.post(f"{KEYS}/{key_id}/rotate", json={}),
    lambda client, key_id: client.post(f"{KEYS}/{key_id}/expire", json={"expires_at": None}),
    lambda client, key_id: client.delete(f"{KEYS}/{key_id}"),
]


@pytest.mark.parametrize("deed", DEEDS)
def test_a_foreign_key_looks_like_one_that_is_not_there(
    at: Runtime, admin: FlaskClient, deed: Wish
) -> None:
    foreign = new_key(at, "*", account_id="other")
    answers = [
        assert_problem(deed(admin, key_id), 404, "not-found")
        for key_id in (foreign.split("_")[2], "0" * 12)
    ]

    for answer in answers:
        del answer["request_id"]
    assert answers[0] == answers[1]
    assert works(at, foreign)


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"scopes": ["fax:read"]}, "name"),
        ({**NAME}, "scopes"),
        ({**NAME, "scopes": []}, "scopes"),
        ({**NAME, "scopes": ["fax:fly"]}, "scopes"),
        ({**NAME, "scopes": "*"}, "scopes"),
        ({"name": "two\nlines", "scopes": ["*"]}, "name"),
        ({**NAME, "scopes": ["*"], "expires_at": "tomorrow"}, "expires_at"),
        ({**NAME, "scopes": ["*"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({**NAME, "scopes": ["*"], "token": "mine"}, "unknown"),
    ],
)
def test_a_wish_that_makes_no_sense_makes_no_key(
    admin: FlaskClient, wish: dict[str, Any], field: str
) -> None:
    before = body(admin.get(KEYS))

    assert field in assert_problem(admin.post(KEYS, json=wish), 422, "invalid-fields")["errors"]
    assert body(admin.get(KEYS)) == before


@pytest.mark.parametrize("hours", [-1, 721, "x", 1.5])
def test_an_overlap_has_limits(admin: FlaskClient, hours: Any) -> None:
    key = made(admin)
    refused = admin.post(f"{KEYS}/{key['id']}/rotate", json={"overlap_hours": hours})

    assert_problem(refused, 422, "invalid-fields")


def test_every_deed_is_written_down_and_no_token(at: Runtime, admin: FlaskClient) -> None:
    me = str(admin.environ_base["HTTP_X_API_KEY"]).split("_")[2]
    tokens = [(key := made(admin))["token"]]
    tokens.append(rotated(admin, key)["token"])
    admin.post(f"{KEYS}/{key['id']}/expire", json={"expires_at": None})
    admin.delete(f"{KEYS}/{key['id']}")
    admin.delete(f"{KEYS}/{key['id']}")

    assert deeds(at)[1:] == [
        ("key.created", me), ("key.rotated", me), ("key.expiry_changed", me), ("key.revoked", me),
    ]  # fmt: skip
    with at.database.reading() as session:
        trail = str(session.execute(sa.text("SELECT * FROM audit_events")).all())
        kept = str(
            [dict(row) for row in session.execute(sa.text("SELECT * FROM api_keys")).mappings()]
        )
    assert not [token for token in tokens if token[22:] in trail + kept]


def test_the_old_secret_is_let_in_from_a_barred_address_too(store: Installation) -> None:
    runtime = wiring.build(store.config(FAXBOT_LOGIN_FAILURES="2"))
    try:
        client = client_of(runtime, old := new_key(runtime, "*"))
        rotated(client, {"id": old.split("_")[2]})
        for _ in range(4):
            client.get("/fax", headers={"X-API-Key": "wrong"})
        wrong = f"{old[:-1]}{'A' if old[-1] != 'A' else 'B'}"
        assert client.get("/fax", headers={"X-API-Key": wrong}).status_code == 429
        assert client.get("/fax").status_code == 200
    finally:
        runtime.close()


# The last way in ----------------------------------------------------------------------------------------------------


def test_who_takes_the_last_way_in_is_told_so(at: Runtime, clock: Clock) -> None:
    mine = new_key(at, "*")
    client, other = client_of(at, mine), new_key(at, "admin")
    new_key(at, "fax:send")
    clock.pass_by(seconds=1)

    assert body(client.delete(f"{KEYS}/{other.split('_')[2]}"))["warning"] is None
    ends = {"expires_at": (clock.now + timedelta(days=1)).isoformat()}
    own = f"{KEYS}/{mine.split('_')[2]}"
    assert "keys create" in body(client.post(f"{own}/expire", json=ends))["warning"]
    person = new_user(at, "admin")
    assert body(client.post(f"{own}/expire", json=ends))["warning"] is None
    with at.database.transaction() as session:
        session.execute(sa.update(table(type(person))).values(role="operator"))
    assert "users create" in body(client.delete(own))["warning"]


def test_with_api_key_set_there_is_always_a_way_in(store: Installation) -> None:
    runtime = wiring.build(store.config(API_KEY="k" * 40))
    try:
        client, token = client_of(runtime, "k" * 40), new_key(runtime, "*")
        assert body(client.delete(f"{KEYS}/{token.split('_')[2]}"))["warning"] is None
    finally:
        runtime.close()


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_rotates_a_key_and_the_file_of_the_first_one(embedded: Installation) -> None:
    run(embedded, "prepare")
    (key,) = run(embedded, "keys", "list", "--json").json
    old = first_key(embedded).read_text().strip()

    ended = run(embedded, "keys", "rotate", key["id"])

    assert re.fullmatch(rf"fbk_live_{key['id']}_\S{{43}}\n", ended.out)
    assert "old secret is good until" in ended.err
    assert first_key(embedded).read_text() == ended.out
    assert "old secret is good until" in run(embedded, "keys", "list").out
    now = run(embedded, "keys", "rotate", key["id"], "--overlap-hours", "0", "--json").json
    runtime = wiring.build(embedded.config())
    try:
        assert [works(runtime, token) for token in (old, ended.out.strip(), now["key"])] == [
            False, False, True,
        ]  # fmt: skip
    finally:
        runtime.close()


def test_the_command_says_when_nobody_is_left(embedded: Installation) -> None:
    key = run(embedded, "keys", "create", "--name", "n", "--scope", "*", "--json").json

    assert "Nobody can administer faxbot" in run(embedded, "keys", "revoke", key["id"]).err
    assert run(embedded, "keys", "rotate", key["id"]).code == 1
    assert run(embedded, "keys", "rotate", "0" * 12).code == 1
    assert run(embedded, "keys", "rotate", key["id"], "--overlap-hours", "-1").code == 2


def test_a_key_of_an_earlier_faxbot_has_one_secret(runtime: Runtime) -> None:
    """Rows of before the migration have nothing in the new columns."""
    token = new_key(runtime)
    with runtime.database.reading() as session:
        key = session.get_one(ApiKey, token.split("_")[2])

    assert (key.old_secret_hash, key.old_secret_until) == (None, None)
    assert works(runtime, token)
