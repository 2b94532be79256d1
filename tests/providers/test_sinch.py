"""Sinch's client: what it sends, and what it makes of the answers in the vendor's files."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from faxbot.errors import (
    AccountRefused,
    ConfigError,
    DestinationBarred,
    NotSent,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
)
from faxbot.events import CAUSES as CANONICAL
from faxbot.hidden import Hidden
from faxbot.plugins import manifest
from faxbot.plugins.base import OwnCache, State, Update
from faxbot.providers.http import HttpClient
from faxbot.providers.phaxio import faxes
from faxbot.providers.sinch import SinchProvider, answers
from faxbot.retry import Again, End, Past, decide
from tests.misbehaving import Behaviour, Server, answering, hanging_up, silent
from tests.providers.sinch import (
    CALLBACK,
    FAX,
    FAX_ID,
    FAXES,
    MANIFEST,
    NO_CONTENT,
    NUMBER,
    PROJECT,
    SECRETS,
    TAG,
    TOKEN,
    answer,
    by_address,
    fax,
    provider,
    requests,
    said,
)

SINCE = datetime(2023, 10, 23, 21, 6, 52, tzinfo=UTC)
Carrier = Callable[..., Server]
Connect = Callable[..., SinchProvider]


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    """carrier({"POST /path": [answers]}) or carrier(behaviour): a server, closed at the end."""
    servers: list[Server] = []

    def start(does: dict[str, list[bytes]] | Behaviour) -> Server:
        servers.append(Server(by_address(does) if isinstance(does, dict) else does))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    clients: list[HttpClient] = []

    def make(url: str, cache: Any = None, **settings: Any) -> SinchProvider:
        clients.append(HttpClient([url], read=0.5))
        return provider(clients[-1], url, cache, **settings)

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "fax.pdf"
    path.write_bytes(b"%PDF-1.4\nthree pages\n%%EOF\n")
    return path


# Sending ------------------------------------------------------------------------------------------


def test_a_fax_is_posted_once_with_label_callback_and_document(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    server = carrier({f"POST {FAXES}": [answer(said("fax_queued.json"))]})

    receipt = connect(server.url).send(fax(document))

    (request,) = requests(server)
    assert receipt.external_id == FAX_ID
    assert (
        request.headers["authorization"]
        == "Basic " + base64.b64encode(b"the-key:the-secret").decode()
    )
    parts = request.parts()
    assert parts.pop("file") == ("fax.pdf", "application/pdf", document.read_bytes())
    assert {name: content.decode() for name, (_, _, content) in parts.items()} == {
        "to": NUMBER,
        "labels[faxbot]": TAG,
        "callbackUrl": CALLBACK.replace("https://", "https://sinch-hook:open-sesame-0123@"),
        "callbackUrlContentType": "multipart/form-data",
        "maxRetries": "0",
        "inProgressNotifications": "false",
        "imageConversionMethod": "MONOCHROME",
        "resolution": "FINE",
    }


def test_service_header_redials_and_a_tiff_go_along_where_they_are_given(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    server = carrier({f"POST {FAXES}": [answer(said("fax_queued.json"))]})
    sinch = connect(server.url, serviceId="SERVICE-1", maxRetries=2, webhookPassword="p@ss/w:rd%1")

    sinch.send(fax(document, media_type="image/tiff", header=Hidden("Clinic")))

    parts = requests(server)[0].parts()
    assert parts["file"][:2] == ("fax.tif", "image/tiff")
    assert [parts[name][2] for name in ("serviceId", "headerText", "maxRetries")] == [
        b"SERVICE-1",
        b"Clinic",
        b"2",
    ]
    assert b"https://sinch-hook:p%40ss%2Fw%3Ard%251@fax.example.com/" in parts["callbackUrl"][2]


@pytest.mark.parametrize("name", ["fax_sent.json", "fax_queued.json", "answer_list.json"])
def test_the_answer_may_be_a_fax_or_a_list_with_it(
    carrier: Carrier, connect: Connect, document: Path, name: str
) -> None:
    server = carrier({f"POST {FAXES}": [answer(said(name))]})
    assert connect(server.url).send(fax(document)).external_id == FAX_ID


def test_of_several_faxes_in_an_answer_the_one_with_our_label_is_ours(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    ours, other = json.loads(said("fax_queued.json")), json.loads(said("fax_sent.json"))
    body = json.dumps({"faxes": [{**other, "id": "OTHER"}, ours]}).encode()
    server = carrier({f"POST {FAXES}": [answer(body)]})
    assert connect(server.url).send(fax(document)).external_id == FAX_ID


@pytest.mark.parametrize(
    "body",
    [
        said("answer_several.json"),
        said("errors/800.json"),
        b"",
        b"[]",
        b"{}",
        b"null",
        b"<html>",
        b'{"id": 7}',
        b'{"id": "../x"}',
        b'{"faxes": {}}',
        b'{"faxes": [7]}',
        b'[{"id": "A"}, {"id": "B"}]',
        b'{"id": "A", "labels": {"faxbot": "another"}}',
        b"[" * 5000,
    ],
)
def test_an_acceptance_that_names_no_single_fax_of_ours_leaves_the_outcome_open(
    carrier: Carrier, connect: Connect, document: Path, body: bytes
) -> None:
    server = carrier({f"POST {FAXES}": [answer(body)]})
    with pytest.raises(OutcomeUnknown):
        connect(server.url).send(fax(document))
    assert len(server.requests) == 1


REFUSALS: list[tuple[int, str | None, type[ProviderError], str | None]] = [
    (400, "errors/400.txt", Refused, "rejected"),
    (400, "errors/400.json", Refused, "rejected"),
    (402, "errors/402.json", AccountRefused, "funds"),
    (403, None, DestinationBarred, "trunk_denied"),
    (403, "errors/403_schema.json", Refused, "policy"),
    (404, "errors/404.json", AccountRefused, "config"),
    (413, None, Refused, "doc_too_large"),
    (422, "errors/422.txt", Refused, "number_invalid"),
    (422, "errors/422.json", Refused, "number_invalid"),
    (422, "errors/422_schema.json", Refused, "number_invalid"),
    (400, "errors/800.json", AccountRefused, "config"),
    (800, "errors/800.json", AccountRefused, "config"),
    (500, "errors/800.json", OutcomeUnknown, "unconfirmed"),
    (500, "errors/422.json", OutcomeUnknown, "unconfirmed"),
    (500, "errors/500.json", OutcomeUnknown, "unconfirmed"),
    (503, None, OutcomeUnknown, "unconfirmed"),
    (302, None, OutcomeUnknown, "unconfirmed"),
]


@pytest.mark.parametrize(("status", "name", "kind", "cause"), REFUSALS)
def test_a_refusal_is_judged_by_its_status_and_its_cause_by_what_it_blames(
    carrier: Carrier,
    connect: Connect,
    document: Path,
    status: int,
    name: str | None,
    kind: type[ProviderError],
    cause: str,
) -> None:
    server = carrier({f"POST {FAXES}": [answer(said(name) if name else b"", status)]})
    with pytest.raises(ProviderError) as refused:
        connect(server.url).send(fax(document))
    assert (type(refused.value), refused.value.cause) == (kind, cause)
    assert not [word for word in (*SECRETS, "15551", "123.456") if word in refused.value.detail]


@pytest.mark.parametrize("field", ["callbackUrl", "serviceId", "from"])
def test_a_setting_that_sinch_refuses_holds_every_fax_and_fails_none(
    carrier: Carrier, connect: Connect, document: Path, field: str
) -> None:
    body = said("errors/422.json").replace(b'"to"', f'"{field}"'.encode())
    server = carrier({f"POST {FAXES}": [answer(body, 422)]})
    with pytest.raises(AccountRefused) as refused:
        connect(server.url).send(fax(document))
    assert refused.value.cause == "config"


def test_what_else_is_blamed_is_a_refusal_for_no_reason_that_is_known(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    body = said("errors/422.json").replace(b'"to"', b'"headerText"')
    server = carrier({f"POST {FAXES}": [answer(body, 422)]})
    with pytest.raises(Refused) as refused:
        connect(server.url).send(fax(document))
    assert refused.value.cause == "rejected"


def test_429_asks_to_wait_as_long_as_it_says(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    answers_ = [said("errors/429.http"), answer(b"", 429, "Retry-After: 7")]
    server = carrier({f"POST {FAXES}": answers_})
    waits = []
    for _ in range(2):
        with pytest.raises(Throttled) as throttled:
            connect(server.url).send(fax(document))
        waits.append(throttled.value.retry_after)
    assert waits == [None, 7.0]


def test_a_lost_answer_leaves_the_outcome_open(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    for behaviour in (hanging_up, silent):
        server = carrier(behaviour)
        with pytest.raises(OutcomeUnknown):
            connect(server.url).send(fax(document))
        assert len(server.requests) == 1


# Tokens -------------------------------------------------------------------------------------------

EXPIRED, WRONG = said("errors/401_expired.http"), said("errors/401.http")


def token(number: int) -> bytes:
    return answer(json.dumps({"access_token": f"token-{number}", "expires_in": 3600}).encode())


def test_one_token_serves_every_fax_and_every_provider_with_the_same_cache(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    posted = [answer(said("fax_queued.json"))]
    server = carrier({f"POST {TOKEN}": [answer(said("token.json"))], f"POST {FAXES}": posted})
    cache = OwnCache()
    for sinch in [connect(server.url, cache, authMethod="oauth2") for _ in range(2)]:
        sinch.send(fax(document))
        sinch.send(fax(document))

    first, *others = requests(server)
    assert (first.path, first.body) == (TOKEN, b"grant_type=client_credentials")
    assert first.headers["authorization"].startswith("Basic ")
    bearer = f"Bearer {json.loads(said('token.json'))['access_token']}"
    assert [(each.path, each.headers["authorization"]) for each in others] == [(FAXES, bearer)] * 4


def test_another_key_or_token_server_has_a_token_of_its_own(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    posted = [answer(said("fax_queued.json"))]
    server = carrier({f"POST {TOKEN}": [token(1), token(2)], f"POST {FAXES}": posted})
    cache = OwnCache()
    for key in ("one", "two"):
        connect(server.url, cache, authMethod="oauth2", apiKey=key).send(fax(document))
    assert [each.path for each in requests(server)] == [TOKEN, FAXES] * 2


class Noting(OwnCache):
    """Keeps what it was told of how long a value is good."""

    seconds: float | None = None

    def get(self, name: str, make: Any, *, stale: str | None = None) -> str:
        def noted() -> tuple[str, float]:
            value, self.seconds = make()
            return value, self.seconds

        return super().get(name, noted, stale=stale)


@pytest.mark.parametrize(
    ("expires_in", "good"),
    [
        (3600, 3540),
        (61, 1),
        (60, 0),
        (5, 0),
        (-1, 0),
        (10**12, 86_340),
        (None, 240),
        (True, 240),
        ("3600", 240),
    ],
)
def test_a_token_is_renewed_a_minute_before_its_end(
    carrier: Carrier, connect: Connect, document: Path, expires_in: object, good: float
) -> None:
    body = json.dumps({"access_token": "abc", "expires_in": expires_in}).encode()
    posted = [answer(said("fax_queued.json"))]
    server = carrier({f"POST {TOKEN}": [answer(body)], f"POST {FAXES}": posted})
    cache = Noting()
    connect(server.url, cache, authMethod="oauth2").send(fax(document))
    assert cache.seconds == good


def test_an_expired_token_is_renewed_and_the_fax_posted_once_more(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    posts = [EXPIRED, answer(said("fax_queued.json"))]
    server = carrier({f"POST {TOKEN}": [token(1), token(2)], f"POST {FAXES}": posts})

    assert connect(server.url, authMethod="oauth2").send(fax(document)).external_id == FAX_ID

    _, first, _, second = requests(server)
    assert [each.headers["authorization"] for each in (first, second)] == [
        "Bearer token-1",
        "Bearer token-2",
    ]
    assert first.parts()["file"] == second.parts()["file"]


@pytest.mark.parametrize(("refusal", "posts"), [(EXPIRED, 2), (WRONG, 1)])
def test_a_401_that_a_new_token_does_not_mend_is_the_account(
    carrier: Carrier, connect: Connect, document: Path, refusal: bytes, posts: int
) -> None:
    server = carrier({f"POST {TOKEN}": [token(1), token(2)], f"POST {FAXES}": [refusal]})
    with pytest.raises(AccountRefused):
        connect(server.url, authMethod="oauth2").send(fax(document))
    assert [each.path for each in requests(server)].count(FAXES) == posts


def test_a_401_to_basic_credentials_is_the_account_whatever_it_says(
    carrier: Carrier, connect: Connect, document: Path
) -> None:
    server = carrier({f"POST {FAXES}": [EXPIRED]})
    with pytest.raises(AccountRefused):
        connect(server.url).send(fax(document))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("behaviour", "kind", "cause"),
    [
        (answering(said("errors/429.http")), Throttled, "congestion"),
        (answering(WRONG), AccountRefused, "trunk_denied"),
        (answering(answer(b'{"error": "invalid_client"}', 400)), AccountRefused, "trunk_denied"),
        (answering(answer(b"", 403)), AccountRefused, "trunk_denied"),
        (answering(answer(b"", 404)), AccountRefused, "config"),
        (answering(answer(b"", 500)), Unreachable, "trunk_down"),
        (answering(answer(b"<html>")), Unreachable, "trunk_down"),
        (answering(answer(b"[]")), Unreachable, "trunk_down"),
        (answering(answer(b'{"access_token": "two\\r\\nlines"}')), Unreachable, "trunk_down"),
        (hanging_up, Unreachable, "trunk_down"),
        (silent, Unreachable, "trunk_down"),
    ],
)
def test_without_a_token_nothing_is_posted_and_that_is_known(
    carrier: Carrier,
    connect: Connect,
    document: Path,
    behaviour: Behaviour,
    kind: type[NotSent],
    cause: str,
) -> None:
    server = carrier(behaviour)
    with pytest.raises(NotSent) as refused:
        connect(server.url, authMethod="oauth2").send(fax(document))
    assert (type(refused.value), refused.value.cause) == (kind, cause)
    assert [each.path for each in requests(server)] == [TOKEN]
    assert not [word for word in SECRETS if word in refused.value.detail]


# Asking -------------------------------------------------------------------------------------------


def look_up(sinch: SinchProvider) -> Update:
    return sinch.look_up(TAG, to=Hidden(NUMBER), since=SINCE)


def test_a_fax_is_found_by_its_label_page_by_page_and_no_address_has_the_whole_number(
    carrier: Carrier, connect: Connect
) -> None:
    pages = [answer(said("list_first_page.json")), answer(said("list_last_page.json"))]
    server = carrier({f"GET {FAXES}": pages})

    update = look_up(connect(server.url))

    assert (update.state, update.tag, update.external_id) == (State.DELIVERED, TAG, FAX_ID)
    first, second = requests(server)
    asked = {
        "direction": "OUTBOUND",
        "to": NUMBER[:-4],
        "createTime>": "2023-10-23T20:06:52Z",
        "pageSize": "100",
    }
    assert (first.query, second.query) == (asked, {**asked, "page": "2"})
    assert b"?direction=OUTBOUND&to=%2B1555010&createTime%3E=2023-" in server.requests[0]


def test_the_page_may_be_called_as_the_dotnet_sdk_has_it(
    carrier: Carrier, connect: Connect
) -> None:
    server = carrier({f"GET {FAXES}": [answer(said("list_page_dotnet.json"))]})
    assert look_up(connect(server.url)).state is State.DELIVERED


WITHOUT_OURS = said("list_page_dotnet.json").replace(TAG.encode(), b"attempt-of-another")
EMPTY, FIRST = said("list_empty.json"), said("list_first_page.json")
BEYOND = b'{"faxes": [], "page": 2, "totalPages": 3}'
LAST = b'{"faxes": [], "page": 3, "totalPages": 3}'


@pytest.mark.parametrize("pages", [[EMPTY], [FIRST, EMPTY], [WITHOUT_OURS], [FIRST, BEYOND, LAST]])
def test_what_no_page_holds_is_absent(
    carrier: Carrier, connect: Connect, pages: list[bytes]
) -> None:
    server = carrier({f"GET {FAXES}": [answer(page) for page in pages]})
    assert look_up(connect(server.url)) == Update(State.ABSENT, tag=TAG)
    assert len(server.requests) == len(pages)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"faxes": {}}',
        b'{"faxes": [7], "page": 1, "totalPages": 1}',
        b'{"faxes": []}',
        b'{"faxes": [], "page": "1", "totalPages": 1}',
        b'{"faxes": [{"id": "A"}], "page": 1, "totalPages": 2}',
    ],
)
def test_a_list_that_may_not_be_whole_says_nothing(
    carrier: Carrier, connect: Connect, body: bytes
) -> None:
    server = carrier({f"GET {FAXES}": [answer(body)]})
    with pytest.raises(OutcomeUnknown):
        look_up(connect(server.url))
    assert len(server.requests) <= 20


FOUND: dict[str, tuple[State, str | None, int | None]] = {
    "fax_got.json": (State.PROGRESS, None, None),
    "fax_queued.json": (State.ACCEPTED, None, None),
    "fax_completed.json": (State.DELIVERED, None, 3),
    "fax_completed_with_error.json": (State.DELIVERED, None, 3),
    "fax_failed.json": (State.FAILED, "busy", 0),
    "fax_failed_number_not_permitted.json": (State.FAILED, "policy", 0),
    "fax_failed_document.json": (State.FAILED, "doc_unreadable", 0),
    "fax_failed_without_code.json": (State.FAILED, "unreachable", 0),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_status_says_where_a_fax_stands_and_an_error_only_why_it_failed(
    carrier: Carrier, connect: Connect, name: str
) -> None:
    server = carrier({f"GET {FAX}": [answer(said(name))]})
    update = connect(server.url).fetch(FAX_ID)
    assert (update.state, update.cause, update.pages_sent) == FOUND[name]
    assert update.external_id == FAX_ID
    assert update.tag == (None if name == "fax_got.json" else TAG)
    ended = update.state in (State.DELIVERED, State.FAILED)
    end = datetime(2023, 10, 23, 21, 8, 31, 7000, tzinfo=UTC)
    assert update.occurred_at == (end if ended else None)


def test_only_sinchs_own_words_say_that_a_fax_is_not_there(
    carrier: Carrier, connect: Connect
) -> None:
    for name in ("errors/404.json", "errors/404_schema.json"):
        server = carrier({f"GET {FAX}": [answer(said(name), 404)]})
        assert connect(server.url).fetch(FAX_ID) == Update(State.ABSENT, external_id=FAX_ID)
    server = carrier({f"GET {FAX}": [answer(b"<h1>404</h1>", 404)]})
    with pytest.raises(AccountRefused):
        connect(server.url).fetch(FAX_ID)


def test_an_answer_about_another_fax_is_none(carrier: Carrier, connect: Connect) -> None:
    server = carrier({f"GET {PROJECT}/faxes/ANOTHER": [answer(said("fax_completed.json"))]})
    with pytest.raises(OutcomeUnknown):
        connect(server.url).fetch("ANOTHER")


def test_the_stored_document_is_fetched_and_what_is_none_is_an_error(
    carrier: Carrier, connect: Connect
) -> None:
    pdf, copy = b"%PDF-1.4 of a fax" * 200_000, BytesIO()
    kind = "Content-Type: application/pdf; charset=binary"
    server = carrier({f"GET {FAX}/file": [answer(pdf, 200, kind)]})
    connect(server.url).document(FAX_ID, copy)
    assert copy.getvalue() == pdf

    gone = [answer(said("errors/404.json"), 404)]
    server = carrier({f"GET {FAX}/file": gone, f"GET {FAX}": gone})
    with pytest.raises(Refused):
        connect(server.url).document(FAX_ID, BytesIO())
    for reply in (
        answer(b"<h1>404</h1>", 404),
        answer(b"", 500),
        answer(b"{}", 200, "Content-Type: application/json"),
        answer(b"", 200, kind),
        answer(pdf, 200, kind)[:-1],
        WRONG,
    ):
        server = carrier({f"GET {FAX}/file": [reply]})
        with pytest.raises(ProviderError) as wrong:
            connect(server.url).document(FAX_ID, BytesIO())
        assert not isinstance(wrong.value, Refused)


def test_the_copy_is_deleted_and_one_that_is_gone_is_no_error(
    carrier: Carrier, connect: Connect
) -> None:
    none = answer(said("errors/404.json"), 404)
    for reply in (NO_CONTENT, none):
        server = carrier({f"DELETE {FAX}/file": [reply], f"GET {FAX}": [none]})
        connect(server.url).delete_copy(FAX_ID)
        assert requests(server)[0].method == "DELETE"
    for reply in (answer(b"<h1>404</h1>", 404), answer(b"", 500), WRONG):
        server = carrier({f"DELETE {FAX}/file": [reply]})
        with pytest.raises(ProviderError):
            connect(server.url).delete_copy(FAX_ID)


@pytest.mark.parametrize(
    ("reply", "ok", "words"),
    [
        (answer(said("services.json")), True, "takes key, secret and project"),
        (answer(b"{}"), False, "not Sinch's Fax API"),
        (answer(b"<html>"), False, "not Sinch's Fax API"),
        (WRONG, False, "SINCH_API_SECRET"),
        (answer(said("errors/402.json"), 402), False, "pay"),
        (answer(b"", 403), False, "Fax product"),
        (answer(said("errors/404.json"), 404), False, "ends in /v3"),
        (said("errors/429.http"), False, "SINCH_AUTH_METHOD=oauth2"),
        (answer(said("errors/500.json"), 500), False, "500"),
    ],
)
def test_the_connection_is_tested_by_one_service_and_says_what_to_do(
    carrier: Carrier, connect: Connect, reply: bytes, ok: bool, words: str
) -> None:
    server = carrier({f"GET {PROJECT}/services": [reply]})
    health = connect(server.url).health()
    assert (health.ok, words in health.detail) == (ok, True), health.detail
    assert requests(server)[0].query == {"pageSize": "1"}
    assert not [word for word in SECRETS if word in health.detail]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (answering(WRONG), "no token for this key"),
        (answering(answer(b"", 404)), "SINCH_AUTH_BASE_URL"),
        (answering(said("errors/429.http")), "no more calls"),
        (hanging_up, "SINCH_AUTH_BASE_URL"),
    ],
)
def test_a_token_that_cannot_be_had_fails_the_test_of_the_connection(
    carrier: Carrier, connect: Connect, behaviour: Behaviour, words: str
) -> None:
    health = connect(carrier(behaviour).url, authMethod="oauth2").health()
    assert (health.ok, words in health.detail) == (False, True), health.detail


def test_a_kept_token_does_not_pass_for_a_sound_secret(carrier: Carrier, connect: Connect) -> None:
    server = carrier(
        {
            f"POST {TOKEN}": [token(1), WRONG],
            f"GET {PROJECT}/services": [answer(said("services.json"))],
        }
    )
    sinch = connect(server.url, authMethod="oauth2")
    cached = sinch.context.cache
    connect(server.url, cached, authMethod="oauth2")._token()
    assert not sinch.health().ok


def test_a_carrier_that_is_not_there_is_said_to_be_away(connect: Connect) -> None:
    server = Server(hanging_up)
    server.close()
    health = connect(server.url).health()
    assert (health.ok, "refused" in health.detail) == (False, True)


# Causes and settings ------------------------------------------------------------------------------

LISTED = {
    "CALL_ERROR": (11, 15, 16, 17, 19, 30, 32, 34, 43, 49),
    "FAX_ERROR": (
        *(6, 7, 8, 10, 12, 13, 14, 18, 20, 21, 22, 25, 26, 28, 29, 31, 38, 40, 41, 44, 46, 48, 53),
        *(60, 63, 68, 75, 76, 77, 79, 80, 82, 84, 113, 117, 119, 131, 132, 133),
    ),
    "DOCUMENT_CONVERSION_ERROR": (4, 54, 55, 57, 69, 122, 128, 129, 130, 133),
}
"""The vendor's lists (Sinch Fax OpenAPI, CallError, FaxError, DocumentConversionError)."""


