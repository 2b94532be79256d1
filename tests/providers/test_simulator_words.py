"""Answers and callbacks that no carrier should give: each is read in our words, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    OutcomeUnknown,
    ProviderError,
    Refused,
)
from faxbot.events import CAUSES as CANONICAL
from faxbot.plugins.base import CallbackRequest, State
from faxbot.providers.simulator import CAUSES
from tests.callbacks import updates_in
from tests.misbehaving import Server, answering
from tests.providers.conftest import Connect, MakeFax, look_up, offline

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_FAX = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("sf_1") | _JSON,
        "tag": st.just("t") | _JSON,
        "code": st.sampled_from(sorted(CAUSES)) | _JSON,
        "status": st.sampled_from(["queued", "sending", "delivered", "failed", "cancelled", "lost"])
        | _JSON,
        "pages_sent": _JSON,
        "ended_at": st.sampled_from(["2026-11-20T12:00:00+00:00", "2026-11-20T12:00:00"]) | _JSON,
    },
)


@given(content=st.fixed_dictionaries({"fax": _FAX}) | _JSON)
def test_any_callback_is_news_in_our_words_or_a_provider_error(content: Any) -> None:
    request = CallbackRequest("POST", "http://here", {}, json.dumps(content).encode())
    try:
        (update,) = updates_in(offline(), request)
    except ProviderError:
        return
    assert update.external_id
    assert (update.state is State.FAILED) == (update.cause is not None)
    assert update.cause is None or update.cause in CANONICAL
    assert update.pages_sent is None or (type(update.pages_sent) is int and update.pages_sent >= 0)
    assert update.occurred_at is None or update.occurred_at.tzinfo is not None


@pytest.mark.parametrize("pages", [True, -1, 10**9, "3", 1.5, None, [3]])
def test_a_count_of_pages_that_is_none_is_left_out(pages: object) -> None:
    body = json.dumps({"fax": {"id": "sf_1", "status": "sending", "pages_sent": pages}}).encode()
    (update,) = updates_in(offline(), CallbackRequest("POST", "http://here", {}, body))
    assert (update.state, update.pages_sent) == (State.PROGRESS, None)


@given(body=st.binary())
def test_any_bytes_at_all_are_read_or_refused(body: bytes) -> None:
    with pytest.raises(ProviderError):
        offline().read_callback(CallbackRequest("POST", "http://here", {}, body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html>",
        b'{"fax": null}',
        b'{"fax": {}}',
        b'{"fax": {"id": 7}}',
        b'{"fax": {"id": ""}}',
        b'{"fax": {"id": "../x"}}',
        b'{"fax": [{"id": "sf_1"}]}',
        b'{"faxes": {}}',
        b"[" * 5000,
        b'{"fax": {"id": "' + b"x" * 3_000_000 + b'"}}',
    ],
)
def test_an_unreadable_acceptance_leaves_the_outcome_open(
    connect: Connect, fax: MakeFax, body: bytes
) -> None:
    server = Server(
        answering(b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    )
    try:
        provider = connect(server.url)
        with pytest.raises(OutcomeUnknown):
            provider.send(fax("0000"))
        with pytest.raises(OutcomeUnknown):
            look_up(provider, "tag")
        with pytest.raises(OutcomeUnknown):
            provider.fetch("sf_1")
        assert len(server.requests) == 3
    finally:
        server.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"error": 7}', b'{"error": {"code": ["x"]}}', b'{"error": {"code": "new"}}'],
)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (401, AccountRefused),
        (403, DestinationBarred),
        (418, Refused),
        (502, OutcomeUnknown),
    ],
)
def test_a_refusal_in_unknown_words_is_judged_by_its_status(
    connect: Connect, fax: MakeFax, status: int, kind: type[ProviderError], body: bytes
) -> None:
    server = Server(
        answering(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
    )
    try:
        with pytest.raises(kind) as refused:
            connect(server.url).send(fax("0000"))
        assert type(refused.value) is kind
    finally:
        server.close()
