"""The audit trail: who did what to which object, when, from where and with what outcome; never PHI, never a secret.

A row is appended within the transaction of the deed itself, without a lock, and the database refuses to change or
delete it for six years. A read has no transaction to write in: it is noted, and written within a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from faxbot import trail
from faxbot.actors import STRANGER, Actor
from faxbot.errors import Forbidden, NotFound, RequestError
from faxbot.runtime import Runtime


class Action(StrEnum):
    """What is written down."""

    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    CONFIG_CHANGED = "config.changed"
    FAX_CANCELLED = "fax.cancelled"
    FAX_RELEASED = "fax.released"
    FAX_DECIDED = "fax.decided"
    FAX_HELD = "fax.held"
    """By a person, until one releases it."""
    FAX_RESENT = "fax.resent"
    """Its documents go out once more, as another fax (`as`); `status` says how this one had ended."""
    FAX_SENT_NOW = "fax.sent_now"
    """Before the time that it was to wait for."""
    CONFIG_RESTORED = "config.restored"
    CONFIG_BACKED_UP = "config.backed_up"
    CONFIG_EXPORTED = "config.exported"
    CONFIG_REVEALED = "config.revealed"
    KEY_ROTATED = "key.rotated"
    KEY_EXPIRY_CHANGED = "key.expiry_changed"
    USER_CREATED = "user.created"
    USER_ROLE_CHANGED = "user.role_changed"
    USER_PASSWORD_CHANGED = "user.password_changed"  # noqa: S105 - what is done, no password
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    USER_UNLOCKED = "user.unlocked"
    USER_BOUND = "user.bound"
    SESSION_OPENED = "session.opened"
    SESSION_REFUSED = "session.refused"
    SESSION_CLOSED = "session.closed"
    PROVIDER_PAUSED = "provider.paused"
    PROVIDER_RESUMED = "provider.resumed"
    PROVIDER_RESET = "provider.reset"
    PROVIDER_TESTED = "provider.tested"
    PLUGIN_ENABLED = "plugin.enabled"
    PLUGIN_ACTIVATED = "plugin.activated"
    PLUGIN_DEACTIVATED = "plugin.deactivated"
    PLUGIN_CONFIGURED = "plugin.configured"
    FAX_SHOWN = "fax.shown"
    """With its whole number, unless `masked`."""
    FAX_TIMELINE_SHOWN = "fax.timeline_shown"
    """With what people wrote when they decided about it."""
    FAX_EVIDENCE_SHOWN = "fax.evidence_shown"
    """With what carriers said of it, word for word."""
    FAX_SEARCHED = "fax.searched"
    """By a number, which is not written down."""
    DOCUMENT_OPENED = "document.opened"
    INBOUND_SHOWN = "inbound.shown"
    """With its whole numbers, unless `masked`."""
    INBOUND_MARKED = "inbound.marked"
    """As read, or as unread."""
    INBOUND_LINKED = "inbound.linked"
    """Somebody may open its document without a key for a while."""
    INBOUND_FETCHED = "inbound.fetched"
    """Its document, which nobody had, is tried to be had once more."""
    INBOUND_GIVEN_UP = "inbound.given_up"
    """Its document is not tried to be had any more."""
    ACCESS_REFUSED = "access.refused"
    """To an actor that lacks the scope."""
    AUTHENTICATION_FAILED = "authentication.failed"
    AUDIT_READ = "audit.read"
    AUDIT_VERIFIED = "audit.verified"
    AUDIT_EXPORTED = "audit.exported"
    AUDIT_LOST = "audit.lost"
    """So many reads could not be written down (`lost`): there were more at once than a process keeps."""
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_ROTATED = "webhook.rotated"
    """It has a new secret."""
    WEBHOOK_TESTED = "webhook.tested"
    """With a test event; where it was taken for the first time, the webhook is active since (`activated`)."""
    WEBHOOK_DISABLED = "webhook.disabled"
    """By the worker: `reason` says why."""
    WEBHOOK_DELETED = "webhook.deleted"
    WEBHOOK_REPLAYED = "webhook.replayed"
    """Deliveries are sent again, so many (`count`)."""
    LEGAL_HOLD_PLACED = "legal_hold.placed"
    LEGAL_HOLD_LIFTED = "legal_hold.lifted"
    RETENTION_ASKED = "retention.asked"
    """Somebody wanted a run now."""
    RETENTION_ENDED = "retention.ended"
    """By the worker: by class how many rows it removed, and what was broken off."""
    NOTIFICATION_TESTED = "notification.tested"
    """A test notice was sent to the people whom a plugin tells, or could not be."""
    LEDGER_RESTORED = "ledger.restored"
    """A person says that the database was restored from a backup."""
    LEDGER_COMPLETE = "ledger.complete"
    """A person says that nothing was lost when the database came to where it lies."""
    TERMINAL_USED = "terminal.used"
    """A command was run at this machine's terminal: `command`, the names of its `options`, its `exit_code`."""
    DIAGNOSTICS_READ = "diagnostics.read"
    """What is looked at when something is wrong, without secrets."""
    MASTER_KEY_CHANGED = "master_key.changed"
    MASTER_KEY_RETIRED = "master_key.retired"
    MASTER_KEY_LOST = "master_key.lost"


