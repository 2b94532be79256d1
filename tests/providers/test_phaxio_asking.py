"""The Phaxio provider asks, stops, deletes and tests the connection: against servers that answer as
Phaxio's files say, and as they do not."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest

from faxbot.errors import (
    AccountRefused,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
)
from faxbot.plugins.base import State, Update
from faxbot.providers.http import MAX_BODY
from tests.misbehaving import Server, hanging_up
from tests.providers.phaxio import (
    NOW,
    TAG,
    TO,
    Asked,
    Serve,
    answer,
    answering_with,
    asked,
    make,
    servers,
    vendor,
)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


# Looking up ---------------------------------------------------------------------------------------


def look_up(server: Server) -> Update:
    return make(server.url).look_up(TAG, to=TO, since=NOW)


def test_a_fax_is_found_by_its_tag(serve: Serve) -> None:
    server = serve(answer("listed_one.json"))

    found = look_up(server)

    assert (found.state, found.tag, found.external_id) == (State.DELIVERED, TAG, "323034813")
    assert asked(server).path == "/v2.1/faxes"
    assert asked(server).query == {
        "tag[faxbot]": TAG,
        "created_after": "2026-11-20T11:00:00+00:00",
        "per_page": "500",
        "page": "1",
    }


def test_what_is_not_listed_is_absent(serve: Serve) -> None:
    assert look_up(serve(answer("listed_none.json"))) == Update(State.ABSENT, tag=TAG)


def test_of_several_the_one_with_our_tag_is_taken(serve: Serve) -> None:
    found = look_up(serve(answer("listed_several.json")))

    assert (found.tag, found.external_id, found.cause) == (TAG, "323034813", "busy")


def listed(*faxes: Any, total: Any = None) -> bytes:
    paging = {"total": len(faxes) if total is None else total, "per_page": 500, "page": 1}
    return answering_with(200, {"success": True, "data": list(faxes), "paging": paging})


def test_others_that_come_back_are_not_ours(serve: Serve) -> None:
    sent = vendor("faxes/success.json")
    tags: tuple[Any, ...] = ({"faxbot": "else"}, {"order": TAG}, [], None, TAG)
    others = [{**sent, "tags": each} for each in tags]

    assert look_up(serve(listed(*others))) == Update(State.ABSENT, tag=TAG)


def test_of_two_with_our_tag_the_one_that_went_further_counts(serve: Serve) -> None:
    """People can resend a fax in Phaxio's console."""
    failed = vendor("faxes/failure_busy.json")
    resent = {**vendor("faxes/success.json"), "id": failed["id"] + 1}
    again = {**failed, "id": failed["id"] + 2}

    assert look_up(serve(listed(failed, resent, again))).external_id == str(resent["id"])
    assert look_up(serve(listed(again, failed))).external_id == str(failed["id"])


def test_the_list_is_read_to_its_end(serve: Serve) -> None:
    server = serve(answer("listed_page_1.json"), answer("listed_page_2.json"))

    found = look_up(server)

    assert (found.state, found.external_id) == (State.PROGRESS, "323034813")
    assert [Asked(each).query["page"] for each in server.requests] == ["1", "2"]


def test_a_list_that_ends_early_is_at_its_end(serve: Serve) -> None:
    server = serve(answer("listed_page_1.json"), listed(total=3))

    assert look_up(server).state is State.ABSENT
    assert len(server.requests) == 2


def test_a_list_without_end_proves_nothing(serve: Serve) -> None:
    server = serve(listed({"id": 1, "tags": {}}, total=10**9))

    with pytest.raises(OutcomeUnknown):
        look_up(server)
    assert len(server.requests) <= 10


@pytest.mark.parametrize(
    "body",
    [
        {"success": True},
        {"success": True, "data": []},
        {"success": True, "data": {}, "paging": {"total": 0}},
        {"success": True, "data": [], "paging": {"total": "none"}},
        {"success": True, "data": ["fax"], "paging": {"total": 1}},
        {"success": True, "data": [{"tags": {"faxbot": TAG}}], "paging": {"total": 1}},
    ],
)
def test_a_list_that_cannot_be_read_proves_nothing(serve: Serve, body: object) -> None:
    with pytest.raises(OutcomeUnknown):
        look_up(serve(answering_with(200, body)))


# Asking by id -------------------------------------------------------------------------------------

GOT = {
    "queued": (State.ACCEPTED, None, None),
    "queued_tagged": (State.ACCEPTED, None, TAG),
    "pendingbatch": (State.ACCEPTED, None, TAG),
    "inprogress": (State.PROGRESS, None, TAG),
    "willretry": (State.PROGRESS, None, TAG),
    "success": (State.DELIVERED, None, TAG),
    "success_after_busy": (State.DELIVERED, None, TAG),
    "cancel_too_late": (State.DELIVERED, None, TAG),
    "failure_busy": (State.FAILED, "busy", TAG),
    "failure_normalize": (State.FAILED, "doc_unreadable", TAG),
    "failure_not_permitted": (State.FAILED, "policy", TAG),
    "failure_cancelled": (State.FAILED, "cancelled", TAG),
    "partialsuccess": (State.FAILED, "unconfirmed", TAG),
    "v1_success": (State.DELIVERED, None, TAG),
    "v1_failure": (State.FAILED, "busy", TAG),
}


