"""Metrics: what Prometheus is told is what the rows say, whoever answers; who may read it, what it costs, and that
nothing of a person is in it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from faxbot import alarms, figures, metrics, results, sweeps, wiring
from faxbot.config import Config
from faxbot.events import Event, Status
from faxbot.metrics import COUNTER, HISTOGRAM, METRICS, QUEUES
from faxbot.models import FaxEvent, ProviderState, WebhookDelivery
from faxbot.runtime import Runtime
from faxbot.tasks import app as tasks
from faxbot.web.app import create_app
from tests.installation import Installation
from tests.integration import hooks
from tests.integration.site import Site, number
from tests.integration.web import assert_problem, client_of, new_key

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Values = dict[tuple[str, ...], float]


def families(text: bytes) -> dict[str, Family]:
    """As Prometheus' own parser for Python understands them, by the names of METRICS."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        found[f"{family.name}_total" if family.type == "counter" else family.name] = family
    return found


def scraped(site: Site) -> dict[str, Values]:
    """All samples by name and labels."""
    found: dict[str, Values] = {}
    for name, family in families(metrics.exposition(site.runtime)).items():
        order = (*METRICS[name].labels, "le")
        for sample in family.samples:
            labels = tuple(sample.labels[each] for each in order if each in sample.labels)
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def deliver(site: Site, job_id: str, took: float) -> None:
    site.now += timedelta(seconds=took)
    with site.runtime.database.transaction() as session:
        job = results.locked(session, job_id)
        attempt = site.attempt(job_id)
        results.record_event(
            session, job, Event.DELIVERED, now=site.now, source="poll", status=Status.DELIVERED, attempt=attempt
        )  # fmt: skip


# What they say --------------------------------------------------------------------------------------


def test_every_metric_is_there_with_its_kind_its_labels_and_its_meaning(site: Site) -> None:
    sent = site.sent()
    deliver(site, sent, 3)
    site.purge()
    sweeps.run(site.runtime)
    found = families(metrics.exposition(site.runtime))

    assert set(found) == set(METRICS)
    for name, metric in METRICS.items():
        family = found[name]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        if metric.kind == COUNTER:
            assert name.endswith("_total")
        labels = {tuple(set(sample.labels) - {"le"}) for sample in family.samples}
        if name != "faxbot_queue_rings":  # no broker here
            assert {frozenset(each) for each in labels} == {frozenset(metric.labels)}, name


def test_faxes_are_told_by_status_and_totals_by_what_happened(site: Site) -> None:
    site.fax()
    deliver(site, site.sent(), 7)
    site.now += timedelta(minutes=2)
    site.fax(send_at=site.now + DAY)
    figures.sweep(site.runtime)
    told = scraped(site)

    assert told["faxbot_faxes_open"] == {
        (status,): {"queued": 2}.get(status, 0)
        for status in ("queued", "submitting", "sent", "retrying", "held", "uncertain")
    }
    assert 126 <= told["faxbot_faxes_oldest_seconds"]["queued",] < 129
    assert 120 <= told["faxbot_faxes_overdue_seconds"]["queued",] < 129
    assert told["faxbot_faxes_overdue_seconds"]["sent",] == 0
    assert told["faxbot_faxes_total"] == {
        ("accepted",): 3, ("delivered",): 1, ("failed",): 0, ("received",): 0, ("cancelled",): 0,
    }  # fmt: skip
    assert told["faxbot_events_total"]["FAX_DELIVERED", "simulator", ""] == 1
    assert told["faxbot_accept_to_sent_seconds_count"] == {("simulator",): 1}
    assert told["faxbot_sent_to_final_seconds_count"] == {("simulator", "delivered"): 1}
    assert told["faxbot_sent_to_final_seconds_sum"] == {("simulator", "delivered"): 7}
    buckets = told["faxbot_sent_to_final_seconds_bucket"]
    its = [buckets["simulator", "delivered", le] for le in ("1", "5", "10", "+Inf")]
    assert its == [0, 0, 1, 1]
    assert told["faxbot_figures_lag_seconds"] == {(): 0}


