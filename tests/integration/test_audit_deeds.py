"""Who did what to which object stands in the audit trail: for every route and every command that changes something.

A new one is missing in a table here, and fails until it is either shown to leave its row or has a reason why not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import click
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import (
    cli,
    crypto,
    inbound,
    jobs,
    legalholds,
    limits,
    rotation,
    sending,
    trail,
    users,
    wiring,
)
from faxbot.actors import CLI, COMMAND
from faxbot.audit import Action
from faxbot.db import table
from faxbot.errors import AccountRefused, OutcomeUnknown, Refused
from faxbot.models import AuditEvent, Job
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration import odd
from tests.integration.command import Ended, run
from tests.integration.hooks import HERE, deliver, subscribe
from tests.integration.hooks import rows as deliveries_of
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site, number, open_site
from tests.integration.test_arrivals import arrives, given_up, gives, only
from tests.integration.test_document_links import link_of
from tests.integration.test_users import told
from tests.integration.web import ACCESS, NUMBER, browser_of, client_of, new_key, new_user, opened
from tests.mailserver import MailServer
from tests.receiver import Receiver

EVENTS = table(AuditEvent)
NOTE = {"note": "the carrier has moved"}
PHAXIO = {
    "PHAXIO_API_KEY": "phaxio-key",
    "PHAXIO_API_SECRET": "phaxio-secret",
    "PHAXIO_BASE_URL": "http://127.0.0.1:9/v2.1",
}


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    """Its provider may be told what to do, there is another one with settings of its own, and who takes mail."""
    with (
        MailServer() as mail,
        open_site(
            store, carrier_of_all, **{**PHAXIO, **mail.environ, "FAXBOT_NOTIFICATIONS": ""}
        ) as site,
    ):
        yield site


def rows(runtime: Runtime, *actions: Action) -> list[Any]:
    """The rows of the trail, once all notes are written; of these kinds, or all but the making of the tests' own keys
    and users."""
    runtime.notes.flush()
    found = runtime.database.rows(sa.select(EVENTS).order_by(EVENTS.c.id), {})
    if actions:
        return [row for row in found if row.action in actions]
    ours = (Action.KEY_CREATED, Action.USER_CREATED, Action.SESSION_OPENED)
    return [row for row in found if row.actor_kind != COMMAND or row.action not in ours]


def admin_of(runtime: Runtime) -> tuple[FlaskClient, str]:
    """A client with a key that may do everything, and the key's id."""
    token = new_key(runtime, "*")
    return client_of(runtime, token), token.split("_")[2]


# Every unsafe route -------------------------------------------------------------------------------


def queued(site: Site) -> str:
    return site.submit(number()).job_id


def scheduled(site: Site) -> str:
    return site.submit(number(), send_at=site.now + timedelta(hours=1)).job_id


def held(site: Site) -> str:
    return site.sent("0403")


def uncertain(site: Site) -> str:
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    return site.sent()


def received(site: Site) -> str:
    site.odd.does["document"] = gives()
    arrives(site)
    site.work()
    return str(only(site).id)


def read(site: Site) -> str:
    inbound_id = received(site)
    inbound.mark(site.runtime, CLI, inbound_id, read=True)
    return inbound_id


def waiting(site: Site) -> str:
    """One whose document cannot be had."""
    site.odd.does["document"] = raises(AccountRefused())
    arrives(site)
    site.work()
    return str(only(site).id)


def lost(site: Site) -> str:
    """One whose document nobody had."""
    site.odd.does["document"] = raises(Refused())
    arrives(site)
    given_up(site)
    return str(only(site).id)


def kept(site: Site) -> str:
    fax_id = queued(site)
    legalholds.hold(site.runtime, CLI, legalholds.FAX, fax_id, "asked")
    return fax_id


def kept_when_received(site: Site) -> str:
    inbound_id = received(site)
    legalholds.hold(site.runtime, CLI, legalholds.INBOUND, inbound_id, "asked")
    return inbound_id


def plain(site: Site) -> None:
    """With the plugins as they are, which can be set."""
    site.runtime = replace(site.runtime, plugins=wiring.plugins(site.runtime.config))


def with_two(site: Site) -> None:
    plain(site)
    client, _ = admin_of(site.runtime)
    wish = {**NOTE, "slot": "outbound", "untested": True, "first": False}
    assert client.post("/admin/providers/phaxio/activate", json=wish).status_code == 200


def changed(site: Site) -> None:
    client, _ = admin_of(site.runtime)
    assert client.patch("/admin/config", json=HEADER).status_code == 200


