"""The pages of a fax on a screen, and to be saved: as they are sent, for who may see numbers, and written down."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pypdfium2
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from faxbot import decisions, jobs, sending
from faxbot.actors import OPERATOR, VIEWER
from faxbot.audit import Action
from faxbot.errors import StorageAway
from faxbot.models import Artifact, Job
from faxbot.storage.local import LocalStorage
from faxbot.web.console import fax
from tests.carrier import SimulatorProcess
from tests.documents import hostile, make
from tests.installation import Installation
from tests.integration.console import page as shown
from tests.integration.site import ACTOR, Site, number, open_site, tiff
from tests.integration.test_arrivals import INBOUND, arrives, gives, only
from tests.integration.test_audit_deeds import rows
from tests.integration.web import assert_problem, browser_of, client_of, new_key, new_user


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, more=INBOUND) as site:
        yield site


@pytest.fixture
def client(site: Site) -> FlaskClient:
    return client_of(site.runtime, new_key(site.runtime, "fax:read", "inbound:read"))


def asked(client: FlaskClient, path: str) -> TestResponse:
    """The answer with its whole body, its file closed."""
    answer = client.get(path)
    answer.get_data()
    answer.close()
    return answer


def picture(answer: TestResponse) -> Image.Image:
    assert (answer.status_code, answer.mimetype) == (200, "image/png"), answer.data
    assert answer.headers["Cache-Control"] == "no-store"
    return Image.open(io.BytesIO(answer.data))


def letter(site: Site, resolution: str = "fine") -> str:
    """A fax of two pages that a worker has sent."""
    upload = site.upload(make.letter_pdf(2), pages=2)
    job_id = site.submit(number(), uploads=(upload,), resolution=resolution).job_id
    site.rung.clear()
    sending.attempt(site.runtime, job_id)
    assert site.job(job_id).status == "sent"
    return job_id


@pytest.mark.parametrize("resolution", ["fine", "standard"])
def test_a_page_is_shown_as_it_is_sent(site: Site, client: FlaskClient, resolution: str) -> None:
    fax_id = letter(site, resolution)
    page = picture(asked(client, f"/fax/{fax_id}/pages/2"))
    assert page.width == 850
    assert page.height == pytest.approx(850 * 11 / (1728 / 204), abs=2)
    assert picture(asked(client, f"/fax/{fax_id}/pages/1?width=1700")).width == 1700
    assert not [*site.runtime.config.spool_dir.iterdir()], "something is left in the spool"


def test_all_of_them_are_saved_as_a_pdf(site: Site, client: FlaskClient) -> None:
    fax_id = letter(site)
    answer = asked(client, f"/fax/{fax_id}/document")
    assert (answer.status_code, answer.mimetype) == (200, "application/pdf")
    assert answer.headers["Content-Disposition"] == f"attachment; filename=fax-{fax_id}.pdf"
    assert answer.headers["Cache-Control"] == "no-store"
    assert len(pypdfium2.PdfDocument(answer.data)) == 2


def test_a_fax_that_came_as_fax_pages_is_shown_before_it_is_sent(
    site: Site, client: FlaskClient
) -> None:
    fax_id = site.submit(number(), uploads=(site.upload(tiff(2), pages=2),)).job_id
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Artifact).values(ready="fine"))
    assert picture(asked(client, f"/fax/{fax_id}/pages/2")).width == 850


def test_the_page_of_a_received_fax_is_shown(site: Site, client: FlaskClient) -> None:
    site.odd.does["document"] = gives(make.letter_pdf(2))
    arrives(site)
    site.work()
    path = f"/inbound/{only(site).id}/pages"
    page = picture(asked(client, f"{path}/2?width=425"))
    assert page.size == (425, 550)
    assert_problem(asked(client, f"{path}/3"), 404, "not-found")
    opened = rows(site.runtime, Action.DOCUMENT_OPENED)
    assert [(each.object_kind, each.object_id) for each in opened] == [("inbound", only(site).id)]


def test_a_received_tiff_is_shown_too(site: Site, client: FlaskClient) -> None:
    site.odd.does["document"] = gives(tiff(2))
    arrives(site)
    site.work()
    assert picture(asked(client, f"/inbound/{only(site).id}/pages/2")).width == 850


# Previews -------------------------------------------------------------------------------------------

COARSE = 24
"""Pixels across a page, said a second time on purpose: of more, large letters could be read."""


def fax_page(site: Site, fax_id: str) -> str:
    operator = browser_of(site.runtime, new_user(site.runtime, OPERATOR))
    return shown(operator, f"/admin/ui/faxes/{fax_id}").partition('id="leaves"')[2]


def previews(text: str) -> list[str]:
    return re.findall(r'<img src="([^"]*)"', text)


@pytest.mark.parametrize("resolution", ["fine", "standard"])
def test_all_that_the_page_of_a_fax_shows_of_its_document_by_itself_is_too_coarse_to_be_read(
    site: Site, client: FlaskClient, resolution: str
) -> None:
    fax_id = letter(site, resolution)
    text = fax_page(site, fax_id)
    assert len(previews(text)) == text.count('loading="lazy"') == 2
    for path in previews(text):
        for query in ("", "?width=1700"):
            coarse = picture(asked(client, path + query))
            assert coarse.width <= COARSE
            assert coarse.height <= COARSE * 11 / 8
    assert len(set(coarse.get_flattened_data())) > 1, "it is a picture of the page all the same"
    assert rows(site.runtime, Action.DOCUMENT_OPENED) == [], "nobody has opened anything"


def test_of_a_fax_with_many_pages_some_have_a_preview(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fax, "MOST_PAGES", 2)
    fax_id = site.submit(number(), uploads=(site.upload(tiff(3), pages=3),)).job_id
    sending.attempt(site.runtime, fax_id)
    text = fax_page(site, fax_id)
    assert len(previews(text)) == 2
    assert "The others are in the PDF." in text


def test_pages_that_cannot_be_looked_at_have_no_preview_and_it_is_said_why(
    site: Site, client: FlaskClient
) -> None:
    fax_id = site.submit(number(), uploads=(site.upload(make.letter_pdf()),)).job_id
    path = f"/admin/ui/faxes/{fax_id}/pages/1/preview"
    waiting = fax_page(site, fax_id)
    assert previews(waiting) == []
    assert "They are made before it is sent" in waiting
    assert waiting.partition(">")[0].strip().endswith(f'data-live="{fax_id}"'), "they come by themselves"  # fmt: skip
    assert asked(client, path).status_code == 409
    sending.attempt(site.runtime, fax_id)
    made = fax_page(site, fax_id)
    assert previews(made) == [path]
    assert "data-live" not in made, "what was opened would be closed"
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Artifact).values(deleted_at=site.now))
        session.execute(sa.update(Job).values(status="delivered"))
    gone = fax_page(site, fax_id)
    assert previews(gone) == []
    assert "not there any more" in gone
    for number_ in ("0", "2", "x"):
        assert asked(client, f"/admin/ui/faxes/{fax_id}/pages/{number_}/preview").status_code == 404


# What is not there ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pages/1", "document"])
def test_why_there_is_nothing_to_see_is_said(site: Site, client: FlaskClient, what: str) -> None:
    fax_id = site.submit(number(), uploads=(site.upload(make.letter_pdf()),)).job_id
    path = f"/fax/{fax_id}/{what}"
    problem = assert_problem(asked(client, path), 409, "not-possible-in-this-state")
    assert "not made yet" in problem["detail"]
    decisions.hold(site.runtime, ACTOR, fax_id)
    assert_problem(asked(client, path), 409, "not-possible-in-this-state")
    jobs.cancel(site.runtime, ACTOR, fax_id)
    assert_problem(asked(client, path), 404, "not-found")

    sent = letter(site)
    with site.runtime.database.transaction() as session:
        session.execute(sa.delete(Artifact).where(Artifact.job_id == sent))
    problem = assert_problem(asked(client, f"/fax/{sent}/{what}"), 404, "not-found")
    assert "not there any more" in problem["detail"]
    assert_problem(asked(client, f"/fax/{'0' * 32}/{what}"), 404, "not-found")


def test_pages_whose_bytes_are_gone_are_not_there(site: Site, client: FlaskClient) -> None:
    fax_id = letter(site)
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Artifact).values(key=Artifact.key + "-gone"))
    assert_problem(asked(client, f"/fax/{fax_id}/pages/1"), 404, "not-found")


@pytest.mark.parametrize("page", ["0", "3", "01", "-1", "x", "1234567", "%D9%A1"])
def test_there_is_no_such_page(site: Site, client: FlaskClient, page: str) -> None:
    assert_problem(asked(client, f"/fax/{letter(site)}/pages/{page}"), 404, "not-found")


@pytest.mark.parametrize("width", ["199", "1701", "", "wide", "1e3"])
def test_a_width_that_is_none_is_refused(site: Site, client: FlaskClient, width: str) -> None:
    answer = asked(client, f"/fax/{letter(site)}/pages/1?width={width}")
    assert list(assert_problem(answer, 422, "invalid-fields")["errors"]) == ["width"]


def test_what_cannot_be_drawn_is_said_and_can_be_opened_as_it_came(
    site: Site, client: FlaskClient
) -> None:
    site.odd.does["document"] = gives(make.letter_pdf())
    arrives(site)
    site.work()
    path = site.runtime.config.data_dir / "documents"
    inbound_id, broken = only(site).id, hostile.image_bomb_pdf()
    (stored,) = (each for each in path.rglob("*") if each.is_file())
    with site.runtime.database.transaction() as session:
        digest = hashlib.sha256(broken).hexdigest()
        session.execute(
            sa.update(Artifact).values(sha256=digest, size=len(broken), data_key_sealed=None)
        )
    stored.with_name(stored.name.removesuffix(".sealed")).write_bytes(broken)
    problem = assert_problem(
        asked(client, f"/inbound/{inbound_id}/pages/1"), 409, "not-possible-in-this-state"
    )
    assert "open the document itself" in problem["detail"]
    assert asked(client, f"/inbound/{inbound_id}/pdf").status_code == 200


# Who may, and what is written down ------------------------------------------------------------------


def test_who_sees_numbers_masked_sees_no_pages_and_nothing_is_written_down(site: Site) -> None:
    fax_id = letter(site)
    people = {
        role: browser_of(site.runtime, new_user(site.runtime, role)) for role in (VIEWER, OPERATOR)
    }
    page = shown(people[VIEWER], f"/admin/ui/faxes/{fax_id}")
    assert "/preview" not in page
    assert asked(people[VIEWER], f"/admin/ui/faxes/{fax_id}/pages/1/preview").status_code == 403
    for what in ("pages/1", "document"):
        path = f"/fax/{fax_id}/{what}"
        problem = assert_problem(asked(people[VIEWER], path), 403, "forbidden")
        assert "masked" in problem["detail"]
        assert rows(site.runtime, Action.DOCUMENT_OPENED) == []
    assert asked(people[OPERATOR], f"/fax/{fax_id}/document").status_code == 200


def test_who_looks_is_written_down_at_once_and_each_page_more_is_counted(
    site: Site, client: FlaskClient
) -> None:
    fax_id = letter(site)
    for page in (1, 2, 1):
        assert asked(client, f"/fax/{fax_id}/pages/{page}").status_code == 200
    (row,) = rows(site.runtime, Action.DOCUMENT_OPENED)
    assert (row.object_kind, row.object_id, row.outcome) == ("fax", fax_id, "done")


class Away(LocalStorage):
    """A storage that does not answer."""

    is_away = False

    def path(self, key: str) -> Path | None:
        return None if self.is_away else super().path(key)

    def open(self, key: str) -> BinaryIO:
        if self.is_away:
            raise StorageAway("it is away")
        return super().open(key)


def test_a_storage_that_is_away_says_so(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, storage=Away) as site:
        client, fax_id = client_of(site.runtime, new_key(site.runtime, "fax:read")), letter(site)
        site.runtime.plugins.get("local", Away).is_away = True
        for what in ("pages/1", "document"):
            answer = asked(client, f"/fax/{fax_id}/{what}")
            assert_problem(answer, 503, "storage-away")
            assert answer.headers["Retry-After"]
