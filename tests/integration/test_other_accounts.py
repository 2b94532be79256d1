"""What the administrator of another account may do beside that of the operator's: what is his own, and nothing that is
everybody's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from flask.testing import FlaskClient

from faxbot import oversight, retention, wiring
from faxbot.actors import CLI
from faxbot.runtime import Runtime
from tests.installation import Installation, Stores
from tests.integration.console import BY_SCRIPT
from tests.integration.test_audit_deeds import DOCUMENT, HEADER, NOTE, SETTINGS, SLOT
from tests.integration.web import SECRET, assert_problem, browser_of, client_of, new_key, new_user

OF_THE_HOUSE: dict[str, dict[str, Any] | None] = {
    "PATCH /admin/config": HEADER,
    "PATCH /admin/features": {**NOTE, "features": {"api_key_required": True}},
    "GET /admin/config/backups": None,
    "POST /admin/config/backups": NOTE,
    "POST /admin/config/rollback": {**NOTE, "version": 0},
    "GET /admin/config/export": None,
    "POST /admin/config/import": {**NOTE, "document": DOCUMENT},
    "PUT /plugins/phaxio/config": SETTINGS,
    "POST /admin/providers/simulator/activate": SLOT,
    "POST /admin/providers/simulator/deactivate": SLOT,
    "POST /admin/retention/run": None,
}
"""What is everybody's over HTTP, with a sound body."""
FORMS_OF_THE_HOUSE: dict[str, dict[str, str]] = {
    "/admin/ui/settings/FAX_HEADER": {"FAX_HEADER": "St. Mary", "note": "n"},
    "/admin/ui/settings/FAX_HEADER/unset": {"note": "n"},
    "/admin/ui/settings/versions": {"note": "n"},
    "/admin/ui/settings/versions/0": {"note": "n"},
    "/admin/ui/plugins/simulator/activate": {"slot": "outbound", "note": "n", "untested": "true"},
    "/admin/ui/plugins/simulator/deactivate": {"slot": "outbound", "note": "n"},
    "/admin/ui/retention/look": {},
    "/admin/ui/retention/run": {},
}
"""The same in the console."""
HIS_OWN = ("pause", "resume", "reset", "enable")
"""Whether a provider may be called is known of each account by itself."""
READ = ("/admin/diagnostics", "/admin/config", "/plugins", "/admin/providers", "/admin/retention")
"""What every administrator may see: how all is set, without secrets, and his own faxes."""


@pytest.fixture(scope="module")
def runtime(stores: Stores) -> Iterator[Runtime]:
    runtime = wiring.build(stores.embedded().config(SIMULATOR_SECRET=SECRET))
    yield runtime
    runtime.close()


def keys(runtime: Runtime, account_id: str) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "*", account_id=account_id))


@pytest.mark.parametrize("route", OF_THE_HOUSE)
def test_what_is_everybodys_is_refused_over_http(runtime: Runtime, route: str) -> None:
    method, path = route.split()
    refused = keys(runtime, "other").open(path, method=method, json=OF_THE_HOUSE[route])
    assert "whole installation" in assert_problem(refused, 403, "forbidden")["detail"]
    assert (runtime.settings.read().version, retention.runs(runtime, limit=1)) == (0, [])


@pytest.mark.parametrize("path", FORMS_OF_THE_HOUSE)
def test_what_is_everybodys_is_refused_in_the_console(runtime: Runtime, path: str) -> None:
    stranger = browser_of(runtime, new_user(runtime, account_id="other"))
    refused = stranger.post(path, data=FORMS_OF_THE_HOUSE[path], headers=BY_SCRIPT)
    assert refused.status_code == 403, refused.text
    assert "whole installation" in refused.text
    assert (runtime.settings.read().version, retention.runs(runtime, limit=1)) == (0, [])


@pytest.mark.parametrize("verb", HIS_OWN)
def test_what_he_does_to_a_provider_is_about_his_own_faxes(runtime: Runtime, verb: str) -> None:
    before = oversight.provider(runtime, CLI, "simulator")
    where = "/plugins/simulator" if verb == "enable" else "/admin/providers/simulator"
    done = keys(runtime, "other").post(f"{where}/{verb}", json=NOTE)
    assert done.status_code == 200, done.text
    assert oversight.provider(runtime, CLI, "simulator") == before


@pytest.mark.parametrize("path", READ)
def test_how_all_is_set_is_seen_by_every_administrator(runtime: Runtime, path: str) -> None:
    answer = keys(runtime, "other").get(path)
    assert answer.status_code == 200
    assert SECRET not in answer.text


def test_the_operators_administrator_may_do_all_of_it(embedded: Installation) -> None:
    with closing(wiring.build(embedded.config(SIMULATOR_SECRET=SECRET))) as runtime:
        admin, person = keys(runtime, "default"), browser_of(runtime, new_user(runtime))
        for route, wish in OF_THE_HOUSE.items():
            method, path = route.split()
            assert admin.open(path, method=method, json=wish).status_code not in (401, 403), route
        for path, fields in FORMS_OF_THE_HOUSE.items():
            answer = person.post(path, data=fields, headers=BY_SCRIPT)
            assert answer.status_code not in (401, 403), path