def test_events_are_told_by_the_class_of_their_cause_whatever_it_is(site: Site) -> None:
    row = {
        "account_id": "default", "job_id": None, "sequence": 1, "schema_version": 1, "status": "failed",
        "type": "FAX_FAILED", "source": "api", "provider_id": "p", "occurred_at": site.now, "recorded_at": site.now,
    }  # fmt: skip
    with site.runtime.database.writing() as connection:
        for cause in ("busy", "no_answer", "number_dead", "funds", None, "never heard of"):
            connection.execute(sa.insert(FaxEvent), [{**row, "cause": cause}])
    figures.sweep(site.runtime)

    assert scraped(site)["faxbot_events_total"] == {
        ("FAX_FAILED", "p", "again"): 2,
        ("FAX_FAILED", "p", "never"): 1,
        ("FAX_FAILED", "p", "hold"): 1,
        ("FAX_FAILED", "p", ""): 1,
        ("FAX_FAILED", "p", "other"): 1,
    }


def test_counters_never_fall_whatever_retention_removes(site: Site) -> None:
    """A counter that falls is taken for one that began anew, and what is left is counted once more."""
    days: dict[str, Any] = {
        "artifact_ttl_days": 1,
        "renditions_days": 1,
        "numbers_days": 1,
        "events_days": 1,
    }
    site.runtime = replace(site.runtime, config=replace(site.runtime.config, **days))
    names = {name for name, metric in METRICS.items() if metric.kind == COUNTER}
    names |= {
        f"{name}_{part}"
        for name, metric in METRICS.items()
        if metric.kind == HISTOGRAM
        for part in ("bucket", "count", "sum")
    }
    told = []
    for _ in range(4):
        deliver(site, site.sent(), 20)
        sweeps.run(site.runtime)
        told.append(scraped(site))
        site.now += 3 * DAY
        site.purge()
        site.sweep()
        told.append(scraped(site))

    assert site.count(FaxEvent) < 10, "retention has removed most of them"
    for before, after in pairwise(told):
        for name in names & set(before):
            for labels, value in before[name].items():
                assert after[name][labels] >= value, (name, labels)
    assert told[-1]["faxbot_faxes_total"]["accepted",] == 4
    assert told[-1]["faxbot_retention_last_run_removed"]["document",] == 1


def test_providers_sweeps_retention_webhooks_and_alarms_are_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_runtime: Runtime) -> int:
        raise ValueError("+15550101234 is in this text")

    monkeypatch.setitem(sweeps.SWEEPS, "held", broken)
    for _ in range(2):
        with pytest.raises(ValueError, match="is in this text"):
            sweeps.run(site.runtime)
    webhook_id, _ = hooks.subscribe(site.runtime, "https://hooks.example.org/")
    site.submit(number())
    site.now += HOUR
    told = scraped(site)
    assert told["faxbot_sweep_failures_total"]["held",] == 2
    assert told["faxbot_sweep_failures_total"]["queued",] == 0
    assert told["faxbot_sweep_last_success_timestamp_seconds"]["held",] == 0
    last = told["faxbot_sweep_last_success_timestamp_seconds"]["queued",]
    assert last == (site.now - HOUR).timestamp()
    assert set(told["faxbot_sweep_overdue"].values()) == {1}
    assert told["faxbot_webhooks"]["active",] == 1
    assert told["faxbot_webhook_deliveries"] == {("waiting",): 1, ("dead",): 0}
    assert told["faxbot_webhook_overdue_seconds"][()] >= 3599
    assert told["faxbot_provider_state"]["simulator", "closed"] == 1
    assert sum(told["faxbot_provider_state"].values()) == 1
    assert told["faxbot_alarm"] == {(code,): 0 for code in alarms.CODES}

    with site.runtime.database.transaction() as session:
        session.execute(sa.update(WebhookDelivery).values(status="dead", next_at=None))
        session.execute(sa.text("UPDATE webhooks SET state = 'disabled'"))
    site.runtime.breakers.forget()
    stands(site, "simulator", paused_at=site.now)
    told = scraped(site)
    assert told["faxbot_webhook_deliveries"] == {("waiting",): 0, ("dead",): 1}
    assert told["faxbot_webhook_overdue_seconds"][()] == 0
    assert (told["faxbot_alarm"]["webhooks",], told["faxbot_alarm"]["retention",]) == (1, 0)
    assert told["faxbot_provider_state"]["simulator", "paused"] == 1
    assert webhook_id


def stands(site: Site, provider_id: str, **columns: datetime) -> None:
    """Write down that something happened to a provider."""
    row = {
        "account_id": "default",
        "provider_id": provider_id,
        "openings": 0,
        "updated_at": site.now,
        **columns,
    }
    with site.runtime.database.writing() as connection:
        connection.execute(sa.insert(ProviderState), row)


def with_settings(site: Site, **options: Any) -> None:
    site.runtime = replace(site.runtime, config=replace(site.runtime.config, **options))