DONE, REFUSED, FAILED = "done", "refused", "failed"
"""How it ended."""


def record(
    held: Session | Connection,
    actor: Actor,
    action: Action,
    of: tuple[str, str] | None = None,
    *,
    now: datetime,
    outcome: str = DONE,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Append one row in the caller's transaction; `of` is the kind of object (`fax`, `inbound`, `key`, `user`,
    `plugin`, `config`) and its id. `details` holds names and counts, never values that are secret or PHI."""
    trail.append(held, _row(actor, action, of, now, outcome, details))


def note(
    runtime: Runtime,
    actor: Actor,
    action: Action,
    of: tuple[str, str] | None = None,
    *,
    outcome: str = DONE,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Have a read written down, soon and by another thread (trail.Notes): the first at once, repeats of the same by the
    same actor as one row a minute with their count (`times`)."""
    row = _row(actor, action, of, runtime.now(), outcome, details)
    runtime.notes.add(row, stranger=actor.kind == STRANGER)


P = ParamSpec("P")
T = TypeVar("T")
Deed = Callable[Concatenate[Runtime, Actor, P], T]


def refusals(action: Action, *, of_plugin: bool = False) -> Callable[[Deed[P, T]], Deed[P, T]]:
    """Of a function that changes something have it noted, too, when it refuses: with the error's code (`why`), and,
    `of_plugin`, the plugin that its third argument names. Not what is not there, whose name may be anything, and no
    rehearsal (`dry_run`); who lacks a scope is written down at the door."""

    def mark(deed: Deed[P, T]) -> Deed[P, T]:
        @wraps(deed)
        def does(runtime: Runtime, actor: Actor, /, *args: P.args, **more: P.kwargs) -> T:
            try:
                return deed(runtime, actor, *args, **more)
            except (NotFound, Forbidden):
                raise
            except RequestError as error:
                known = (each.id for each in runtime.plugins.manifests() if of_plugin)
                of = next((("plugin", each) for each in known if each == args[0]), None)
                if not more.get("dry_run"):
                    details = {"why": error.code}
                    note(runtime, actor, action, of, outcome=REFUSED, details=details)
                raise

        return does

    return mark


def _row(
    actor: Actor,
    action: Action,
    of: tuple[str, str] | None,
    now: datetime,
    outcome: str,
    details: Mapping[str, Any] | None,
) -> trail.Row:
    kind, object_id = of or (None, None)
    return {
        "account_id": actor.account_id,
        "happened_at": now,
        "actor_kind": actor.kind,
        "actor": actor.id,
        "action": action.value,
        "object_kind": kind,
        "object_id": object_id,
        "outcome": outcome,
        "request_id": actor.request_id,
        "address": actor.address,
        "details": dict(details or {}),
    }
