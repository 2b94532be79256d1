"""The page for receivers is true: its program verifies what faxbot sends, and its tables hold what there is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from faxbot import replays, webhooks
from faxbot.dialling import OUTCOMES
from faxbot.fanout import BODY
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.hooks import HERE, deliver, rows, subscribe
from tests.integration.site import ACTOR, Site, number, open_site
from tests.servers import free_port

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, **HERE) as site:
        yield site


def test_the_pages_program_takes_each_event_once_and_refuses_what_is_not_ours(
    site: Site, store: Installation, tmp_path: Path
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    port = free_port()
    webhook_id, secret = subscribe(site.runtime, f"http://127.0.0.1:{port}/faxbot")
    with site.runtime.database.transaction() as session:
        _, newer = webhooks.rotate(
            session, site.runtime.keyring, ACTOR, webhook_id,
            overlap=timedelta(hours=1), now=site.now,
        )  # fmt: skip
    log = tmp_path / "log"
    process = store.ground.start(
        [sys.executable, "-c", program, str(port)],
        store.folder,
        {"WEBHOOK_SECRETS": f"whsec_AAAA {secret}"},
        log,
    )
    try:
        url = f"http://127.0.0.1:{port}/faxbot"
        forged = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}

        def answers() -> int:
            try:
                with requests.Session() as client:
                    return client.post(url, data=b"{}", headers=forged, timeout=5).status_code
            except requests.RequestException:
                return 0

        assert eventually(answers) == 401
        job_id = site.submit(number()).job_id
        deliver(site.runtime)
        replays.replay(site.runtime, ACTOR, rows(site.runtime)[0].id)
        deliver(site.runtime)
    finally:
        process.terminate()
        process.wait()

    assert newer != secret
    assert [row.status for row in rows(site.runtime)] == ["delivered"]
    said = [line for line in log.read_text().splitlines() if line.startswith("FAX_")]
    assert said == [f"FAX_QUEUED {job_id}"]


def test_the_page_names_every_field_and_every_outcome() -> None:
    words = set(re.findall(r"`([a-z_]+)`", PAGE))

    assert set(BODY) <= words
    table = re.findall(r"^\| `([a-z_]+)` \| ", PAGE.partition("| outcome |")[2], re.M)
    assert set(OUTCOMES) <= set(table)
