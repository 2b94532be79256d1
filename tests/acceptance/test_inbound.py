"""Faxes come in while everything that takes them is killed: each is there once, byte for byte, and nothing else is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot.db import Database
from faxbot.models import Artifact
from tests.acceptance.site import SHORT, Site, kill
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import eventually
from tests.installation import Installation

STORES = ("embedded", "postgresql")
ENDINGS = ("0000", "0011", "0022", "0023", "0032", "0066")
"""With the document, without it, each twice, and in any order (docs/simulator.md)."""
LARGE = 3_000_000
"""Bytes of a document whose callback lies in storage."""


@pytest.fixture
def site(store: Installation, start_service: StartService) -> Iterator[Site]:
    with SimulatorProcess(store.folder) as carrier:
        service = start_service(store, "up", **SHORT, **carrier.environ)
        yield Site(service, carrier)
        service.stop()


def received(site: Site) -> list[dict[str, Any]]:
    found, cursor = [], ""
    while True:
        page = site.service.request("GET", f"/inbound?limit=100{cursor}").json()
        found += page["items"]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


@pytest.mark.waits
def test_every_fax_that_comes_in_under_kills_is_there_once_and_whole(
    site: Site, store: Installation
) -> None:
    told_at = f"{site.service.url}/callbacks/simulator"
    sent: dict[str, str] = {}
    for turn in range(8):
        for ending in ENDINGS:
            wish = {"bytes": LARGE} if turn % 4 == 0 else {}
            came = site.carrier.receive(ending, told_at, **wish)
            sent[came["id"]] = came["sha256"]
        failed = site.carrier.receive("0031", told_at)
        kill(site.service, "worker" if turn % 2 else "web")
    assert failed["id"] not in sent

    def all_there() -> bool:
        faxes = received(site)
        there = [fax for fax in faxes if fax["status"] == "received"]
        return len(there) >= len(sent) and len(faxes) >= len(sent) + 8

    eventually(all_there, 90, every=0.5)
    faxes = received(site)
    there = {fax["external_id"]: fax for fax in faxes if fax["status"] == "received"}
    assert {name: fax["sha256"] for name, fax in there.items()} == sent
    assert [fax["status"] for fax in faxes if fax["external_id"] not in sent] == ["failed"] * 8
    for name, fax in there.items():
        document = site.service.request("GET", f"/inbound/{fax['id']}/document").content
        assert hashlib.sha256(document).hexdigest() == sent[name]

    def nothing_else_is_kept() -> bool:
        """But what died before it was committed, which is noted and removed an hour later."""
        with closing(Database(store.config())) as database, database.reading() as session:
            rows = session.execute(sa.select(Artifact.id, Artifact.role)).all()
        known = {row.id for row in rows}
        noted = {path.name.partition(".")[0] for path in (store.data_dir / "unsettled").iterdir()}
        stored = (store.data_dir / "documents").rglob("*")
        files = {path.name.partition(".")[0] for path in stored if path.is_file()}
        return {row.role for row in rows} == {"document"} and known <= files <= known | noted

    eventually(nothing_else_is_kept, 30, every=0.5)
