"""What lists, pages and submits take beside ten thousand faxes and a million, from a browser's side: those of the API
and of the console, asked one after the other on a connection that stays open."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from benchmarks import documents, product
from benchmarks.client import Pace, drive
from benchmarks.figures import Figures
from benchmarks.launch import Workshop
from benchmarks.servers import Servers
from benchmarks.service import Submissions
from benchmarks.sides import Side
from benchmarks.stages import Length, keep_some
from faxbot import sessions, users, wiring
from faxbot.actors import ADMIN, CLI
from faxbot.config import Config

FEW, MANY = "10,000 faxes", "1,000,000 faxes"
SIZES = {FEW: 10_000, MANY: 1_000_000}
_WEBHOOK = "0" * 31 + "1"
ALIKE = {
    "overview": "/admin/ui/",
    "list of all": "/admin/ui/faxes",
    "list of what needs somebody": "/admin/ui/faxes?tab=needs-you",
    "list of what was not sent": "/admin/ui/faxes?tab=failed",
    "list of one provider": "/admin/ui/faxes?provider_id=simulator",
    "list of a provider that has three": "/admin/ui/faxes?provider_id=seldom",
    "what needs somebody, by cause": "/admin/ui/needs-you",
    "received faxes": "/admin/ui/inbound",
    "unread ones": "/admin/ui/inbound?tab=unread",
    "three that failed": "/admin/ui/inbound?tab=failed",
    "three that are being fetched": "/admin/ui/inbound?tab=fetching",
    "providers": "/admin/ui/providers",
    "one provider": "/admin/ui/providers/simulator",
    "webhooks": "/admin/ui/webhooks",
    "deliveries": f"/admin/ui/webhooks/{_WEBHOOK}/deliveries",
    "three deliveries of a type": f"/admin/ui/webhooks/{_WEBHOOK}/deliveries?type=FAX_HELD",
    "notifications": "/admin/ui/notifications",
    "settings": "/admin/ui/settings",
    "audit trail": "/admin/ui/audit",
    "one actor's deeds": "/admin/ui/audit?actor=bench",
    "three deeds that were refused": "/admin/ui/audit?outcome=refused",
    "retention": "/admin/ui/retention",
    "diagnostics": "/admin/ui/diagnostics",
}
"""Pages whose address is the same everywhere."""
ENDED, ENDED_SO = "list of what ended within an hour", "list of what was not sent within an hour"
CONSOLE = (*ALIKE, "list of one number", "one fax", ENDED, ENDED_SO)
ONE, LIST, ONE_STATUS = (
    "one fax over the API",
    "a list over the API",
    "a list of one status over the API",
)
SUBMIT = "a submit"
GROWTH = {
    SUBMIT: 1.3,
    LIST: 1.5,
    ONE_STATUS: 2.0,
    # A provider's page tells of its calls of a day: of 86,400 here, and of 10,000 there.
    **{one: 2.0 for one in CONSOLE if one not in ("providers", "one provider")},
    "list of all": 1.5,
}
"""How much longer each may take where there are many: P14's limits."""
HELD = 500
ASKED = 40
"""Requests of each kind in a round."""