def states(site: Site) -> set[tuple[str, ...]]:
    """How providers stand, of those that are told."""
    return {which for which, value in scraped(site)["faxbot_provider_state"].items() if value}


def test_a_provider_that_is_active_no_more_is_told_no_more(site: Site) -> None:
    """Nobody probes it, so that its breaker would stay half open for ever; its faxes are asked after all the same."""
    site.sent()
    for provider_id in ("simulator", "uninstalled"):
        stands(site, provider_id, opened_at=site.now - HOUR, rests_until=site.now - DAY)
    assert states(site) == {("simulator", "half_open")}

    with_settings(site, fax_backends="phaxio")
    assert states(site) == {("phaxio", "closed")}


def test_a_disabled_plugin_is_told_as_long_as_somebody_misses_it(site: Site) -> None:
    sent = site.sent()
    for provider_id in ("simulator", "uninstalled"):
        stands(site, provider_id, disabled_at=site.now)
    with_settings(site, fax_backends="phaxio")
    disabled = {("phaxio", "closed"), ("simulator", "plugin_disabled")}
    assert states(site) == disabled, "nobody asks after the fax that it has"

    deliver(site, sent, 1)
    assert states(site) == {("phaxio", "closed")}

    with_settings(site, inbound_backends="simulator", inbound_enabled=True)
    assert states(site) == disabled, "what comes in is not fetched"


def test_every_alarm_that_may_be_raised_has_its_metric() -> None:
    source = Path(alarms.__file__).read_text(encoding="utf-8")
    raised = {getattr(alarms, name) for name in re.findall(r"Alarm\(([A-Z_]+),", source)}

    assert raised | set(map(str, alarms.WAITS)) == set(alarms.CODES)


def test_every_queue_has_a_task_by_which_it_is_asked() -> None:
    assert {queue: tasks.QUEUES[task] for queue, task in QUEUES.items()} == {
        queue: queue for queue in set(tasks.QUEUES.values())
    }


def test_the_broker_says_how_much_waits_for_a_worker(config: Config, broker: str) -> None:
    assert broker
    bell = tasks.Bell(config)
    runtime = wiring.build(config, ring=bell, unanswered=bell.unanswered)
    for _ in range(3):
        assert bell(QUEUES["send"], "an id", 3)
    told = {sample[:2]: sample.value for sample in metrics.samples(runtime)}
    runtime.close()

    assert told["faxbot_broker_up", ()] == 1
    assert told["faxbot_queue_rings", ("send",)] == 3
    assert told["faxbot_queue_rings", ("sweep",)] == 0


def test_a_broker_that_is_away_is_said_to_be_so(site: Site) -> None:
    config = replace(site.runtime.config, broker_url="redis://127.0.0.1:9/0")
    site.runtime = replace(site.runtime, config=config)
    told = scraped(site)

    assert told["faxbot_broker_up"] == {(): 0}
    assert "faxbot_queue_rings" not in told


# What is not in them --------------------------------------------------------------------------------


def test_nothing_of_a_person_or_of_one_fax_is_in_them(site: Site) -> None:
    to = number()
    job_id = site.submit(to, header="Dr. Jane Roe", tags={"ward": "seven"}).job_id
    hooks.subscribe(site.runtime, "https://hooks.example.org/secret")
    figures.sweep(site.runtime)
    text = metrics.exposition(site.runtime).decode()

    for word in (to, to[1:], to[-7:], job_id, "Roe", "ward", "seven", "hooks.example", "default"):
        assert word not in text


def test_they_do_not_grow_with_faxes_and_accounts(site: Site) -> None:
    deliver(site, site.sent(), 1)
    figures.sweep(site.runtime)
    lines = len(metrics.exposition(site.runtime).splitlines())
    for account in ("default", "other", "third"):
        row = {
            "account_id": account, "job_id": None, "sequence": 1, "schema_version": 1, "status": "queued",
            "type": "FAX_QUEUED", "source": "api", "occurred_at": site.now, "recorded_at": site.now,
        }  # fmt: skip
        with site.runtime.database.writing() as connection:
            connection.execute(sa.insert(FaxEvent), [row] * 20)
    figures.sweep(site.runtime)
    told = scraped(site)

    assert len(metrics.exposition(site.runtime).splitlines()) == lines
    assert told["faxbot_faxes_total"]["accepted",] == 61


# Who may read them ----------------------------------------------------------------------------------

HERE = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8080"}


