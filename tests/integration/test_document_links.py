"""Links by which a carrier fetches a document: one fax, for a while, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pypdfium2
import pytest

from faxbot import sending
from faxbot.hidden import Hidden
from faxbot.plugins.base import OutboundFax, Receipt, State, Update
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration import odd
from tests.integration.odd import Odd, answers
from tests.integration.site import Site, open_site
from tests.integration.web import assert_problem, client_of
from tests.threads import at_once


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    """The provider `second` may fetch its documents; `simulator` may not."""
    with open_site(store, carrier_of_all, FAX_BACKENDS="second,simulator") as site:
        may = {"second": ("send_fax", "status_lookup", "fetches_document")}
        site.runtime = replace(site.runtime, plugins=odd.plugins(site.runtime, others=may))
        yield site


def provider(site: Site, name: str = "second") -> Odd:
    return site.runtime.plugins.get(name, Odd)


def link_of(site: Site, **wish: int) -> tuple[str, str]:
    """A fax that is sent, and the link that its carrier was given, without our address."""
    links: list[Hidden[str]] = []

    def take(_usual: object, fax: OutboundFax) -> Receipt:
        links.append(fax.document_url)
        return Receipt(f"id-{fax.tag}")

    provider(site).does["send"] = take
    job_id = site.fax("0000", **wish)
    sending.attempt(site.runtime, job_id)
    return job_id, links[-1].reveal().removeprefix(site.runtime.config.base_url)


def test_a_carrier_fetches_the_pages_by_its_link_as_often_as_it_likes(site: Site) -> None:
    client, (_, link) = client_of(site.runtime), link_of(site, pages=3)

    for _ in range(2):
        response = client.get(link, buffered=True)
        assert (response.status_code, response.mimetype) == (200, "application/pdf"), response.data
        assert response.headers["Cache-Control"] == "no-store"
        assert len(pypdfium2.PdfDocument(response.data)) == 3
    assert client.head(link, buffered=True).status_code == 200
    assert list(site.runtime.config.spool_dir.iterdir()) == [], "a file is left behind"


def test_a_provider_that_does_not_fetch_is_given_no_link(site: Site) -> None:
    links: list[str] = []

    def take(_usual: object, fax: OutboundFax) -> Receipt:
        links.append(fax.document_url.reveal())
        return Receipt(f"id-{fax.tag}")

    provider(site, "simulator").does["send"] = take
    sending.attempt(site.runtime, site.fax("0000", provider_id="simulator"))

    assert links == [""]


def test_a_link_is_good_for_one_fax_and_as_it_was_given(site: Site) -> None:
    client = client_of(site.runtime)
    (first, link), (second, _) = link_of(site), link_of(site)
    tag, until, proof = link.partition("token=")[2].split(".")
    later = f"{int(until, 16) + 3600:x}"

    for forged in (
        link.replace(first, second),
        link.replace(first, "0" * 32),
        link.replace(until, later),
        link.replace(proof, "0" * 64),
        link.replace(proof, ""),
        link.replace(tag, f"fb{'0' * 32}"),
        f"/fax/{first}/pdf?token=",
        f"/fax/{first}/pdf?token=..",
        f"/fax/{first}/pdf?token=%C3%BC.%C3%BC.%C3%BC",
    ):
        assert_problem(client.get(forged), 401, "unauthenticated")
    assert_problem(client.get(f"/fax/{first}/pdf"), 422, "invalid-fields")


def test_a_link_ends_when_its_time_is_over(site: Site) -> None:
    client, (_, link) = client_of(site.runtime), link_of(site)

    site.now += timedelta(minutes=59)
    assert client.get(link, buffered=True).status_code == 200
    site.now += timedelta(minutes=2)
    assert_problem(client.get(link, buffered=True), 401, "unauthenticated")


def test_a_link_ends_with_the_attempt_it_was_for(site: Site) -> None:
    client, (job_id, link) = client_of(site.runtime), link_of(site)
    name = site.job(job_id).external_id
    provider(site).does["fetch"] = answers(Update(State.DELIVERED, external_id=name))
    site.after(600)
    assert site.job(job_id).status == "delivered"

    site.now -= timedelta(minutes=5)
    assert_problem(client.get(link, buffered=True), 401, "unauthenticated")


def test_a_document_that_is_gone_is_not_found(site: Site) -> None:
    client, (_, link) = client_of(site.runtime), link_of(site)
    for path in (site.runtime.config.data_dir / "documents").rglob("*"):
        if path.is_file():
            path.unlink()

    assert_problem(client.get(link, buffered=True), 404, "not-found")


def test_many_may_fetch_at_once(site: Site) -> None:
    _, link = link_of(site)
    # Made one by one: in Python 3.11.2 two threads that compile at once may fail (AST recursion depth).
    clients = [client_of(site.runtime) for _ in range(6)]

    def fetch(number: int) -> int:
        return clients[number].get(link, buffered=True).status_code

    assert set(at_once(6, fetch)) == {200}
