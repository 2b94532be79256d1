"""Sinch's webhooks: who may bring them, every shape in which they come, and what they count for."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faxbot.errors import AccountRefused, OutcomeUnknown, ProviderError, Unreachable
from faxbot.events import CAUSES as CANONICAL
from faxbot.plugins.base import CallbackRequest, HttpReply, State, Update
from faxbot.providers.facts import id_in
from faxbot.providers.http import HttpClient, Reply
from faxbot.providers.sinch import SinchProvider, answers, webhooks
from tests.callbacks import updates_in
from tests.misbehaving import Behaviour, Server, answering, hanging_up, silent
from tests.providers.sinch import (
    CALLBACK,
    FAX,
    FAX_ID,
    SECRETS,
    TAG,
    VENDOR,
    answer,
    by_address,
    offline,
    provider,
    requests,
    said,
    webhook,
)

HOOKS = sorted(path.name for path in (VENDOR / "webhooks").iterdir())
OURS = [
    name for name in HOOKS if name.startswith(("completed_", "failed_")) and "vendor" not in name
]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def with_proof(proof: str | None) -> CallbackRequest:
    headers = {} if proof is None else {"authorization": proof}
    return CallbackRequest("POST", CALLBACK, headers, b"{}")


def bare(body: bytes) -> CallbackRequest:
    return CallbackRequest("POST", CALLBACK, {}, body)


@contextmanager
def asking(does: dict[str, list[bytes]] | Behaviour) -> Iterator[tuple[SinchProvider, Server]]:
    """A provider, and the server that it asks whether a webhook is true."""
    server = Server(by_address(does) if isinstance(does, dict) else does)
    client = HttpClient([server.url], read=0.5)
    try:
        yield provider(client, server.url), server
    finally:
        client.close()
        server.close()


# Proof --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOOKS)
def test_a_webhook_with_our_credentials_is_genuine(name: str) -> None:
    assert offline().verify_callback(webhook(name))


@pytest.mark.parametrize(
    "proof",
    [
        None,
        "",
        "Basic",
        "Basic ",
        basic("sinch-hook", "open-sesame-0124"),
        basic("sinch-hook", ""),
        basic("other", "open-sesame-0123"),
        basic("sinch-hook", "open-sesame-0123") + "=",
        basic("sinch-hook", "open-sesame-0123").replace("Basic", "Bearer"),
        "sinch-hook:open-sesame-0123",
        "Basic \xff\xfe",
        "Basic \ud800",
        basic("inbound-hook", "open-sesame-9876"),
        "Basic " + "A" * 100_000,
    ],
)
def test_a_webhook_without_them_is_not(proof: str | None) -> None:
    try:
        genuine = offline().verify_callback(with_proof(proof))
    except UnicodeEncodeError:
        genuine = False  # no header of a request is such a text; core takes it for a refusal
    assert not genuine


def test_the_scheme_is_found_in_any_case() -> None:
    proof = basic("sinch-hook", "open-sesame-0123").replace("Basic", "bASIC")
    assert offline().verify_callback(with_proof(proof))


def test_the_incoming_webhook_of_the_service_may_have_credentials_of_its_own() -> None:
    sinch = offline(inboundUser="inbound-hook", inboundPassword="open-sesame-9876")
    assert sinch.verify_callback(with_proof(basic("inbound-hook", "open-sesame-9876")))
    assert sinch.verify_callback(with_proof(basic("sinch-hook", "open-sesame-0123")))
    assert not sinch.verify_callback(with_proof(basic("inbound-hook", "open-sesame-0123")))


def test_where_no_credentials_are_set_nothing_is_genuine() -> None:
    sinch = offline()
    bare = {key: value for key, value in sinch.config.items() if not key.startswith("webhook")}
    sinch.initialize(bare, sinch.context)
    for proof in (None, "Basic ", basic("", ""), basic("None", "None"), "Basic Og=="):
        assert not sinch.verify_callback(with_proof(proof))


# News ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_the_end_of_a_fax_is_news_in_every_shape_once_sinch_confirms_it(name: str) -> None:
    kind = name.partition("_")[0]
    with asking({f"GET {FAX}": [answer(said(f"fax_{kind}.json"))]}) as (sinch, server):
        (update,) = updates_in(sinch, webhook(name))
    state, cause = {"completed": (State.DELIVERED, None), "failed": (State.FAILED, "busy")}[kind]
    assert (update.state, update.cause, update.tag, update.external_id) == (
        state,
        cause,
        TAG,
        FAX_ID,
    )
    assert [each.path for each in requests(server)] == [FAX]


def test_what_sinch_says_when_asked_beats_what_a_webhook_says() -> None:
    with asking({f"GET {FAX}": [answer(said("fax_failed.json"))]}) as (sinch, _):
        (update,) = updates_in(sinch, webhook("completed_multipart.http"))
    assert (update.state, update.cause) == (State.FAILED, "busy")


def test_the_same_end_has_one_name_whether_it_is_called_back_or_asked_for() -> None:
    with asking({f"GET {FAX}": [answer(said("fax_completed.json"))]}) as (sinch, _):
        updates = [updates_in(sinch, webhook(name))[0] for name in OURS[:3]]
        assert {update.key for update in updates} == {sinch.fetch(FAX_ID).key}


@pytest.mark.parametrize(
    "name", [name for name in HOOKS if name.startswith(("unknown_", "no_event"))]
)
def test_an_event_that_nobody_knows_is_no_news_and_asks_nobody(name: str) -> None:
    with asking({}) as (sinch, server):
        assert sinch.read_callback(webhook(name)) == []
    assert server.requests == []


@pytest.mark.parametrize("status", ["QUEUED", "IN_PROGRESS", "PAGE_SENT", None, 7])
def test_an_event_that_is_no_end_is_no_news_and_asks_nobody(status: object) -> None:
    body = json.dumps({"event": "FAX_PAGE", "fax": {"id": FAX_ID, "status": status}}).encode()
    with asking({}) as (sinch, server):
        assert sinch.read_callback(CallbackRequest("POST", CALLBACK, {}, body)) == []
    assert server.requests == []


@pytest.mark.parametrize("event", [{}, {"event": "FAX_FAILED"}, {"event": ["x"]}])
def test_an_end_counts_whatever_the_event_is_called(event: dict[str, Any]) -> None:
    body = json.dumps({**event, "fax": json.loads(said("fax_failed.json"))}).encode()
    with asking({f"GET {FAX}": [answer(said("fax_failed.json"))]}) as (sinch, _):
        (update,) = updates_in(sinch, CallbackRequest("POST", CALLBACK, {}, body))
    assert update.state is State.FAILED


def labelled(labels: object) -> bytes:
    return json.dumps({**json.loads(said("fax_completed.json")), "labels": labels}).encode()


@pytest.mark.parametrize(
    "reply",
    [
        answer(labelled({"faxbot": "attempt-of-another"})),
        answer(labelled({"customer": TAG})),
        answer(labelled({"faxbot": [TAG]})),
        answer(labelled(None)),
        answer(said("errors/404.json"), 404),
    ],
)
def test_a_fax_that_does_not_bear_this_attempts_label_is_none_of_ours(reply: bytes) -> None:
    with asking({f"GET {FAX}": [reply]}) as (sinch, server):
        assert sinch.read_callback(webhook("completed_multipart.http")) == []
    assert len(server.requests) == 1


def test_at_an_address_without_an_attempt_the_label_alone_names_it() -> None:
    request = replace(
        webhook("completed_multipart.http"), url="https://fax.example.com/callbacks/sinch"
    )
    with asking({f"GET {FAX}": [answer(said("fax_completed.json"))]}) as (sinch, _):
        (update,) = updates_in(sinch, request)
    assert update.tag == TAG


@pytest.mark.parametrize(
    "behaviour",
    [
        answering(answer(said("errors/500.json"), 500)),
        answering(said("errors/429.http")),
        answering(answer(b"", 403)),
        answering(answer(b"<html>")),
        answering(answer(b"[]")),
        answering(answer(said("fax_queued.json"))),
        hanging_up,
        silent,
    ],
)
def test_what_sinch_does_not_confirm_now_is_read_again_later(behaviour: Behaviour) -> None:
    with (
        asking(behaviour) as (sinch, _),
        pytest.raises(Unreachable) as unconfirmed,
    ):
        sinch.read_callback(webhook("completed_multipart.http"))
    assert not [word for word in SECRETS if word in unconfirmed.value.detail]


def test_where_sinch_refuses_the_account_it_says_so() -> None:
    """For a person to mend; the webhook is read again then, too."""
    with asking(answering(said("errors/401.http"))) as (sinch, _), pytest.raises(AccountRefused):
        sinch.read_callback(webhook("incoming_json.http"))


# Nonsense -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"event=FAX_COMPLETED&fax=%7B%7D",
        b'{"event": "FAX_COMPLETED"}',
        b'{"event": "FAX_COMPLETED", "fax": []}',
        b'{"event": "FAX_COMPLETED", "fax": {"id": "../../services"}}',
        b'{"event": "FAX_COMPLETED", "fax": {"id": 7}}',
        b'--b\r\nContent-Disposition: form-data; name="event"\r\n\r\nFAX_COMPLETED\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="fax"\r\n\r\n{"id": \r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="event"\r\n\r\n"FAX\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="event"\r\n\r\n\xff\r\n--b--\r\n',
    ],
)
def test_what_cannot_be_read_is_an_unknown_outcome_and_asks_nobody(body: bytes) -> None:
    with asking({}) as (sinch, server), pytest.raises(OutcomeUnknown):
        sinch.read_callback(CallbackRequest("POST", CALLBACK, {}, body))
    assert server.requests == []


@pytest.mark.parametrize("body", [b"--", b"--\r\n", b"--b\r\n--b--\r\n", b"-" * 10_000 + b"\n"])
def test_a_form_without_fields_is_no_news(body: bytes) -> None:
    assert offline().read_callback(CallbackRequest("POST", CALLBACK, {}, body)) == []


@pytest.mark.parametrize("name", [name for name in OURS if "multipart" in name])
def test_a_form_cut_off_anywhere_is_read_or_refused(name: str) -> None:
    whole = webhook(name)
    for length in range(0, len(whole.body), 7):
        try:
            event = webhooks.read(bare(whole.body[:length]))
        except OutcomeUnknown:
            continue
        assert event.fax.get("id") in (None, FAX_ID)


def test_of_repeated_parts_the_first_counts_and_only_so_many_are_read() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="fax"\r\n\r\n{"id": "%d"}\r\n'
    assert webhooks.read(bare(part % 1 + part % 2 + b"--b--\r\n")).fax == {"id": "1"}
    other = part.replace(b"fax", b"other") % 1
    assert webhooks.read(bare(other * 100 + part % 2 + b"--b--\r\n")).fax == {}


def test_a_document_may_hold_anything_and_a_file_may_have_any_name() -> None:
    whole = webhook("completed_multipart.http").body
    evil = whole.replace(b"%PDF-1.4\n", b'\r\n\r\nname="event"\r\n\r\nINCOMING_FAX\n--\r\n')
    evil = evil.replace(b'filename="fax.pdf"', b'filename="event; name=fax"')
    assert webhooks.read(bare(evil)) == webhooks.read(bare(whole))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_FACTS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just(FAX_ID) | _JSON,
        "status": st.sampled_from(sorted(answers.STATES)) | _JSON,
        "labels": st.just({"faxbot": TAG}) | _JSON,
        "errorType": st.sampled_from(["CALL_ERROR", "LINE_ERROR", "FATAL_ERROR"]) | _JSON,
        "errorCode": st.sampled_from([17, 133, 89]) | _JSON,
        "pagesSentSuccessfully": _JSON,
        "completedTime": st.sampled_from(["2026-11-20T12:00:00Z", "2026-11-20"]) | _JSON,
    },
)


@settings(max_examples=60)
@given(body=st.binary() | st.binary().map(lambda some: b"--b\r\n" + some))
def test_any_bytes_at_all_are_nothing_or_refused(body: bytes) -> None:
    try:
        assert offline().read_callback(CallbackRequest("POST", CALLBACK, {}, body)) == []
    except ProviderError:
        return


@settings(max_examples=60)
@given(event=st.sampled_from(["FAX_COMPLETED", "INCOMING_FAX"]) | _JSON, fax=_FACTS | _JSON)
def test_any_webhook_is_nothing_refused_or_to_be_confirmed(event: Any, fax: Any) -> None:
    body = json.dumps({"event": event, "fax": fax}).encode()
    try:
        assert offline().read_callback(CallbackRequest("POST", CALLBACK, {}, body)) == []
    except ProviderError:
        return


@settings(max_examples=100)
@given(fax=_FACTS | _JSON)
def test_any_fax_is_news_in_our_words_or_an_unknown_outcome(fax: Any) -> None:
    try:
        update: Update = answers.update(fax)
    except OutcomeUnknown:
        return
    assert update.external_id
    assert (update.state is State.FAILED) == (update.cause is not None)
    assert update.cause is None or update.cause in CANONICAL
    assert update.pages_sent is None or (type(update.pages_sent) is int and update.pages_sent >= 0)
    assert update.occurred_at is None or update.occurred_at.tzinfo is not None


@settings(max_examples=60)
@given(
    status=st.sampled_from([200, 301, 400, 401, 403, 404, 422, 429, 500, 800]),
    body=st.binary()
    | (_FACTS | st.lists(_FACTS) | _JSON).map(lambda some: json.dumps(some).encode()),
)
def test_any_answer_to_a_submission_is_a_fax_or_a_provider_error(status: int, body: bytes) -> None:
    reply: HttpReply = Reply(status, {}, body)
    try:
        assert id_in(answers.created(reply, TAG))
    except ProviderError:
        return
    assert status == 200