@pytest.fixture
def embedded_runtime(embedded: Installation) -> Any:
    runtime = wiring.build(embedded.config())
    yield runtime
    runtime.close()


@pytest.mark.parametrize(
    "environ",
    [
        HERE,
        {**HERE, "HTTP_HOST": "localhost"},
        {**HERE, "REMOTE_ADDR": "127.1.2.3"},
        {**HERE, "REMOTE_ADDR": "::1", "HTTP_HOST": "[::1]:8080"},
        {**HERE, "REMOTE_ADDR": "::ffff:127.0.0.1"},
    ],
)
def test_a_program_of_this_machine_needs_no_key(
    embedded_runtime: Runtime, environ: dict[str, str]
) -> None:
    answer = create_app(embedded_runtime).test_client().get("/metrics", environ_overrides=environ)

    assert (answer.status_code, answer.content_type) == (200, metrics.CONTENT_TYPE)
    assert answer.data.startswith(b"# HELP faxbot_info")


@pytest.mark.parametrize(
    "environ",
    [
        {**HERE, "REMOTE_ADDR": "192.0.2.7"},
        {**HERE, "REMOTE_ADDR": "10.0.0.1"},
        {**HERE, "REMOTE_ADDR": ""},
        {**HERE, "HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {**HERE, "HTTP_X_FORWARDED_FOR": ""},
        {**HERE, "HTTP_FORWARDED": "for=127.0.0.1"},
        {**HERE, "HTTP_X_REAL_IP": "127.0.0.1"},
        {**HERE, "HTTP_VIA": "1.1 proxy"},
        {**HERE, "HTTP_X_FORWARDED_HOST": "localhost"},
        {**HERE, "HTTP_X_FORWARDED_PROTO": "http"},
        {**HERE, "HTTP_HOST": "fax.example.org"},
        {**HERE, "HTTP_HOST": "127.0.0.1.example.org"},
        {**HERE, "HTTP_HOST": "localhost@example.org"},
    ],
)
def test_who_may_come_from_elsewhere_needs_one(
    embedded_runtime: Runtime, environ: dict[str, str]
) -> None:
    client = create_app(embedded_runtime).test_client()
    assert_problem(client.get("/metrics", environ_overrides=environ), 401, "unauthenticated")


@pytest.mark.parametrize(
    "changes",
    [
        {"FAXBOT_TRUSTED_PROXIES": "127.0.0.1"},
        {"PUBLIC_API_URL": "https://fax.example.org"},
        {"PUBLIC_API_URL": "http://192.0.2.1:8080"},
        {"FAXBOT_ENV": "production"},
    ],
)
def test_where_there_is_a_proxy_or_may_be_one_nobody_is_here(
    embedded: Installation, changes: dict[str, str]
) -> None:
    key = {"CONFIG_MASTER_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
    runtime = wiring.build(embedded.config(**changes, **key))
    client = create_app(runtime).test_client()
    answer = client.get("/metrics", environ_overrides=HERE)
    runtime.close()

    assert_problem(answer, 401, "unauthenticated")


def test_a_key_needs_the_scope_also_on_this_machine(embedded_runtime: Runtime) -> None:
    assert (
        client_of(embedded_runtime, new_key(embedded_runtime, "metrics"))
        .get("/metrics")
        .status_code
        == 200
    )
    other = client_of(embedded_runtime, new_key(embedded_runtime, "fax:read"))
    assert_problem(other.get("/metrics"), 403, "forbidden")
    wrong = client_of(embedded_runtime, "fbk_live_000000000000_" + "x" * 43)
    assert_problem(wrong.get("/metrics"), 401, "unauthenticated")


def test_without_a_database_it_is_away_and_not_empty(embedded_runtime: Runtime) -> None:
    client = create_app(embedded_runtime).test_client()
    assert client.get("/metrics").status_code == 200
    with embedded_runtime.database.writing() as connection:
        connection.execute(sa.text("ALTER TABLE event_counts RENAME TO gone"))
    embedded_runtime.tallies._remembered.clear()

    answer = assert_problem(client.get("/metrics"), 503, "database-away")
    assert "faxbot_" not in str(answer)


def test_many_scrapes_cost_one_within_two_seconds(embedded_runtime: Runtime) -> None:
    asked = list[str]()

    def note(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if "event_counts" in text:
            asked.append(text)

    sa.event.listen(embedded_runtime.database.reader, "before_cursor_execute", note)
    client = create_app(embedded_runtime).test_client()
    for _ in range(20):
        assert client.get("/metrics").status_code == 200

    assert 1 <= len(asked) <= 3
