"""Received faxes of Sinch: what it posts of them counts once it confirms it, and its own copy is the document."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faxbot.carriers.pages import blank_pdf
from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Unreachable,
)
from faxbot.events import CAUSES as CANONICAL
from faxbot.plugins.base import CallbackRequest, State, TransportPlugin
from faxbot.providers.http import HttpClient
from faxbot.providers.sinch import SinchProvider, answers, webhooks
from tests.callbacks import Receiver, arrivals_in, updates_in
from tests.ground import eventually
from tests.misbehaving import answering
from tests.providers.sinch import (
    CALLBACK,
    NOW,
    PROJECT,
    SECRETS,
    TAG,
    VENDOR,
    answer,
    offline,
    provider,
    requests,
    said,
    webhook,
)
from tests.providers.test_sinch_callbacks import asking
from tests.sinch_carrier import KEY, SECRET, SinchProcess
from tests.sinch_carrier import PROJECT as CARRIERS_PROJECT

CAME = "01HDFHACK1YN7CCDYRA6ZRMA8Z"
FAX, FILE = f"{PROJECT}/faxes/{CAME}", f"{PROJECT}/faxes/{CAME}/file"
EXAMPLES = sorted(
    path.name
    for path in (VENDOR / "webhooks").iterdir()
    if path.name.startswith("incoming_") or "vendor_example" in path.name
)
DOCUMENT = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
KIND = "Content-Type: application/pdf"
GONE = answer(said("errors/404.json"), 404)


def record(**changes: Any) -> dict[str, Any]:
    """What Sinch shows of the fax of its own examples; None leaves a field out."""
    shown: dict[str, Any] = {
        "id": CAME,
        "direction": "INBOUND",
        "from": "+14155552222",
        "to": "+14155553333",
        "numberOfPages": 2,
        "status": "COMPLETED",
        "createTime": "2021-11-01T23:25:00Z",
        "completedTime": "2021-11-01T23:25:57Z",
        "hasFile": True,
    }
    return {name: each for name, each in {**shown, **changes}.items() if each is not None}


def shown(**changes: Any) -> bytes:
    return answer(json.dumps(record(**changes)).encode())


def posted(content: Any = None, **fields: Any) -> CallbackRequest:
    """A webhook as JSON."""
    body = {"event": "INCOMING_FAX", "fax": record(), **fields} if content is None else content
    url = CALLBACK.partition("?")[0]
    return CallbackRequest("POST", url, {}, json.dumps(body).encode())


def attached(sinch: TransportPlugin, request: CallbackRequest) -> bytes:
    target = BytesIO()
    sinch.attached(request, target)
    return target.getvalue()


def held(request: CallbackRequest) -> bytes | None:
    """The document in a webhook, whatever it is worth."""
    target = BytesIO()
    return target.getvalue() if webhooks.save(request, target) else None


def fetched(sinch: TransportPlugin, external_id: str = CAME) -> bytes:
    target = BytesIO()
    sinch.document(external_id, target)
    return target.getvalue()


# The vendor's own files ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("stored", [True, "true", False])
def test_a_received_fax_is_what_sinch_confirms_in_every_shape(name: str, stored: Any) -> None:
    """Also FAX_COMPLETED about a fax that came in, as Sinch's own example has it."""
    request = webhook(name)
    with asking({f"GET {FAX}": [shown(hasFile=stored)]}) as (sinch, server):
        assert sinch.verify_callback(request)
        (found,), (again,) = arrivals_in(sinch, request), arrivals_in(sinch, request)
    assert found == again
    assert [each.path for each in requests(server)] == [FAX, FAX]
    assert (found.external_id, found.pages, found.cause) == (CAME, 2, None)
    assert found.sender.reveal() == "+14155552222"
    assert found.recipient.reveal() == "+14155553333"
    assert found.received_at == datetime(2021, 11, 1, 23, 25, 57, tzinfo=UTC)
    assert "4155552222" not in repr(found)
    assert found.attached is ("failed" not in name)