def test_every_number_that_sinch_lists_has_a_canonical_cause() -> None:
    missing = {
        (kind, code)
        for kind, codes in LISTED.items()
        for code in codes
        if (kind, code) not in answers.CAUSES
    }
    assert missing == set()
    assert {*answers.CAUSES.values(), *answers.BLAMED.values()} <= set(CANONICAL)
    assert "unknown" not in answers.CAUSES.values()


@pytest.mark.parametrize(
    ("kind", "code", "pages", "cause"),
    [
        ("CALL_ERROR", 17, 0, "busy"),
        ("LINE_ERROR", 17, 0, "busy"),
        ("FAX_ERROR", 17, 0, "unknown"),
        ("FAX_ERROR", 133, 0, "policy"),
        ("DOCUMENT_CONVERSION_ERROR", 133, 0, "doc_unreadable"),
        ("CALL_ERROR", "17", 0, "busy"),
        ("CALL_ERROR", 17.0, 0, "unknown"),
        ("CALL_ERROR", True, 0, "unknown"),
        ("CALL_ERROR", 999, 0, "unknown"),
        ("CALL_ERROR", None, 0, "unknown"),
        ("FATAL_ERROR", None, 0, "unreachable"),
        ("FATAL_ERROR", 23, 0, "system"),
        ("FATAL_ERROR", 99, 0, "unknown"),
        ("GENERAL_ERROR", None, 0, "unknown"),
        ("GENERAL_ERROR", 86, 0, "funds"),
        (None, None, 0, "unknown"),
        (["CALL_ERROR"], [17], 0, "unknown"),
        ("LINE_ERROR", 89, 0, "dropped_early"),
        ("LINE_ERROR", 89, 2, "page_failed"),
        ("CALL_ERROR", 17, 2, "busy"),
    ],
)
def test_type_and_number_together_are_the_cause(
    kind: object, code: object, pages: int, cause: str
) -> None:
    facts = {"errorType": kind, "errorCode": code, "pagesSentSuccessfully": pages}
    update = answers.update({**json.loads(said("fax_failed.json")), **facts})
    assert update.cause == cause


