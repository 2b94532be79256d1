"""Faxes that an Asterisk hands over by HTTP, through faxbot's own road: received once, with the document as it came."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot import inbound, wiring
from faxbot.artifacts import Workspace
from faxbot.plugins.base import LARGEST_IN_MEMORY
from faxbot.providers.asterisk.spool import LATE
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.site import ACTOR, Site, open_site, tiff
from tests.integration.web import Field, client_of, post

HOOK = "/_internal/asterisk/inbound"
SECRET = "the-internal-secret-of-tests"
PROOF = {"X-Internal-Secret": SECRET}
NAME = "in-1795289227-530475496"
RESULT = (
    "status=SUCCESS&error=&text=OK&pages=1&remote=x&ended=1795289243&from=%2B15550001111&to=%2B15550100900"
    "&begun=1795289227&channel=1795289227.6"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "documents-received"
    made.mkdir()
    return made


SETTINGS = {
    "FAX_INBOUND_BACKENDS": "asterisk",
    "ASTERISK_AMI_PASSWORD": "nobody is called",
    "ASTERISK_INBOUND_SECRET": SECRET,
}


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess, folder: Path) -> Iterator[Site]:
    settings = {**SETTINGS, "ASTERISK_FOLDER": str(folder.with_name("documents"))}
    with open_site(store, carrier_of_all, **settings) as site:
        site.runtime = replace(site.runtime, plugins=wiring.plugins(site.runtime.config))
        yield site
        site.runtime.plugins.close()


@pytest.fixture
def asks(site: Site) -> FlaskClient:
    return client_of(site.runtime)


def hands_over(asks: FlaskClient, content: bytes | None, result: str = RESULT) -> TestResponse:
    fields: list[tuple[str, Field]] = [("uniqueid", NAME), ("result", result)]
    if content is not None:
        fields.append(("file", ("fax.tif", content, "image/tiff")))
    return post(asks, fields, HOOK, **PROOF)


def posts(asks: FlaskClient, path: Path, **changes: Any) -> TestResponse:
    said = {
        "tiff_path": str(path),
        "to_number": "+15550100900",
        "from_number": "+15550001111",
        "faxstatus": "SUCCESS",
        "faxpages": 1,
        "uniqueid": "1795289227.4",
        **changes,
    }
    return asks.post(HOOK, json=said, headers=PROOF)


def faxes(site: Site) -> list[dict[str, Any]]:
    site.work()
    rows, _ = inbound.page(site.runtime, ACTOR, inbound.Filters(), limit=50, cursor=None)
    return [inbound.describe(site.runtime, row) for row in rows]


def as_it_came(site: Site) -> bytes:
    (fax,) = faxes(site)
    with Workspace(site.runtime) as workspace:
        path, _ = inbound.document(site.runtime, fax["id"], workspace, as_it_came=True)
        return path.read_bytes()


@pytest.mark.parametrize("filling", [0, LARGEST_IN_MEMORY])
def test_a_fax_that_is_handed_over_again_and_again_is_received_once(
    site: Site, asks: FlaskClient, filling: int
) -> None:
    content = tiff(2) + os.urandom(filling)
    for _ in range(3):
        assert hands_over(asks, content).status_code == 200
        (fax,) = faxes(site)
    assert (fax["status"], fax["pages"], fax["external_id"]) == ("received", 2, NAME)
    assert (fax["from"], fax["to"]) == ("+15550001111", "+15550100900")
    assert as_it_came(site) == content


def test_one_that_came_without_its_file_is_received_with_the_repeat_that_has_it(
    site: Site, asks: FlaskClient
) -> None:
    assert hands_over(asks, None).status_code == 200
    (fax,) = faxes(site)
    assert (fax["status"], fax["error"]["retryable"]) == ("fetching", True)
    assert hands_over(asks, tiff(1)).status_code == 200
    assert as_it_came(site) == tiff(1)


def test_a_file_that_lies_here_is_fetched_again_until_it_is_there_and_then_removed(
    site: Site, asks: FlaskClient, folder: Path
) -> None:
    path = folder / "1795289227.4.tif"
    assert posts(asks, path).status_code == 200
    assert [fax["status"] for fax in faxes(site)] == ["fetching"]
    path.write_bytes(tiff(1))
    site.after(60)
    assert as_it_came(site) == tiff(1)
    assert not path.exists()
    assert posts(asks, path).status_code == 200
    assert [fax["status"] for fax in faxes(site)] == ["received"]


def test_two_faxes_of_one_caller_whose_files_have_his_number_are_two_and_no_name_has_it(
    site: Site, asks: FlaskClient, folder: Path
) -> None:
    path = folder / "15550001111.tif"
    for call, pages in (("1795289227.4", 1), ("1795289227.5", 2)):
        path.write_bytes(tiff(pages))
        assert posts(asks, path, uniqueid=call).status_code == 200
        site.work()
    found = {fax["external_id"]: (fax["status"], fax["pages"]) for fax in faxes(site)}
    assert found == {"1795289227.4": ("received", 1), "1795289227.5": ("received", 2)}
    assert not list(folder.iterdir())


def test_what_is_posted_while_the_folder_is_set_wrongly_is_received_when_it_is_set_right(
    site: Site, asks: FlaskClient, store: Installation, tmp_path: Path
) -> None:
    (path := tmp_path / "spool" / "x.tif").parent.mkdir()
    path.write_bytes(tiff(2))
    assert posts(asks, path).status_code == 200
    assert not faxes(site)
    site.after(86400)
    assert not faxes(site)

    folders = {"ASTERISK_FOLDER": str(tmp_path / "documents")}
    right = store.config(**SETTINGS, **folders, ASTERISK_RECEIVED_FOLDER=str(path.parent))
    wrong, plugins = site.runtime.plugins, wiring.plugins(right)
    site.runtime = replace(site.runtime, plugins=plugins)
    wrong.close()
    site.after(3600)
    assert as_it_came(site) == tiff(2)


def test_the_file_of_one_that_was_given_up_goes_when_its_folder_is_back_though_there_is_a_secret(
    site: Site, store: Installation, folder: Path
) -> None:
    folders = {"ASTERISK_FOLDER": str(folder.with_name("documents"))}
    named = store.config(**SETTINGS, **folders, ASTERISK_RECEIVED_FOLDER=str(folder))
    usual, plugins = site.runtime.plugins, wiring.plugins(named)
    site.runtime = replace(site.runtime, plugins=plugins)
    usual.close()
    assert posts(client_of(site.runtime), folder / "x.tif").status_code == 200
    (fax,) = faxes(site)
    inbound.give_up(site.runtime, ACTOR, fax["id"])
    inbound.mark(site.runtime, ACTOR, fax["id"], read=True)
    folder.rmdir()
    site.now += timedelta(days=31)
    site.purge()
    for _ in range(2):
        site.after(86_400)

    folder.mkdir()
    document = folder / "call-1795289227.4.tif"
    document.write_bytes(tiff(1))
    site.after(86_400)
    assert not document.exists()


def test_a_file_that_was_posted_is_its_calls_own_though_the_next_call_writes_to_the_same_path(
    site: Site, asks: FlaskClient, folder: Path
) -> None:
    """Before any worker has looked at the first."""
    path = folder / "15550001111.tif"
    for call, pages in (("1795289227.4", 1), ("1795289227.5", 2)):
        path.write_bytes(tiff(pages))
        assert posts(asks, path, uniqueid=call).status_code == 200
        assert not path.exists(), "it was the call's before it was answered"
    found = {fax["external_id"]: (fax["status"], fax["pages"]) for fax in faxes(site)}
    assert found == {"1795289227.4": ("received", 1), "1795289227.5": ("received", 2)}
    assert not list(folder.iterdir())


def test_a_call_that_is_posted_again_leaves_the_file_of_the_next_one_at_its_path(
    site: Site, asks: FlaskClient, folder: Path
) -> None:
    """The first was received, and its answer was lost."""
    path = folder / "15550001111.tif"
    path.write_bytes(tiff(1))
    assert posts(asks, path, uniqueid="1795289227.4").status_code == 200
    site.work()
    path.write_bytes(tiff(2))
    assert posts(asks, path, uniqueid="1795289227.4").status_code == 200
    assert [each.name for each in folder.iterdir()] == [path.name]
    assert posts(asks, path, uniqueid="1795289227.5").status_code == 200
    found = {fax["external_id"]: (fax["status"], fax["pages"]) for fax in faxes(site)}
    assert found == {"1795289227.4": ("received", 1), "1795289227.5": ("received", 2)}
    assert not list(folder.iterdir())


def test_a_call_that_was_posted_without_its_file_has_no_other_s_when_it_is_posted_again(
    site: Site, asks: FlaskClient, folder: Path
) -> None:
    path = folder / "15550001111.tif"
    assert posts(asks, path, uniqueid="1795289227.4").status_code == 200
    site.now += timedelta(seconds=LATE + 10)
    path.write_bytes(tiff(2))
    os.utime(path, (site.now.timestamp(),) * 2)
    assert posts(asks, path, uniqueid="1795289227.4").status_code == 200
    site.work()
    assert path.exists()
    assert posts(asks, path, uniqueid="1795289227.5").status_code == 200
    found = {fax["external_id"]: (fax["status"], fax["pages"]) for fax in faxes(site)}
    assert found == {"1795289227.4": ("fetching", 1), "1795289227.5": ("received", 2)}


def test_a_call_without_its_file_does_not_take_that_of_a_later_call(
    site: Site, asks: FlaskClient, folder: Path
) -> None:
    path = folder / "15550001111.tif"
    assert posts(asks, path, uniqueid="1795289227.4", faxstatus=None).status_code == 200
    path.write_bytes(tiff(2))
    later = site.runtime.now().timestamp() + LATE + 10
    os.utime(path, (later, later))
    assert [fax["status"] for fax in faxes(site)] == ["fetching"]
    site.after(600)
    assert [fax["status"] for fax in faxes(site)] == ["fetching"]
    assert posts(asks, path, uniqueid="1795289227.5").status_code == 200
    found = {fax["external_id"]: (fax["status"], fax["pages"]) for fax in faxes(site)}
    assert found == {"1795289227.4": ("fetching", 1), "1795289227.5": ("received", 2)}


def test_what_is_posted_without_the_secret_or_of_a_call_that_failed_renames_nothing(
    asks: FlaskClient, folder: Path
) -> None:
    path = folder / "x.tif"
    path.write_bytes(tiff(1))
    said = {"tiff_path": str(path), "uniqueid": "1795289227.4"}
    assert asks.post(HOOK, json=said, headers={"X-Internal-Secret": "x"}).status_code == 401
    assert posts(asks, path, faxstatus="FAILED").status_code == 200
    assert path.exists()


def test_two_asterisks_whose_calls_have_one_uniqueid_hand_over_two_faxes_and_each_once(
    site: Site, asks: FlaskClient
) -> None:
    """Neither has a systemname. What was posted without its file is completed by the repeat that has it."""
    one, other = "+15550100900", "+15550100901"
    posted = [(one, None), (other, tiff(2)), (one, tiff(1)), (other, tiff(2))]
    for to, content in posted:
        fields: list[tuple[str, Field]] = [("uniqueid", "1700000000.4"), ("to_number", to)]
        if content is not None:
            fields.append(("file", ("fax.tif", content, "image/tiff")))
        assert post(asks, fields, HOOK, **PROOF).status_code == 200
        site.work()
    found = {fax["to"]: (fax["status"], fax["pages"]) for fax in faxes(site)}
    assert found == {one: ("received", 1), other: ("received", 2)}
    names = [fax["external_id"] for fax in faxes(site)]
    assert len(names) == 2
    assert all(re.fullmatch(r"1700000000\.4-[0-9a-f]{12}", name) for name in names)


def test_without_a_uniqueid_nothing_is_received_and_the_file_stays(
    site: Site, asks: FlaskClient, folder: Path
) -> None:
    (folder / "x.tif").write_bytes(tiff(1))
    assert posts(asks, folder / "x.tif", uniqueid=None).status_code == 200  # kept, as unreadable
    assert not faxes(site)
    assert (folder / "x.tif").exists()


def test_a_failed_one_is_no_document_and_a_path_from_outside_is_nothing(
    site: Site, asks: FlaskClient, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.tif"
    secret.write_bytes(tiff(1))
    assert posts(asks, secret).status_code == 200  # it is kept, as unreadable
    assert not faxes(site)
    assert hands_over(asks, tiff(1), RESULT.replace("SUCCESS", "FAILED")).status_code == 200
    (fax,) = faxes(site)
    assert (fax["status"], fax["pages"]) == ("failed", 1)
    assert secret.exists()


def test_who_does_not_know_the_secret_hands_nothing_over(site: Site, asks: FlaskClient) -> None:
    for proof in ({}, {"X-Internal-Secret": "another"}):
        answer = asks.post(HOOK, json={"uniqueid": "1"}, headers=proof)
        assert answer.status_code == 401
    assert not faxes(site)