Prepare = Callable[[Site], str | None]
DECISION = {"outcome": "failed", "reason": "the receiver has nothing", "attempt": 1}
SLOT = {**NOTE, "slot": "outbound"}
SETTINGS = {**NOTE, "settings": {"apiKey": "another"}, "untested": True}
HEADER = {**NOTE, "settings": {"FAX_HEADER": "St. Mary"}}
DOCUMENT = {"kind": "faxbot settings", "format": 1, "options": HEADER["settings"], "plugins": {}}
FIRST, SECOND = ("config", "1"), ("config", "2")
PROVIDERS, PROVIDER = "/admin/providers/<provider_id>", ("plugin", "simulator")
ROUTES: dict[str, tuple[Prepare, dict[str, Any] | None, Action, tuple[str, str] | None]] = {
    "POST /fax/search": (lambda _: None, {"to": NUMBER}, Action.FAX_SEARCHED, None),
    "POST /inbound/<inbound_id>/link": (received, None, Action.INBOUND_LINKED, ("inbound", "")),
    "POST /inbound/<inbound_id>/fetch": (lost, None, Action.INBOUND_FETCHED, ("inbound", "")),
    "POST /inbound/<inbound_id>/give-up": (waiting, None, Action.INBOUND_GIVEN_UP, ("inbound", "")),
    "POST /inbound/<inbound_id>/read": (received, None, Action.INBOUND_MARKED, ("inbound", "")),
    "POST /inbound/<inbound_id>/unread": (read, None, Action.INBOUND_MARKED, ("inbound", "")),
    "POST /fax/<fax_id>/cancel": (queued, None, Action.FAX_CANCELLED, ("fax", "")),
    "POST /fax/<fax_id>/hold": (queued, None, Action.FAX_HELD, ("fax", "")),
    "POST /fax/<fax_id>/send-now": (scheduled, None, Action.FAX_SENT_NOW, ("fax", "")),
    "POST /fax/<fax_id>/release": (held, None, Action.FAX_RELEASED, ("fax", "")),
    "POST /fax/<fax_id>/decide": (uncertain, DECISION, Action.FAX_DECIDED, ("fax", "")),
    f"POST {PROVIDERS}/pause": (lambda _: None, NOTE, Action.PROVIDER_PAUSED, PROVIDER),
    f"POST {PROVIDERS}/resume": (lambda _: None, NOTE, Action.PROVIDER_RESUMED, PROVIDER),
    f"POST {PROVIDERS}/reset": (lambda _: None, NOTE, Action.PROVIDER_RESET, PROVIDER),
    f"POST {PROVIDERS}/test": (lambda _: None, None, Action.PROVIDER_TESTED, PROVIDER),
    "POST /admin/notifications/<plugin_id>/test": (
        lambda _: None, None, Action.NOTIFICATION_TESTED, ("plugin", "email"),
    ),
    f"POST {PROVIDERS}/activate": (plain, SLOT, Action.PLUGIN_ACTIVATED, PROVIDER),
    f"POST {PROVIDERS}/deactivate": (with_two, SLOT, Action.PLUGIN_DEACTIVATED, PROVIDER),
    "POST /plugins/<plugin_id>/enable": (lambda _: None, NOTE, Action.PLUGIN_ENABLED, PROVIDER),
    "PUT /plugins/<plugin_id>/config": (
        plain, SETTINGS, Action.PLUGIN_CONFIGURED, ("plugin", "phaxio"),
    ),
    "PATCH /admin/config": (lambda _: None, HEADER, Action.CONFIG_CHANGED, FIRST),
    "PATCH /admin/features": (
        lambda _: None, {**NOTE, "features": {"api_key_required": True}}, Action.CONFIG_CHANGED, FIRST,
    ),
    "POST /admin/config/backups": (changed, NOTE, Action.CONFIG_BACKED_UP, FIRST),
    "POST /admin/config/rollback": (
        changed, {**NOTE, "version": 0}, Action.CONFIG_RESTORED, SECOND,
    ),
    "POST /admin/config/import": (
        lambda _: None, {**NOTE, "document": DOCUMENT}, Action.CONFIG_RESTORED, FIRST,
    ),
    "PUT /fax/<fax_id>/legal-hold": (
        queued, {"reason": "St. Mary"}, Action.LEGAL_HOLD_PLACED, ("fax", ""),
    ),
    "DELETE /fax/<fax_id>/legal-hold": (
        kept, None, Action.LEGAL_HOLD_LIFTED, ("fax", ""),
    ),
    "PUT /inbound/<inbound_id>/legal-hold": (
        received, {"reason": "St. Mary"}, Action.LEGAL_HOLD_PLACED, ("inbound", ""),
    ),
    "DELETE /inbound/<inbound_id>/legal-hold": (
        kept_when_received, None, Action.LEGAL_HOLD_LIFTED, ("inbound", ""),
    ),
}  # fmt: skip
"""Of each: what is there before, the body, and what stands in the trail then; "": the id of the fax."""
_NEWS = "a carrier's news: kept as it came, and what it does to a fax is an event of that fax"
_SUBMITTED = "the fax says who made it (created_by), and its first event when"
UNWRITTEN = {
    "POST /fax/send": _SUBMITTED,
    "POST /fax": _SUBMITTED,
    "POST /callbacks/<provider_id>": _NEWS,
    "POST /phaxio-callback": _NEWS,
    "POST /phaxio-inbound": _NEWS,
    "POST /sinch-inbound": _NEWS,
    "POST /inbound/callback": _NEWS,
    "POST /_internal/asterisk/inbound": _NEWS,
    "POST /_internal/freeswitch/outbound_result": _NEWS,
}
"""Routes that leave no row, and why."""