_JOBS = """
INSERT INTO jobs (id, account_id, created_by, status, reason, to_sealed, to_key, resolution, priority, tags,
                  provider_id, pages, pages_sent, attempts, tries, faults, deaths, fence, last_sequence, created_at,
                  updated_at, next_at)
SELECT lpad(to_hex(n), 32, '0'), 'default', 'bench', CASE WHEN n <= :held THEN 'held' WHEN n % 20 = 0 THEN 'failed'
       ELSE 'delivered' END, CASE WHEN n <= :held THEN 'paused' WHEN n % 20 = 0 THEN 'number_dead' END, to_sealed,
       CASE WHEN n % 100 = 0 THEN to_key ELSE md5((n % 5000)::text) END, 'fine', 128, '{}',
       CASE WHEN n <= 3 THEN 'seldom' ELSE 'simulator' END, 3, 3, 1, 1, 0, 0, 1, 3, now(), now(),
       CASE WHEN n <= :held THEN now() + interval '1 hour' END
FROM (SELECT to_sealed, to_key FROM jobs WHERE id = :like) AS one, generate_series(1, :faxes) AS n
"""
_EVENTS = """
INSERT INTO events (account_id, job_id, sequence, type, schema_version, status, attempt, provider_id, pages, pages_sent,
                    source, occurred_at, recorded_at)
SELECT 'default', lpad(to_hex(n), 32, '0'), s,
       (ARRAY['FAX_QUEUED', 'FAX_SENT', CASE WHEN n % 20 = 0 THEN 'FAX_FAILED' ELSE 'FAX_DELIVERED' END])[s], 1,
       (ARRAY['queued', 'sent', CASE WHEN n % 20 = 0 THEN 'failed' ELSE 'delivered' END])[s],
       CASE WHEN s > 1 THEN 1 END, 'simulator', 3, 3, 'bench', now() - n * interval '1 second',
       now() - n * interval '1 second'
FROM generate_series(1, :faxes) AS n, generate_series(1, 3) AS s
"""
_ATTEMPTS = """
INSERT INTO attempts (id, account_id, job_id, number, provider_id, tag, outcome, counted, pages_sent, intended_at,
                      answered_at, verdict, fence, looks, absences)
SELECT lpad(to_hex(n), 32, '0'), 'default', lpad(to_hex(n), 32, '0'), 1, 'simulator', md5(n::text), 'delivered', true,
       3, now() - n * interval '1 second', now() - n * interval '1 second', 'ok', 1, 0, 0
FROM generate_series(1, :faxes) AS n
"""
_RECEIVED = """
INSERT INTO inbound_faxes (id, account_id, provider_id, external_id, status, numbers_sealed, pages, size, tries,
                           last_sequence, read_at, received_at, created_at, updated_at)
SELECT lpad(to_hex(n), 32, '0'), 'default', 'simulator', n::text,
       CASE WHEN n <= 3 THEN 'failed' WHEN n <= 6 THEN 'fetching' ELSE 'received' END, ''::bytea, 3, 50000, 1, 1,
       CASE WHEN n % 100 > 0 THEN now() END, now(), now(), now()
FROM generate_series(1, :faxes) AS n
"""
_DEEDS = """
INSERT INTO audit_events (account_id, happened_at, actor_kind, actor, action, object_kind, object_id, outcome, details,
                          proof)
SELECT 'default', now() - n * interval '1 second', 'key', CASE WHEN n % 100 = 0 THEN 'bench' ELSE 'another' END,
       'fax.submitted', 'fax',
       lpad(to_hex(n), 32, '0'), CASE WHEN n <= 3 THEN 'refused' ELSE 'done' END, '{}', n::text
FROM generate_series(1, :faxes) AS n
"""
_HOOK = f"""
INSERT INTO webhooks (id, account_id, created_by, name, url_sealed, types, state, failures, rests, fence, created_at,
                      updated_at)
VALUES ('{_WEBHOOK}', 'default', 'bench', 'records', ''::bytea, '[]', 'disabled', 0, 0, 0, now(), now())
"""
_DELIVERIES = f"""
INSERT INTO webhook_deliveries (id, account_id, webhook_id, fax_id, sequence, type, body, status, tries, turn, replays,
                                created_at, ended_at)
SELECT 'msg_' || lpad(to_hex(n), 32, '0'), 'default', '{_WEBHOOK}', lpad(to_hex(n), 32, '0'), 1,
       CASE WHEN n <= 3 THEN 'FAX_HELD' ELSE 'FAX_DELIVERED' END, '', 'delivered', 0, 0, 0, now(), now()
FROM generate_series(1, :faxes) AS n
"""
_FIGURES = """
INSERT INTO event_counts (span, minute, account_id, type, status, provider_id, cause, times)
SELECT 1, extract(epoch from now())::bigint / 60 - m, 'default', (ARRAY['FAX_QUEUED', 'FAX_SENT', 'FAX_DELIVERED',
       'FAX_FAILED'])[s], (ARRAY['queued', 'sent', 'delivered', 'failed'])[s],
       CASE WHEN s > 1 THEN 'simulator' ELSE '' END, CASE WHEN s = 4 THEN 'busy' ELSE '' END, 100
FROM generate_series(0, 2880) AS m, generate_series(1, 4) AS s
"""


@dataclass(frozen=True, slots=True)
class _Place:
    """A web process, and what it is asked for by name."""

    side: Side
    cookie: str
    paths: dict[str, str]


