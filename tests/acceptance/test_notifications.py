"""People are told by e-mail of what really happened to a fax, once, whatever dies meanwhile; and a mail server that
hangs delays no fax."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import planted
from tests.acceptance.site import SHORT, Site, kill
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import eventually
from tests.installation import Installation
from tests.mailserver import HANG, MailServer
from tests.planted import Planted

STORES = ("embedded", "postgresql")
ENDS = {"0000": "delivered", "0404": "failed"}
IN_A_HURRY = (
    Planted("notifying.py", "LEASE = timedelta(minutes=2)", "LEASE = timedelta(seconds=20)"),
    Planted("notifying.py", "SCHEDULE = (60.0,", "SCHEDULE = (1.0,"),
)
"""What waits for minutes after a death waits for seconds."""


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def site(
    store: Installation, start_service: StartService, mail: MailServer, tmp_path: Path
) -> Iterator[Site]:
    build = planted.build(tmp_path / "build", *IN_A_HURRY)
    with SimulatorProcess(store.folder) as carrier:
        settings = {**SHORT, **carrier.environ, **mail.environ, "EMAIL_SECONDS": "60"}
        yield Site(start_service(store, "up", **settings, PYTHONPATH=str(build)), carrier)


def test_a_mail_arrives_once_although_the_server_hangs_and_the_worker_is_killed(
    site: Site, mail: MailServer
) -> None:
    mail.data = lambda _mail: HANG
    first = site.send()
    assert site.final(first)["status"] == "delivered"
    eventually(lambda: mail.handed, 20)
    others = {site.send(ending): status for ending, status in ENDS.items()}
    assert {fax_id: site.final(fax_id)["status"] for fax_id in others} == others
    assert (len(mail.handed), mail.taken) == (1, []), "all of that while the mail server hangs"

    kill(site.service, "worker")
    mail.data = lambda _mail: "250 OK"
    wanted = {first: "delivered", **others}
    eventually(lambda: len(mail.taken) >= len(wanted), 30)
    subjects = {"delivered": "[faxbot] Fax delivered", "failed": "[faxbot] Fax not delivered"}
    for fax_id, status in wanted.items():
        (sent,) = [each for each in mail.taken if fax_id in each.text]
        assert sent.subject == subjects[status]
    assert mail.taken[0].id == mail.handed[0].id, "it is sent again under its id"
    last = site.send()
    site.final(last)
    eventually(lambda: any(last in each.text for each in mail.taken), 20)
    assert len(mail.taken) == len(wanted) + 1, "nothing comes twice"

    def settled() -> bool:
        found = site.service.request("GET", "/admin/notifications").json()
        statuses = {each["status"] for each in found["messages"]}
        return ([each["waiting"] for each in found["items"]], statuses) == ([0], {"sent"})

    eventually(settled)
    a_received_fax_is_told_of(site, mail)


def a_received_fax_is_told_of(site: Site, mail: MailServer) -> None:
    before = len(mail.taken)
    site.carrier.receive("0000", f"{site.service.url}/callbacks/simulator")
    eventually(lambda: len(mail.taken) > before, 30)
    (sent,) = mail.taken[before:]
    page = site.service.request("GET", "/inbound").json()
    assert sent.subject == "[faxbot] Fax received"
    assert page["items"][0]["id"] in sent.text
