"""A whole faxbot with its documents in S3: they lie there, sealed, and nowhere else; and what becomes of faxes while S3
is away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faxbot import envelopes
from tests.acceptance.site import PDF, SHORT, Site
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import Ground, eventually
from tests.installation import Installation
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


def nothing_lies_here(store: Installation) -> bool:
    """Neither stored documents nor what was left of making them."""
    folders = (store.data_dir / name for name in ("documents", "spool", "unsettled"))

    def left() -> list[str]:
        return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]

    return bool(eventually(lambda: not left(), 10))