def measure(
    figures: Figures,
    workshop: Workshop,
    servers: Servers,
    length: Length,
    say: Callable[[str], None],
) -> None:
    """Milliseconds of each list and page (p95 of a round), beside few faxes and many in turns."""
    places = {
        name: _place(
            workshop,
            name,
            servers.postgres.new_database(),
            servers.redis.database(number + 1),
            size,
            say,
        )
        for number, (name, size) in enumerate(SIZES.items())
    }
    for number in range(length.rounds):
        say(f"lists and pages, round {number + 1} of {length.rounds}")
        for name, place in places.items():
            found = {what: _p95(_asked(place, path)) for what, path in place.paths.items()}
            found[SUBMIT] = _p95(_submitted(place))
            for what, milliseconds in found.items():
                figures.add(f"pages/{what}", name, milliseconds)
            figures.add("pages/list to one", name, found[LIST] / found[ONE])


def _place(
    workshop: Workshop,
    name: str,
    database: str,
    redis: str,
    faxes: int,
    say: Callable[[str], None],
) -> _Place:
    say(f"filling a ledger with {name}")
    side = product.start_web(workshop, name.replace(",", ""), database, redis)
    fax_id = keep_some(side, documents.pdf_page())[0]
    folder = workshop.folder / f"{name.replace(',', '')}-data".replace(" ", "-")
    config = Config.load({"DATABASE_URL": database, "FAX_DATA_DIR": str(folder)})
    runtime = wiring.build(config, ring=lambda _task, _row_id, _urgency=0, /: True)
    try:
        _fill(database, faxes, fax_id)
        now = runtime.now()
        with runtime.database.transaction() as session:
            user = users.create(session, CLI, name="bench", password=None, role=ADMIN, now=now)
            token = sessions.begin(runtime, session, CLI, user, now=now).token
            to_key = session.scalar(
                sa.text("SELECT to_key FROM jobs WHERE id = :id"), {"id": fax_id}
            )
    finally:
        runtime.close()
    hour_ago = f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    return _Place(
        side,
        f"faxbot_session={token}",
        {
            ONE: f"/fax/{fax_id}",
            LIST: "/fax?limit=50",
            ONE_STATUS: "/fax?limit=50&status=failed",
            **ALIKE,
            "list of one number": f"/admin/ui/faxes?to_key={to_key}",
            "one fax": f"/admin/ui/faxes/{fax_id}",
            ENDED: f"/admin/ui/faxes?ended_since={hour_ago}",
            ENDED_SO: f"/admin/ui/faxes?tab=failed&ended_since={hour_ago}",
        },
    )


def _fill(database: str, faxes: int, like: str) -> None:
    # faxbot's own connections give up what takes so long.
    engine = sa.create_engine(sa.make_url(database).set(drivername="postgresql+psycopg"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(_FIGURES))
        connection.execute(sa.text(_HOOK))
        for table, statement in (
            ("jobs", _JOBS),
            ("events", _EVENTS),
            ("attempts", _ATTEMPTS),
            ("inbound_faxes", _RECEIVED),
            ("audit_events", _DEEDS),
            ("webhook_deliveries", _DELIVERIES),
        ):
            connection.execute(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
            words: dict[str, object] = {"faxes": faxes}
            words |= {"held": HELD, "like": like} if table == "jobs" else {}
            connection.execute(sa.text(statement), words)
            connection.execute(sa.text(f"ALTER TABLE {table} ENABLE TRIGGER ALL"))
            connection.execute(sa.text(f"VACUUM ANALYZE {table}"))
    engine.dispose()


def _submitted(place: _Place) -> list[float]:
    """Seconds of each of ASKED submits, one after the other; raises ConnectionError for one that was not taken."""
    service = place.side.service
    requests = Submissions(service, documents.pdf_page()).take(ASKED)
    replies = drive(service.address, requests, Pace(1))
    if any(reply.status != 202 for reply in replies):
        raise ConnectionError("a submit was not taken")
    return [reply.seconds for reply in replies][5:]


def _p95(seconds: list[float]) -> float:
    """In milliseconds."""
    return 1000 * sorted(seconds)[int(0.95 * len(seconds))]


def _asked(place: _Place, path: str) -> list[float]:
    """Seconds of each of ASKED requests; raises ConnectionError for an answer that is none."""
    service = place.side.service
    proof = {"Cookie": place.cookie} if path.startswith("/admin") else {"X-API-Key": service.key}
    connection = http.client.HTTPConnection(service.address.host, service.address.port, 60)
    taken = []
    for _ in range(ASKED):
        begun = time.perf_counter()
        connection.request("GET", path, headers=proof)
        answer = connection.getresponse()
        answer.read()
        taken.append(time.perf_counter() - begun)
        if answer.status != 200:
            raise ConnectionError(f"{path}: {answer.status}")
    connection.close()
    return taken[5:]