ELSEWHERE = ("POST /admin/retention/run", "POST /fax/<fax_id>/resend")
"""In test_web_retention, and in test_resending: what it is about is made by it, or is another fax."""


def test_every_unsafe_route_leaves_its_row_or_says_why_not() -> None:
    unsafe = {route for route in ACCESS if not route.startswith(("GET ", "HEAD "))}

    known = [*ROUTES, *PEOPLE, *WEBHOOKS, *UNWRITTEN, *ELSEWHERE]
    assert set(known) == unsafe
    assert len(known) == len(unsafe)


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_what_a_route_does_is_written_down_with_who_and_to_what(site: Site, route: str) -> None:
    prepare, body, action, of = ROUTES[route]
    fax_id = prepare(site) or ""
    kind, object_id = of or (None, None)
    method, path = route.split()
    path = path.replace("<fax_id>", fax_id).replace("<inbound_id>", fax_id)
    for name in ("<provider_id>", "<plugin_id>"):
        path = path.replace(name, object_id or "")
    client, key_id = admin_of(site.runtime)
    earlier = rows(site.runtime)
    answer = client.open(path, method=method, json=body)
    assert answer.status_code == 200, answer.data
    new = rows(site.runtime)[len(earlier) :]
    (row,) = (each for each in new if each.action != Action.INBOUND_SHOWN)  # the answer shows it

    assert row.action == action
    assert (row.object_kind, row.object_id) == (kind, fax_id or object_id)
    assert (row.actor_kind, row.actor, row.outcome) == ("key", key_id, "done")
    assert (row.request_id, row.address) == (answer.headers["X-Request-Id"], "127.0.0.1")
    assert NUMBER not in str(row)
    assert "another" not in str(row)
    assert "St. Mary" not in str(row)
    assert NOTE["note"] not in str(row)


USERS, ONE, PASSWORD = "/admin/users", "/admin/users/<user_id>", "tall ships pass the quiet harbour"
NEW = {"password": f"{PASSWORD} again"}
PEOPLE: dict[str, tuple[dict[str, Any] | None, Action]] = {
    "POST /admin/api-keys": ({"name": "n", "scopes": ["fax:read"]}, Action.KEY_CREATED),
    "POST /admin/api-keys/<key_id>/rotate": ({}, Action.KEY_ROTATED),
    "POST /admin/api-keys/<key_id>/expire": ({"expires_at": None}, Action.KEY_EXPIRY_CHANGED),
    "DELETE /admin/api-keys/<key_id>": (None, Action.KEY_REVOKED),
    f"POST {USERS}": ({"name": "sam", "role": "viewer", **NEW}, Action.USER_CREATED),
    f"POST {ONE}/role": ({"role": "operator"}, Action.USER_ROLE_CHANGED),
    f"POST {ONE}/password": (NEW, Action.USER_PASSWORD_CHANGED),
    f"POST {ONE}/disable": (None, Action.USER_DISABLED),
    f"POST {ONE}/enable": (None, Action.USER_ENABLED),
    f"POST {ONE}/unlock": (None, Action.USER_UNLOCKED),
    "POST /admin/session": ({"name": "jo", "password": PASSWORD}, Action.SESSION_OPENED),
    "DELETE /admin/session": (None, Action.SESSION_CLOSED),
    "POST /admin/session/password": (
        {"old_password": PASSWORD, **NEW},
        Action.USER_PASSWORD_CHANGED,
    ),
}
"""Keys, users and sessions: the body, and what stands in the trail then."""


@pytest.mark.parametrize("route", sorted(PEOPLE))
def test_what_is_done_to_keys_users_and_sessions_is_written_down(
    runtime: Runtime, route: str
) -> None:
    body, action = PEOPLE[route]
    method, path = route.split()
    user = new_user(runtime, "viewer", name="jo", password=PASSWORD)
    if path.endswith("/enable"):
        with runtime.database.transaction() as session:
            users.disable(session, CLI, user.id, now=runtime.now())
    key_id = new_key(runtime).split("_")[2]
    client, actor = admin_of(runtime)
    if path.startswith("/admin/session"):
        client, actor = browser_of(runtime, user), user.id
    ids = {"<key_id>": key_id, "<user_id>": user.id}
    for name, one in ids.items():
        path = path.replace(name, one)
    earlier = len(rows(runtime, *Action))
    answer = client.open(path, method=method, json=body)
    assert answer.status_code in (200, 201), answer.data
    (row,) = (each for each in rows(runtime, *Action)[earlier:] if each.action == action)

    assert (row.actor, row.outcome) == (actor, "done")
    assert row.object_kind == action.partition(".")[0]
    if "<" in route:
        assert row.object_id in ids.values()
    assert (row.request_id, row.address) == (answer.headers["X-Request-Id"], "127.0.0.1")
    assert PASSWORD not in str(row)


