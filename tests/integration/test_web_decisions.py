"""People's decisions over HTTP: who may make them, what is refused by name, and what they do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot.errors import OutcomeUnknown
from faxbot.models import Decision
from faxbot.web import schemas
from tests.integration.odd import raises
from tests.integration.site import Site
from tests.integration.web import assert_problem, client_of, new_key

SAID = {"outcome": "delivered", "reason": "the receiver called: all pages are there", "attempt": 1}


@pytest.fixture
def admin(site: Site) -> FlaskClient:
    return client_of(site.runtime, new_key(site.runtime, "admin", "fax:read"))


@pytest.fixture
def uncertain(site: Site) -> str:
    """A fax that only a person can settle."""
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    return site.sent()


def decide(client: FlaskClient, fax_id: str, **words: Any) -> TestResponse:
    return client.post(f"/fax/{fax_id}/decide", json=words)


@pytest.mark.parametrize(
    ("outcome", "status"), [("delivered", "delivered"), ("failed", "failed"), ("retry", "retrying")]
)
def test_an_uncertain_fax_is_settled_and_its_timeline_says_by_whom_and_why(
    admin: FlaskClient, uncertain: str, outcome: str, status: str
) -> None:
    response = decide(admin, uncertain, **{**SAID, "outcome": outcome})

    assert response.status_code == 200
    assert json.loads(response.data)["status"] == status
    timeline = json.loads(admin.get(f"/fax/{uncertain}/events").data)
    assert not schemas.Timeline().validate(timeline)
    (kept,) = timeline["decisions"]
    assert (kept["outcome"], kept["reason"], kept["attempt"]) == (outcome, SAID["reason"], 1)
    assert kept["actor"] not in ("", "env")
    assert timeline["events"][-1]["type"] == "FAX_DECIDED"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"outcome": None}, "outcome"),
        ({"outcome": "lost"}, "outcome"),
        ({"reason": None}, "reason"),
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "a\nb"}, "reason"),
        ({"attempt": 0}, "attempt"),
        ({"attempt": "first"}, "attempt"),
        ({"because": "x"}, "unknown"),
    ],
)
def test_a_bad_decision_is_refused_by_the_name_of_its_field_and_settles_nothing(
    admin: FlaskClient, site: Site, uncertain: str, change: dict[str, Any], field: str
) -> None:
    words = {name: value for name, value in {**SAID, **change}.items() if value is not None}
    problem = assert_problem(decide(admin, uncertain, **words), 422, "invalid-fields")

    assert list(problem["errors"]) == [field]
    assert (site.job(uncertain).status, site.count(Decision)) == ("uncertain", 0)


def test_a_decision_about_an_attempt_that_is_over_or_a_fax_that_is_sure_is_a_conflict(
    admin: FlaskClient, site: Site, uncertain: str
) -> None:
    assert_problem(
        decide(admin, uncertain, **{**SAID, "attempt": 2}), 409, "not-possible-in-this-state"
    )
    assert decide(admin, uncertain, **SAID).status_code == 200
    assert_problem(decide(admin, uncertain, **SAID), 409, "not-possible-in-this-state")
    assert_problem(decide(admin, "0" * 32, **SAID), 404, "not-found")
    assert site.count(Decision) == 1


def test_a_held_fax_is_released_and_no_other(site: Site) -> None:
    sender = client_of(site.runtime, new_key(site.runtime, "fax:send"))
    held = site.sent("0403")
    response = sender.post(f"/fax/{held}/release")

    assert response.status_code == 200
    assert json.loads(response.data)["status"] == "queued"
    assert_problem(sender.post(f"/fax/{held}/release"), 409, "not-possible-in-this-state")
    assert_problem(sender.post(f"/fax/{'0' * 32}/release"), 404, "not-found")
    assert_problem(decide(sender, held, **SAID), 403, "forbidden")
