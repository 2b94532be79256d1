"""A whole faxbot with its documents in S3: they lie there, sealed, and nowhere else; and what becomes of faxes while S3
is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from faxbot import envelopes
from tests.acceptance.site import PDF, SHORT, Site
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import Ground, eventually
from tests.installation import Installation, Service
from tests.planted import Planted, build
from tests.storage.server import S3Server


@pytest.fixture
def carrier(store: Installation) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(store.folder) as carrier:
        yield carrier


@pytest.fixture
def s3(ground: Ground) -> Iterator[S3Server]:
    server = S3Server(ground)
    server.start()
    yield server
    server.kill9()


def test_faxes_go_by_way_of_s3_and_wait_while_it_is_away(
    store: Installation, carrier: SimulatorProcess, s3: S3Server, start_service: StartService
) -> None:
    bucket = s3.bucket()
    quick = {"S3_ATTEMPTS": "1", "S3_READ_SECONDS": "4", "S3_CONNECT_SECONDS": "4"}
    service = start_service(store, "up", **SHORT, **carrier.environ, **s3.environ(bucket), **quick)
    site = Site(service, carrier)

    first = site.send()
    assert site.final(first)["status"] == "delivered"
    assert site.at_carrier(first) == 1
    lying = s3.objects(bucket)
    assert len(lying) == 2, "the document, and the fax pages made of it"
    assert {each[: len(envelopes.HEAD)] for each in lying.values()} == {envelopes.HEAD}
    assert nothing_lies_here(store)

    site.pause("simulator")
    waiting = site.send()
    eventually(lambda: site.fax(waiting)["status"] == "held", 20, every=0.1)
    s3.freeze()
    site.resume("simulator")
    eventually(lambda: "S3_READ_SECONDS" in service.output(), 30, every=0.1)  # a worker has asked

    form, files = {"to": "+15550100000"}, {"file": ("a name", PDF.read_bytes())}
    refused = service.request("POST", "/fax/send", data=form, files=files)
    assert (refused.status_code, refused.json()["type"]) == (503, "/docs#storage-away")
    ready = service.request("GET", "/health/ready")
    assert ready.status_code == 503
    assert "S3_READ_SECONDS" in ready.json()["parts"]["storage"]["detail"]
    s3.thaw()
    assert site.final(waiting)["status"] == "delivered"
    assert site.at_carrier(waiting) == 1


BEGINS = "        with runtime.database.writing() as connection:\n            if key is not None:\n"
DIES = "        import os\n        os.kill(os.getpid(), 9)\n"


def test_bytes_of_a_web_process_that_was_killed_are_collected_by_the_next_one_without_a_worker(
    store: Installation, s3: S3Server, tmp_path: Path
) -> None:
    """Behind the put, before the commit: its note lies where no worker comes."""
    path = build(
        tmp_path,
        Planted("jobs.py", BEGINS, f"{DIES}{BEGINS}"),
        Planted("artifacts.py", "UNSETTLED_AGE = timedelta(hours=1)", "UNSETTLED_AGE = timedelta(seconds=6)"),
        Planted("collecting.py", "EVERY = 3600.0", "EVERY = 0.5"),
    )  # fmt: skip
    bucket = s3.bucket()
    words = {"PYTHONPATH": str(path), "FAXBOT_WEB_WORKERS": "2", **s3.environ(bucket)}
    web = Service(store, "web", **words)
    form, files = {"to": "+15550100000"}, {"file": ("a name", PDF.read_bytes())}
    web.start(wait=False)  # it is not ready: there is no worker

    def is_up() -> bool:
        with suppress(requests.RequestException):
            return web.request("GET", "/health").status_code == 200
        return False

    try:
        eventually(is_up, 30, every=0.1)
        with pytest.raises(requests.RequestException):
            web.request("POST", "/fax/send", data=form, files=files)
        web.kill9()
        assert len(s3.objects(bucket)) == 1
        web.start(wait=False)
        eventually(lambda: not s3.objects(bucket), 40, every=0.2)
        assert nothing_lies_here(store)
        assert is_up()
    finally:
        web.kill9()


def nothing_lies_here(store: Installation) -> bool:
    """Neither stored documents nor what was left of making them."""
    folders = (store.data_dir / name for name in ("documents", "spool", "unsettled"))

    def left() -> list[str]:
        return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]

    return bool(eventually(lambda: not left(), 10))
