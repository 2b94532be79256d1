"""What is looked at when something is wrong, in one document: what the doctor finds, health, versions, settings,
plugins, how providers stood lately. It can be given away: no secret, no number, nothing that people wrote.
"""

from __future__ import annotations

import platform
import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from faxbot import (
    __version__,
    audit,
    catalogue,
    configuration,
    db,
    doctor,
    health,
    heartbeats,
    identity,
    jobs,
    oversight,
    sweeps,
)
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.db import Database
from faxbot.errors import FaxbotError
from faxbot.events import Status
from faxbot.jobs import Filters
from faxbot.plugins.manifest import MASK
from faxbot.production import Finding
from faxbot.results import stamp
from faxbot.runtime import Runtime
from faxbot.wishes import FREE_TEXT

LONGEST = 15.0
"""Seconds for which the doctor is waited for: he asks other computers, which may hang."""
FRESH = 5.0
"""Seconds for which what he found is shown to who asks next."""
MOST_COUNTED = 100
"""Faxes in a state are counted up to here."""
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


# What is found --------------------------------------------------------------------------------------


class Look:
    """The doctor looks, in a thread of his own: what he has found by now."""

    def __init__(self, runtime: Runtime) -> None:
        self._found: list[Finding] = []
        self._began, self._ended = time.monotonic(), threading.Event()
        self._ended_at: float | None = None
        threading.Thread(target=self._look, args=(runtime,), name="doctor", daemon=True).start()

    def _look(self, runtime: Runtime) -> None:
        try:
            for each in doctor.look(runtime):
                self._found.append(each)
        except Exception as error:  # noqa: BLE001 - what was found before it is worth all the more
            name = type(error).__name__
            self._found.append(Finding(name="doctor", ok=False, sentence=f"cannot go on ({name})"))
        self._ended_at = time.monotonic()
        self._ended.set()

    def is_of_use(self) -> bool:
        """Whether he looks still, or has ended just now."""
        return self._ended_at is None or time.monotonic() - self._ended_at < FRESH

    def found(self, seconds: float) -> tuple[list[Finding], bool]:
        """What is found after so many seconds, or as soon as he has ended, and whether it is worth asking again: after
        LONGEST he is not waited for, and a finding says so."""
        left = LONGEST - (time.monotonic() - self._began)
        if self._ended.wait(max(0.0, min(seconds, left))):
            return list(self._found), False
        if left > seconds:
            return list(self._found), True
        sentence = f"after {LONGEST:g} s something does not answer: the rest was not waited for"
        return [*self._found, Finding(name="doctor", ok=None, sentence=sentence)], False


_looks: WeakKeyDictionary[Database, Look] = WeakKeyDictionary()
_looking = threading.Lock()


def look(runtime: Runtime) -> Look:
    """One under way, which everybody shares who asks meanwhile, or one that has ended just now; else a new one."""
    with _looking:
        known = _looks.get(runtime.database)
        if known is None or not known.is_of_use():
            known = _looks[runtime.database] = Look(runtime)
        return known


def worst_first(found: Iterable[Finding], *, production: bool) -> list[tuple[str, Finding]]:
    """Findings with how grave each is (`fault`, `warning`, `unknown`, `ok`), the gravest first."""
    order = ("fault", "warning", "unknown", "ok")
    graded = [(_grade(each, production=production), each) for each in found]
    return sorted(graded, key=lambda pair: order.index(pair[0]))


def _grade(each: Finding, *, production: bool) -> str:
    if each.ok is None:
        return "unknown"
    if each.ok:
        return "ok"
    return "fault" if each.is_fault(production=production) else "warning"


def report(runtime: Runtime, actor: Actor, *, listeners: dict[str, Any]) -> dict[str, Any]:
    """All of it, as plain JSON types; which is written down. `listeners`: who listens to events at this process."""
    config = runtime.config
    found, _ = look(runtime).found(LONGEST)
    faults = [each for each in found if each.is_fault(production=config.production)]
    audit.note(runtime, actor, Action.DIAGNOSTICS_READ)
    stands = standing(runtime, listeners=listeners)
    return {
        **stands,
        "alarms": [each["code"] for each in stands["alarms"]],
        "summary": {
            "healthy": not faults,
            "critical_issues": [f"{each.name}: {each.sentence}" for each in faults],
            "warnings": [
                f"{each.name}: {each.sentence}"
                for each in found
                if each.ok is False and each not in faults
            ],
        },
        "findings": [each.described() for each in found],
        "settings": _settings(runtime),
        "plugins": _plugins(runtime, actor),
        "providers": [
            _lately(runtime, actor, each["id"]) for each in oversight.providers(runtime, actor)
        ],
    }


