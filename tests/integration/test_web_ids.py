"""What stands in an address in the place of an id may be anything: it is nothing that is there, and never a fault of
ours, whatever a database thinks of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from faxbot import wiring
from faxbot.runtime import Runtime
from tests.installation import Stores
from tests.integration.console import BY_SCRIPT, CONSOLE
from tests.integration.test_web_doors import SOUND
from tests.integration.web import ACCESS, SECRET, browser_of, client_of, new_key, new_user
from tests.servers import Postgres, RedisServer

ROUTES = sorted(route for route in (*ACCESS, *CONSOLE) if "<" in route)
STRANGE = {
    "a NUL": "%00",
    "a NUL at the end": "0" * 31 + "%00",
    "too long": "0" * 3000,
    "half of a character": "%ED%A0%80",
    "a number too large": "9" * 25,
    "another script": "%D9%A1" * 32,
}
BODIES: dict[str, Any] = {
    **SOUND,
    "pause": {"reason": "asked"},
    "config": {"settings": {}},
    "activate": {"note": "asked"},
    "deactivate": {"note": "asked"},
}
"""By the end of a route, or as a whole, what it wants to be told; others want nothing."""
FORM = {
    "reason": "asked",
    "note": "asked",
    "outcome": "failed",
    "role": "viewer",
    "name": "another",
    "url": "https://hook.example.org/",
    "password": "a quite different set of words",
    "number": "+15550100000",
    "hold": "",
}


@pytest.fixture(scope="module")
def runtime(
    stores: Stores, postgres_server: Postgres, redis_server: RedisServer
) -> Iterator[Runtime]:
    """PostgreSQL takes no NUL in a text, and minds how long it is; SQLite minds neither."""
    with stores.postgresql(postgres_server, redis_server) as store:
        runtime = wiring.build(store.config(SIMULATOR_SECRET=SECRET))
        yield runtime
        runtime.close()


@pytest.fixture(scope="module")
def clients(runtime: Runtime) -> tuple[FlaskClient, FlaskClient]:
    """One with every scope, and an administrator's browser."""
    return client_of(runtime, new_key(runtime, "*")), browser_of(runtime, new_user(runtime))


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.parametrize("route", ROUTES)
def test_what_is_no_id_is_not_there_and_no_fault_of_ours(
    clients: tuple[FlaskClient, FlaskClient], route: str, what: str
) -> None:
    method, path = route.split()
    for name in re.findall("<.*?>", path):
        address = re.sub("<.*?>", "1", path.replace(name, STRANGE[what]))
        if route in CONSOLE:
            form = FORM if method == "POST" else None
            answer = clients[1].open(address, method=method, headers=BY_SCRIPT, data=form)
        else:
            body = BODIES.get(route, BODIES.get(path.rpartition("/")[2]))
            given = {} if body is None else {"json": body}
            answer = clients[0].open(address, method=method, **given)
        assert 400 <= answer.status_code < 500, (address[:200], answer.status_code, answer.text)
