"""Received faxes over HTTP: who may see what, by key or by link, and large callbacks that bring them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot import inbound
from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    NotADocument,
    NotSent,
    PluginError,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
)
from faxbot.models import Callback
from faxbot.plugins.base import LARGEST_IN_MEMORY, CallbackRequest
from faxbot.web.auth import SIGNATURE
from faxbot.web.patience import Reader
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.odd import answers, raises
from tests.integration.site import Site, open_site, tiff
from tests.integration.test_arrivals import (
    FROM,
    INBOUND,
    PDF,
    TO,
    arrives,
    given_up,
    gives,
    only,
    owners,
)
from tests.integration.web import ACCESS, Unread, assert_problem, client_of, new_key


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, more=INBOUND) as site:
        yield site


SIGNED = {"X-Simulator-Signature": "whatever the test says that it is"}


def received(site: Site, content: bytes = PDF, name: str = "in-1") -> str:
    """The id of a fax that has come."""
    site.odd.does["document"] = gives(content)
    arrives(site, body=name.encode(), external_id=name)
    site.work()
    return str(only(site).id)


def client(site: Site, *scopes: str) -> FlaskClient:
    return client_of(
        site.runtime, new_key(site.runtime, *(scopes or ("inbound:list", "inbound:read")))
    )


def opened(asks: FlaskClient, path: str) -> TestResponse:
    """The answer with its whole body, its file closed."""
    answer = asks.get(path)
    answer.get_data()
    answer.close()
    return answer


def said(answer: TestResponse) -> Any:
    """The JSON of a good answer."""
    assert answer.status_code == 200
    return answer.json


def test_a_list_masks_numbers_and_one_fax_shows_them(site: Site) -> None:
    inbound_id, asks = received(site), client(site)
    (item,) = said(asks.get("/inbound"))["items"]
    assert (item["from"], item["to"]) == (
        "+\u2022\u2022\u2022\u2022\u2022\u2022\u2022\u2022\u202201",
        "+\u2022\u2022\u2022\u2022\u2022\u2022\u2022\u2022\u202202",
    )
    shown = said(asks.get(f"/inbound/{inbound_id}"))
    assert (shown["from"], shown["fr"], shown["to"]) == (FROM, FROM, TO)
    assert (shown["status"], shown["pages"], shown["backend"]) == ("received", 2, "simulator")


def test_the_pdf_is_served_as_it_came_and_a_tiff_both_ways(site: Site) -> None:
    inbound_id, asks = received(site), client(site)
    answer = opened(asks, f"/inbound/{inbound_id}/pdf")
    assert (answer.mimetype, answer.data) == ("application/pdf", PDF)
    assert answer.headers["Cache-Control"] == "no-store"
    assert opened(asks, f"/inbound/{inbound_id}/document").data == PDF


def test_of_a_tiff_there_is_a_pdf_and_what_came(site: Site) -> None:
    inbound_id, asks = received(site, tiff(2)), client(site)
    assert opened(asks, f"/inbound/{inbound_id}/pdf").data.startswith(b"%PDF-")
    original = opened(asks, f"/inbound/{inbound_id}/document")
    assert (original.mimetype, original.data) == ("image/tiff", tiff(2))


def test_a_link_opens_the_pdf_without_a_key_and_nothing_else(site: Site) -> None:
    inbound_id, anybody = received(site), client_of(site.runtime)
    link = said(client(site).post(f"/inbound/{inbound_id}/link"))
    path = link["url"].removeprefix(site.runtime.config.base_url)
    assert opened(anybody, path).data == PDF
    token = path.partition("?")[2]
    for other in (f"/inbound/{inbound_id}", f"/inbound/{inbound_id}/document", "/inbound"):
        assert anybody.get(f"{other}?{token}").status_code in (401, 422)
    assert_problem(anybody.get(f"/inbound/{inbound_id}/pdf?token=x"), 401, "unauthenticated")
    assert_problem(anybody.get(f"/inbound/{inbound_id}/pdf"), 401, "unauthenticated")
    # A key that may not is not let in by a token beside it.
    asks = client(site, "fax:read")
    assert_problem(asks.get(path), 403, "forbidden")


def test_read_and_unread_are_marked_and_counted(site: Site) -> None:
    inbound_id, asks = received(site), client(site)
    assert said(asks.get("/inbound/unread"))["count"] == 1
    assert said(asks.post(f"/inbound/{inbound_id}/read"))["read_at"] is not None
    assert said(asks.get("/inbound/unread")) == {
        "count": 0, "more": False, "oldest": None, "oldest_seconds": None,
    }  # fmt: skip
    assert said(asks.get("/inbound?unread=true"))["items"] == []
    assert said(asks.post(f"/inbound/{inbound_id}/unread"))["read_by"] is None
    assert len(said(asks.get("/inbound?unread=true"))["items"]) == 1


def test_a_document_that_nobody_had_is_tried_once_more_when_somebody_asks(site: Site) -> None:
    site.odd.does["document"] = raises(Refused())
    arrives(site)
    given_up(site)
    path, asks = f"/inbound/{only(site).id}/fetch", client(site)
    assert_problem(client(site, "inbound:list").post(path), 403, "forbidden")
    assert said(asks.post(path))["status"] == "fetching"
    assert_problem(asks.post(path), 409, "not-possible-in-this-state")


def test_a_document_that_will_never_be_had_is_given_up_when_somebody_says_so(site: Site) -> None:
    site.odd.does["document"] = raises(AccountRefused())
    arrives(site)
    site.work()
    path, asks = f"/inbound/{only(site).id}/give-up", client(site)
    assert_problem(client(site, "inbound:list").post(path), 403, "forbidden")
    given = said(asks.post(path))
    assert (given["status"], given["error"]["code"], given["next_at"]) == (
        "failed",
        "no-document",
        None,
    )
    assert_problem(asks.post(path), 409, "not-possible-in-this-state")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (AccountRefused(), "does not let this server in. Test its connection"),
        (Unreachable(), "cannot be reached"),
        (Throttled(), "has no time for it"),
        (Refused(), "was asked, and had none"),
        (DestinationBarred(), "forbids it"),
        (PluginError(), "its plugin is disabled, or fails"),
        (ValueError(FROM), "its plugin is disabled, or fails"),
        (NotADocument(), "neither PDF nor TIFF"),
        (OSError(FROM), "the disk of this server"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_why_a_document_is_not_there_is_said_and_that_it_is_tried_again(
    site: Site, error: Exception, why: str
) -> None:
    site.odd.does["document"] = raises(error)
    arrives(site)
    site.work()
    sentence = said(client(site).get(f"/inbound/{only(site).id}"))["error"]["message"]
    assert why in sentence
    assert sentence.endswith(" It is tried again.")
    assert FROM not in sentence


def test_whatever_a_carrier_does_there_are_words_for_why_its_document_is_not_there() -> None:
    kinds: list[type[ProviderError]] = [ProviderError, *ProviderError.__subclasses__()]
    kinds += NotSent.__subclasses__()
    assert {each.code for each in kinds} <= inbound.WHY.keys()


@pytest.mark.parametrize("path", ["", "/pdf", "/document"])
def test_what_is_not_there_is_not_found(site: Site, path: str) -> None:
    asks = client(site)
    for inbound_id in ("0" * 32, "none", "%00", "x" * 300):
        assert_problem(asks.get(f"/inbound/{inbound_id}{path}"), 404, "not-found")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "status=lost", "cursor=x", "from_key=1", "unread=maybe", "to=1"]
)
def test_a_query_that_is_none_is_refused(site: Site, query: str) -> None:
    assert client(site).get(f"/inbound?{query}").status_code in (400, 422)


def test_where_faxes_are_not_received_there_is_nothing_at_these_addresses(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, INBOUND_ENABLED="false") as site:
        for path in ("", "/unread", f"/{'0' * 32}", f"/{'0' * 32}/pdf"):
            assert_problem(client(site).get(f"/inbound{path}"), 404, "not-found")


def test_lists_and_openings_have_limits_of_their_own(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    limits = {"INBOUND_LIST_RPM": "2", "INBOUND_GET_RPM": "1"}
    with open_site(store, carrier_of_all, more=INBOUND, **limits) as site:
        inbound_id, asks = received(site), client(site)
        answered = [asks.get("/inbound").status_code for _ in range(3)]
        assert answered == [200, 200, 429]
        opened = [asks.get(f"/inbound/{inbound_id}").status_code for _ in range(2)]
        assert opened == [200, 429]
        assert int(asks.get(f"/inbound/{inbound_id}/pdf").headers["Retry-After"]) >= 1


# Callbacks ------------------------------------------------------------------------------------------


def test_a_large_callback_is_stored_and_leaves_nothing_in_the_spool(site: Site) -> None:
    seen: list[CallbackRequest] = []
    body = b"b" * (LARGEST_IN_MEMORY + 1)

    def verify(_usual: object, request: CallbackRequest) -> bool:
        assert b"".join(request.chunks()) == body
        seen.append(request)
        return True

    site.odd.does["verify_callback"] = verify
    carrier = client_of(site.runtime)
    for _ in range(2):
        assert carrier.post("/callbacks/simulator", data=body, headers=SIGNED).status_code == 200
    assert all(request.file is not None and request.body == b"" for request in seen)
    assert site.count(Callback) == 1
    assert owners(site) == ["request"]


def test_a_large_callback_that_is_not_proven_leaves_nothing(site: Site) -> None:
    site.odd.does["verify_callback"] = answers(False)
    body = b"b" * (LARGEST_IN_MEMORY + 1)
    assert (
        client_of(site.runtime).post("/callbacks/simulator", data=body, headers=SIGNED).status_code
        == 401
    )
    assert (site.count(Callback), site.stored()) == (0, 0)


def test_nothing_is_read_of_a_callback_that_is_refused_in_any_case(site: Site) -> None:
    """A stranger's hundred megabytes are neither waited for nor written down."""
    carrier = client_of(site.runtime)

    for path, headers, status in (
        ("/callbacks/none", SIGNED, 404),
        ("/callbacks/simulator", {}, 401),
        ("/callbacks/simulator?attempt=x&token=y", SIGNED, 401),
        ("/inbound/callback", {}, 401),
    ):
        answer = carrier.post(path, input_stream=Unread(), headers=headers)
        assert answer.status_code == status, path