OWN = b"%PDF-1.7 the carrier's own"


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "failed" not in name])
@pytest.mark.parametrize(
    ("stored", "file", "own"),
    [
        (True, answer(OWN, 200, KIND), True),
        ("true", answer(OWN, 200, KIND), True),
        (None, answer(OWN, 200, KIND), True),
        (True, GONE, False),
        (None, GONE, False),
        (False, answer(OWN, 200, KIND), False),
        ("false", answer(OWN, 200, KIND), False),
    ],
)
def test_sinchs_own_copy_is_the_document_and_without_one_what_came_with_the_webhook(
    name: str,
    stored: Any,
    file: bytes,
    own: bool,
) -> None:
    with asking({f"GET {FAX}": [shown(hasFile=stored)], f"GET {FILE}": [file]}) as (sinch, _):
        had = attached(sinch, webhook(name))
    assert (had == OWN) is own
    assert had.startswith(DOCUMENT) is not own


@pytest.mark.parametrize(
    ("fax", "file", "kind"),
    [
        (GONE, GONE, Refused),
        (answer(b"", 500), GONE, OutcomeUnknown),
        (shown(), answer(b"", 500), OutcomeUnknown),
        (shown(completedTime=NOW.isoformat()), GONE, Unreachable),
    ],
)
def test_while_sinch_does_not_say_whether_it_has_a_copy_nothing_is_taken(
    fax: bytes, file: bytes, kind: type[ProviderError]
) -> None:
    with (
        asking({f"GET {FAX}": [fax], f"GET {FILE}": [file]}) as (sinch, _),
        pytest.raises(ProviderError) as untaken,
    ):
        attached(sinch, webhook("incoming_json.http"))
    assert type(untaken.value) is kind


@pytest.mark.parametrize(
    ("fax", "file"),
    [(answer(b"", 401), GONE), (answer(b"", 403), GONE), (shown(), answer(b"", 401))],
)
def test_where_sinch_refuses_the_account_for_two_weeks_what_came_with_the_webhook_is_taken(
    fax: bytes, file: bytes
) -> None:
    """Until then its own copy may be had again, and proves what was sent."""

    def came(days: float) -> CallbackRequest:
        at = (NOW - timedelta(days=days)).isoformat()
        return posted(eventTime=at, file=base64.b64encode(DOCUMENT).decode())

    with asking({f"GET {FAX}": [fax], f"GET {FILE}": [file]}) as (sinch, _):
        with pytest.raises((AccountRefused, DestinationBarred)):
            attached(sinch, came(13.9))
        with pytest.raises((AccountRefused, DestinationBarred)):
            attached(sinch, posted(fax={"id": CAME}, file=base64.b64encode(DOCUMENT).decode()))
        assert attached(sinch, came(14.1)) == DOCUMENT
        with pytest.raises(Refused):
            attached(sinch, posted(eventTime=(NOW - timedelta(days=15)).isoformat()))


# What counts --------------------------------------------------------------------------------------


def test_what_a_webhook_says_of_the_fax_does_not_count() -> None:
    """Whoever has the credentials can write it."""
    lie = record(**{"from": "+15550100666", "numberOfPages": 99, "status": "COMPLETED"})
    with asking({f"GET {FAX}": [shown(status="FAILURE", numberOfPages=0)]}) as (sinch, _):
        (found,) = arrivals_in(sinch, posted(fax=lie, file="JVBERi0="))
    assert (found.sender.reveal(), found.pages, found.cause, found.attached) == (
        "+14155552222",
        0,
        "unknown",
        False,
    )


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"errorType": "FAX_ERROR", "errorCode": 117}, "handshake_failed"),
        ({"errorType": "LINE_ERROR", "errorCode": 89}, "dropped_early"),
        ({"errorType": "FATAL_ERROR"}, "unreachable"),
        ({"errorType": "NEW_ERROR", "errorCode": "x"}, "unknown"),
    ],
)
def test_a_fax_that_failed_has_a_cause_and_no_document(changes: dict[str, Any], cause: str) -> None:
    with asking({f"GET {FAX}": [shown(status="FAILURE", hasFile=False, **changes)]}) as (sinch, _):
        (found,) = arrivals_in(sinch, posted(file="JVBERi0="))
    assert (found.cause, found.attached) == (cause, False)