HOOK, DELIVERIES = "/webhooks/<webhook_id>", "/webhooks/deliveries/<delivery_id>"
WISH = {"name": "records", "url": "https://hooks.example.org:8080/s3cret"}
WEBHOOKS: dict[str, tuple[dict[str, Any] | None, Action, dict[str, Any]]] = {
    "POST /webhooks": (WISH, Action.WEBHOOK_CREATED, {"types": []}),
    f"PATCH {HOOK}": ({"name": "n"}, Action.WEBHOOK_CHANGED, {"changed": ["name"]}),
    f"DELETE {HOOK}": (None, Action.WEBHOOK_DELETED, {}),
    f"POST {HOOK}/test": (
        None,
        Action.WEBHOOK_TESTED,
        {"outcome": "ok", "code": 200, "activated": False},
    ),
    f"POST {HOOK}/rotate": ({}, Action.WEBHOOK_ROTATED, {"overlap_hours": 24.0}),
    f"POST {HOOK}/replay": ({}, Action.WEBHOOK_REPLAYED, {"count": 1}),
    f"POST {DELIVERIES}/replay": (None, Action.WEBHOOK_REPLAYED, {"count": 1}),
}
"""The body, what stands in the trail then, and its details."""


@pytest.mark.parametrize("route", sorted(WEBHOOKS))
def test_what_is_done_to_webhooks_is_written_down(
    store: Installation, carrier_of_all: SimulatorProcess, route: str
) -> None:
    body, action, details = WEBHOOKS[route]
    method, path = route.split()
    with Receiver() as receiver, open_site(store, carrier_of_all, **HERE) as site:
        webhook_id, _ = subscribe(site.runtime, receiver.url)
        site.submit(number())
        deliver(site.runtime)
        (delivery,) = deliveries_of(site.runtime)
        ids = {"<webhook_id>": webhook_id, "<delivery_id>": delivery.id}
        for name, one in ids.items():
            path = path.replace(name, one)
        client, key_id = admin_of(site.runtime)
        earlier = len(rows(site.runtime))
        answer = client.open(path, method=method, json=body)
        assert answer.status_code in (200, 201), answer.data
        (row,) = rows(site.runtime)[earlier:]
        made = json.loads(answer.data).get("id")

    assert (row.action, row.actor, row.outcome) == (action, key_id, "done")
    assert (row.object_kind, row.object_id) == ("webhook", webhook_id if "<" in route else made)
    expected = details | ({"delivery": delivery.id} if DELIVERIES in route else {})
    assert row.details == expected
    assert (row.request_id, row.address) == (answer.headers["X-Request-Id"], "127.0.0.1")
    assert "s3cret" not in str(row)


NO_CONFIG, PHAXIO_OBJECT = (None, None), ("plugin", "phaxio")
REFUSED: list[tuple[str, dict[str, Any], Action, tuple[str | None, str | None], str]] = [
    (
        "PATCH /admin/config",
        {"settings": {"FAX_DISABLED": "perhaps"}},
        Action.CONFIG_CHANGED, NO_CONFIG, "invalid-fields",
    ),
    (
        "PATCH /admin/config",
        {"settings": HEADER["settings"], "version": 7},
        Action.CONFIG_CHANGED, NO_CONFIG, "changed-meanwhile",
    ),
    (
        "POST /admin/config/import",
        {"document": {**DOCUMENT, "options": {"patientName": "St. Mary"}}},
        Action.CONFIG_RESTORED, NO_CONFIG, "invalid-fields",
    ),
    (
        "PUT /plugins/phaxio/config",
        {"settings": {"apiKey": "another"}},
        Action.PLUGIN_CONFIGURED, PHAXIO_OBJECT, "change-refused",
    ),
    (
        "POST /admin/providers/phaxio/activate",
        {"slot": "outbound"},
        Action.PLUGIN_ACTIVATED, PHAXIO_OBJECT, "change-refused",
    ),
    (
        "POST /admin/providers/simulator/deactivate",
        {"slot": "outbound"},
        Action.PLUGIN_DEACTIVATED, ("plugin", "simulator"), "change-refused",
    ),
]  # fmt: skip


