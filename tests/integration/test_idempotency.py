"""One Idempotency-Key, one fax: whoever asks, however often, and from however many processes at
once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import jobs
from faxbot.actors import Actor
from faxbot.db import Database
from faxbot.errors import KeyInFlight, KeyReused
from faxbot.hidden import Hidden
from faxbot.jobs import Answer
from faxbot.models import Artifact, FaxEvent, IdempotencyKey, Job, JobTag
from tests.ground import eventually
from tests.integration.site import ACTOR, Site
from tests.threads import at_once

TABLES = (Job, FaxEvent, Artifact, JobTag, IdempotencyKey)
TO = "+15550107700"


def rows(site: Site) -> dict[str, int]:
    return {model.__tablename__: site.count(model) for model in TABLES}


# A key --------------------------------------------------------------------------------------------


def test_the_same_request_again_gets_the_first_answer_byte_for_byte(site: Site) -> None:
    first = site.submit(TO, key="order-1", tags={"b": "2", "a": "1"}, header="Dr. Doe")
    site.after(61)
    again = site.submit(TO, key="order-1", tags={"a": "1", "b": "2"}, header="Dr. Doe")

    assert first == Answer(202, first.body, False, first.job_id)
    assert again == Answer(202, first.body, True, first.job_id)
    assert site.job(first.job_id).status == "sent", "the answer is the first one, not today's"
    assert json.loads(again.body)["status"] == "queued"
    assert (site.count(Job), site.count(IdempotencyKey)) == (1, 1)
    assert site.stored() == 2, "the document and its fax pages, and no second copy of either"
    assert site.rung == []


OTHER: tuple[dict[str, Any], ...] = (
    {"to": "+15550107701"},
    {"resolution": "standard"},
    {"priority": 127},
    {"header": "x"},
    {"tags": {"a": "2"}},
    {"tags": {}},
    {"pages": 2},
    {"provider_id": "simulator"},
    {"send_at": timedelta(hours=1)},
    {"expires_at": timedelta(hours=1)},
)


def test_another_request_with_the_same_key_is_refused_and_leaves_nothing(site: Site) -> None:
    first = site.submit(TO, key="order-1", tags={"a": "1"})
    before = (rows(site), site.stored(), site.rung.copy())

    for other in OTHER:
        wish = {"to": TO, "tags": {"a": "1"}, "key": "order-1", **other}
        times = {n: site.now + after for n, after in wish.items() if n.endswith("_at")}
        with pytest.raises(KeyReused):
            site.submit(**{**wish, **times})
        assert (rows(site), site.stored(), site.rung) == before, other

    assert site.submit(TO, key="order-1", tags={"a": "1"}).body == first.body


def test_keys_belong_to_their_account_and_faxes_without_one_are_all_new(site: Site) -> None:
    other = Actor("other", "k", frozenset({"*"}))
    colleague = Actor("default", "another-key", frozenset({"*"}))
    mine = site.submit(TO, key="order-1")

    assert site.submit(TO, key="order-1", actor=other).replayed is False
    assert site.submit(TO, key="order-2").replayed is False
    assert site.submit(TO, key="order-1 ").replayed is False
    assert site.submit(TO, key="order-1", actor=colleague).job_id == mine.job_id
    assert len({site.submit(TO).job_id for _ in range(3)}) == 3


def test_a_key_says_nothing_in_the_database_and_lives_for_31_days(site: Site) -> None:
    site.submit(TO, key="patient-jane-doe")

    with site.runtime.database.reading() as session:
        row = session.scalars(sa.select(IdempotencyKey)).one()
    assert row.expires_at - row.created_at == timedelta(days=31)
    assert b"0107700" not in row.response_sealed
    assert "jane" not in repr(vars(row))


# In flight, and many at once ----------------------------------------------------------------------

_OTHER_PROCESS = """
import sys
from pathlib import Path
import sqlalchemy as sa
from faxbot import jobs, wiring
from faxbot.artifacts import Upload
from faxbot.config import Config
from faxbot.errors import KeyInFlight
from faxbot.hidden import Hidden
from tests.integration.site import ACTOR, tiff
import hashlib, secrets, threading