def got(content: object) -> bytes:
    return answering_with(200, {"success": True, "message": "Metadata for fax", "data": content})


@pytest.mark.parametrize("name", GOT)
def test_a_fax_is_told_in_our_words(serve: Serve, name: str) -> None:
    server = serve(got(vendor(f"faxes/{name}.json")))

    update = make(server.url).fetch("323034813")

    assert (update.state, update.cause, update.tag) == GOT[name]
    assert update.external_id == "323034813"
    assert update.pages_sent == (3 if update.state is State.DELIVERED else None)
    ended = update.state in (State.DELIVERED, State.FAILED)
    assert (update.occurred_at is not None) is ended
    assert asked(server).path == "/v2.1/faxes/323034813"


def test_the_recorded_answer_is_a_fax_that_waits(serve: Serve) -> None:
    update = make(serve(answer("got.json")).url).fetch("323034813")

    assert update == Update(State.ACCEPTED, external_id="323034813", key="323034813:accepted")


def test_times_are_read_in_both_forms(serve: Serve) -> None:
    late, early = (vendor(f"faxes/{name}.json") for name in ("success", "v1_success"))

    moments = [make(serve(got(each)).url).fetch("323034813").occurred_at for each in (late, early)]

    assert [moment and moment.timestamp() for moment in moments] == [1636061462.0] * 2


def test_a_fax_that_phaxio_does_not_know_is_absent(serve: Serve) -> None:
    update = make(serve(answer("not_found.json")).url).fetch("1")

    assert update == Update(State.ABSENT, external_id="1")


def test_a_wrong_address_makes_no_fax_absent(serve: Serve) -> None:
    with pytest.raises(AccountRefused):
        make(serve(answering_with(404, b"<html>Not Found</html>")).url).fetch("1")


@pytest.mark.parametrize("status", ["completed", "error", "", "SUCCESS", "delivered", None, 7, []])
def test_a_status_that_no_page_has_ends_nothing(serve: Serve, status: object) -> None:
    content = {**vendor("faxes/success.json"), "status": status}

    assert make(serve(got(content)).url).fetch("323034813").state is State.ACCEPTED


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {**vendor("faxes/received.json"), "id": 323034813},
        {**vendor("faxes/success.json"), "id": 1},
        {**vendor("faxes/success.json"), "id": None},
    ],
)
def test_an_answer_about_anything_else_is_refused(serve: Serve, content: object) -> None:
    with pytest.raises(OutcomeUnknown):
        make(serve(got(content)).url).fetch("323034813")


@pytest.mark.parametrize(
    "change",
    [
        {"num_pages": 0},
        {"num_pages": -1},
        {"num_pages": True},
        {"num_pages": "3"},
        {"num_pages": 10**9},
        {"num_pages": None},
    ],
)
def test_a_number_of_pages_that_cannot_be_is_left_out(
    serve: Serve, change: dict[str, object]
) -> None:
    content = {**vendor("faxes/success.json"), **change}

    assert make(serve(got(content)).url).fetch("323034813").pages_sent is None


@pytest.mark.parametrize("value", ["yesterday", "2021-11-04", 10**20, -(10**20), True, [], 1.5])
def test_a_time_that_is_none_is_left_out(serve: Serve, value: object) -> None:
    content = {**vendor("faxes/success.json"), "completed_at": value}

    assert make(serve(got(content)).url).fetch("323034813").occurred_at is None


# Stopping, and deleting ---------------------------------------------------------------------------


def test_a_cancel_is_passed_on(serve: Serve) -> None:
    server = serve(answer("cancelled.json"))

    make(server.url).cancel("323034818")

    assert (asked(server).method, asked(server).path) == ("POST", "/v2.1/faxes/323034818/cancel")


TOO_LATE = {"success": False, "message": "Can not cancel the fax, it is already complete!"}


@pytest.mark.parametrize(
    "said",
    [
        answering_with(200, TOO_LATE),
        answering_with(200, {**TOO_LATE, "data": {"id": 1}}),
        answering_with(400, TOO_LATE),
        answering_with(409, TOO_LATE),
        answering_with(422, TOO_LATE),
        answer("not_found.json"),
    ],
)
def test_a_cancel_that_comes_too_late_is_refused(serve: Serve, said: bytes) -> None:
    with pytest.raises(Refused):
        make(serve(said).url).cancel("1")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer("rate_limited.json"), Throttled),
        (answer("auth_failure.json"), AccountRefused),
        (answering_with(404, b"<html>"), AccountRefused),
        (answering_with(200, {"success": False, "message": "Auth failure."}), AccountRefused),
        (answering_with(403, {"success": False, "message": "Auth failure."}), AccountRefused),
        (answering_with(422, {"success": False, "message": "Rate limited"}), Throttled),
        (answer("unavailable"), OutcomeUnknown),
        (answering_with(200, b"?"), OutcomeUnknown),
        (answering_with(200, {}), OutcomeUnknown),
    ],
)
def test_a_cancel_that_phaxio_did_not_hear_is_not_called_too_late(
    serve: Serve, said: bytes, kind: type[ProviderError]
) -> None:
    with pytest.raises(ProviderError) as error:
        make(serve(said).url).cancel("1")
    assert type(error.value) is kind