@pytest.mark.parametrize(
    "route", sorted(name for name, needs in ACCESS.items() if needs == SIGNATURE)
)
def test_a_key_shown_where_none_is_asked_for_brings_nobody_forward(route: str) -> None:
    """The threads that are kept for who shows a key are not for strangers' bodies."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        path = route.partition(" ")[2].replace("<provider_id>", "simulator")
        theirs.sendall(
            f"POST {path} HTTP/1.1\r\nX-API-Key: x\r\nContent-Length: 9\r\n\r\n".encode()
        )
        reader = Reader(ours)
        assert reader.take_in()
        assert not reader.shows_key


def test_where_storage_is_away_a_large_callback_is_refused_and_comes_again(site: Site) -> None:
    site.odd.does["verify_callback"] = answers(True)
    body = b"b" * (LARGEST_IN_MEMORY + 1)
    documents = site.runtime.config.data_dir / "documents"
    documents.mkdir(exist_ok=True)
    documents.rename(documents.with_name("gone"))
    documents.write_bytes(b"")
    carrier = client_of(site.runtime)
    carrier.application.config["PROPAGATE_EXCEPTIONS"] = False
    assert carrier.post("/callbacks/simulator", data=body, headers=SIGNED).status_code >= 500
    assert site.count(Callback) == 0
    documents.unlink()
    assert carrier.post("/callbacks/simulator", data=body, headers=SIGNED).status_code == 200
    assert site.count(Callback) == 1
