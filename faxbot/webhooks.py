"""Subscriptions: made, tried, changed, rotated and deleted; and what each request to one of them carries.

An address and the secrets are sealed: both may let their holder in at the receiver's. What is sent is signed as
Standard Webhooks 1.0.0 has it (https://www.standardwebhooks.com), with every secret that is live. Nothing is sent to an
address that has not taken a test event.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import __version__, audit, fanout
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.config import Config
from faxbot.crypto import Keyring, Unsealable
from faxbot.db import new_id
from faxbot.destinations import NotAllowed, shown
from faxbot.dialling import OUTCOMES, Answer, Dialler
from faxbot.errors import InvalidFields, NotFound, WebhookTestsCrowded
from faxbot.events import Event
from faxbot.fanout import ACTIVE
from faxbot.models import Webhook
from faxbot.runtime import Runtime

PENDING, DISABLED, DELETED = "pending", "disabled", "deleted"
STATES = (PENDING, ACTIVE, DISABLED)
"""What is shown: it has not taken a test event yet; events are sent; it was given up."""
REASONS: dict[str, str] = {
    "gone": "it answered 410: it wants nothing more",
    "failing": "nothing but failures for five days",
}
"""Why one is disabled."""
TYPES = tuple(str(event) for event in Event)
ALL = "*"
TEST = "webhook.test"
"""The type of a test event."""
MOST = 100
"""Of one account."""
OVERLAP_HOURS, MOST_OVERLAP_HOURS = 24, 24 * 30
NAME_LENGTH = 255
_one_at_a_time = threading.Lock()
"""A test waits for somebody else's computer, in a thread of a web process: no more than one of them."""
_SECRET = "whsec_"  # noqa: S105 - what a secret begins with


# What a request carries -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Secret:
    """What requests are signed with."""

    text: str = field(repr=False)
    until: datetime | None = None
    """None: until it is rotated."""


def new_secret() -> str:
    """Standard Webhooks asks for 24 to 64 bytes."""
    return _SECRET + base64.b64encode(secrets.token_bytes(32)).decode()


def headers(
    signers: Iterable[Secret], message_id: str, at: datetime, body: bytes
) -> dict[str, str]:
    """Of a request that sends this body at this time, signed with each of these secrets that is good then: they may
    have been read long before."""
    stamp = str(int(at.timestamp()))
    keys = [each.text for each in signers if each.until is None or each.until > at]
    signed = b".".join((message_id.encode(), stamp.encode(), body))
    return {
        "Content-Type": "application/json",
        "User-Agent": f"faxbot/{__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(_signature(key, signed) for key in keys),
    }


def _signature(key: str, signed: bytes) -> str:
    raw = base64.b64decode(key.removeprefix(_SECRET))
    return "v1," + base64.b64encode(hmac.digest(raw, signed, "sha256")).decode()


def live_secrets(
    keyring: Keyring, webhook: Webhook | sa.Row[Any], now: datetime
) -> tuple[Secret, ...]:
    """The newest, and the one before while that is good; raises Unsealable."""
    place = secret_place(webhook.account_id)
    sealed: list[tuple[bytes | None, datetime | None]] = [(webhook.secret_sealed, None)]
    if webhook.old_secret_until is not None and webhook.old_secret_until > now:
        sealed.append((webhook.old_secret_sealed, webhook.old_secret_until))
    return tuple(
        Secret(keyring.open(each, place).decode(), until)
        for each, until in sealed
        if each is not None
    )


def address(keyring: Keyring, webhook: Webhook | sa.Row[Any]) -> str:
    """Where it leads; raises Unsealable."""
    return keyring.open(webhook.url_sealed or b"", url_place(webhook.account_id)).decode()


def url_place(account_id: str) -> str:
    """Where addresses are sealed (Keyring.seal)."""
    return f"webhooks.url:{account_id}"


def secret_place(account_id: str) -> str:
    """Where secrets are sealed."""
    return f"webhooks.secret:{account_id}"


# Making and changing ----------------------------------------------------------------------------------


def create(
    session: Session,
    runtime: Runtime,
    actor: Actor,
    *,
    name: str,
    url: str,
    types: Sequence[str],
    now: datetime,
) -> tuple[Webhook, str]:
    """A subscription that waits for its test event, and its secret, to be shown once; raises InvalidFields."""
    _check(runtime.config, name=name, url=url)
    if len(everybody(session, actor.account_id)) >= MOST:
        raise InvalidFields(errors={"name": [f"An account has at most {MOST} webhooks."]})
    keyring, secret = runtime.keyring.still(), new_secret()
    webhook = Webhook(
        id=new_id(now),
        account_id=actor.account_id,
        created_by=actor.id,
        name=name,
        url_sealed=keyring.seal(url.encode(), url_place(actor.account_id)),
        secret_sealed=keyring.seal(secret.encode(), secret_place(actor.account_id)),
        types=wanted(types),
        state=PENDING,
        created_at=now,
        updated_at=now,
    )
    session.add(webhook)
    session.flush()
    details = {"types": webhook.types}
    _record(session, actor, Action.WEBHOOK_CREATED, webhook.id, now, details)
    return webhook, secret