mode, count = sys.argv[1], int(sys.argv[2])
runtime = wiring.build(Config.load())

def upload():
    runtime.config.spool_dir.mkdir(parents=True, exist_ok=True)
    path = runtime.config.spool_dir / secrets.token_hex(8)
    path.write_bytes(tiff(1))
    return Upload(path, hashlib.sha256(tiff(1)).hexdigest(), len(tiff(1)), "image/tiff", 1)

def submit():
    wish = jobs.Submission(to=Hidden("+15550107700"), uploads=(upload(),))
    return jobs.submit(runtime, ACTOR, wish, key="order-1", present=lambda job: job.id.encode())

def wait(_connection, _cursor, text, *_):
    if mode == "hold" and text.startswith("INSERT INTO events"):
        print("holding", flush=True)
        sys.stdin.read(1)

def until_answered(answers):
    while True:
        try:
            answers.append(submit().body)
            return
        except KeyInFlight:
            pass

sa.event.listen(runtime.database.engine, "before_cursor_execute", wait)
if mode == "many":
    print("ready", flush=True)
    sys.stdin.read(1)
answers = []
threads = [threading.Thread(target=until_answered, args=(answers,)) for _ in range(count)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*{body.decode() for body in answers}, flush=True)
runtime.close()
"""


@contextmanager
def another_process(site: Site, mode: str, count: int = 1) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _OTHER_PROCESS, mode, str(count)],
        env=dict(site.runtime.config.environ) | {"PYTHONPATH": str(Path.cwd())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() in ("holding", "ready")
        yield process
    finally:
        process.kill()
        process.communicate()


def bare(site: Site) -> Answer:
    """The same request as the other process makes."""
    wish = jobs.Submission(to=Hidden(TO), uploads=(site.upload(),))
    return jobs.submit(
        site.runtime, ACTOR, wish, key="order-1", present=lambda job: job.id.encode()
    )


def test_while_the_first_is_in_flight_the_second_is_told_so_at_once(site: Site) -> None:
    with another_process(site, "hold") as other:
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises(KeyInFlight):
                bare(site)
            assert time.monotonic() - begun < 5, "it waited for the other, as SQLite does for ten"
        first, _ = other.communicate("x", timeout=20)

    answer = bare(site)
    assert (answer.replayed, answer.body.decode()) == (True, first.strip())
    assert (site.count(Job), site.stored()) == (1, 1)


def test_a_process_that_dies_in_flight_leaves_its_key_free_and_no_row(site: Site) -> None:
    with another_process(site, "hold") as other:
        other.kill()
        other.wait()

        def taken() -> Answer | None:
            try:
                return bare(site)
            except KeyInFlight:
                return None

        answer = eventually(taken)

    assert answer is not None
    assert answer.replayed is False
    assert (site.count(Job), site.count(FaxEvent)) == (1, 1)


def test_fifty_at_once_from_threads_and_processes_make_one_fax(site: Site) -> None:
    def until_answered() -> str:
        while True:
            try:
                return bare(site).body.decode()
            except KeyInFlight:
                continue

    with another_process(site, "many", 20) as one, another_process(site, "many", 20) as two:
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("x")
            process.stdin.flush()
        bodies = set(at_once(10, lambda _: until_answered()))
        for process in (one, two):
            bodies |= set(process.communicate(timeout=60)[0].split())

    assert len(bodies) == 1
    assert rows(site) == {
        "jobs": 1,
        "events": 1,
        "artifacts": 1,
        "job_tags": 0,
        "idempotency_keys": 1,
    }
    assert site.stored() == 1


def test_locks_of_different_names_do_not_meet_and_end_with_their_transaction(site: Site) -> None:
    one, two = site.runtime.database, Database(site.runtime.config)
    with one.transaction() as session:
        assert one.try_lock(session, "a" * 64)
        with two.transaction() as other:
            assert not two.try_lock(other, "a" * 64)
            assert two.try_lock(other, "b" * 64)
    with two.transaction() as other:
        assert two.try_lock(other, "a" * 64)
    two.close()
