"""Received faxes of the simulator: the stand-in carrier tells of them, and its client reads that."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import urllib.error
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.carriers.pages import blank_pdf
from faxbot.carriers.receiving import ARRIVALS
from faxbot.errors import OutcomeUnknown, ProviderError, Refused, Unreachable
from faxbot.events import CAUSES as CANONICAL
from faxbot.plugins.base import Arrival, CallbackRequest
from faxbot.providers.simulator import CAUSES, SimulatorProvider
from tests.callbacks import Callback, Receiver
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.providers.conftest import Connect, MakeFax, offline

PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"
FAILED = {"0031": "dropped_early", "0409": "page_failed", "0999": "unknown"}
LATE = 2.0


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("carrier"), late_seconds=LATE) as process:
        yield process


@pytest.fixture
def here() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture
def provider(connect: Connect, carrier: SimulatorProcess) -> SimulatorProvider:
    return connect(carrier.url)


def told(here: Receiver, count: int = 1) -> list[Callback]:
    """All callbacks, once there are so many."""
    found = eventually(lambda: list(here.callbacks) if len(here.callbacks) >= count else None)
    assert found is not None
    return found


def arrival(provider: SimulatorProvider, callback: Callback) -> Arrival:
    """What is read in a callback, twice the same."""
    assert provider.verify_callback(callback.request)
    (first,), (second,) = (provider.read_callback(callback.request) for _ in range(2))
    assert isinstance(first, Arrival)
    assert first == second
    return first


def attached(provider: SimulatorProvider, request: CallbackRequest) -> bytes:
    target = BytesIO()
    provider.attached(request, target)
    return target.getvalue()


def fetched(provider: SimulatorProvider, external_id: str) -> bytes:
    target = BytesIO()
    provider.document(external_id, target)
    return target.getvalue()


# The whole way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["0000", "5309", "0033", "0066", "0022"])
def test_a_fax_comes_with_its_document(
    carrier: SimulatorProcess, here: Receiver, provider: SimulatorProvider, ending: str
) -> None:
    came = carrier.receive(ending, here.url, pages=2)
    posted = told(here, 1 if ending in ("0000", "5309", "0033") else 2)
    callback = posted[0]
    found = arrival(provider, callback)

    assert (found.external_id, found.pages, found.cause, found.attached) == (
        came["id"],
        2,
        None,
        True,
    )
    assert found.sender.reveal() == f"+1555010{ending}"
    assert found.recipient.reveal() == "+15550109876"
    assert found.received_at is not None
    assert attached(provider, callback.request) == blank_pdf(2)
    assert hashlib.sha256(blank_pdf(2)).hexdigest() == came["sha256"]
    if ending == "0022":
        assert [arrival(provider, each) for each in posted] == [found, found]
    if ending == "0066":
        assert provider.read_callback(posted[1].request) == [], "what comes late is no news"


def test_a_fax_without_its_document_is_fetched(
    carrier: SimulatorProcess, here: Receiver, provider: SimulatorProvider
) -> None:
    came = carrier.receive("0011", here.url, pages=3)
    (callback,) = told(here)
    found = arrival(provider, callback)

    assert (found.external_id, found.attached) == (came["id"], False)
    assert fetched(provider, found.external_id) == blank_pdf(3)
    with pytest.raises(Refused):
        attached(provider, callback.request)


@pytest.mark.parametrize(("ending", "order"), [("0023", [True, False]), ("0032", [False, True])])
def test_a_fax_may_be_told_with_its_document_and_without(
    carrier: SimulatorProcess,
    here: Receiver,
    provider: SimulatorProvider,
    ending: str,
    order: list[bool],
) -> None:
    carrier.receive(ending, here.url)
    found = [arrival(provider, each) for each in told(here, 2)]
    assert {each.external_id for each in found} == {found[0].external_id}
    assert sorted(each.attached for each in found) == sorted(order)


@pytest.mark.parametrize(("ending", "kind"), [("0425", Unreachable), ("0500", OutcomeUnknown)])
def test_a_document_that_cannot_be_had_now_can_be_had_later(
    carrier: SimulatorProcess,
    here: Receiver,
    provider: SimulatorProvider,
    ending: str,
    kind: type[ProviderError],
) -> None:
    came = carrier.receive(ending, here.url)
    with pytest.raises(kind):
        fetched(provider, came["id"])

    def later() -> bytes | None:
        try:
            return fetched(provider, came["id"])
        except kind:
            return None

    assert eventually(later) == blank_pdf(1)


def test_a_document_that_is_gone_or_was_never_there_is_refused(
    carrier: SimulatorProcess, here: Receiver, provider: SimulatorProvider
) -> None:
    for external_id in (carrier.receive("0410", here.url)["id"], "rf_unknown", "rf_../x"):
        with pytest.raises(Refused) as refused:
            fetched(provider, external_id)
        assert refused.value.cause == "doc_fetch_failed"


def test_the_document_of_a_fax_that_came_is_deleted_and_one_that_is_gone_is_no_error(
    carrier: SimulatorProcess, here: Receiver, provider: SimulatorProvider, fax: MakeFax
) -> None:
    came, other = carrier.receive("0011", here.url), carrier.receive("0011", here.url)
    for name in (came["id"], came["id"], "rf_none", provider.send(fax("0000")).external_id):
        provider.delete_copy(name)
    with pytest.raises(Refused):
        fetched(provider, came["id"])
    assert fetched(provider, other["id"]) == blank_pdf(1)


@pytest.mark.parametrize(("ending", "cause"), FAILED.items())
def test_a_fax_that_failed_at_the_carrier_has_a_cause_and_no_document(
    carrier: SimulatorProcess,
    here: Receiver,
    provider: SimulatorProvider,
    ending: str,
    cause: str,
) -> None:
    came = carrier.receive(ending, here.url)
    (callback,) = told(here)
    found = arrival(provider, callback)
    assert (found.cause, found.attached) == (cause, False)
    with pytest.raises(Refused):
        fetched(provider, came["id"])


def test_a_tiff_comes_and_is_fetched_as_it_is(
    carrier: SimulatorProcess, here: Receiver, provider: SimulatorProvider, document: Path
) -> None:
    tiff = document.read_bytes()
    file = base64.b64encode(tiff).decode()
    carrier.receive("0023", here.url, file=file)
    carried = [each for each in told(here, 2) if arrival(provider, each).attached]
    found = arrival(provider, carried[0])
    assert found.pages == 3
    assert attached(provider, carried[0].request) == tiff
    assert fetched(provider, found.external_id) == tiff


def test_a_withheld_number_is_empty_and_any_bytes_can_be_sent(
    carrier: SimulatorProcess, here: Receiver, provider: SimulatorProvider
) -> None:
    junk = bytes(range(256)) * 3
    wish = {"from": "", "pages": 1, "file": base64.b64encode(junk).decode()}
    carrier.receive("0000", here.url, **wish)
    (callback,) = told(here)
    assert arrival(provider, callback).sender.reveal() == ""
    assert attached(provider, callback.request) == junk


def test_what_was_not_told_yet_is_told_after_a_kill(tmp_path: Path, here: Receiver) -> None:
    here.statuses = [503, 503]
    with SimulatorProcess(tmp_path) as process:
        came = process.receive("0000", here.url)
        told(here)
        process.end(signal.SIGKILL)
        process.start()
        bodies = [each.request.body for each in told(here, 3)]
    assert all(came["id"].encode() in body for body in bodies)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"from": "15550100000"}, "number-malformed"),
        ({"to": ""}, "number-malformed"),
        ({"callback_url": "ftp://here/"}, "callback-url-malformed"),
        ({"pages": "many"}, "wish-malformed"),
        ({"pages": -1}, "wish-malformed"),
        ({"bytes": 10**12}, "wish-malformed"),
        ({"file": "%%%"}, "wish-malformed"),
        ({"file": "AAAA"}, "wish-malformed"),
        ({"file": "AAAA", "bytes": 5, "pages": 1}, "wish-malformed"),
        ({"colour": "red"}, "wish-malformed"),
    ],
)
def test_a_wish_is_checked(carrier: SimulatorProcess, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        carrier.receive("0000", "http://127.0.0.1:9/", **changes)
    assert refused.value.code == 422
    assert json.loads(refused.value.read())["error"]["code"] == code


# Nonsense -----------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_FAX = st.fixed_dictionaries(
    {"direction": st.just("received")},
    optional={
        "id": st.just("rf_1") | _JSON,
        "from": st.just("+15550100000") | _JSON,
        "to": _JSON,
        "code": st.sampled_from(sorted(CAUSES)) | _JSON,
        "status": st.sampled_from(["received", "failed", "receiving"]) | _JSON,
        "pages": _JSON,
        "ended_at": st.sampled_from(["2026-11-20T12:00:00+00:00", "2026-11-20T12:00:00"]) | _JSON,
    },
)


@given(fax=_FAX)
def test_any_fax_that_came_is_an_arrival_in_our_words_nothing_or_refused(fax: Any) -> None:
    body = json.dumps({"fax": fax}).encode()
    try:
        found = offline().read_callback(CallbackRequest("POST", "http://here", {}, body))
    except ProviderError:
        return
    for each in found:
        assert isinstance(each, Arrival)
        assert each.cause is None or each.cause in CANONICAL
        assert each.pages is None or (type(each.pages) is int and each.pages >= 0)
        assert each.received_at is None or each.received_at.tzinfo is not None
        assert "5550100000" not in repr(each)


@given(body=st.binary() | st.binary().map(lambda some: b"--b\r\n" + some))
def test_any_form_at_all_is_read_or_refused(body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    request = CallbackRequest("POST", "http://here", headers, body)
    with pytest.raises(ProviderError):
        offline().read_callback(request)
    with pytest.raises(Refused):
        offline().attached(request, BytesIO())


def test_a_form_that_is_cut_off_gives_no_document(
    carrier: SimulatorProcess, here: Receiver, provider: SimulatorProvider
) -> None:
    carrier.receive("0000", here.url)
    (callback,) = told(here)
    whole = callback.request
    for length in range(0, len(whole.body) - 4, 40):
        cut = replace(whole, body=whole.body[:length])
        assert not provider.verify_callback(cut)
        with pytest.raises(Refused):
            attached(provider, cut)


# The table ----------------------------------------------------------------------------------------


def test_every_caller_of_the_table_is_tried_by_a_test_here() -> None:
    others = {*("0000", "0011", "0022", "0023", "0032", "0033", "0066", "0425", "0500", "0410")}
    assert set(ARRIVALS) == {*FAILED, *others}


def test_the_page_on_the_simulator_holds_the_same_table() -> None:
    rows = re.findall(r"^\| `(\d{4})` \| ([^|]+) \| `?([a-z_]*)`? \|$", PAGE.read_text(), re.M)
    assert rows == [
        (digits, each.meaning, FAILED.get(digits, "")) for digits, each in ARRIVALS.items()
    ]


def test_what_a_sent_fax_looked_like_is_given_back_as_blank_pages(
    provider: SimulatorProvider, fax: MakeFax
) -> None:
    receipt = provider.send(fax("0000"))
    assert fetched(provider, receipt.external_id) == blank_pdf(3)


def test_a_received_fax_is_none_that_was_sent(
    carrier: SimulatorProcess, here: Receiver, provider: SimulatorProvider
) -> None:
    came = carrier.receive("0000", here.url)
    with pytest.raises(OutcomeUnknown):
        provider.fetch(came["id"])
    assert all(entry["id"] != came["id"] for entry in carrier.faxes())