def test_a_fax_that_sinch_does_not_know_is_none() -> None:
    """The example's time is long past: a record that was late would be there. But a document is not thrown away."""
    with asking({f"GET {FAX}": [GONE]}) as (sinch, _):
        assert sinch.read_callback(posted(fax={"id": CAME})) == []
        with pytest.raises(Unreachable) as asked:
            sinch.read_callback(webhook("incoming_json.http"))
    assert asked.value.cause == "unconfirmed"


@pytest.mark.parametrize("minutes", [-59, 0, 59])
def test_a_record_that_may_be_late_is_asked_for_again(minutes: int) -> None:
    at = (NOW + timedelta(minutes=minutes)).isoformat()
    with asking({f"GET {FAX}": [GONE]}) as (sinch, _):
        for request in (posted(eventTime=at), posted(fax=record(completedTime=at))):
            with pytest.raises(Unreachable):
                sinch.read_callback(request)
        assert sinch.read_callback(posted(eventTime=at, event="FAX_COMPLETED")) == []


@pytest.mark.parametrize(
    ("behaviour", "asked"),
    [
        (answer(said("errors/500.json"), 500), False),
        (answer(b"", 403), False),
        (answer(b"[]"), False),
        (shown(status="IN_PROGRESS"), True),
        (shown(status="new"), True),
        (shown(id="01HDF5S9P29WC29J578J8EKC1C"), False),
    ],
)
def test_what_sinch_does_not_confirm_now_is_read_again_later(behaviour: bytes, asked: bool) -> None:
    with asking(answering(behaviour)) as (sinch, _), pytest.raises(Unreachable) as unconfirmed:
        sinch.read_callback(posted())
    assert (unconfirmed.value.cause == "unconfirmed") is asked
    assert not [word for word in SECRETS if word in unconfirmed.value.detail]


def test_a_fax_with_our_label_was_sent_whatever_else_is_said() -> None:
    labels = {"faxbot": TAG}
    with asking({f"GET {FAX}": [shown(labels=labels)]}) as (sinch, _):
        (update,) = updates_in(sinch, posted())
    assert (update.state, update.tag) == (State.DELIVERED, TAG)


@pytest.mark.parametrize(
    ("event", "direction", "came"),
    [
        ("INCOMING_FAX", "INBOUND", True),
        ("FAX_COMPLETED", "INBOUND", True),
        ("FAX_RECEIVED", "INBOUND", True),
        ("INCOMING_FAX", None, True),
        ("INCOMING_FAX", "OUTBOUND", False),
        ("FAX_COMPLETED", "OUTBOUND", False),
        ("FAX_COMPLETED", None, False),
    ],
)
def test_the_record_tells_whether_it_came(event: str, direction: str | None, came: bool) -> None:
    with asking({f"GET {FAX}": [shown(direction=direction)]}) as (sinch, _):
        assert len(arrivals_in(sinch, posted(event=event))) == came


@pytest.mark.parametrize(
    "fields",
    [
        {"file": ""},
        {"file": None},
        {"files": []},
        {"files": ["JVBERi0="]},
        {"files": [{"file": "JVBERi0="}, {"file": "JVBERi0="}]},
        {"file": "JVBERi0=", "files": [{"file": "JVBERi0="}]},
    ],
)
def test_no_document_or_several_are_not_taken_from_the_webhook(fields: dict[str, Any]) -> None:
    with asking({f"GET {FAX}": [shown(hasFile=None)]}) as (sinch, _):
        (found,) = arrivals_in(sinch, posted(**fields))
    assert not found.attached


@pytest.mark.parametrize("text", ["JVBERi0", "JVBERi0=====", "JVBE*i0=", "JVBERi0=JVBE"])
def test_a_document_that_is_no_base64_is_none(text: str) -> None:
    assert held(posted(file=text)) is None


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "multipart" in name])
def test_a_document_that_is_cut_off_is_none(name: str) -> None:
    whole = webhook(name)
    for length in range(0, len(whole.body) - 4, 30):
        assert held(replace(whole, body=whole.body[:length])) is None