def test_a_change_of_settings_that_is_refused_is_written_down_with_who_and_why(site: Site) -> None:
    plain(site)
    client, key_id = admin_of(site.runtime)
    for route, body, action, of, why in REFUSED:
        method, path = route.split()
        answer = client.open(path, method=method, json={**NOTE, **body})
        assert answer.status_code in (409, 422), answer.data
        row = rows(site.runtime)[-1]
        assert (row.action, row.outcome, row.details) == (action, "refused", {"why": why})
        assert ((row.object_kind, row.object_id), row.actor) == (of, key_id)
        assert row.request_id == answer.headers["X-Request-Id"]
    written = len(rows(site.runtime))
    client.put(f"/plugins/{NUMBER}/config", json=SETTINGS)
    client.post("/admin/config/import", json={**NOTE, "document": {}, "dry_run": True})

    assert len(rows(site.runtime)) == written, "what is not there, and a rehearsal"


def test_a_test_that_fails_says_so(site: Site) -> None:
    plain(site)
    client, _ = admin_of(site.runtime)
    client.post("/admin/providers/phaxio/test")

    (row,) = rows(site.runtime, Action.PROVIDER_TESTED)
    assert (row.object_id, row.outcome) == ("phaxio", "failed")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fax/{}/cancel", None),
        ("/admin/providers/simulator/pause", NOTE),
    ],
)
def test_a_deed_that_cannot_be_written_down_is_not_done(
    site: Site, path: str, body: dict[str, str] | None
) -> None:
    fax_id = queued(site)
    client, _ = admin_of(site.runtime)
    client.get(f"/fax/{fax_id}")
    rows(site.runtime)
    trail.attach(site.runtime.database, crypto.Keyring({"other": b"o" * 32}, "other"))
    answer = client.post(path.format(fax_id), json=body)

    assert answer.status_code == 500
    assert site.job(fax_id).status == "queued"
    assert site.rest() is None


def test_a_deed_that_is_refused_by_its_object_leaves_no_row(site: Site) -> None:
    client, _ = admin_of(site.runtime)
    assert client.post(f"/fax/{queued(site)}/release").status_code == 409
    assert rows(site.runtime) == []


# Reads that reveal something ----------------------------------------------------------------------


def test_a_number_that_is_shown_and_a_search_for_one_are_written_down(site: Site) -> None:
    fax_id = queued(site)
    client, key_id = admin_of(site.runtime)
    client.get("/fax")
    client.get(f"/fax/{'0' * 32}")
    assert rows(site.runtime) == [], "a list masks numbers"

    client.get(f"/fax/{fax_id}")
    client.get(f"/fax/{fax_id}/events")
    client.post("/fax/search", json={"to": NUMBER})
    found = [(row.action, row.object_id, row.actor) for row in rows(site.runtime)]
    assert found == [
        ("fax.shown", fax_id, key_id),
        ("fax.timeline_shown", fax_id, key_id),
        ("fax.searched", None, key_id),
    ]


def test_who_sees_no_whole_number_is_told_apart(site: Site) -> None:
    viewer = new_user(site.runtime, "viewer")
    fax_id = queued(site)
    browser_of(site.runtime, viewer).get(f"/fax/{fax_id}")
    browser_of(site.runtime, viewer).get(f"/fax/{fax_id}/events")
    found = rows(site.runtime, Action.FAX_SHOWN, Action.FAX_TIMELINE_SHOWN)

    assert len(found) == 2
    for row in found:
        assert (row.actor_kind, row.actor) == ("user", viewer.id)
        assert row.details == {"masked": True}


def test_a_document_that_a_carrier_opens_by_its_link_is_written_down(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAX_BACKENDS="second,simulator") as site:
        may = {"second": ("send_fax", "status_lookup", "fetches_document")}
        site.runtime = replace(site.runtime, plugins=odd.plugins(site.runtime, others=may))
        client, (fax_id, link) = client_of(site.runtime), link_of(site)
        with site.runtime.database.transaction() as session:
            session.execute(sa.update(Job).values(account_id="clinic"))
        assert client.get(link, buffered=True).status_code == 200
        client.get(f"{link}0", buffered=True)
        opened, refused = rows(site.runtime)

    assert (opened.action, opened.object_id) == ("document.opened", fax_id)
    assert opened.account_id == "clinic", "whose fax it is"
    assert (opened.actor_kind, opened.address) == ("link", "127.0.0.1")
    assert (refused.action, refused.actor_kind) == ("authentication.failed", "stranger")
    assert (refused.outcome, refused.details) == ("refused", {"by": "link", "why": "not_proven"})
    assert link.rpartition("=")[2] not in str((opened, refused))


# Refusals -----------------------------------------------------------------------------------------


