"""Is this installation fit to work: each part's state in one sentence, without secrets or PHI."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import redis
import sqlalchemy as sa

from faxbot import alarms, artifacts, db, deliveries, hearing, notifying, sweeps
from faxbot.config import Config
from faxbot.errors import ConfigError, DatabaseAway, FaxbotError
from faxbot.events import CLAIMABLE, DEFAULT_ACCOUNT
from faxbot.models import IS_OPEN, Job
from faxbot.plugins.base import StoragePlugin, TransportPlugin
from faxbot.runtime import Runtime

BROKER_SECONDS = 0.5
WAITING_TOO_LONG = timedelta(seconds=90)
"""A due fax that nobody took for this long means that no worker is at work."""
FAULTS = 3
"""Claims in a row that failed before the call: no accident any more."""
FAILS_WITHIN = timedelta(minutes=15)
"""A fax that fails so is tried again within this time, until it is held."""

Part = dict[str, Any]


def ready(runtime: Runtime) -> dict[str, Any]:
    """{"ready": bool, "parts": {name: {"ok": bool, "detail": str}}, "alarms": [...], "listen": bool}; every part is
    asked now. What people must look at makes the server no less fit."""
    runtime = _as_set_now(runtime)
    wanted = _wanted(runtime)
    parts = _parts(runtime, wanted)
    waiting: list[dict[str, Any]] = []
    if parts["database"]["ok"]:
        with suppress(DatabaseAway):  # since a moment ago
            waiting = alarms.shown(runtime)
    return {
        "ready": all(part["ok"] for part in parts.values()),
        "parts": parts,
        "alarms": waiting,
        "listen": bool(wanted),
    }


def parts(runtime: Runtime) -> dict[str, Part]:
    """Each part by its name, asked now: {"ok": bool, "detail": str}."""
    runtime = _as_set_now(runtime)
    return _parts(runtime, _wanted(runtime))


def _as_set_now(runtime: Runtime) -> Runtime:
    with suppress(FaxbotError, sa.exc.SQLAlchemyError):  # the parts say what is wrong
        return runtime.fresh()
    return runtime


def _parts(runtime: Runtime, wanted: list[str] | None) -> dict[str, Part]:
    found = {name: _ask(check, runtime) for name, check in CHECKS.items()}
    found["listeners"] = _ask(partial(_listeners, wanted=wanted), runtime)
    return found


def _wanted(runtime: Runtime) -> list[str] | None:
    """Who must be listened to; None where that is not known."""
    try:
        return hearing.listeners(runtime)
    except (FaxbotError, sa.exc.SQLAlchemyError):
        return None


def _ask(check: Callable[[Runtime], str], runtime: Runtime) -> Part:
    try:
        return {"ok": True, "detail": check(runtime)}
    except FaxbotError as error:
        return {"ok": False, "detail": error.detail}
    except Exception as error:  # noqa: BLE001 - a part that cannot even be asked is not fit either
        return {"ok": False, "detail": f"cannot be asked ({type(error).__name__})"}


def _database(runtime: Runtime) -> str:
    with runtime.database.reading() as session:
        revision = db.revision(session)
    if revision != db.head():
        raise ConfigError("the database schema is not up to date: run `faxbot db upgrade`")
    return f"schema {revision}"


def _settings(runtime: Runtime) -> str:
    version = runtime.settings.read().version
    return f"saved {version} times" if version else "using the environment, nothing is saved"


def _broker(runtime: Runtime) -> str:
    if not answers(redis_url(runtime.config)):
        raise ConfigError(
            "the broker does not answer: faxes are accepted and wait (CELERY_BROKER_URL)"
        )
    return "answers"


def answers(url: str) -> bool:
    """Whether a Redis answers us at this address (redis_url), within BROKER_SECONDS."""
    client = redis.Redis.from_url(
        url, socket_timeout=BROKER_SECONDS, socket_connect_timeout=BROKER_SECONDS
    )
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()


def redis_url(config: Config) -> str:
    """The broker's address as the Redis client reads it."""
    return config.broker.replace("redis+socket://", "unix://", 1)


def _storage(runtime: Runtime) -> str:
    storage_id = runtime.config.storage_backend
    health = runtime.plugins.get(storage_id, StoragePlugin).health()
    if not health.ok:
        raise ConfigError(health.detail)
    artifacts.look_for_newest(runtime, storage_id)
    return health.detail or "writable"


