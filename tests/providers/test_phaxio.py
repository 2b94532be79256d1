"""The Phaxio provider against servers that answer as Phaxio's files say, and as they do not."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    NotSent,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
)
from faxbot.hidden import Hidden
from faxbot.providers.http import Reply
from tests.misbehaving import Behaviour, hanging_up, resetting, saying, silent
from tests.providers.phaxio import (
    NOW,
    TAG,
    TO,
    Serve,
    answer,
    answering_with,
    asked,
    fax,
    make,
    servers,
)

DOCUMENT = b"%PDF-1.4\n% made up\n"


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "pages"
    path.write_bytes(DOCUMENT)
    return path


# Sending ------------------------------------------------------------------------------------------


def test_a_fax_is_uploaded_once_with_its_tag_and_is_known_by_phaxios_id(
    serve: Serve, document: Path
) -> None:
    server = serve(answer("sent.json"))

    receipt = make(server.url).send(fax(document))

    assert receipt.external_id == "323034811"
    request = asked(server)
    assert (request.method, request.path, request.query) == ("POST", "/v2.1/faxes", {})
    assert request.headers["Authorization"] == ("Basic " + base64.b64encode(b"key:secret").decode())
    assert request.headers["Content-Type"].startswith("multipart/form-data")
    assert request.form() == {
        "to": "+15558675309",
        "callback_url": f"https://fax.example.com/callbacks/phaxio?attempt={TAG}&token=t",
        "tag[faxbot]": TAG,
        "file": ("fax.pdf", "application/pdf", DOCUMENT),
    }


def test_the_older_api_is_called_by_its_address(serve: Serve, document: Path) -> None:
    server = serve(answer("sent.json"))

    make(server.url, baseUrl=f"{server.url}/v2/").send(fax(document, media_type="image/tiff"))

    assert asked(server).path == "/v2/faxes"
    assert asked(server).form()["file"] == ("fax.tiff", "image/tiff", DOCUMENT)


def test_header_caller_id_and_time_limit_are_handed_on(serve: Serve, document: Path) -> None:
    server = serve(answer("sent.json"))
    provider = make(server.url, callerId="+15555550100", cancelTimeoutMinutes=45)

    provider.send(fax(document, header=Hidden("Practice of Dr. Doe")))

    form = asked(server).form()
    assert form["header_text"] == "Practice of Dr. Doe"
    assert form["caller_id"] == "+15555550100"
    assert form["cancel_timeout"] == "45"


@pytest.mark.parametrize(
    ("setting", "minutes_left", "sent"),
    [
        (None, None, None),
        (None, 61, None),
        (None, 60.5, "60"),
        (None, 20.9, "20"),
        (None, 1, "3"),
        (None, -5, "3"),
        (30, 20, "20"),
        (30, 50, "30"),
        (30, 600, "30"),
    ],
)
def test_phaxio_gives_up_when_the_deadline_has_passed(
    serve: Serve, document: Path, setting: int | None, minutes_left: float | None, sent: str | None
) -> None:
    server = serve(answer("sent.json"))
    limit: dict[str, Any] = {} if setting is None else {"cancelTimeoutMinutes": setting}
    deadline = None if minutes_left is None else NOW + timedelta(minutes=minutes_left)

    make(server.url, **limit).send(fax(document, deadline=deadline))

    assert asked(server).form().get("cancel_timeout") == sent


def test_the_document_may_be_fetched_from_a_link_instead(serve: Serve, document: Path) -> None:
    server = serve(answer("sent.json"))
    link: Hidden[str] = Hidden("https://fax.example.com/fax/1/pdf?token=a%2Bb&c")

    make(server.url, sendByLink=True).send(fax(document, document_url=link))

    form = asked(server).form()
    assert form["content_url"] == link.reveal()
    assert form["tag[faxbot]"] == TAG
    assert "file" not in form


@pytest.mark.parametrize(("by_link", "link"), [(False, "https://fax.example.com/a"), (True, "")])
def test_without_the_setting_or_without_a_link_the_document_is_uploaded(
    serve: Serve, document: Path, by_link: bool, link: str
) -> None:
    server = serve(answer("sent.json"))

    make(server.url, sendByLink=by_link).send(fax(document, document_url=Hidden(link)))

    assert set(asked(server).form()) == {"to", "callback_url", "tag[faxbot]", "file"}


REFUSALS: dict[str, tuple[bytes, type[ProviderError], str]] = {
    "key": (answer("auth_failure.json"), AccountRefused, "trunk_denied"),
    "path": (answer("not_found.json"), AccountRefused, "config"),
    "entity": (answer("invalid_entity.json"), Refused, "rejected"),
    "number": (answer("number_invalid.json"), Refused, "number_invalid"),
    "barred": (answer("number_not_permitted.json"), Refused, "policy"),
    "200": (answer("refused_with_200.json"), Refused, "number_invalid"),
    "rate": (answer("rate_limited.json"), Throttled, "congestion"),
    "500": (answer("service_failure.json"), OutcomeUnknown, "unconfirmed"),
    "500 text": (answer("service_failure.txt"), OutcomeUnknown, "unconfirmed"),
    "503": (answer("unavailable"), OutcomeUnknown, "unconfirmed"),
    "502": (answering_with(502, b"<html>"), OutcomeUnknown, "unconfirmed"),
    "402": (answering_with(402, b""), AccountRefused, "funds"),
    "403": (answering_with(403, b"no"), DestinationBarred, "trunk_denied"),
    "403 number": (
        answering_with(403, {"success": False, "message": "Phone number is not permitted."}),
        Refused,
        "policy",
    ),
    "413": (answering_with(413, b""), Refused, "doc_too_large"),
    "422 text": (answering_with(422, b"not permitted"), Refused, "rejected"),
    "money": (
        answering_with(
            422, {"success": False, "message": "Insufficient funds to send fax and ..."}
        ),
        AccountRefused,
        "funds",
    ),
    "200 key": (
        answering_with(200, {"success": False, "message": "Auth failure."}),
        AccountRefused,
        "trunk_denied",
    ),
    "200 unknown": (
        answering_with(200, {"success": False, "message": "Computer says no."}),
        Refused,
        "unknown",
    ),
    "200 without a word": (answering_with(200, {"success": False}), Refused, "unknown"),
    "a 500 that names the number": (
        answering_with(500, {"success": False, "message": "Phone number is not permitted."}),
        OutcomeUnknown,
        "unconfirmed",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_fax_that_is_not_taken_is_the_right_error(
    serve: Serve, document: Path, name: str
) -> None:
    said, kind, cause = REFUSALS[name]
    server = serve(said)

    with pytest.raises(ProviderError) as error:
        make(server.url).send(fax(document))

    assert (type(error.value), error.value.cause) == (kind, cause)
    assert len(server.requests) == 1
    assert "5558675309" not in str(error.value)
    assert "permitted" not in str(error.value)


@pytest.mark.parametrize(
    ("headers", "wait"), [("", 1.0), ("Retry-After: 0\r\n", 1.0), ("Retry-After: 7\r\n", 7.0)]
)
def test_a_limited_rate_is_waited_for_at_least_a_second(
    serve: Serve, document: Path, headers: str, wait: float
) -> None:
    server = serve(answer("rate_limited.json", headers=headers))

    with pytest.raises(Throttled) as error:
        make(server.url).send(fax(document))

    assert error.value.retry_after == wait


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xef\xbb\xbf",
        b"<html>",
        b"[]",
        b"null",
        b'{"success": true}',
        b'{"success": true, "data": []}',
        b'{"success": true, "data": {}}',
        b'{"success": true, "data": {"id": null}}',
        b'{"success": true, "data": {"id": true}}',
        b'{"success": true, "data": {"id": "323034811"}}',
        b'{"success": true, "data": {"id": 0}}',
        b'{"success": true, "data": {"id": -1}}',
        b'{"success": true, "data": {"id": 1.5}}',
        b'{"success": true, "data": {"id": 1e30}}',
        b'{"success": true, "data": {"id": ' + b"9" * 5000 + b"}}",
        b'{"success": "true", "data": {"id": 1}}',
        b'{"data": {"id": 1}}',
        b'{"success": false, "data": {"id": 1}, "message": "Phone number is not permitted."}',
        b"[" * 100_000,
        b'{"success": true, "data": {"id": 1}',
    ],
)
def test_an_acceptance_that_cannot_be_read_is_an_unknown_outcome(
    serve: Serve, document: Path, body: bytes
) -> None:
    server = serve(answering_with(200, body))

    with pytest.raises(OutcomeUnknown):
        make(server.url).send(fax(document))


@pytest.mark.parametrize(
    "behaviour",
    [
        hanging_up,
        resetting,
        silent,
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{"),
        saying(b"HTTP/1.1 200 OK\r\n"),
    ],
)
def test_a_call_that_breaks_off_is_an_unknown_outcome_and_is_not_made_again(
    serve: Serve, document: Path, behaviour: Behaviour
) -> None:
    server = serve(behaviour)

    with pytest.raises(OutcomeUnknown):
        make(server.url).send(fax(document))

    assert len(server.requests) == 1


def test_a_carrier_that_is_not_there_has_no_fax(serve: Serve, document: Path) -> None:
    server = serve(hanging_up)
    server.close()

    with pytest.raises(Unreachable):
        make(server.url).send(fax(document))


# Whatever comes back ------------------------------------------------------------------------------


class Answers:
    """An Http that gives one answer to everything."""

    def __init__(self, status: int, body: bytes) -> None:
        self._reply = Reply(status, {}, body)

    def request(self, *_: object, **__: object) -> Reply:
        return self._reply

    def close(self) -> None: ...


WORDS = (
    *("success", "data", "id", "status", "tags", "faxbot", "paging", "total", "recipients"),
    *("error_type", "error_id", "completed_at", "message", "balance"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    status=st.sampled_from([200, 201, 204, 302, 400, 401, 404, 422, 429, 500]),
    content=JSON | st.fixed_dictionaries({"success": st.booleans(), "data": JSON, "paging": JSON}),
    raw=st.none() | st.binary(max_size=20),
)
def test_no_answer_at_all_makes_it_stumble(
    document: Path, status: int, content: object, raw: bytes | None
) -> None:
    body = json.dumps(content).encode() if raw is None else raw
    provider = make("http://nobody.invalid", Answers(status, body))  # type: ignore[arg-type]

    provider.health()
    for call in (
        lambda: provider.send(fax(document)),
        lambda: provider.look_up(TAG, to=TO, since=NOW),
        lambda: provider.fetch("1"),
        lambda: provider.cancel("1"),
        lambda: provider.delete_copy("1"),
    ):
        try:
            call()
        except NotSent:
            assert not (200 <= status < 300 and json.loads(body).get("success") is not False)
        except ProviderError:
            pass