GONE = {
    "success": False,
    "message": "The file for this fax has been deleted or is not accessible.",
}


@pytest.mark.parametrize(
    "said",
    [
        answer("deleted_file.json"),
        answer("not_found.json"),
        answering_with(422, GONE),
    ],
)
def test_the_stored_document_is_deleted_or_was_before(serve: Serve, said: bytes) -> None:
    server = serve(said, answer("not_found.json"))

    make(server.url).delete_copy("323038033")

    first = Asked(server.requests[0])
    assert (first.method, first.path) == ("DELETE", "/v2.1/faxes/323038033/file")


@pytest.mark.parametrize(
    "said", [answer("unavailable"), answer("rate_limited.json"), answering_with(404, b"<html>")]
)
def test_a_document_that_may_still_be_there_is_no_success(serve: Serve, said: bytes) -> None:
    with pytest.raises(ProviderError):
        make(serve(said).url).delete_copy("1")


PDF = b"%PDF-1.4 of a fax" * 200_000
AS_PDF = "Content-Type: application/pdf\r\n"


def test_the_stored_document_is_fetched_however_large(serve: Serve) -> None:
    """More than any other answer may have."""
    server, copy = serve(answering_with(200, PDF, headers=AS_PDF)), BytesIO()
    assert len(PDF) > MAX_BODY

    make(server.url).document("323038033", copy)

    assert copy.getvalue() == PDF
    assert (asked(server).method, asked(server).path) == ("GET", "/v2.1/faxes/323038033/file")


@pytest.mark.parametrize("said", [answering_with(422, GONE), answer("not_found.json")])
def test_a_document_that_is_gone_is_refused(serve: Serve, said: bytes) -> None:
    with pytest.raises(Refused) as gone:
        make(serve(said).url).document("1", BytesIO())

    assert gone.value.cause == "doc_fetch_failed"


@pytest.mark.parametrize(
    "said",
    [
        answer("unavailable"),
        answer("rate_limited.json"),
        answering_with(404, b"<html>"),
        answering_with(200, b"<html>"),
        answering_with(200, {"success": True}),
        answering_with(200, b""),
        answering_with(200, b"", headers=AS_PDF),
        answering_with(200, PDF, headers=AS_PDF)[:-1],
    ],
)
def test_what_is_no_whole_document_is_none(serve: Serve, said: bytes) -> None:
    with pytest.raises(ProviderError) as wrong:
        make(serve(said).url).document("1", BytesIO())

    assert not isinstance(wrong.value, Refused)


def test_an_id_stays_within_its_place_in_the_address(serve: Serve) -> None:
    server = serve(answer("not_found.json"))

    make(server.url).fetch("../account/status?a=1")

    assert asked(server).path == "/v2.1/faxes/..%2Faccount%2Fstatus%3Fa%3D1"


# Test connection ----------------------------------------------------------------------------------


def account(balance: object) -> bytes:
    return answering_with(200, {"success": True, "data": {"balance": balance}})


@pytest.mark.parametrize(
    ("said", "token", "ok", "words"),
    [
        (answer("account.json"), "t", True, "Phaxio knows this account."),
        (answer("account.json"), "", True, "until PHAXIO_CALLBACK_TOKEN is set"),
        (account(0), "t", True, "no funds left"),
        (account(None), "t", False, "is not Phaxio's API"),
        (answering_with(200, {"success": True}), "t", False, "is not Phaxio's API"),
        (answering_with(200, b"<html>"), "t", False, "cannot be read"),
        (answer("auth_failure.json"), "t", False, "check PHAXIO_API_KEY and PHAXIO_API_SECRET"),
        (answering_with(403, b""), "t", False, "check PHAXIO_API_KEY and PHAXIO_API_SECRET"),
        (answering_with(402, b""), "t", False, "recharge it"),
        (answering_with(404, b"<html>"), "t", False, "/v2.1 or /v2"),
        (answering_with(301, b"", headers="Location: /x\r\n"), "t", False, "/v2.1 or /v2"),
        (answer("rate_limited.json"), "t", False, "test again in a moment"),
        (answer("unavailable"), "t", False, "HTTP status 503"),
    ],
)
def test_the_connection_is_tested_with_a_sentence_that_says_what_to_do(
    serve: Serve, said: bytes, token: str, ok: bool, words: str
) -> None:
    server = serve(said)

    settings: dict[str, Any] = {"callbackToken": token} if token else {}
    health = make(server.url, **settings).health()

    assert health.ok is ok
    assert words in health.detail
    assert "secret" not in health.detail
    assert asked(server).path == "/v2.1/account/status"


def test_a_carrier_that_is_not_there_is_said_to_be_away(serve: Serve) -> None:
    server = serve(hanging_up)
    server.close()

    health = make(server.url).health()

    assert not health.ok
    assert "connection was refused. Check PHAXIO_BASE_URL" in health.detail