@pytest.mark.parametrize(("told", "pages"), [(0, None), (None, None), (2, 2)])
def test_a_completed_fax_without_a_count_of_pages_is_delivered_all_the_same(
    told: int | None, pages: int | None
) -> None:
    facts = {"status": "COMPLETED", "pagesSentSuccessfully": told}
    update = answers.update({**json.loads(said("fax_completed.json")), **facts})
    assert (update.state, update.pages_sent) == (State.DELIVERED, pages)


def test_a_number_means_what_it_means_at_phaxio_whence_it_comes() -> None:
    kinds = {
        "documentConversionError": "DOCUMENT_CONVERSION_ERROR",
        "lineError": "CALL_ERROR",
        "faxError": "FAX_ERROR",
        "fatalError": "FATAL_ERROR",
        "generalError": "GENERAL_ERROR",
    }
    phaxio = {(kinds[kind], number): cause for (kind, number), cause in faxes.CAUSES.items()}
    assert phaxio == {(kind, code): c for (kind, code), c in answers.CAUSES.items() if code}


def tries(cause: str) -> list[float]:
    """Minutes before each further try of a fax that fails so every time."""
    history, waits = [Past(End.FAILED, cause)], []
    while isinstance(decision := decide(history, now=SINCE, luck=0.0), Again):
        waits.append((decision.at - SINCE).total_seconds() / 60)
        history.append(history[0])
    return waits