@pytest.mark.parametrize("kind", ["json", "multipart"])
def test_a_body_in_a_file_is_read_as_one_in_memory(tmp_path: Path, kind: str) -> None:
    content = blank_pdf(1, 3 * 1024 * 1024)
    whole = webhook(f"incoming_{kind}.http")
    small = held(whole) or b""
    old, new = (
        (base64.b64encode(small), base64.b64encode(content)) if kind == "json" else (small, content)
    )
    path = tmp_path / "body"
    path.write_bytes(whole.body.replace(old, new))
    filed = replace(whole, body=b"", file=path)
    with asking({f"GET {FAX}": [shown(hasFile=False)]}) as (sinch, _):
        (found,) = arrivals_in(sinch, filed)
        assert found.attached
        assert attached(sinch, filed) == content


# Sinch's copy -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (shown(completedTime=NOW.isoformat()), Unreachable),
        (shown(), Refused),
        (shown(direction="OUTBOUND", completedTime=NOW.isoformat()), Refused),
        (GONE, Refused),
        (answer(b"", 500), OutcomeUnknown),
    ],
)
def test_a_document_that_is_missing_may_still_come_within_the_hour(
    second: bytes, kind: type[ProviderError]
) -> None:
    with (
        asking({f"GET {FILE}": [GONE], f"GET {FAX}": [second]}) as (sinch, _),
        pytest.raises(ProviderError) as missing,
    ):
        fetched(sinch)
    assert type(missing.value) is kind


# With the stand-in --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SinchProcess]:
    with SinchProcess(tmp_path_factory.mktemp("sinch"), late_seconds=2) as process:
        yield process


@pytest.fixture
def here() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture
def sinch(carrier: SinchProcess) -> Iterator[SinchProvider]:
    client = HttpClient([carrier.url], read=5.0)
    keys: dict[str, Any] = {"projectId": CARRIERS_PROJECT, "apiKey": KEY, "apiSecret": SECRET}
    made = provider(client, carrier.url, **keys)
    made.initialize(made.config, replace(made.context, now=lambda: datetime.now(UTC)))
    yield made
    client.close()


def told(here: Receiver, count: int = 1) -> list[CallbackRequest]:
    eventually(lambda: len(here.callbacks) >= count)
    return [each.request for each in here.callbacks]


@pytest.mark.parametrize("kind", ["multipart/form-data", "application/json"])
@pytest.mark.parametrize("stored", [True, False])
def test_a_fax_comes_in_and_its_document_is_had(
    carrier: SinchProcess,
    here: Receiver,
    sinch: SinchProvider,
    kind: str,
    stored: bool,
) -> None:
    fax_id = carrier.receive(here.url, contentType=kind, stored=stored, bytes=300_000)
    (request,) = told(here)
    assert sinch.verify_callback(request)
    (found,) = arrivals_in(sinch, request)

    assert (found.external_id, found.pages, found.attached) == (fax_id, 1, True)
    document = blank_pdf(1, 300_000)
    assert attached(sinch, request) == document
    if stored:
        assert fetched(sinch, fax_id) == document


def test_a_webhook_without_a_document_is_fetched(
    carrier: SinchProcess, here: Receiver, sinch: SinchProvider
) -> None:
    carrier.moods(document="none")
    try:
        fax_id = carrier.receive(here.url, pages=2)
        (request,) = told(here)
    finally:
        carrier.usual_moods()
    (found,) = arrivals_in(sinch, request)
    assert not found.attached
    assert fetched(sinch, fax_id) == blank_pdf(2)


def test_the_copy_of_a_fax_that_came_is_deleted_and_one_that_is_gone_is_no_error(
    carrier: SinchProcess, here: Receiver, sinch: SinchProvider
) -> None:
    fax_id, other = (carrier.receive(here.url) for _ in range(2))
    assert fetched(sinch, fax_id) == blank_pdf(1)
    for _ in range(2):
        sinch.delete_copy(fax_id)
    with pytest.raises(ProviderError):
        fetched(sinch, fax_id)
    assert fetched(sinch, other) == blank_pdf(1)


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ({"completedTime": NOW.isoformat()}, True),
        ({"completedTime": NOW.isoformat(), "hasFile": None}, True),
        ({"completedTime": NOW.isoformat(), "hasFile": False}, False),
        ({"completedTime": NOW.isoformat(), "direction": "OUTBOUND"}, False),
        ({}, False),
    ],
)
def test_a_copy_that_may_still_come_is_not_taken_for_deleted(
    changes: dict[str, Any], waits: bool
) -> None:
    replies = {f"DELETE {FILE}": [GONE], f"GET {FAX}": [shown(**changes)]}
    with asking(replies) as (sinch, server):
        with pytest.raises(Unreachable) if waits else nullcontext():
            sinch.delete_copy(CAME)
        assert [each.method for each in requests(server)] == ["DELETE", "GET"]


