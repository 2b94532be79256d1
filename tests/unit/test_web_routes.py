"""Routes of the application as werkzeug uses them."""

from __future__ import annotations

from werkzeug.routing import Map

from faxbot.web.app import Route


def test_an_address_is_still_built_of_a_route_when_somebody_asks() -> None:
    routes = Map([Route("/fax/<job_id>/events", endpoint="events")]).bind("localhost")

    assert routes.build("events", {"job_id": "a b"}) == "/fax/a%20b/events"
    assert routes.build("events", {"job_id": "7", "limit": "2"}) == "/fax/7/events?limit=2"
    assert routes.match("/fax/7/events") == ("events", {"job_id": "7"})