def change(
    runtime: Runtime,
    actor: Actor,
    webhook_id: str,
    *,
    name: str | None = None,
    url: str | None = None,
    types: Sequence[str] | None = None,
) -> Webhook:
    """Change what is given. Where events are sent already, a new address must take a test event first. Raises NotFound,
    InvalidFields, WebhookTestsCrowded."""
    _check(runtime.config, name=name, url=url)
    kinds = None if types is None else wanted(types)
    is_tested = False
    if url is not None:
        with runtime.database.reading() as session:
            known = find(session, actor, webhook_id)
        if known.state == ACTIVE:
            answer = _try(runtime, known, url)
            if not answer.ok:
                of, why = ("webhook", webhook_id), {"why": answer.outcome}
                refused = Action.WEBHOOK_CHANGED
                audit.note(runtime, actor, refused, of, outcome=audit.REFUSED, details=why)
                said = f"It has not taken a test event: {OUTCOMES[answer.outcome]}."
                raise InvalidFields(errors={"url": [said]})
            is_tested = True
    now = runtime.now()
    with runtime.database.transaction() as session:
        webhook = find(session, actor, webhook_id, lock=True)
        changed = {"name": name, "url": url, "types": kinds}
        if name is not None:
            webhook.name = name
        if kinds is not None:
            webhook.types = kinds
        if url is not None:
            sealed = runtime.keyring.seal(url.encode(), url_place(webhook.account_id))
            webhook.url_sealed = sealed
            # It may have become active meanwhile.
            if webhook.state == DISABLED or (webhook.state == ACTIVE and not is_tested):
                webhook.state, webhook.reason = PENDING, None
            # What the address before did is none of this one's.
            webhook.failures = webhook.rests = 0
            webhook.failing_at = webhook.rests_until = None
        webhook.updated_at = now
        details = {"changed": [each for each, value in changed.items() if value is not None]}
        _record(session, actor, Action.WEBHOOK_CHANGED, webhook_id, now, details)
    fanout.of(runtime.database).forget()
    return webhook


def rotate(
    session: Session,
    keyring: Keyring,
    actor: Actor,
    webhook_id: str,
    *,
    overlap: timedelta,
    now: datetime,
) -> tuple[Webhook, str]:
    """A new secret, to be shown once. The one before signs as well for `overlap` (0: no more). Raises NotFound."""
    webhook = find(session, actor, webhook_id, lock=True)
    keyring, secret = keyring.still(), new_secret()
    webhook.old_secret_sealed = webhook.secret_sealed if overlap else None
    webhook.old_secret_until = now + overlap if overlap else None
    webhook.secret_sealed = keyring.seal(secret.encode(), secret_place(webhook.account_id))
    webhook.updated_at = now
    session.flush()
    details = {"overlap_hours": overlap / timedelta(hours=1)}
    _record(session, actor, Action.WEBHOOK_ROTATED, webhook_id, now, details)
    return webhook, secret