def test_a_fatal_error_without_a_number_is_tried_again_seldom_and_late() -> None:
    """It may be one that says "in the final stages"."""
    cause = answers.update(json.loads(said("fax_failed_without_code.json"))).cause
    waits = tries(str(cause))
    assert 1 <= len(waits) <= 3
    assert min(waits) >= 10


def test_what_may_be_a_dead_number_is_tried_once_more() -> None:
    for code in (107, 109):
        assert len(tries(answers.CAUSES["CALL_ERROR", code])) == 1


def test_the_page_lists_every_cause_as_the_table_has_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "providers" / "sinch.md").read_text("utf-8")
    listed = {
        (kind, None if number == "none" else int(number)): cause
        for kind, numbers, cause in re.findall(
            r"^\| `([A-Z_]+)` \| (.+) \| `(\w+)` \|$", page, re.M
        )
        for number in numbers.split(", ")
    }
    assert listed == answers.CAUSES


ENVIRON = {
    "SINCH_PROJECT_ID": "project",
    "SINCH_WEBHOOK_BASIC_USER": "hook",
    "SINCH_WEBHOOK_BASIC_PASS": "long-enough",
}


def test_key_and_secret_fall_back_to_those_of_phaxio() -> None:
    older = {"PHAXIO_API_KEY": "old-key", "PHAXIO_API_SECRET": "old-secret"}
    found = manifest.settings(MANIFEST, {**ENVIRON, **older})
    assert (found["apiKey"], found["apiSecret"]) == ("old-key", "old-secret")
    found = manifest.settings(MANIFEST, {**ENVIRON, **older, "SINCH_API_KEY": "new-key"})
    assert (found["apiKey"], found["apiSecret"]) == ("new-key", "old-secret")
    assert {
        name: found[name] for name in ("authMethod", "maxRetries", "baseUrl", "authBaseUrl")
    } == {
        "authMethod": "basic",
        "maxRetries": 0,
        "baseUrl": "https://fax.api.sinch.com/v3",
        "authBaseUrl": "https://auth.sinch.com",
    }


