"""Metrics: what Prometheus is told, in its text format (0.0.4), read from the database's rows: it does not matter which
process answers, and none keeps a count of its own that ends with it.

Names, labels and meanings are in METRICS; docs/metrics.md, the rules and the dashboard in deploy/ are compared with it.
Labels are words of faxbot's, and ids of providers, queues and sweeps: no number, no name, no account, nothing that
grows. Counters are totals since ever (figures), which no run of retention makes smaller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

import faxbot
from faxbot import (
    alarms,
    arrivals,
    breaker,
    callbacks,
    claims,
    db,
    fanout,
    figures,
    health,
    heartbeats,
    retention,
    sweeps,
)
from faxbot.db import table
from faxbot.events import CAUSES, DEFAULT_ACCOUNT, Reception, Status
from faxbot.figures import ACCEPT_TO_SENT, BOUNDS, SENT_TO_FINAL
from faxbot.models import IS_OPEN, Callback, InboundFax, Job, Notice, Webhook, WebhookDelivery
from faxbot.runtime import Runtime
from faxbot.webhooks import DELETED, STATES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
MOST = figures.MOST
"""What waits is counted so far; one more means that there are more."""


class Metric(NamedTuple):
    """What one metric is, and what it says."""

    kind: str
    labels: tuple[str, ...]
    meaning: str


METRICS: dict[str, Metric] = {
    "faxbot_info": Metric(GAUGE, ("version", "schema"), "1; which faxbot it is, and which schema its database has"),
    "faxbot_faxes_open": Metric(
        GAUGE, ("status",), f"faxes that are not at their end, by status; {MOST + 1} means more than {MOST}"
    ),
    "faxbot_faxes_oldest_seconds": Metric(
        GAUGE, ("status",), "how long ago the oldest fax of this status was accepted; 0 without any"
    ),
    "faxbot_faxes_overdue_seconds": Metric(
        GAUGE, ("status",), "for how long the first fax of this status has been due; 0 where none is"
    ),
    "faxbot_faxes_total": Metric(
        COUNTER, ("outcome",), "faxes that were accepted, delivered, failed (or expired), cancelled and received"
    ),
    "faxbot_events_total": Metric(
        COUNTER,
        ("type", "provider", "class"),
        "events of faxes; `class`: what the cause says of trying again (never, again, hold, verify), other or empty",
    ),
    "faxbot_accept_to_sent_seconds": Metric(
        HISTOGRAM, ("provider",), f"{figures.MEASURES[ACCEPT_TO_SENT]}, by who took it"
    ),
    "faxbot_sent_to_final_seconds": Metric(
        HISTOGRAM, ("provider", "status"), f"{figures.MEASURES[SENT_TO_FINAL]}, by the status it ended with"
    ),
    "faxbot_figures_lag_seconds": Metric(
        GAUGE, (), "for how long the oldest event has waited that the counters and histograms do not hold yet"
    ),
    "faxbot_provider_state": Metric(
        GAUGE, ("provider", "state"),
        "1 for how the provider stands (closed: it is called), 0 for the other states; of those that are active, and "
        "of others whose plugin was disabled while it is needed",
    ),
    "faxbot_sweep_last_success_timestamp_seconds": Metric(
        GAUGE, ("sweep",), "when this sweep was last done; 0: never"
    ),
    "faxbot_sweep_overdue": Metric(GAUGE, ("sweep",), "1 where it should have been done by now, else 0"),
    "faxbot_sweep_failures_total": Metric(COUNTER, ("sweep",), "how often it failed"),
    "faxbot_retention_last_run_timestamp_seconds": Metric(
        GAUGE, (), "when the newest run of retention that is over ended; 0: there was none"
    ),
    "faxbot_retention_last_success_timestamp_seconds": Metric(
        GAUGE, (), "the same of the newest one in which nothing was broken off"
    ),
    "faxbot_retention_last_run_removed": Metric(
        GAUGE, ("class",), "how many rows that run removed of each class"
    ),
    "faxbot_webhooks": Metric(GAUGE, ("state",), "webhooks by state"),
    "faxbot_webhook_deliveries": Metric(
        GAUGE, ("status",), f"deliveries that wait, and dead letters; {MOST + 1} means more than {MOST}"
    ),
    "faxbot_webhook_overdue_seconds": Metric(
        GAUGE, (), "for how long the first waiting delivery has been due, whether or not its receiver rests"
    ),
    "faxbot_callbacks_waiting": Metric(
        GAUGE, (), f"carriers' messages that are stored and not applied; {MOST + 1} means more than {MOST}"
    ),
    "faxbot_callbacks_overdue_seconds": Metric(
        GAUGE, (), "for how long the first of them has been due; 0 where none is"
    ),
    "faxbot_inbound_waiting": Metric(
        GAUGE, (), f"received faxes whose document is still to be had; {MOST + 1} means more than {MOST}"
    ),
    "faxbot_inbound_overdue_seconds": Metric(
        GAUGE, (), "for how long the first of them has been due; 0 where none is"
    ),
    "faxbot_notices_waiting": Metric(
        GAUGE, (), f"notices to people that stand in no message yet; {MOST + 1} means more than {MOST}"
    ),
    "faxbot_alarm": Metric(
        GAUGE, ("alarm",), "of how many a person must look at it; 0: all is well (`/health/ready` says what to do)"
    ),
    "faxbot_broker_up": Metric(GAUGE, (), "1 where the broker answers, else 0: faxes are accepted and wait"),
    "faxbot_queue_rings": Metric(
        GAUGE, ("queue",), "rings that wait in this queue for a worker; absent where the broker does not answer"
    ),
}  # fmt: skip

QUEUES = {
    "send": claims.TASKS[Status.QUEUED],
    "follow": claims.TASKS[Status.SENT],
    "callbacks": callbacks.TASK,
    "webhooks": fanout.TASK,
    "sweep": retention.TASK,
}
"""Of each queue a task that waits in it."""
_OTHER = "other"


class Sample(NamedTuple):
    """One value of a metric, with its labels in the order of METRICS."""

    name: str
    labels: tuple[str, ...]
    value: float | figures.Histogram


def exposition(runtime: Runtime) -> bytes:
    """All metrics as Prometheus reads them; raises DatabaseAway."""
    # Only here: it takes as long as a tenth of a start, and most processes are never asked.
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(list(samples(runtime))))
    return generate_latest(registry)


class _Collected:
    """What was read, as prometheus-client asks for it."""

    def __init__(self, found: Iterable[Sample]) -> None:
        self._of: dict[str, list[Sample]] = {}
        for sample in found:
            self._of.setdefault(sample.name, []).append(sample)

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import (  # noqa: PLC0415 - see above
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        families = {
            GAUGE: GaugeMetricFamily,
            COUNTER: CounterMetricFamily,
            HISTOGRAM: HistogramMetricFamily,
        }
        for name, metric in METRICS.items():
            family = families[metric.kind](name, metric.meaning, labels=metric.labels)
            for sample in self._of.get(name, ()):
                if isinstance(sample.value, figures.Histogram):
                    buckets = _cumulative(sample.value)
                    family.add_metric(sample.labels, buckets, sum_value=sample.value.seconds)
                else:
                    family.add_metric(sample.labels, sample.value)
            yield family


def _cumulative(histogram: figures.Histogram) -> list[tuple[str, float]]:
    """Each bound with how many took no longer."""
    so_far, buckets = 0, list[tuple[str, float]]()
    for bound, counted in zip([*map(str, BOUNDS), "+Inf"], histogram.counts, strict=True):
        so_far += counted
        buckets.append((bound, so_far))
    return buckets


def samples(runtime: Runtime) -> Iterator[Sample]:
    """All values of this moment; raises DatabaseAway."""
    now = runtime.now()
    for look in _LOOKS:
        for name, labels, value in look(runtime, now):
            yield Sample(f"faxbot_{name}", labels, value)


_Found = Iterator[tuple[str, tuple[str, ...], float | figures.Histogram]]


def _age(now: datetime, then: datetime | None) -> float:
    return 0.0 if then is None else max((now - then).total_seconds(), 0.0)


def _itself(_runtime: Runtime, _now: datetime) -> _Found:
    yield "info", (faxbot.__version__, db.head()), 1


def _faxes(runtime: Runtime, now: datetime) -> _Found:
    totals = figures.totals(runtime.database)
    outcomes, events = Counter[str](), Counter[tuple[str, str, str]]()
    for row in totals:
        events[row.type, row.provider_id, _class(row.cause)] += row.times
        if outcome := figures.outcome(row.type, row.status):
            outcomes[outcome] += row.times
    for outcome in figures.OUTCOMES:
        yield "faxes_total", (outcome,), outcomes[outcome]
    for labels, times in sorted(events.items()):
        yield "events_total", labels, times
    yield from _open(runtime, now, {DEFAULT_ACCOUNT, *(row.account_id for row in totals)})
    for (measure, provider_id, status), histogram in sorted(
        figures.histograms(runtime.database).items()
    ):
        its = (provider_id,) if measure == ACCEPT_TO_SENT else (provider_id, status)
        yield f"{measure}_seconds", its, histogram
    yield "figures_lag_seconds", (), figures.lag(runtime.database, now).total_seconds()


def _class(cause: str) -> str:
    if not cause:
        return ""
    return CAUSES[cause].retry.value if cause in CAUSES else _OTHER


def _open(runtime: Runtime, now: datetime, accounts: Iterable[str]) -> _Found:
    """Of all accounts together: there are few."""
    found = [figures.open_faxes(runtime.database, each) for each in sorted(accounts)]
    for status in found[0]:
        its = [of[status] for of in found]
        count = sum(each.count + each.more for each in its)
        yield "faxes_open", (status.value,), min(count, MOST + 1)
        yield "faxes_oldest_seconds", (status.value,), max(_age(now, of.oldest_at) for of in its)
        yield "faxes_overdue_seconds", (status.value,), max(_age(now, of.next_at) for of in its)


def _providers(runtime: Runtime, now: datetime) -> _Found:
    known = breaker.standings(runtime.database, DEFAULT_ACCOUNT)
    for provider_id in sorted({*runtime.config.provider_ids, *_missed(runtime, known)}):
        stands = known.get(provider_id, breaker.Standing()).state(now)
        for state in breaker.STATES:
            yield "provider_state", (provider_id, state), float(state == stands)


def _missed(runtime: Runtime, known: Mapping[str, breaker.Standing]) -> Iterator[str]:
    """Providers that take no new faxes, or not any more, whose plugin was disabled although received faxes are wanted
    of it, or it has faxes to ask after. For an open breaker of theirs nothing waits, and nobody would ever close it."""
    disabled = [provider_id for provider_id, stands in known.items() if stands.disabled_at]
    words = {"its": DEFAULT_ACCOUNT, "them": disabled}
    having = {row.provider_id for row in runtime.database.rows(_HAVING, words)} if disabled else ()
    for provider_id in disabled:
        if provider_id in having or arrivals.are_wanted(runtime, provider_id):
            yield provider_id


def _sweeps(runtime: Runtime, _now: datetime) -> _Found:
    beats = heartbeats.known(runtime)
    overdue = sweeps.overdue(runtime)
    for name in sweeps.SWEEPS:
        beat = beats.get(name)
        at = beat.beat_at.timestamp() if beat else 0.0
        yield "sweep_last_success_timestamp_seconds", (name,), at
        yield "sweep_overdue", (name,), float(name in overdue)
        yield "sweep_failures_total", (name,), beat.failures if beat else 0


def _retention(runtime: Runtime, _now: datetime) -> _Found:
    last, last_good = retention.last(runtime)
    ended = last.ended_at if last else None
    yield "retention_last_run_timestamp_seconds", (), ended.timestamp() if ended else 0
    yield "retention_last_success_timestamp_seconds", (), last_good.timestamp() if last_good else 0
    for name, removed in (last.removed if last else {}).items():
        yield "retention_last_run_removed", (name,), removed


def _webhooks(runtime: Runtime, now: datetime) -> _Found:
    states = {row.state: row for row in runtime.database.rows(_HOOKS, {})}
    for state in STATES:
        yield "webhooks", (state,), states[state].webhooks if state in states else 0
    first = [row.next_at for row in states.values() if row.next_at is not None]
    yield "webhook_overdue_seconds", (), _age(now, min(first, default=None))
    for status, statement in _DELIVERIES.items():
        (row,) = runtime.database.rows(statement, {})
        yield "webhook_deliveries", (status,), row.waiting


def _others(runtime: Runtime, now: datetime) -> _Found:
    for name, statement in _WAITING.items():
        (row,) = runtime.database.rows(statement, {})
        yield f"{name}_waiting", (), row.waiting
        if name != "notices":
            yield f"{name}_overdue_seconds", (), _age(now, row.next_at)


def _alarms(runtime: Runtime, _now: datetime) -> _Found:
    counts = {alarm.code: alarm.count for alarm in alarms.raised(runtime)}
    for code in alarms.CODES:
        yield "alarm", (code,), counts.get(code, 0)


def _broker(runtime: Runtime, _now: datetime) -> _Found:
    is_up = health.answers(health.redis_url(runtime.config))
    yield "broker_up", (), float(is_up)
    for queue, task in QUEUES.items() if is_up else ():
        yield "queue_rings", (queue,), runtime.unanswered(task)


_LOOKS: tuple[Callable[[Runtime, datetime], _Found], ...] = (
    _itself,
    _faxes,
    _providers,
    _sweeps,
    _retention,
    _webhooks,
    _others,
    _alarms,
    _broker,
)

# Statements, made once ------------------------------------------------------------------------------

_ROWS, _SUBSCRIBERS = table(WebhookDelivery), table(Webhook)
_FIRST_DUE = (
    sa.select(_ROWS.c.next_at)
    .where(_ROWS.c.webhook_id == _SUBSCRIBERS.c.id, sa.text("status = 'waiting'"))
    .order_by(_ROWS.c.next_at)
    .limit(1)
    .correlate(_SUBSCRIBERS)
    .scalar_subquery()
)
_EACH = (
    sa.select(_SUBSCRIBERS.c.state, _FIRST_DUE.label("next_at"))
    .where(_SUBSCRIBERS.c.state != DELETED)
    .subquery()
)
_HOOKS = sa.select(
    _EACH.c.state,
    sa.func.count().label("webhooks"),
    sa.func.min(_EACH.c.next_at, type_=_ROWS.c.next_at.type).label("next_at"),
).group_by(_EACH.c.state)


def _some(of: sa.Table, *which: sa.ColumnElement[bool] | sa.TextClause) -> sa.ScalarSelect[Any]:
    """How many there are, up to MOST + 1."""
    some = sa.select(sa.literal(1).label("one")).select_from(of).where(*which).limit(MOST + 1)
    return sa.select(sa.func.count()).select_from(some.subquery()).scalar_subquery()


def _waiting(
    of: sa.Table, next_at: sa.Column[Any] | None, *which: sa.ColumnElement[bool] | sa.TextClause
) -> sa.Select[Any]:
    """The same, and when the first of them is due."""
    columns = [_some(of, *which).label("waiting")]
    if next_at is not None:
        first = sa.select(next_at).where(*which, next_at.is_not(None)).order_by(next_at).limit(1)
        columns.append(first.scalar_subquery().label("next_at"))
    return sa.select(*columns)


# In the words of their indexes, which hold only what waits.
_DELIVERIES = {
    status: _waiting(_ROWS, None, sa.text(f"status = '{status}'")) for status in ("waiting", "dead")
}
_JOBS = table(Job)
_HAVING = (
    sa.select(_JOBS.c.provider_id)
    .where(
        sa.text(IS_OPEN),
        _JOBS.c.status.in_((Status.SENT.value, Status.UNCERTAIN.value)),
        _JOBS.c.account_id == sa.bindparam("its"),
        _JOBS.c.provider_id.in_(sa.bindparam("them", expanding=True)),
    )
    .distinct()
)
_STORED, _INBOUND = table(Callback), table(InboundFax)
_WAITING = {
    "callbacks": _waiting(_STORED, _STORED.c.next_at, sa.text("applied_at IS NULL")),
    "inbound": _waiting(
        _INBOUND,
        _INBOUND.c.next_at,
        _INBOUND.c.next_at.is_not(None),
        _INBOUND.c.status == Reception.FETCHING.value,
    ),
    "notices": _waiting(table(Notice), None, sa.text("notification_id IS NULL")),
}
