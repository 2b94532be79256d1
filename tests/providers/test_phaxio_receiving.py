"""Received faxes of Phaxio: what it posts of them in every shape, and their documents, attached or fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faxbot.carriers.pages import blank_pdf
from faxbot.errors import OutcomeUnknown, ProviderError, Refused, Unreachable
from faxbot.events import CAUSES as CANONICAL
from faxbot.plugins.base import Arrival, CallbackRequest, TransportPlugin
from faxbot.providers.http import HttpClient
from faxbot.providers.phaxio import PhaxioProvider
from faxbot.providers.phaxio.faxes import CAUSES, arrival_of
from tests.callbacks import Receiver, arrivals_in
from tests.ground import eventually
from tests.phaxio_carrier import TOKEN, PhaxioProcess
from tests.providers.phaxio import (
    NOW,
    Serve,
    answer,
    answering_with,
    make,
    offline,
    servers,
    vendor,
)
from tests.providers.test_phaxio_callbacks import CALLBACKS, multipart, posted, signed

RECEIVED = [name for name in CALLBACKS if "received" in name]
DOCUMENT = b"%PDF-1.4\n"


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


def attached(provider: TransportPlugin, request: CallbackRequest) -> bytes:
    target = BytesIO()
    provider.attached(request, target)
    return target.getvalue()


def fetched(provider: TransportPlugin, external_id: str) -> bytes:
    target = BytesIO()
    provider.document(external_id, target)
    return target.getvalue()


def about(fax: object, *files: tuple[str, bytes], **fields: str) -> CallbackRequest:
    """A signed callback about this fax; files by what stands in their heads."""
    parts = {"fax": json.dumps(fax), **fields}
    texts = [(f'name="{name}"', text.encode()) for name, text in parts.items()]
    return signed(multipart(*texts, *files))


def fax(**changes: Any) -> dict[str, Any]:
    return {**vendor("faxes/received.json"), **changes}


# The vendor's own files ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECEIVED)
def test_a_received_fax_is_an_arrival_in_every_version(name: str) -> None:
    request = posted(name)
    assert offline().verify_callback(request)
    (found,), (again,) = arrivals_in(offline(), request), arrivals_in(offline(), request)

    assert found == again
    assert (found.external_id, found.pages, found.cause) == ("323034999", 1, None)
    assert found.received_at is not None
    assert found.received_at.timestamp() == 1636062041.0
    plus = "" if name.startswith("v1") else "+1"
    assert (found.sender.reveal(), found.recipient.reveal()) == (
        f"{plus}5558675309",
        f"{plus}5555550100",
    )
    assert "5309" not in repr(found)
    assert found.attached is ("without_file" not in name)
    if found.attached:
        assert attached(offline(), request).startswith(DOCUMENT)
    else:
        with pytest.raises(Refused):
            attached(offline(), request)


# What decides -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fields", "cause"),
    [
        ({}, {}, None),
        ({}, {"success": "false", "event_type": "fax_completed"}, None),
        ({}, {"event_type": "fax_received"}, None),
        ({"error_type": "lineError", "error_id": 17}, {}, None),
        ({"status": "failure"}, {"success": "true"}, "unknown"),
        ({"status": "failure", "error_type": "faxError", "error_id": 53}, {}, "page_failed"),
        ({"status": "failure", "error_type": "lineError", "error_id": 64}, {}, "dropped_early"),
        ({"status": "failure", "error_type": "newError", "error_id": 1}, {}, "unknown"),
        ({"status": "partialsuccess"}, {}, "unconfirmed"),
        ({"status": "arrived"}, {"success": "true"}, None),
        ({"status": None}, {"success": "false"}, "unknown"),
    ],
)
def test_the_status_decides_whether_it_came(
    changes: dict[str, Any], fields: dict[str, str], cause: str | None
) -> None:
    (found,) = arrivals_in(offline(), about(fax(**changes), **fields))
    assert (found.cause, found.attached) == (cause, False)


def test_a_document_that_came_is_a_fax_that_came_under_a_status_that_nobody_knows() -> None:
    request = about(fax(status="arrived"), ('name="file"; filename="a.pdf"', DOCUMENT))
    (found,) = arrivals_in(offline(), request)
    assert (found.cause, found.attached) == (None, True)


def test_what_may_have_come_or_not_is_no_news_but_an_unknown_outcome() -> None:
    for request in (about(fax(status="arrived")), about(fax(), direction="sent")):
        with pytest.raises(OutcomeUnknown):
            offline().read_callback(request)


@pytest.mark.parametrize("status", ["queued", "inprogress"])
def test_a_fax_that_is_still_coming_is_no_news(status: str) -> None:
    assert offline().read_callback(about(fax(status=status))) == []


def test_an_empty_file_is_none_and_a_failed_fax_has_no_document() -> None:
    (empty,) = arrivals_in(offline(), about(fax(), ('name="file"; filename="a.pdf"', b"")))
    assert not empty.attached
    file = ('name="file"; filename="a.pdf"', DOCUMENT)
    (failed,) = arrivals_in(offline(), about(fax(status="failure"), file))
    assert not failed.attached


def test_only_the_document_is_taken_out_of_a_request_and_all_of_it() -> None:
    content = b"%PDF-" + bytes(range(256)) * 5000 + b"\r\n--b0undar\r\n"
    request = about(
        fax(),
        ('name="thumbnail"; filename="fax.jpg"', b"no document"),
        ('name="file"; filename="fax.pdf"', content),
        ('name="filename"; filename="fax.pdf"', b"another"),
    )
    assert attached(offline(), request) == content


def test_a_body_in_a_file_is_read_as_one_in_memory(tmp_path: Path) -> None:
    content = blank_pdf(1, 3 * 1024 * 1024)
    whole = about(fax(), ('name="file"; filename="fax.pdf"', content))
    path = tmp_path / "body"
    path.write_bytes(whole.body)
    filed = replace(whole, body=b"", file=path)

    assert offline().verify_callback(filed)
    assert offline().read_callback(filed) == offline().read_callback(whole)
    assert attached(offline(), filed) == content
    changed = bytearray(whole.body)
    changed[2_000_000] ^= 1
    path.write_bytes(changed)
    assert not offline().verify_callback(filed), "the document is signed, too"


# The carrier's copy -------------------------------------------------------------------------------


def got(**changes: Any) -> bytes:
    return answering_with(200, {"success": True, "data": fax(**changes)})


JUST_NOW = {"completed_at": NOW.isoformat()}


def test_a_document_that_is_not_there_yet_is_asked_for_again(serve: Serve) -> None:
    server = serve(answer("not_found.json"), got(**JUST_NOW))
    with pytest.raises(Unreachable):
        fetched(make(server.url), "323034999")


@pytest.mark.parametrize(
    "second",
    [
        got(),
        got(**JUST_NOW, direction="sent"),
        got(completed_at=None),
        answer("not_found.json"),
    ],
)
def test_a_document_that_is_missing_for_long_is_gone(serve: Serve, second: bytes) -> None:
    server = serve(answer("not_found.json"), second)
    with pytest.raises(Refused) as gone:
        fetched(make(server.url), "323034999")
    assert gone.value.cause == "doc_fetch_failed"


def test_where_that_cannot_be_asked_nothing_is_decided(serve: Serve) -> None:
    server = serve(answer("not_found.json"), answer("unavailable"))
    with pytest.raises(ProviderError) as unknown:
        fetched(make(server.url), "323034999")
    assert not isinstance(unknown.value, Refused)


def test_a_copy_that_may_still_come_is_not_taken_for_deleted(serve: Serve) -> None:
    server = serve(answer("not_found.json"), got(**JUST_NOW))
    with pytest.raises(Unreachable):
        make(server.url).delete_copy("323034999")


@pytest.mark.parametrize("second", [got(), answer("not_found.json")])
def test_a_copy_that_is_missing_for_long_is_deleted(serve: Serve, second: bytes) -> None:
    server = serve(answer("not_found.json"), second)
    make(server.url).delete_copy("323034999")


# With the stand-in --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["v1", "v2", "v2.1"])
def carrier(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PhaxioProcess]:
    with PhaxioProcess(
        tmp_path_factory.mktemp("phaxio"), version=request.param, late_seconds=2
    ) as process:
        yield process


@pytest.fixture
def here() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture
def provider(carrier: PhaxioProcess) -> Iterator[PhaxioProvider]:
    client = HttpClient([carrier.url], read=5.0)
    # The stand-in's faxes are of this moment, whatever moment it is here.
    settings = {"callbackToken": TOKEN, "apiKey": "test-key", "apiSecret": "test-secret"}
    yield make(carrier.url, client, **settings)
    client.close()


def told(here: Receiver, count: int = 1) -> list[CallbackRequest]:
    """The callbacks, once there are so many, with the address that they were posted to."""
    eventually(lambda: len(here.callbacks) >= count)
    base = here.url.partition("/callbacks")[0]
    return [replace(each.request, url=base + each.request.url) for each in here.callbacks]


@pytest.mark.parametrize("send_file", ["true", "false"])
def test_a_fax_comes_in_with_its_document_or_it_is_fetched(
    carrier: PhaxioProcess, here: Receiver, provider: PhaxioProvider, send_file: str
) -> None:
    fax_id = carrier.receive(here.url, send_file=send_file, bytes="300000")
    (request,) = told(here)
    assert provider.verify_callback(request)
    (found,) = arrivals_in(provider, request)

    assert (found.external_id, found.attached) == (fax_id, send_file == "true")
    document = blank_pdf(1, 300_000)
    assert fetched(provider, fax_id) == document
    if found.attached:
        assert attached(provider, request) == document


def test_the_copy_of_a_fax_that_came_is_deleted(
    carrier: PhaxioProcess, here: Receiver, provider: PhaxioProvider
) -> None:
    fax_id, other = (carrier.receive(here.url, send_file="false") for _ in range(2))
    assert fetched(provider, fax_id) == blank_pdf()
    provider.delete_copy(fax_id)
    with pytest.raises(ProviderError):
        fetched(provider, fax_id)
    assert fetched(provider, other) == blank_pdf()


def test_a_fax_that_fails_at_the_carrier_is_no_document(
    carrier: PhaxioProcess, here: Receiver, provider: PhaxioProvider
) -> None:
    fax_id = carrier.receive(here.url, error_type="lineError", error_id="64")
    (request,) = told(here)
    (found,) = arrivals_in(provider, request)

    assert (found.external_id, found.cause, found.attached) == (fax_id, "dropped_early", False)


def test_a_callback_that_was_not_taken_or_comes_twice_is_the_same_arrival(
    carrier: PhaxioProcess, here: Receiver, provider: PhaxioProvider
) -> None:
    here.statuses = [500]
    fax_id = carrier.receive(here.url, from_number="+15558670022")
    found = [arrivals_in(provider, each)[0] for each in told(here, 3)]
    assert {each.external_id for each in found} == {fax_id}
    assert found.count(found[0]) == 3


def test_a_file_that_comes_late_is_had_later(
    carrier: PhaxioProcess, here: Receiver, provider: PhaxioProvider
) -> None:
    fax_id = carrier.receive(here.url, send_file="false", file_late="true")

    def later() -> bytes | None:
        try:
            return fetched(provider, fax_id)
        except Unreachable:
            return None

    assert later() is None
    assert eventually(later) == blank_pdf()


# Nonsense -----------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    facts=st.fixed_dictionaries(
        {},
        optional={
            "id": st.integers(1, 9) | _JSON,
            "status": st.sampled_from(["success", "failure", "inprogress", "x"]) | _JSON,
            "from_number": st.just("+15558675309") | _JSON,
            "to_number": _JSON,
            "num_pages": _JSON,
            "error_type": st.sampled_from(sorted({kind for kind, _ in CAUSES})) | _JSON,
            "error_id": st.sampled_from([17, 53]) | _JSON,
            "completed_at": st.just(1636062041) | _JSON,
            "recipients": _JSON,
        },
    ),
    attached=st.booleans(),
    success=st.sampled_from(["", "true", "false", "x"]),
)
def test_any_fax_is_an_arrival_in_our_words_nothing_or_unknown(
    facts: dict[str, Any], attached: bool, success: str
) -> None:
    try:
        found = arrival_of(facts, attached=attached, success=success)
    except OutcomeUnknown:
        return
    assert found is None or isinstance(found, Arrival)
    if found is not None:
        assert found.cause is None or (found.cause in CANONICAL and not found.attached)
        assert found.pages is None or (type(found.pages) is int and found.pages >= 0)
        assert found.received_at is None or found.received_at.tzinfo is not None
        assert found.sender.reveal().isprintable()


@settings(max_examples=60, deadline=None)
@given(direction=_JSON)
def test_any_direction_is_read_or_refused(direction: Any) -> None:
    try:
        offline().read_callback(about({**vendor("faxes/success.json"), "direction": direction}))
    except OutcomeUnknown:
        return