def test_who_lacks_a_scope_is_written_down_with_what_he_wanted(site: Site) -> None:
    token = new_key(site.runtime, "fax:read")
    client = client_of(site.runtime, token)
    for _ in range(3):
        client.post("/admin/providers/simulator/pause", json=NOTE)
    client.get("/plugins")
    first, other = rows(site.runtime, Action.ACCESS_REFUSED)

    assert (first.actor, first.outcome) == (token.split("_")[2], "refused")
    assert first.details == {"route": f"POST {PROVIDERS}/pause"}
    assert other.details == {"route": "GET /plugins"}


def a_key(runtime: Runtime, **changes: Any) -> str:
    token = new_key(runtime)
    with runtime.database.transaction() as session:
        keys = sa.table("api_keys", sa.column("id"), *map(sa.column, changes))
        mine = keys.c.id == token.split("_")[2]
        session.execute(sa.update(keys).where(mine).values(changes))
    return token


def test_who_is_not_let_in_is_written_down_by_kind_and_address_once(site: Site) -> None:
    runtime = site.runtime
    past = runtime.now() - timedelta(hours=1)
    known = {
        "revoked": a_key(runtime, revoked_at=past),
        "expired": a_key(runtime, expires_at=past),
        "wrong_secret": f"{new_key(runtime)[:-5]}AAAAA",
    }
    tries = [("no_key", ""), ("no_such_key", "s3cret"), *known.items()]
    client = client_of(runtime)
    for _ in range(3):
        for _, token in tries:
            client.get("/fax", headers={"X-API-Key": token})
        client.get("/fax", headers={"X-API-Key": "fbk_live_" + "0" * 12 + "_" + "x" * 43})
        client.post("/callbacks/simulator", data=b"{}")
    found = rows(runtime, Action.AUTHENTICATION_FAILED)

    said = {(row.details["by"], row.details["why"]): row.object_id for row in found}
    ids = {("key", why): token.split("_")[2] for why, token in known.items()}
    nobody = dict.fromkeys([("key", "no_key"), ("key", "no_such_key"), ("signature", "not_proven")])
    assert said == {**ids, **nobody}
    assert len(found) == len(said), "repeats are counted, and written a minute later"
    assert {(row.actor_kind, row.outcome, row.address) for row in found} == {
        ("stranger", "refused", "127.0.0.1")
    }
    assert "s3cret" not in str(found)


def test_who_fails_to_sign_in_and_whose_session_is_over_stand_in_it_once(runtime: Runtime) -> None:
    user = new_user(runtime, "viewer", name="jo", password=PASSWORD)
    client = browser_of(runtime, user)
    wish = {"name": "jo", "password": f"{PASSWORD}?"}
    assert client_of(runtime).post("/admin/session", json=wish).status_code == 401
    assert client.delete("/admin/session").status_code == 200
    assert browser_of(runtime, user).get("/fax").status_code == 200
    client.set_cookie("faxbot_session", "0" * 43)
    assert client.get("/fax").status_code == 401

    (refused,) = rows(runtime, Action.SESSION_REFUSED)
    (failed,) = rows(runtime, Action.AUTHENTICATION_FAILED)
    assert (refused.object_id, refused.outcome) == (user.id, "refused")
    assert failed.details == {"by": "session", "why": "not_proven"}


def test_who_tries_a_password_or_a_page_of_another_site_in_a_session_of_his_is_named(
    runtime: Runtime,
) -> None:
    user = new_user(runtime, "admin", name="jo", password=PASSWORD)
    wish = {"old_password": f"{PASSWORD}?", **NEW}
    assert browser_of(runtime, user).post("/admin/session/password", json=wish).status_code == 401
    unproven = browser_of(runtime, user, csrf=False)
    assert unproven.patch("/admin/config", json=HEADER).status_code == 403

    (tried,) = rows(runtime, Action.USER_PASSWORD_CHANGED)
    (asked,) = rows(runtime, Action.ACCESS_REFUSED)
    assert rows(runtime, Action.AUTHENTICATION_FAILED) == []
    assert (tried.actor, tried.object_id, tried.outcome) == (user.id, user.id, "refused")
    assert (asked.actor, asked.details) == (user.id, {"route": "PATCH /admin/config"})


def test_passwords_that_come_from_a_barred_address_are_written_down(runtime: Runtime) -> None:
    for _ in range(runtime.config.login_failures):
        limits.login_failed(runtime, "127.0.0.1")
    wish = {"name": "jo", "password": PASSWORD}
    assert client_of(runtime).post("/admin/session", json=wish).status_code == 429

    (row,) = rows(runtime, Action.AUTHENTICATION_FAILED)
    assert (row.address, row.outcome) == ("127.0.0.1", "refused")
    assert row.details == {"by": "sign-in", "why": "failed-logins"}


def test_an_address_that_is_barred_is_written_down_as_such(site: Site) -> None:
    client = client_of(site.runtime)
    for _ in range(site.runtime.config.login_failures + 2):
        client.get("/fax", headers={"X-API-Key": "wrong"})
    found = rows(site.runtime, Action.AUTHENTICATION_FAILED)

    assert [row.details["why"] for row in found] == ["no_such_key", "failed-logins"]