def delete(runtime: Runtime, actor: Actor, webhook_id: str) -> None:
    """End a subscription; its deliveries go with it. Raises NotFound."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        webhook = find(session, actor, webhook_id, lock=True)
        webhook.state, webhook.updated_at = DELETED, now
        webhook.url_sealed = webhook.secret_sealed = webhook.old_secret_sealed = None
        webhook.old_secret_until = None
        _record(session, actor, Action.WEBHOOK_DELETED, webhook_id, now, None)
    fanout.of(runtime.database).forget()


def send_test(runtime: Runtime, actor: Actor, webhook_id: str) -> tuple[Webhook, Answer, bool]:
    """Send a test event now; where it is taken, events are sent from now on: how it ended, and whether that is so since
    now. Raises NotFound, WebhookTestsCrowded."""
    with runtime.database.reading() as session:
        known = find(session, actor, webhook_id)
    answer = _try(runtime, known, address(runtime.keyring, known))
    now = runtime.now()
    with runtime.database.transaction() as session:
        webhook = find(session, actor, webhook_id, lock=True)
        # What was tried is not what stands there now, where somebody has changed it meanwhile.
        activates = answer.ok and webhook.state != ACTIVE and webhook.updated_at == known.updated_at
        if activates:
            activate(webhook, now)
        details = {"outcome": answer.outcome, "code": answer.code, "activated": activates}
        outcome = audit.DONE if answer.ok else audit.FAILED
        _record(session, actor, Action.WEBHOOK_TESTED, webhook_id, now, details, outcome)
    fanout.of(runtime.database).forget()
    return webhook, answer, activates


def activate(webhook: Webhook, now: datetime) -> None:
    """Let events be sent there; what it failed at before does not count any more."""
    webhook.state, webhook.reason = ACTIVE, None
    webhook.activated_at = webhook.updated_at = now
    webhook.disabled_at = webhook.failing_at = webhook.rests_until = None
    webhook.failures = webhook.rests = 0


def _try(runtime: Runtime, webhook: Webhook, url: str) -> Answer:
    """Send a test event to this address, with nothing open meanwhile."""
    now = runtime.now()
    at = now.isoformat().replace("+00:00", "Z")
    event = {"type": TEST, "timestamp": at, "data": {"webhook_id": webhook.id}}
    body = json.dumps(event, separators=(",", ":")).encode()
    keys = live_secrets(runtime.keyring, webhook, now)
    config = runtime.config
    if not _one_at_a_time.acquire(blocking=False):
        raise WebhookTestsCrowded(retry_after=config.webhook_seconds)
    try:
        with closing(Dialler(config.webhook_ca_file)) as dialler:
            signed = headers(keys, f"msg_{new_id(now)}", now, body)
            rules, seconds = config.destinations, config.webhook_seconds
            return dialler.post(rules, url, signed, body, seconds=seconds)
    finally:
        _one_at_a_time.release()


def _check(config: Config, *, name: str | None, url: str | None) -> None:
    faults = {}
    if name is not None and not (1 <= len(name) <= NAME_LENGTH and name.isprintable()):
        faults["name"] = [f"A name has 1 to {NAME_LENGTH} printable characters."]
    if url is not None:
        try:
            config.destinations.read(url)
        except NotAllowed as error:
            faults["url"] = [error.detail]
    if faults:
        raise InvalidFields(errors=faults)


def wanted(types: Sequence[str]) -> list[str]:
    """The types of events in order, empty for all of them; raises InvalidFields."""
    if unknown := set(types) - {*TYPES, ALL}:
        known = f"{ALL} for all, or some of {', '.join(TYPES)}"
        count = (
            f"{len(unknown)} of these is" if len(unknown) == 1 else f"{len(unknown)} of these are"
        )
        raise InvalidFields(errors={"types": [f"{count.capitalize()} no type: known are {known}."]})
    return [] if ALL in types else [each for each in TYPES if each in types]


def _record(
    session: Session,
    actor: Actor,
    action: Action,
    webhook_id: str,
    now: datetime,
    details: Mapping[str, Any] | None,
    outcome: str = audit.DONE,
) -> None:
    of = ("webhook", webhook_id)
    audit.record(session, actor, action, of, now=now, details=details, outcome=outcome)


# Reading ----------------------------------------------------------------------------------------------


_ID = re.compile(r"[0-9a-f]{32}")


def find(session: Session, actor: Actor, webhook_id: str, *, lock: bool = False) -> Webhook:
    """The actor's subscription; raises NotFound, the same for a foreign id and an unknown one."""
    query = sa.select(Webhook).where(Webhook.id == webhook_id)
    query = query.with_for_update(key_share=True) if lock else query
    webhook = session.scalar(query) if _ID.fullmatch(webhook_id) else None
    if webhook is None or webhook.account_id != actor.account_id or webhook.state == DELETED:
        raise NotFound("there is no webhook with this id")
    return webhook


def everybody(session: Session, account_id: str) -> Sequence[Webhook]:
    """All subscriptions of the account, newest first."""
    return session.scalars(
        sa.select(Webhook)
        .where(Webhook.account_id == account_id, Webhook.state != DELETED)
        .order_by(Webhook.id.desc())
    ).all()


def unopened(runtime: Runtime) -> int:
    """How many active subscriptions, of all accounts, have parts that do not open here: nothing can be sent there."""
    now, count = runtime.now(), 0
    for row in runtime.database.rows(_SEALED, {}):
        try:
            address(runtime.keyring, row)
            live_secrets(runtime.keyring, row, now)
        except Unsealable:
            count += 1
    return count


_SEALED = sa.select(
    Webhook.account_id,
    Webhook.url_sealed,
    Webhook.secret_sealed,
    Webhook.old_secret_sealed,
    Webhook.old_secret_until,
).where(Webhook.state == ACTIVE)


def describe(runtime: Runtime, webhook: Webhook) -> dict[str, Any]:
    """A subscription as it is shown, in plain JSON types; of its address only what is no secret."""
    now = runtime.now()
    rests = webhook.rests_until is not None and webhook.rests_until > now
    overlaps = webhook.old_secret_until is not None and webhook.old_secret_until > now
    return {
        "id": webhook.id,
        "name": webhook.name,
        "url": _shown(runtime, webhook),
        "types": webhook.types or [ALL],
        "state": webhook.state,
        "reason": webhook.reason,
        "failures": webhook.failures,
        "failing_since": stamp(webhook.failing_at),
        "rests_until": stamp(webhook.rests_until) if rests else None,
        "old_secret_until": stamp(webhook.old_secret_until) if overlaps else None,
        "created_at": stamp(webhook.created_at),
        "updated_at": stamp(webhook.updated_at),
        "activated_at": stamp(webhook.activated_at),
        "disabled_at": stamp(webhook.disabled_at),
    }


def _shown(runtime: Runtime, webhook: Webhook) -> str | None:
    """None where it does not open."""
    try:
        return shown(address(runtime.keyring, webhook))
    except Unsealable:
        return None


def stamp(at: datetime | None) -> str | None:
    """An aware time as RFC 3339 in UTC with Z."""
    return None if at is None else at.isoformat().replace("+00:00", "Z")