def test_without_credentials_for_callbacks_there_is_no_provider() -> None:
    keys = {"SINCH_PROJECT_ID": "p", "SINCH_API_KEY": "k", "SINCH_API_SECRET": "s"}
    with pytest.raises(ConfigError, match=r"SINCH_WEBHOOK_BASIC_USER is not set.*_PASS is not set"):
        manifest.settings(MANIFEST, keys)
    older = {"SINCH_INBOUND_BASIC_USER": "hook", "SINCH_INBOUND_BASIC_PASS": "long-enough"}
    assert manifest.settings(MANIFEST, {**keys, **older})["webhookUser"] == "hook"


@pytest.mark.parametrize(
    "wrong",
    [
        {"SINCH_PROJECT_ID": "a/b"},
        {"SINCH_AUTH_METHOD": "digest"},
        {"SINCH_MAX_RETRIES": "6"},
        {"SINCH_WEBHOOK_BASIC_USER": "with:colon"},
        {"SINCH_WEBHOOK_BASIC_PASS": "short"},
        {"SINCH_BASE_URL": "eu"},
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not(wrong: dict[str, str]) -> None:
    keys = {"SINCH_API_KEY": "k", "SINCH_API_SECRET": "s"}
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError) as refused:
        manifest.settings(MANIFEST, {**ENVIRON, **keys, **wrong})
    assert name in refused.value.detail
    assert value not in refused.value.detail.replace(name, "")