def _provider(runtime: Runtime) -> str:
    """A provider that rests is no fault: faxes are taken and wait for it, or go to another one."""
    for provider_id in runtime.config.provider_ids:
        # Without callbacks this process has nothing to do with it, and opens none of its secrets.
        if runtime.plugins.manifest(provider_id).has("status_callback"):
            runtime.plugins.get(provider_id, TransportPlugin)
    return "; ".join(_stands(runtime, provider_id) for provider_id in runtime.config.provider_ids)


def _stands(runtime: Runtime, provider_id: str) -> str:
    try:
        now = runtime.now()
        rest = runtime.breakers.standing(DEFAULT_ACCOUNT, provider_id, now).rest(now)
    except (FaxbotError, sa.exc.SQLAlchemyError):
        return f"{provider_id} is loaded"  # the part "database" says what is wrong
    if rest is None:
        return f"{provider_id} is loaded"
    until = f"until {rest.until:%Y-%m-%dT%H:%M:%SZ}" if rest.until else "until it is resumed"
    return f"{provider_id} rests {until}: {rest.reason}"


def _queue(runtime: Runtime) -> str:
    now = runtime.now()
    waiting: list[sa.ColumnExpressionArgument[bool]] = [
        sa.text(IS_OPEN),
        Job.status.in_(_CLAIMABLE),
        # One whose pages are being made is in good hands, however long that takes.
        sa.or_(Job.lease_until.is_(None), Job.lease_until < now),
    ]
    overdue = sa.exists().where(*waiting, Job.next_at < now - WAITING_TOO_LONG)
    failing = sa.exists().where(*waiting, Job.next_at < now + FAILS_WITHIN, Job.faults >= FAULTS)
    with runtime.database.reading() as session:
        if session.scalar(sa.select(overdue)):
            raise ConfigError(
                "due faxes wait and nobody takes them: start a worker (`faxbot worker`) and beat"
            )
        if session.scalar(sa.select(failing)):
            raise ConfigError(
                "faxes are taken and cannot be prepared, time and again: "
                "the worker's log says why (a full disk, another CONFIG_MASTER_KEY)"
            )
    return "nothing overdue"


_CLAIMABLE: sa.BindParameter[list[str]] = sa.bindparam(
    # In clear: PostgreSQL's plan for any statuses expects many such faxes, and walks through all that are open.
    "claimable",
    [status.value for status in CLAIMABLE],
    expanding=True,
    literal_execute=True,
)


def _webhooks(runtime: Runtime) -> str:
    if deliveries.overdue(runtime, WAITING_TOO_LONG):
        raise ConfigError(
            "due webhooks wait and nobody sends them: start a worker that serves the queue `webhooks` "
            "(`faxbot worker`)"
        )
    return "nothing overdue"


def _notices(runtime: Runtime) -> str:
    """That none can be sent is an alarm: faxes go all the same."""
    if notifying.overdue(runtime, WAITING_TOO_LONG):
        raise ConfigError(
            "due notices wait and nobody sends them: start a worker that serves the queue `webhooks` "
            "(`faxbot worker`)"
        )
    return "nothing overdue"


def _sweeps(runtime: Runtime) -> str:
    if names := sweeps.overdue(runtime):
        raise ConfigError(
            f"overdue: {', '.join(names)}; without them nobody looks for what was lost: "
            "start beat (`faxbot beat`) and a worker"
        )
    return "all run"


def _listeners(runtime: Runtime, wanted: list[str] | None) -> str:
    if wanted is None:
        raise ConfigError("it is not known who must be listened to")
    if silent := hearing.silent(runtime, wanted):
        raise ConfigError(
            f"nobody listens to {', '.join(silent)}: faxes are sent, and how they end is heard late: "
            "start `faxbot listen`"
        )
    return "all listen" if wanted else "none needed"


CHECKS: dict[str, Callable[[Runtime], str]] = {
    "database": _database,
    "settings": _settings,
    "broker": _broker,
    "storage": _storage,
    "provider": _provider,
    "queue": _queue,
    "webhooks": _webhooks,
    "notices": _notices,
    "sweeps": _sweeps,
}