# Every command ------------------------------------------------------------------------------------

_SERVER = "asks the server, which writes it down"
_READS = "changes nothing and reveals nothing that is sealed"
_MASKS = "changes nothing, and masks secrets"
_ROLE = "runs a part of faxbot, which acts by the clock or for others"
SILENT = {
    "up": _ROLE,
    "demo": _ROLE,
    "web": _ROLE,
    "worker": _ROLE,
    "beat": _ROLE,
    "listen": _ROLE,
    "flower": _ROLE,
    "carrier simulator": "a stand-in carrier with a ledger of its own",
    "carrier phaxio": "a stand-in carrier with a ledger of its own",
    "carrier sinch": "a stand-in carrier with a ledger of its own",
    "send": _SERVER,
    "status": _SERVER,
    "list": _SERVER,
    "cancel": _SERVER,
    "resend": _SERVER,
    "hold": _SERVER,
    "release": _SERVER,
    "send-now": _SERVER,
    "decide": _SERVER,
    "events": _READS,
    "keys list": _READS,
    "providers list": _READS,
    "providers show": _READS,
    "plugins list": _READS,
    "plugins show": _MASKS,
    "plugins validate": _READS,
    "plugins new": "writes a package for its author, outside the installation",
    "plugins test": "runs tests, or asks a carrier as the environment is set, without the database",
    "db check": _READS,
    "db upgrade": "the database itself says its revision; the trail may only begin with it",
    "doctor": _READS,
    "users list": "changes nothing, and shows no password",
    "config list": _MASKS,
    "config get": _MASKS,
    "config backups": _READS,
    "webhooks list": "changes nothing, and shows of an address its host alone",
    "webhooks deliveries": _READS,
    "retention list": _READS,
    "retention holds": _READS,
    "restored status": _READS,
    "notifications list": "changes nothing, and shows nobody's address",
}
"""Commands that leave no row, and why."""
KEY = ("--name", "n", "--scope", "fax:read")
WHY = ("--note", NOTE["note"])
COMMANDS: dict[str, tuple[tuple[str, ...], Action, str | None]] = {
    "keys create": (KEY, Action.KEY_CREATED, ""),
    "keys revoke": ((), Action.KEY_REVOKED, ""),
    "providers pause": (("simulator", *WHY), Action.PROVIDER_PAUSED, "simulator"),
    "providers resume": (("simulator", *WHY), Action.PROVIDER_RESUMED, "simulator"),
    "providers reset": (("simulator", *WHY), Action.PROVIDER_RESET, "simulator"),
    "providers enable": (("simulator", *WHY), Action.PLUGIN_ENABLED, "simulator"),
    "providers test": (("simulator",), Action.PROVIDER_TESTED, "simulator"),
    "providers activate": (
        ("phaxio", *WHY, "--untested"),
        Action.PLUGIN_ACTIVATED,
        "phaxio",
    ),
    "providers deactivate": (("simulator", *WHY), Action.PLUGIN_DEACTIVATED, "simulator"),
    "audit verify": ((), Action.AUDIT_VERIFIED, None),
    "audit export": ((), Action.AUDIT_EXPORTED, None),
    "prepare": ((), Action.KEY_CREATED, ""),
    "config set": (("FAX_HEADER", "St. Mary", *WHY), Action.CONFIG_CHANGED, "1"),
    "config backup": (("before the move",), Action.CONFIG_BACKED_UP, "1"),
    "config rollback": (("0", *WHY), Action.CONFIG_RESTORED, "2"),
    "config export": ((), Action.CONFIG_EXPORTED, "1"),
    "config import": (("settings.json", *WHY), Action.CONFIG_RESTORED, "1"),
    "config migrate-env": (
        ("--env", "old.env", "--apply", "--untested"),
        Action.CONFIG_CHANGED,
        "1",
    ),
    "setup": (("--answers", "answers.json"), Action.CONFIG_CHANGED, "1"),
    "config rotate-key": ((), Action.MASTER_KEY_CHANGED, "master key"),
    "keys rotate": ((), Action.KEY_ROTATED, ""),
    "users create": (("sam", "--role", "viewer"), Action.USER_CREATED, ""),
    "users role": (("jo", "viewer"), Action.USER_ROLE_CHANGED, ""),
    "users password": (("jo",), Action.USER_PASSWORD_CHANGED, ""),
    "users disable": (("jo",), Action.USER_DISABLED, ""),
    "users enable": (("jo",), Action.USER_ENABLED, ""),
    "users unlock": (("jo",), Action.USER_UNLOCKED, ""),
    "webhooks create": (("--name", "records"), Action.WEBHOOK_CREATED, ""),
    "webhooks test": ((), Action.WEBHOOK_TESTED, ""),
    "webhooks rotate": ((), Action.WEBHOOK_ROTATED, ""),
    "webhooks delete": ((), Action.WEBHOOK_DELETED, ""),
    "webhooks replay": ((), Action.WEBHOOK_REPLAYED, ""),
    "notifications test": ((), Action.NOTIFICATION_TESTED, "email"),
    "restored declare": ((), Action.LEDGER_RESTORED, None),
    "restored deny": (("--yes",), Action.LEDGER_COMPLETE, None),
    "users bind": (("jo", "https://id.example.org", "4711"), Action.USER_BOUND, ""),
}
"""Of each: its words, and what stands in the trail then, with the id of the object ("": what it made)."""
COMMANDS_ELSEWHERE = ("retention run", "retention hold", "retention lift")
"""In test_web_retention: they need a fax."""
ANSWERS = {
    "provider": "simulator",
    "settings": {"baseUrl": "http://127.0.0.1:9", "secret": "another"},
    "untested": True,
}


