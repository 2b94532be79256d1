"""Whatever is posted at the carriers' doors: refused, or acknowledged and of no harm; never a fault of ours."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faxbot import callbacks
from faxbot.config import Config
from faxbot.db import new_id
from faxbot.models import Attempt, Callback, FaxEvent, Job
from faxbot.runtime import Runtime
from tests.installation import Installation
from tests.integration.site import tiff
from tests.integration.web import SECRET, client_of, new_key, send

TOKEN, PASSWORD = "phaxio-callback-token", "open-sesame-0123"
BASE = "https://fax.example.org"
BOUNDARY = "limit"
FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FAX = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(-1, 10**20) | st.text(max_size=30) | JSON,
        "direction": st.sampled_from(["sent", "received", "OUTBOUND", "INBOUND"]) | JSON,
        "status": st.sampled_from(["success", "failure", "delivered", "COMPLETED", "FAILURE"])
        | JSON,
        "tags": JSON,
        "tag": JSON,
        "labels": JSON,
        "recipients": JSON,
        "error_type": JSON,
        "error_id": JSON,
        "completed_at": JSON,
        "num_pages": JSON,
        "pages_sent": JSON,
    },
)
STRANGE = st.sampled_from(["known-9", "9", f"fb{'9' * 32}", "x"])
FAX |= st.builds(
    lambda name, number, status: {
        "id": number if status in ("success", "failure") else name,
        "status": status,
        "tag": name,
        "tags": {"faxbot": name},
        "recipients": [],
    },
    STRANGE,
    st.integers(1, 99),
    st.sampled_from(["success", "failure", "delivered", "failed"]),
)
"""Anything, and sound news of faxes that are not ours."""
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "fax": FAX.map(json.dumps) | st.text(max_size=40),
        "event_type": st.sampled_from(["fax_completed", "transmitting_page", "x"])
        | st.text(max_size=9),
        "event": st.sampled_from(["FAX_COMPLETED", '"INCOMING_FAX"', "x"]) | st.text(max_size=9),
        "success": st.text(max_size=5),
        "direction": st.sampled_from(["sent", "received"]),
    },
)


def multipart(fields: dict[str, str]) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return ("".join(parts) + f"--{BOUNDARY}--\r\n").encode(errors="replace")


BODY = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda content: json.dumps(content).encode()),
    FAX.map(lambda fax: json.dumps({"fax": fax, "event": "FAX_COMPLETED"}).encode()),
    FIELDS.map(multipart),
    st.tuples(FIELDS.map(multipart), st.integers(0, 400)).map(lambda cut: cut[0][: cut[1]]),
    st.integers(1, 3000).map(lambda depth: b"[" * depth),
)
TYPE = st.sampled_from(
    [
        f"multipart/form-data; boundary={BOUNDARY}",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "application/x-www-form-urlencoded",
        "application/json",
        "application/json; charset=utf-16",
        "text/plain; charset=no-such",
        "",
    ]
)
QUERY = st.sampled_from(["", "?a=1", "?%ff", "?token=y"])
PATH = st.sampled_from(["", "?a=1", "?attempt=x", "?attempt=x&token=y", "?%ff", "?attempt=%00"])


def simulator(url: str, body: bytes, fields: dict[str, str] | None) -> dict[str, str]:  # noqa: ARG001
    at = str(int(time.time()))
    proof = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Simulator-Signature": f"t={at},v1={proof}"}


def phaxio(url: str, body: bytes, fields: dict[str, str] | None) -> dict[str, str]:  # noqa: ARG001
    """Good for a form of these fields, as the vendor sends it."""
    message = url + "".join(name + value for name, value in sorted((fields or {}).items()))
    proof = hmac.new(TOKEN.encode(), message.encode(errors="replace"), hashlib.sha1).hexdigest()
    return {"X-Phaxio-Signature": proof}


def sinch(url: str, body: bytes, fields: dict[str, str] | None) -> dict[str, str]:  # noqa: ARG001
    proof = base64.b64encode(f"hook:{PASSWORD}".encode()).decode()
    return {"Authorization": f"Basic {proof}"}


PROOFS: dict[str, Callable[..., dict[str, str]]] = {
    "simulator": simulator,
    "phaxio": phaxio,
    "sinch": sinch,
}


@pytest.fixture
def store(embedded: Installation) -> Installation:
    """Nothing here depends on the kind of database."""
    return embedded


@pytest.fixture
def config(store: Installation) -> Config:
    nobody = "http://127.0.0.1:9"
    return store.config(
        SIMULATOR_SECRET=SECRET,
        PHAXIO_API_KEY="key",
        PHAXIO_API_SECRET="secret",
        PHAXIO_CALLBACK_TOKEN=TOKEN,
        PHAXIO_BASE_URL=f"{nobody}/v2.1",
        SINCH_PROJECT_ID="project",
        SINCH_API_KEY="key",
        SINCH_API_SECRET="secret",
        SINCH_BASE_URL=f"{nobody}/v3",
        SINCH_WEBHOOK_BASIC_USER="hook",
        SINCH_WEBHOOK_BASIC_PASS=PASSWORD,
        PUBLIC_API_URL=BASE,
    )


def under_way(runtime: Runtime) -> None:
    """A fax with an attempt at each carrier, none of which any callback here names."""
    assert send(client_of(runtime, new_key(runtime)), tiff()).status_code == 202
    with runtime.database.transaction() as session:
        job = session.scalars(sa.select(Job)).one()
        for number, provider_id in enumerate(PROOFS, 1):
            session.add(
                Attempt(
                    id=new_id(),
                    job_id=job.id,
                    number=number,
                    provider_id=provider_id,
                    tag=f"fb{number:032}",
                    external_id=f"known-{number}",
                    fence=1,
                    outcome="accepted",
                    intended_at=job.created_at,
                )
            )


def ledger(runtime: Runtime) -> list[Any]:
    """All that is known of faxes."""
    with runtime.database.reading() as session:
        return [
            tuple(row)
            for table in (Job, Attempt, FaxEvent)
            for row in session.execute(sa.select(table.__table__)).all()
        ]


@pytest.mark.parametrize("provider_id", PROOFS)
@given(body=BODY, kind=TYPE, path=PATH, proof=st.none() | st.text(max_size=40))
@FUZZ
def test_what_is_not_proven_is_refused_and_leaves_nothing(
    runtime: Runtime, provider_id: str, body: bytes, kind: str, path: str, proof: str | None
) -> None:
    names = ("X-Simulator-Signature", "X-Phaxio-Signature", "Authorization")
    shown = {} if proof is None else dict.fromkeys(names, proof.encode().hex())
    answer = client_of(runtime).post(
        f"/callbacks/{provider_id}{path}", data=body, content_type=kind, headers=shown
    )

    assert answer.status_code in (400, 401), answer.data
    with runtime.database.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Callback)) == 0


@pytest.mark.parametrize("provider_id", PROOFS)
@given(fields=FIELDS, body=BODY, is_form=st.booleans(), query=QUERY)
@FUZZ
def test_what_is_proven_is_acknowledged_and_changes_no_fax_that_it_does_not_name(
    runtime: Runtime,
    provider_id: str,
    fields: dict[str, str],
    body: bytes,
    is_form: bool,
    query: str,
) -> None:
    if not ledger(runtime):
        under_way(runtime)
    before = ledger(runtime)
    path = f"/callbacks/{provider_id}{query}"
    url = f"{BASE}{path}"
    content = multipart(fields) if is_form or provider_id == "phaxio" else body or b" "
    headers = PROOFS[provider_id](url, content, fields)
    answer = client_of(runtime).post(
        path,
        data=content,
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
        headers=headers,
    )

    # A form whose text breaks its own frame is signed otherwise than it is read.
    assert answer.status_code in ((200, 401) if provider_id == "phaxio" else (200,)), answer.data
    with runtime.database.reading() as session:
        waiting = session.scalars(sa.select(Callback.id).where(Callback.applied_at.is_(None))).all()
    for callback_id in waiting:
        callbacks.apply(runtime, callback_id)
    assert ledger(runtime) == before


def test_each_proof_of_these_tests_is_one(runtime: Runtime) -> None:
    fields = {"event_type": "fax_completed", "fax": '{"id": 1, "status": "success"}'}
    content = multipart(fields)
    for provider_id, prove in PROOFS.items():
        url = f"{BASE}/callbacks/{provider_id}"
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        headers: dict[str, Any] = prove(url, content, fields)
        answer = client_of(runtime).post(
            f"/callbacks/{provider_id}", data=content, content_type=kind, headers=headers
        )
        assert answer.status_code == 200, (provider_id, answer.data)
