"""The carriers' door: what is theirs is kept once, sealed, with the address they signed; all else stays outside."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import wiring
from faxbot.config import Config
from faxbot.models import Callback
from faxbot.runtime import Runtime
from faxbot.web.callbacks import CALLBACK_BYTES
from tests.installation import Installation
from tests.integration.web import SECRET, assert_problem, client_of, left_behind

BODY = json.dumps({"fax": {"id": "sim-1", "status": "delivered", "pages_sent": 1}}).encode()


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config(SIMULATOR_SECRET=SECRET, PUBLIC_API_URL="https://fax.example.org/api/")


@pytest.fixture
def rung() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def runtime(config: Config, rung: list[tuple[str, str]]) -> Iterator[Runtime]:
    """A runtime whose bell can be heard."""

    def ring(task: str, row_id: str, _urgency: int = 0, /) -> bool:
        rung.append((task, row_id))
        return True

    runtime = wiring.build(config, ring=ring)
    yield runtime
    runtime.close()


@pytest.fixture
def client(runtime: Runtime) -> FlaskClient:
    return client_of(runtime)


def signed(body: bytes) -> dict[str, str]:
    """The carrier's signature; the scheme is in docs/simulator.md."""
    at = str(int(time.time()))
    proof = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Simulator-Signature": f"t={at},v1={proof}"}


def stored(runtime: Runtime) -> list[dict[str, Any]]:
    """The requests that were kept, opened."""
    with runtime.database.reading() as session:
        rows = session.scalars(sa.select(Callback.raw_sealed)).all()
    assert not any(b"sim-1" in row for row in rows)
    return [json.loads(runtime.keyring.open(row, "callbacks.raw:default")) for row in rows]


def test_a_carriers_callback_is_kept_as_it_came_and_announced(
    client: FlaskClient, runtime: Runtime, rung: list[tuple[str, str]]
) -> None:
    address = "/callbacks/simulator?tag=a%2Fb&x=1+2"
    response = client.post(address, data=BODY, headers=signed(BODY))
    (kept,) = stored(runtime)

    assert (response.status_code, json.loads(response.data)) == (200, {"status": "ok"})
    assert base64.b64decode(kept["body"]) == BODY
    assert kept["url"] == "https://fax.example.org/api" + address
    assert kept["method"] == "POST"
    assert kept["headers"]["x-simulator-signature"].startswith("t=")
    assert [task for task, _ in rung] == ["faxbot.apply_callback"]


def test_a_repeat_is_welcome_and_kept_once(
    client: FlaskClient, runtime: Runtime, rung: list[tuple[str, str]]
) -> None:
    statuses = [
        client.post("/callbacks/simulator", data=BODY, headers=signed(BODY)).status_code
        for _ in range(3)
    ]

    assert statuses == [200, 200, 200]
    assert len(stored(runtime)) == 1
    assert len(rung) == 1


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Simulator-Signature": "t=1,v1=" + "0" * 64}, {"X-Simulator-Signature": "caf\u00e9"}],
    ids=["none", "forged", "nonsense"],
)
def test_what_the_carrier_did_not_sign_is_refused(
    client: FlaskClient, runtime: Runtime, headers: dict[str, str]
) -> None:
    assert_problem(
        client.post("/callbacks/simulator", data=BODY, headers=headers), 401, "unauthenticated"
    )
    assert left_behind(runtime) == {}


@pytest.mark.parametrize("query", ["attempt=fb1", "attempt=fb1&token=", "attempt=fb1&token=abc"])
def test_who_names_an_attempt_must_have_been_given_its_address(
    client: FlaskClient, runtime: Runtime, query: str
) -> None:
    response = client.post(f"/callbacks/simulator?{query}", data=BODY, headers=signed(BODY))

    assert_problem(response, 401, "unauthenticated")
    assert left_behind(runtime) == {}


def test_a_changed_body_is_refused(client: FlaskClient, runtime: Runtime) -> None:
    response = client.post("/callbacks/simulator", data=BODY + b" ", headers=signed(BODY))

    assert_problem(response, 401, "unauthenticated")
    assert left_behind(runtime) == {}


@pytest.mark.parametrize("provider_id", ["local", "none", "%00", "..", "SIMULATOR", "x" * 300])
def test_a_provider_that_is_not_there_takes_nothing(
    client: FlaskClient, runtime: Runtime, provider_id: str
) -> None:
    assert_problem(
        client.post(f"/callbacks/{provider_id}", data=BODY, headers=signed(BODY)), 404, "not-found"
    )
    assert left_behind(runtime) == {}


def test_a_callback_of_any_size_is_not_taken(client: FlaskClient, runtime: Runtime) -> None:
    body = b" " * (CALLBACK_BYTES + 1)

    assert_problem(
        client.post("/callbacks/simulator", data=body, headers=signed(body)),
        413,
        "request-too-large",
    )
    assert left_behind(runtime) == {}