def words_of(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for inner, each in command.commands.items():
            yield from words_of(each, f"{name} {inner}")
    else:
        yield name


def test_every_command_leaves_its_row_or_says_why_not() -> None:
    context, found = click.Context(cli.cli), set[str]()
    for name in cli.COMMANDS:
        command = cli.cli.get_command(context, name)
        assert command is not None
        found |= set(words_of(command, name))

    assert {*COMMANDS, *SILENT, *COMMANDS_ELSEWHERE} == found
    assert not set(COMMANDS) & set(SILENT)


def prepared(store: Installation, name: str) -> str | None:
    """What there must be before a command; the id of what it is done to, where that is new."""
    earlier = {
        "providers deactivate": ("providers", "activate", "phaxio", *WHY, "--untested", "--last"),
        **dict.fromkeys(
            ("config backup", "config rollback", "config export"),
            ("config", "set", "FAX_HEADER", "St. Mary", *WHY),
        ),
    }
    (store.folder / "old.env").write_text("PDF_TOKEN_TTL_MINUTES=45\n")
    for file, content in (("answers.json", ANSWERS), ("settings.json", DOCUMENT)):
        (store.folder / file).write_text(json.dumps(content))
    if name in earlier:
        assert run(store, *earlier[name]).code == 0
    if name in ("keys revoke", "keys rotate"):
        return str(run(store, "keys", "create", *KEY, "--json").json["id"])
    if name.startswith("webhooks ") and name != "webhooks create":
        with opened(store) as runtime:  # nobody listens there
            return subscribe(runtime, "http://nobody.invalid:8080/")[0]
    if name.startswith("users ") and name != "users create":
        with opened(store) as runtime:
            user_id = new_user(runtime, "admin", name="jo", password=PASSWORD).id
        if name == "users enable":
            assert run(store, "users", "disable", "jo").code == 0
        return user_id
    return None


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_what_a_command_does_is_written_down(
    store: Installation, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "NOTICE", timedelta(seconds=0.1))  # nobody else is there
    words, action, object_id = COMMANDS[name]
    if (new := prepared(store, name)) is not None:
        object_id, words = new, words or (new,)
    with opened(store) as runtime:
        earlier = len(rows(runtime, *Action))
    typed = f"{NEW['password']}\n" if name in ("users create", "users password") else ""
    typed = f"{WISH['url']}\n" if name == "webhooks create" else typed
    does = partial(told, store, typed) if typed else partial(run, store)
    ended: Ended = does(*name.split(), *words)
    with opened(store) as runtime:
        (row,) = (each for each in rows(runtime, *Action)[earlier:] if each.action == action)
        group = name.split()[0]
        made = group if group in ("users", "webhooks") else "api_keys"
        ids = [each.id for each in runtime.database.rows(sa.text(f"SELECT id FROM {made}"), {})]

    failed = name in (
        "providers test",
        "webhooks test",
        "notifications test",
    )  # nobody listens there
    assert (ended.code, row.outcome) == ((1, "failed") if failed else (0, "done")), ended.err
    assert (row.actor_kind, row.actor) == ("command", "cli")
    assert row.object_id == (object_id or (ids[-1] if object_id == "" else None))
    assert NOTE["note"] not in str(row)


def test_what_the_domain_is_told_directly_is_written_down_too(site: Site) -> None:
    """As the console will."""
    job_id = queued(site)
    jobs.cancel(site.runtime, ACTOR, job_id)
    sent = site.fax()
    sending.attempt(site.runtime, sent)
    jobs.cancel(site.runtime, ACTOR, sent)

    found = rows(site.runtime, Action.FAX_CANCELLED)
    assert [(row.object_id, row.details) for row in found] == [
        (job_id, {"status": "queued"}),
        (sent, {"status": "sent"}),
    ]
