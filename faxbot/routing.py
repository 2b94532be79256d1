"""Which provider takes a fax: the first of FAX_BACKENDS that can send it, is well, and may see it.

Another than the first must be marked as covered by an agreement (FAX_BACKENDS_COVERED): a fax shows
its patient to whoever carries it. And a fax stays with the provider that has accepted its last
attempt: only what is known not to have been accepted may go to another one.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from faxbot.artifacts import FORMS
from faxbot.breaker import Rest
from faxbot.errors import PluginError
from faxbot.models import Attempt, Job, JobRow
from faxbot.plugins.base import TransportPlugin
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

NEVER_ACCEPTED = ("refused", "absent")


@dataclass(frozen=True, slots=True)
class Route:
    """A provider that may take a fax now; `is_probe`: whether the call finds out for others if it
    works again; `form`: the media type in which it takes fax pages; `settings_hash`: of how it is set."""

    provider_id: str
    provider: TransportPlugin
    is_probe: bool
    form: str
    settings_hash: str


def candidates(runtime: Runtime, job: Job | JobRow) -> list[str]:
    """The ids of the providers that may take this fax when they are well, the best first; none
    where nobody may. Raises DatabaseAway."""
    return [provider_id for provider_id in _allowed(runtime, job) if _can(runtime, provider_id)]


def _allowed(runtime: Runtime, job: Job | JobRow) -> list[str]:
    allowed = list(runtime.config.providers_for(job.wanted_provider_id))
    if job.wanted_provider_id is not None or job.attempts == 0 or allowed == [job.provider_id]:
        return allowed
    last = runtime.database.row(_LAST, {"job_id": job.id, "number": job.attempts})
    if last is None:
        return allowed
    if last.outcome not in NEVER_ACCEPTED:
        return [each for each in allowed if each == last.provider_id]
    # Who did not take it is asked again when nobody else may be.
    return sorted(allowed, key=lambda each: each == last.provider_id)


_LAST = sa.select(Attempt.outcome, Attempt.provider_id).where(
    Attempt.job_id == sa.bindparam("job_id"), Attempt.number == sa.bindparam("number")
)


def _can(runtime: Runtime, provider_id: str) -> bool:
    """Whether the provider is there, sends faxes, and takes fax pages in some form."""
    try:
        runtime.plugins.get(provider_id, TransportPlugin)
    except PluginError:
        log.exception("no usable provider", extra={"provider_id": provider_id})
        return False
    return runtime.plugins.manifest(provider_id).has("send_fax") and bool(
        _forms(runtime, provider_id)
    )


def _forms(runtime: Runtime, provider_id: str) -> list[str]:
    """The media types in which it takes fax pages, the one it likes best first."""
    taken = runtime.plugins.manifest(provider_id).values("accepts") or FORMS
    return [each for each in taken if each in FORMS]


def settings_hash(runtime: Runtime, provider_id: str) -> str:
    """Equal where a provider is set as it was, so that it speaks for the same account; says nothing else."""
    return runtime.keyring.keyed_hash(_settings(runtime, provider_id), _PURPOSE)[:16]


def is_set_as(runtime: Runtime, provider_id: str, earlier: str | None) -> bool:
    """Whether a provider is set as it was when settings_hash() gave this; False for None."""
    hashes = runtime.keyring.hashes(_settings(runtime, provider_id), _PURPOSE)
    return earlier in [each[:16] for each in hashes]


_PURPOSE = "provider settings"


def _settings(runtime: Runtime, provider_id: str) -> bytes:
    return json.dumps(runtime.plugins.in_use(provider_id), sort_keys=True).encode()


def rest_of_all(runtime: Runtime, job: Job | JobRow, providers: list[str]) -> Rest | None:
    """The rest that all of these take now; None when one of them may be called or tried."""
    now, rests = runtime.now(), []
    for provider_id in providers:
        rest = runtime.breakers.standing(job.account_id, provider_id, now).rest(now)
        if rest is None:
            return None
        rests.append(rest)
    return _shortest(rests)


def choose(runtime: Runtime, job: Job | JobRow, providers: list[str]) -> Route | Rest:
    """The first of these (at least one) that lets this fax through now, else the shortest rest."""
    now, rests = runtime.now(), []
    for provider_id in providers:
        through = runtime.breakers.let_through(job.account_id, provider_id, job.id, now)
        if not isinstance(through, Rest):
            plugin = runtime.plugins.get(provider_id, TransportPlugin)
            form = _forms(runtime, provider_id)[0]
            return Route(provider_id, plugin, through, form, settings_hash(runtime, provider_id))
        rests.append(through)
    return _shortest(rests)


def _shortest(rests: list[Rest]) -> Rest:
    """One without an end is the longest."""
    return min(rests, key=lambda rest: rest.until or _NEVER)


_NEVER = datetime.max.replace(tzinfo=UTC)
