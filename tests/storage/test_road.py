"""The road of a fax whose documents lie in S3, and what becomes of it while S3 is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from faxbot import artifacts, envelopes, health, sending
from faxbot.errors import StorageAway
from tests.carrier import SimulatorProcess
from tests.ground import Ground
from tests.installation import Installation
from tests.integration.site import Site, number, open_site
from tests.integration.web import assert_problem, client_of, left_behind, new_key, send
from tests.storage.server import S3Server

QUICK = {"S3_ATTEMPTS": "1", "S3_READ_SECONDS": "2", "S3_CONNECT_SECONDS": "2"}


@pytest.fixture(scope="module")
def frail(ground: Ground) -> Iterator[S3Server]:
    """One that is frozen, and thawed before the test ends."""
    server = S3Server(ground)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(frail: S3Server) -> str:
    return frail.bucket()


@pytest.fixture
def site(
    store: Installation, frail: S3Server, bucket: str, carrier_of_all: SimulatorProcess
) -> Iterator[Site]:
    with open_site(store, carrier_of_all, **frail.environ(bucket), **QUICK) as site:
        yield site
        frail.thaw()


def test_a_fax_goes_all_the_way_and_its_documents_lie_sealed_in_the_bucket(
    site: Site, frail: S3Server, bucket: str
) -> None:
    job_id = site.submit(number(), pages=2).job_id
    site.work()
    assert site.story(job_id) == "QUEUED SUBMITTING SENT"
    assert site.at_carrier(job_id) == 1
    documents, pages = artifacts.of_job(site.runtime.database, job_id)
    lying = frail.objects(bucket)
    assert lying.keys() == {f"faxbot/{each.key}.sealed" for each in (*documents, *pages)}
    assert {each[: len(envelopes.HEAD)] for each in lying.values()} == {envelopes.HEAD}
    assert site.stored() == 0


def test_a_submission_while_it_is_away_is_told_to_come_again_and_leaves_nothing(
    site: Site, frail: S3Server, bucket: str
) -> None:
    client = client_of(site.runtime, new_key(site.runtime))
    frail.freeze()
    answer = send(client, key="order-1")
    body = assert_problem(answer, 503, "storage-away")
    assert answer.headers["Retry-After"] == "5"
    assert "S3" not in json.dumps(body), "who sends faxes need not know where they are kept"
    assert left_behind(site.runtime) == {}

    frail.thaw()
    taken = send(client, key="order-1")
    assert taken.status_code == 202
    assert len(frail.objects(bucket)) == 1


def test_what_is_taken_waits_for_it_and_is_sent_once(site: Site, frail: S3Server) -> None:
    job_id = site.submit(number()).job_id
    site.rung.clear()
    frail.freeze()
    with pytest.raises(StorageAway):
        sending.attempt(site.runtime, job_id)
    job = site.job(job_id)
    assert (job.status, job.faults, job.attempts) == ("queued", 1, 0)

    frail.thaw()
    site.after(60)
    assert site.story(job_id) == "QUEUED SUBMITTING SENT"
    assert site.at_carrier(job_id) == 1


def test_a_document_that_is_gone_there_holds_its_fax_until_it_is_back(
    site: Site, frail: S3Server, bucket: str
) -> None:
    job_id = site.submit(number()).job_id
    ((name, content),) = frail.objects(bucket).items()
    frail.client().delete_object(Bucket=bucket, Key=name)
    site.work()
    site.after(60)
    assert site.story(job_id) == "QUEUED HELD"
    assert site.job(job_id).reason == "document_gone"

    frail.freeze()  # nor is it let go while nobody knows
    site.after(60)
    assert site.story(job_id) == "QUEUED HELD"
    frail.thaw()
    frail.client().put_object(Bucket=bucket, Key=name, Body=content)
    site.after(60)
    assert site.story(job_id) == "QUEUED HELD RELEASED SUBMITTING SENT"


def test_no_transaction_is_open_while_the_storage_is_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a held fax is looked at again."""
    job_id = site.submit(number()).job_id
    ((document,), _) = artifacts.of_job(site.runtime.database, job_id)
    storage = artifacts.storage(site.runtime, "s3")
    storage.delete(f"{document.key}.sealed")
    site.work()
    engines = (site.runtime.database.engine, site.runtime.database.reader)
    open_then: list[int] = []

    usual = storage.open

    def looking(key: str) -> BinaryIO:
        open_then.append(sum(engine.pool.checkedout() for engine in engines))  # type: ignore[attr-defined]
        return usual(key)

    monkeypatch.setattr(storage, "open", looking)
    site.after(60)
    assert open_then
    assert set(open_then) == {0}


def test_health_says_in_a_sentence_that_it_is_away(site: Site, frail: S3Server) -> None:
    def part() -> dict[str, object]:
        found: dict[str, object] = health.ready(site.runtime)["parts"]["storage"]
        return found

    assert part() == {"ok": True, "detail": "The bucket takes documents and gives them back."}
    frail.freeze()
    away = part()
    assert away["ok"] is False
    assert "S3_READ_SECONDS" in str(away["detail"])


def test_it_is_activated_only_when_it_works_and_its_secret_is_shown_to_nobody(
    store: Installation, frail: S3Server, bucket: str, carrier_of_all: SimulatorProcess
) -> None:
    settings = frail.settings(bucket, attempts=1)
    with open_site(store, carrier_of_all) as site:
        admin = client_of(site.runtime, new_key(site.runtime, "admin"))

        def put(**changes: object) -> int:
            wish = {"note": "to S3", "settings": {**settings, **changes}}
            answer = admin.put("/plugins/s3/config", json=wish)
            assert settings["secretAccessKey"] not in answer.text
            if answer.status_code == 409:
                assert "S3_BUCKET" in assert_problem(answer, 409, "change-refused")["detail"]
            return answer.status_code

        assert put(bucket="no-such-bucket") == 409
        assert put() == 200
        wish = {"note": "to S3", "slot": "storage"}
        assert admin.post("/admin/providers/s3/activate", json=wish).status_code == 200
        site.runtime = site.runtime.fresh()
        before = len(frail.objects(bucket))
        site.submit(number())
        assert len(frail.objects(bucket)) == before + 1