def standing(runtime: Runtime, *, listeners: dict[str, Any]) -> dict[str, Any]:
    """The part of it that is had at once, and asks no carrier."""
    config, fit = runtime.config, health.ready(runtime)
    read_at, now = listeners["read_at"], runtime.now()
    revision = None
    with suppress(FaxbotError, sa.exc.SQLAlchemyError), runtime.database.reading() as session:
        revision = db.revision(session)
    return {
        "timestamp": stamp(now),
        "version": __version__,
        "python": platform.python_version(),
        "production": config.production,
        "backend": config.provider_id,
        "database": "sqlite" if runtime.database.is_sqlite else "postgresql",
        "schema": {"expected": db.head(), "found": revision},
        "config_version": runtime.settings.snapshot().version,
        "ready": fit["ready"],
        "parts": fit["parts"],
        "alarms": fit["alarms"],
        "sweeps": _sweeps(runtime),
        "event_stream": {
            "listeners": listeners["listeners"],
            "most": listeners["most"],
            "read_at": stamp(read_at),
            "lag_seconds": round((now - read_at).total_seconds(), 1)
            if read_at and listeners["listeners"]
            else None,
        },
    }


def _sweeps(runtime: Runtime) -> list[dict[str, Any]]:
    """When each sweep was last done; a worker does it, when beat rings."""
    try:
        beats = {name: beat.beat_at for name, beat in heartbeats.known(runtime).items()}
        late = sweeps.overdue(runtime)
    except (FaxbotError, sa.exc.SQLAlchemyError):
        return []  # the part "database" says why
    return [
        {"name": name, "beat_at": stamp(beats.get(name)), "overdue": name in late}
        for name in sweeps.SWEEPS
    ]


def _settings(runtime: Runtime) -> list[dict[str, Any]]:
    return [
        {"name": one["name"], "value": _redacted(one), "source": one["source"]}
        for one in configuration.effective(runtime)
    ]


def _redacted(one: dict[str, Any]) -> Any:
    """The value of an option as strangers may see it."""
    value = one["value"]
    if one["name"] in FREE_TEXT and value not in ("", None):
        return MASK
    return _CREDENTIALS.sub(f"//{MASK}@", value) if isinstance(value, str) else value


def _plugins(runtime: Runtime, actor: Actor) -> dict[str, Any]:
    """What is installed, and where its settings come from; their values stay here."""
    found = catalogue.plugins(runtime, actor)
    kept = ("id", "version", "type", "package", "sha256", "traits", "slots", "disabled")
    return {
        "items": [
            {**{name: one[name] for name in kept}, "settings": _sources(runtime, one["id"])}
            for one in found["items"]
        ],
        "broken": found["broken"],
    }


def _sources(runtime: Runtime, plugin_id: str) -> dict[str, str]:
    return {one["key"]: one["source"] for one in catalogue.settings(runtime, plugin_id)["settings"]}


def _lately(runtime: Runtime, actor: Actor, provider_id: str) -> dict[str, Any]:
    """How a provider stands, and what happened to it, without what people wrote."""
    one = oversight.provider(runtime, actor, provider_id)
    kept = ("id", "version", "active", "state", "reason", "rests_until", "calls", "newest")
    return {
        **{name: one[name] for name in kept},
        "history": [
            {name: entry[name] for name in ("type", "reason", "recorded_at")}
            for entry in one["history"]
        ],
    }


# In short -------------------------------------------------------------------------------------------


def in_short(runtime: Runtime, actor: Actor) -> dict[str, Any]:
    """Whether it goes well, in the words of the earlier Faxbot's /admin/health-status; numbers of faxes are
    MOST_COUNTED at most."""
    config, now = runtime.config, runtime.now()
    fit = health.ready(runtime)
    rest = runtime.breakers.standing(actor.account_id, config.provider_id, now).rest(now)
    with runtime.database.reading() as session:
        has_keys = bool(identity.list_keys(session, actor.account_id))
    return {
        "timestamp": stamp(now),
        "ready": fit["ready"],
        "backend": config.provider_id,
        "backend_healthy": fit["parts"]["provider"]["ok"] and rest is None,
        "jobs": {
            "queued": _count(runtime, actor, Status.QUEUED, Status.RETRYING, Status.HELD),
            "in_progress": _count(runtime, actor, Status.SUBMITTING, Status.SENT),
            "needs_you": _count(runtime, actor, Status.HELD, Status.UNCERTAIN),
            "recent_failures": _count(runtime, actor, Status.FAILED, lately=True),
        },
        "inbound_enabled": config.inbound_enabled,
        "api_keys_configured": has_keys or bool(config.api_key),
        "require_auth": config.keys_required,
    }


def _count(runtime: Runtime, actor: Actor, *statuses: Status, lately: bool = False) -> int:
    """Faxes in these states, of the last day where `lately`; no more than MOST_COUNTED are looked at."""
    since = runtime.now() - oversight.DAY if lately else None
    filters = Filters(statuses=tuple(each.value for each in statuses), since=since)
    found, _ = jobs.page(runtime, actor, filters, limit=MOST_COUNTED, cursor=None)
    return len(found)
