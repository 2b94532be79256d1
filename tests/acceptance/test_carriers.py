"""The road through Phaxio and through Sinch, with real processes: two readings of each vendor, written apart, meet."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import pytest
import requests

from faxbot.carriers.pages import blank_pdf
from faxbot.carriers.sinch.submission import JSON
from tests.acceptance.site import SHORT, Site
from tests.carrier import CarrierProcess
from tests.conftest import StartService
from tests.ground import eventually
from tests.installation import Installation, Service
from tests.phaxio_carrier import KEY, SECRET, PhaxioProcess
from tests.servers import free_port
from tests.sinch_carrier import KEY as SINCH_KEY
from tests.sinch_carrier import PROJECT, SinchProcess
from tests.sinch_carrier import SECRET as SINCH_SECRET

PAGES = 3
DELIVERED = ("delivered", None, 1)
PHAXIO_ENDS = {
    "0000": DELIVERED,
    "0022": DELIVERED,  # every callback twice
    "0066": DELIVERED,  # an old callback after the end
    "0044": DELIVERED,  # never calls back: it is asked for
    "0097": DELIVERED,  # a status that no list has on its way
    "0504": DELIVERED,  # the reply is lost: found by its tag
    "0501": DELIVERED,  # 500 after accepting
    "0511": DELIVERED,  # a 200 that is no JSON
    "0433": ("failed", "policy", 0),
    "0400": ("failed", "number_invalid", 0),
    "2034": ("failed", "number_dead", 1),
    "1128": ("failed", "doc_unreadable", 1),
    "3133": ("failed", "policy", 1),
    "0088": ("failed", "unconfirmed", 1),  # partialsuccess
    "0099": ("failed", "unknown", 1),
    "4023": ("failed", "system", 1),  # may have arrived
}
SINCH_ENDS = {
    "0000": DELIVERED,
    "0022": DELIVERED,
    "0090": DELIVERED,  # COMPLETED with an error code: the status counts
    "0097": DELIVERED,
    "0044": DELIVERED,
    "0504": DELIVERED,
    "0501": DELIVERED,
    "0201": DELIVERED,  # the answer is a web page
    "0204": DELIVERED,  # {"faxes": [...]}
    "0205": DELIVERED,  # a bare list
    "0403": ("failed", "policy", 0),
    "0422": ("failed", "number_invalid", 0),
    "2034": ("failed", "number_dead", 1),
    "1128": ("failed", "doc_unreadable", 1),
    "3133": ("failed", "policy", 1),
    "0098": ("failed", "unknown", 1),
    "4023": ("failed", "system", 1),
}


LARGE = 3_000_000
"""Bytes of a document whose callback lies in storage."""
Wishes = tuple[tuple[str, dict[str, Any]], ...]
PHAXIO_COMES: Wishes = (
    ("/callbacks/phaxio", {}),
    ("/callbacks/phaxio", {"bytes": str(LARGE)}),
    ("/phaxio-inbound", {"send_file": "false"}),
    ("/inbound/callback", {"from_number": "+15558670022"}),  # every callback twice
)
PHAXIO_FAILS = {"error_type": "faxError", "error_id": "117"}
_PROOF = {"proof": "hook:open-sesame%3A0123%2F%40"}
SINCH_COMES: Wishes = (
    ("/callbacks/sinch", _PROOF),
    ("/callbacks/sinch", {**_PROOF, "bytes": LARGE, "contentType": JSON}),
    ("/sinch-inbound", {**_PROOF, "stored": False}),
    ("/inbound/callback", {**_PROOF, "bytes": LARGE, "contentType": JSON, "stored": False}),
)
SINCH_FAILS = {**_PROOF, "errorType": "FAX_ERROR", "errorCode": 117}
"""How faxes come in, at which door: with their documents and without, kept by the vendor or not."""


@dataclass(frozen=True)
class Vendor:
    """A carrier, and how faxbot comes to it."""

    name: str
    carrier: CarrierProcess
    environ: Mapping[str, str]
    ends: Mapping[str, tuple[str, str | None, int]]
    api: str
    auth: tuple[str, str]
    comes: Wishes
    fails: Mapping[str, Any]

    def receive(self, url: str, wish: Mapping[str, Any]) -> str:
        """Have a fax come in; its id."""
        assert isinstance(self.carrier, PhaxioProcess | SinchProcess)
        return self.carrier.receive(url, **wish)

    def has_document(self, external_id: str) -> bool:
        """Whether the carrier still gives the document of a fax back."""
        with requests.Session() as session:
            session.trust_env = False
            url = f"{self.api}/faxes/{external_id}/file"
            return session.get(url, auth=self.auth, timeout=10).status_code == 200


def phaxio(store: Installation) -> Vendor:
    carrier = PhaxioProcess(store.folder)
    carrier.start()
    return Vendor(
        "phaxio",
        carrier,
        carrier.environ,
        PHAXIO_ENDS,
        f"{carrier.url}/v2.1",
        (KEY, SECRET),
        PHAXIO_COMES,
        PHAXIO_FAILS,
    )


def sinch(store: Installation, method: str = "basic") -> Vendor:
    carrier = SinchProcess(store.folder)
    carrier.start()
    environ = {
        "SINCH_BASE_URL": f"{carrier.url}/v3",
        "SINCH_AUTH_BASE_URL": carrier.url,
        "SINCH_AUTH_METHOD": method,
        "SINCH_PROJECT_ID": PROJECT,
        "SINCH_API_KEY": SINCH_KEY,
        "SINCH_API_SECRET": SINCH_SECRET,
        "SINCH_WEBHOOK_BASIC_USER": "hook",
        "SINCH_WEBHOOK_BASIC_PASS": "open-sesame:0123/@",
    }
    return Vendor(
        "sinch",
        carrier,
        environ,
        SINCH_ENDS,
        carrier.api,
        (SINCH_KEY, SINCH_SECRET),
        SINCH_COMES,
        SINCH_FAILS,
    )


@pytest.fixture(params=[phaxio, sinch], ids=["phaxio", "sinch"])
def vendor(request: pytest.FixtureRequest, store: Installation) -> Iterator[Vendor]:
    vendor: Vendor = request.param(store)
    yield vendor
    vendor.carrier.end(signal.SIGTERM)


def started(
    vendor: Vendor, store: Installation, start_service: StartService, **settings: str
) -> Site:
    port = str(free_port())
    environ = {"FAX_BACKEND": vendor.name, "FAXBOT_PORT": port, **SHORT, **vendor.environ}
    service: Service = start_service(store, "up", **{**environ, **settings})
    return Site(service, vendor.carrier)  # type: ignore[arg-type] # it asks for faxes(tag) alone


def test_what_the_vendor_does_decides_the_end_and_no_fax_comes_twice(
    vendor: Vendor, store: Installation, start_service: StartService
) -> None:
    site = started(
        vendor,
        store,
        start_service,
        FAXBOT_BREAKER_REST_SECONDS="0.2",  # what it makes of so much trouble is shown elsewhere
        FAXBOT_DELETE_AT_CARRIER="true",
    )
    faxes = {ending: site.send(ending) for ending in vendor.ends}
    busy, unclear = site.send("2017"), site.send("0500")

    ends = {}
    for ending, fax_id in faxes.items():
        fax = site.final(fax_id, timeout=90)
        cause = fax["error"] and fax["error"]["code"]
        ends[ending] = (fax["status"], cause, site.at_carrier(fax_id))
        if fax["status"] == "delivered":
            assert fax["pages_sent"] == PAGES

    assert ends == vendor.ends
    eventually(lambda: site.fax(busy)["status"] == "retrying", 30, every=0.1)
    assert site.fax(busy)["error"]["code"] == "busy"
    an_outcome_that_nobody_knows_waits_for_a_person(site, unclear)
    name = site.fax(faxes["0000"])["external_id"]
    eventually(lambda: not vendor.has_document(name), 30, every=0.1)


def an_outcome_that_nobody_knows_waits_for_a_person(site: Site, fax_id: str) -> None:
    eventually(lambda: site.fax(fax_id)["status"] == "uncertain", 30, every=0.1)
    assert (site.fax(fax_id)["attempts"], site.at_carrier(fax_id)) == (1, 0)
    wish = {"outcome": "failed", "reason": "the vendor's console does not show it"}
    decided = site.service.request("POST", f"/fax/{fax_id}/decide", json=wish)
    assert decided.json()["status"] == "failed"


@pytest.mark.parametrize("make", [phaxio, sinch, partial(sinch, method="oauth2")])
def test_the_connection_is_tested_and_a_wrong_secret_is_named(
    make: Callable[[Installation], Vendor], embedded: Installation, start_service: StartService
) -> None:
    vendor = make(embedded)
    try:
        site = started(vendor, embedded, start_service)
        path = f"/admin/providers/{vendor.name}/test"
        answer = site.service.request("POST", path).json()
        assert answer["ok"], answer
        kept = site.fax(a_delivered(site))["external_id"]
        assert vendor.has_document(kept), "nobody wished that it goes"

        wish = {"settings": {"apiSecret": "wrong-secret"}, "untested": True, "note": "a slip"}
        answer = site.service.request("PUT", f"/plugins/{vendor.name}/config", json=wish)
        assert answer.status_code == 200, answer.text
        # Every process goes by it within five seconds; until then a fax may go as before.
        detail = eventually(lambda: refusal(site, path), 10)
        assert f"{vendor.name.upper()}_API_SECRET" in detail
        others = count(10)
        fax = eventually(lambda: held(site, f"+15550{next(others)}0000"), 20)
        assert fax["status_reason"] == "account_refused"
    finally:
        vendor.carrier.end(signal.SIGTERM)


def refusal(site: Site, path: str) -> str:
    """What a test of the connection finds wrong; empty where nothing is."""
    answer = site.service.request("POST", path).json()
    return "" if answer["ok"] else answer["detail"]


def held(site: Site, to: str) -> dict[str, Any]:
    """A new fax, where the carrier does not take it; empty where it does."""
    fax_id = site.send(to=to)
    eventually(lambda: site.fax(fax_id)["status"] in ("held", "sent", "delivered"), 30, every=0.1)
    fax: dict[str, Any] = site.fax(fax_id)
    return fax if fax["status"] == "held" else {}


def a_delivered(site: Site) -> str:
    fax_id = site.send()
    assert site.final(fax_id)["status"] == "delivered"
    return fax_id


def test_all_processes_share_one_token_of_sinch(
    embedded: Installation, start_service: StartService
) -> None:
    vendor = sinch(embedded, "oauth2")
    try:
        site = started(vendor, embedded, start_service, FAXBOT_WORKER_PROCESSES="3")
        faxes = [site.send(to=f"+15550{number:02}0000") for number in range(12)]
        assert {site.final(each, timeout=90)["status"] for each in faxes} == {"delivered"}
        assert isinstance(vendor.carrier, SinchProcess)
        assert vendor.carrier.tokens()["asked"] == 1
    finally:
        vendor.carrier.end(signal.SIGTERM)


def test_phaxio_fetches_the_document_from_a_link_where_that_is_wished(
    embedded: Installation, start_service: StartService
) -> None:
    vendor = phaxio(embedded)
    try:
        site = started(vendor, embedded, start_service, PHAXIO_SEND_BY_LINK="true")
        fax = site.final(site.send())
    finally:
        vendor.carrier.end(signal.SIGTERM)

    assert (fax["status"], fax["pages_sent"]) == ("delivered", PAGES), fax["error"]


def test_what_comes_in_is_here_once_and_byte_for_byte_then_not_there_and_what_failed_is_no_document(
    vendor: Vendor, store: Installation, start_service: StartService
) -> None:
    site = started(vendor, store, start_service, FAXBOT_DELETE_AT_CARRIER="true")
    came = {
        vendor.receive(site.service.url + door, wish): blank_pdf(1, int(wish.get("bytes", 0)))
        for door, wish in vendor.comes
    }
    failed = vendor.receive(site.service.url + vendor.comes[0][0], vendor.fails)

    def ended() -> dict[str, Any] | None:
        faxes = site.service.request("GET", "/inbound").json()["items"]
        over = {fax["external_id"]: fax for fax in faxes if fax["status"] != "fetching"}
        assert len(over) <= len(faxes) <= len(came) + 1
        return over if len(over) == len(came) + 1 else None

    faxes = eventually(ended, 60, every=0.2)
    assert faxes is not None
    lost = faxes.pop(failed)
    assert (lost["status"], lost["error"]["code"]) == ("failed", "handshake_failed")
    assert faxes.keys() == came.keys()
    for name, fax in faxes.items():
        assert (fax["status"], fax["pages"]) == ("received", 1)
        document = site.service.request("GET", f"/inbound/{fax['id']}/document").content
        assert document == came[name]
    eventually(lambda: not any(map(vendor.has_document, came)), 30, every=0.1)
    site.service.stop()