def test_a_fax_that_fails_to_come_in_is_no_document(
    carrier: SinchProcess, here: Receiver, sinch: SinchProvider
) -> None:
    carrier.receive(here.url, errorType="FAX_ERROR", errorCode=117, errorMessage="x")
    (request,) = told(here)
    (found,) = arrivals_in(sinch, request)
    assert (found.cause, found.attached) == ("handshake_failed", False)


def test_a_webhook_that_was_not_taken_and_one_by_another_name_are_the_same_arrival(
    carrier: SinchProcess, here: Receiver, sinch: SinchProvider
) -> None:
    here.statuses = [500]
    fax_id = carrier.receive(here.url)
    told(here, 2)
    carrier.control("POST", "webhook", {"id": fax_id, "event": "FAX_COMPLETED"})
    found = [arrivals_in(sinch, each)[0] for each in told(here, 3)]
    assert found.count(found[0]) == 3


def test_a_forged_webhook_plants_nothing(
    carrier: SinchProcess, here: Receiver, sinch: SinchProvider
) -> None:
    """With our credentials, about a fax that is not known, and about one that is with another document."""
    fax_id = carrier.receive(here.url)
    (genuine,) = told(here)
    unknown = replace(genuine, body=genuine.body.replace(fax_id.encode(), b"0" * 26))
    with pytest.raises(Unreachable):  # until it is too old to be a record that is late
        sinch.read_callback(unknown)
    planted = replace(genuine, body=genuine.body.replace(b"%PDF-1.4", b"%PDF-6.6"))
    (found,) = arrivals_in(sinch, planted)
    assert found.external_id == fax_id
    assert attached(sinch, planted) == blank_pdf(1), "the carrier's own"


def test_a_document_that_comes_late_is_had_later(
    carrier: SinchProcess, here: Receiver, sinch: SinchProvider
) -> None:
    fax_id = carrier.receive(here.url, late=True)

    def later() -> bytes | None:
        try:
            return fetched(sinch, fax_id)
        except Unreachable:
            return None

    assert later() is None
    assert eventually(later) == blank_pdf(1)


# Nonsense -----------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100)
@given(
    facts=st.fixed_dictionaries(
        {"id": st.just(CAME) | _JSON},
        optional={
            "status": st.sampled_from(sorted(answers.STATES)) | _JSON,
            "from": st.just("+14155552222") | _JSON,
            "to": _JSON,
            "numberOfPages": _JSON,
            "errorType": st.sampled_from(["CALL_ERROR", "FATAL_ERROR"]) | _JSON,
            "errorCode": st.sampled_from([17, 133]) | _JSON,
            "completedTime": st.just("2026-11-20T12:00:00Z") | _JSON,
            "hasFile": _JSON,
        },
    ),
    documents=st.integers(0, 3),
)
def test_any_record_is_an_arrival_in_our_words_or_unknown(
    facts: dict[str, Any], documents: int
) -> None:
    try:
        found = answers.arrival(facts, documents=documents)
    except OutcomeUnknown:
        return
    assert found.cause is None or (found.cause in CANONICAL and not found.attached)
    assert found.pages is None or (type(found.pages) is int and found.pages >= 0)
    assert found.received_at is None or found.received_at.tzinfo is not None
    assert found.sender.reveal().isprintable()


@settings(max_examples=80)
@given(body=st.binary() | st.binary().map(lambda some: b"--b\r\n" + some))
def test_any_bytes_at_all_hold_no_document(body: bytes) -> None:
    assert held(CallbackRequest("POST", CALLBACK, {}, body)) is None
    with pytest.raises(ProviderError):
        attached(offline(), CallbackRequest("POST", CALLBACK, {}, body))
