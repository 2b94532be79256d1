"""What carriers said of a fax, word for word: all of it that was about this fax, nothing of others, nothing that admits
anybody, and written down."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import addresses, callbacks, evidence
from faxbot.actors import OPERATOR, VIEWER, Actor
from faxbot.audit import Action
from faxbot.errors import Forbidden, NotFound, ProviderError
from faxbot.models import Callback, CallbackFax
from faxbot.plugins.base import LARGEST_IN_MEMORY, CallbackRequest, State, Update
from faxbot.web import schemas
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site
from tests.integration.test_audit_deeds import rows
from tests.integration.web import assert_problem, browser_of, client_of, new_key, new_user

SAID = {"status": "failed", "error": "busy", "to": "+15550100000", "text": "Mrs. Ito's line"}


@pytest.fixture
def client(site: Site) -> FlaskClient:
    return client_of(site.runtime, new_key(site.runtime, "operate"))


def told(site: Site, job_id: str, body: bytes, **headers: str) -> None:
    """The carrier posts this to the address that it was given with the fax."""
    signed = site.signed(body)
    request = CallbackRequest(
        "POST",
        addresses.of_callbacks(site.runtime, site.attempt(job_id)),
        {**signed.headers, "content-type": "application/json", **headers},
        body,
    )
    site.now += timedelta(seconds=1)
    site.receive(request)
    site.work()


def shown(client: FlaskClient, job_id: str) -> list[dict[str, Any]]:
    answer = client.get(f"/fax/{job_id}/evidence")
    assert answer.status_code == 200, answer.data
    page = json.loads(answer.data)
    assert not schemas.FaxEvidencePage().validate(page)
    assert page["more"] is False
    items: list[dict[str, Any]] = page["items"]
    return items


def test_what_was_said_of_a_fax_is_shown_word_for_word_newest_first(
    site: Site, client: FlaskClient
) -> None:
    job_id, other = site.sent("0044"), site.sent("0044")
    this = site.attempt(job_id)
    said = [
        json.dumps({"event": "fax.news", "fax": {"id": this.external_id, "tag": this.tag, **more}})
        for more in ({"status": "sending"}, SAID)
    ]
    for body in said:
        told(site, job_id, body.encode(), **{"user-agent": "carrier/1"})
    newest, oldest = shown(client, job_id)

    assert [newest["body"], oldest["body"]] == said[::-1]
    assert (newest["outcome"], newest["not_shown"], newest["cut"]) == ("applied", None, False)
    assert (newest["method"], newest["path"]) == ("POST", "/callbacks/simulator")
    assert newest["content_type"] == "application/json"
    assert newest["headers"] == {"content-type": "application/json", "user-agent": "carrier/1"}
    assert newest["size_bytes"] == len(said[1])
    assert newest["received_at"] > oldest["received_at"]
    assert shown(client, other) == []


def test_nothing_that_proves_or_admits_is_shown(site: Site, client: FlaskClient) -> None:
    job_id = site.sent("0044")
    told(site, job_id, b"{}", authorization="Basic c2VjcmV0", cookie="s3cret")
    answer = client.get(f"/fax/{job_id}/evidence").get_data(as_text=True)
    url = addresses.of_callbacks(site.runtime, site.attempt(job_id))
    for secret in ("c2VjcmV0", "s3cret", url.rpartition("=")[2], "v1="):
        assert secret not in answer


@pytest.mark.parametrize(
    ("deed", "outcome"),
    [
        (raises(ValueError("whatever")), "unreadable"),
        (raises(ProviderError()), "unreadable"),
        (lambda _usual, _request: [], "nothing"),
        (lambda _usual, _request: [Update(State.DELIVERED, tag="fb-unknown")], "unmatched"),
    ],
)
def test_what_was_not_understood_is_shown_with_the_fax_whose_address_it_came_to(
    site: Site, client: FlaskClient, deed: Any, outcome: str
) -> None:
    job_id = site.sent("0044")
    site.odd.does["read_callback"] = deed
    told(site, job_id, b"what is this?")
    if outcome == "unmatched":
        for _ in range(40):
            site.after(3600)
    (only,) = shown(client, job_id)
    assert (only["body"], only["outcome"]) == ("what is this?", outcome)


def test_one_message_about_two_faxes_is_shown_with_both(site: Site, client: FlaskClient) -> None:
    one, two, third = (site.sent("0044") for _ in range(3))
    tags = [site.attempt(each).tag for each in (one, two)]
    site.odd.does["read_callback"] = lambda _usual, _request: [
        Update(State.PROGRESS, tag) for tag in tags
    ]
    told(site, one, b"both")
    assert [shown(client, each)[0]["body"] for each in (one, two)] == ["both", "both"]
    assert shown(client, third) == []
    assert site.count(CallbackFax) == 2


def test_one_that_came_before_its_fax_was_known_is_noted_when_it_is(
    site: Site, client: FlaskClient
) -> None:
    job_id = site.sent("0044")
    update = Update(State.PROGRESS, external_id="later")
    site.odd.does["read_callback"] = lambda _usual, _request: [update]
    site.receive(site.signed(b"early"))
    site.work()
    assert shown(client, job_id) == []
    with site.runtime.database.transaction() as session:
        session.execute(sa.text("UPDATE attempts SET external_id = 'later'"))
    site.after(60)
    assert [each["body"] for each in shown(client, job_id)] == ["early"]


@pytest.mark.parametrize(
    ("body", "text", "why"),
    [
        ("fünf\r\n\tSeiten".encode(), "fünf\r\n\tSeiten", None),
        ("a\u202eb\u2028c\u200b".encode(), r"a\u202eb\u2028c\u200b", None),
        (b"", "", None),
        (b"\x1b[2Jgone", None, "binary"),
        (b"%PDF-1.4\n\xff\xfe\x00", None, "binary"),
        (b"--x\r\n\r\n\x00\x01--x--", None, "binary"),
    ],
)
def test_a_body_is_text_that_steers_nothing_or_its_size(
    site: Site, client: FlaskClient, body: bytes, text: str | None, why: str | None
) -> None:
    job_id = site.sent("0044")
    site.odd.does["read_callback"] = lambda _usual, _request: []
    told(site, job_id, body)
    (only,) = shown(client, job_id)
    assert (only["body"], only["not_shown"], only["size_bytes"]) == (text, why, len(body))


def test_there_is_an_end_to_each_and_to_all_of_them(site: Site, client: FlaskClient) -> None:
    job_id = site.sent("0044")
    site.odd.does["read_callback"] = lambda _usual, _request: []
    told(site, job_id, b"x" * (evidence.LONGEST + 1))
    (only,) = shown(client, job_id)
    assert (len(only["body"]), only["cut"]) == (evidence.LONGEST, True)

    for number in range(evidence.MOST):
        told(site, job_id, b"%d" % number)
    page = json.loads(client.get(f"/fax/{job_id}/evidence").data)
    assert (len(page["items"]), page["more"]) == (evidence.MOST, True)
    assert page["items"][0]["body"] == f"{evidence.MOST - 1}"


def test_a_large_body_stays_in_storage(site: Site, client: FlaskClient, tmp_path: Path) -> None:
    job_id = site.sent("0044")
    file = tmp_path / "body"
    file.write_bytes(b"x" * (LARGEST_IN_MEMORY + 1))
    site.odd.does["read_callback"] = raises(ValueError())
    url = addresses.of_callbacks(site.runtime, site.attempt(job_id))
    callbacks.keep(site.runtime, "simulator", CallbackRequest("POST", url, {}, b"", file))
    site.work()
    (only,) = shown(client, job_id)
    assert (only["body"], only["not_shown"], only["size_bytes"]) == (
        None,
        "large",
        LARGEST_IN_MEMORY + 1,
    )


def test_one_that_does_not_open_says_so(site: Site, client: FlaskClient) -> None:
    job_id = site.sent("0044")
    told(site, job_id, b"{}")
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Callback).values(raw_sealed=b"another key's"))
    (only,) = shown(client, job_id)
    assert (only["body"], only["not_shown"], only["headers"]) == (None, "sealed", {})


def test_messages_of_before_are_of_no_fax_and_those_that_retention_removed_are_gone(
    site: Site, client: FlaskClient
) -> None:
    job_id = site.sent("0044")
    told(site, job_id, b"{}")
    with site.runtime.database.transaction() as session:
        session.execute(sa.delete(CallbackFax))
    assert shown(client, job_id) == []

    told(site, job_id, b"[]")
    assert len(shown(client, job_id)) == 1
    site.now += timedelta(days=31)
    site.purge()
    assert (site.count(Callback), site.count(CallbackFax), shown(client, job_id)) == (0, 0, [])


def test_only_who_may_settle_it_sees_it_and_that_is_written_down(site: Site) -> None:
    job_id = site.sent("0044")
    told(site, job_id, b"{}")
    viewer, operator = (
        browser_of(site.runtime, new_user(site.runtime, role)) for role in (VIEWER, OPERATOR)
    )
    sender = client_of(site.runtime, new_key(site.runtime, "fax:send", "fax:read"))
    for who in (viewer, sender):
        assert_problem(who.get(f"/fax/{job_id}/evidence"), 403, "forbidden")
    assert rows(site.runtime, Action.FAX_EVIDENCE_SHOWN) == []
    assert operator.get(f"/fax/{job_id}/evidence").status_code == 200
    (row,) = rows(site.runtime, Action.FAX_EVIDENCE_SHOWN)
    assert (row.object_kind, row.object_id, row.outcome) == ("fax", job_id, "done")


def test_who_sees_numbers_masked_or_is_of_another_account_does_not(site: Site) -> None:
    job_id = site.sent("0044")
    stranger = replace(ACTOR, account_id="other")
    for actor, asked in ((stranger, job_id), (ACTOR, "0" * 32)):
        with pytest.raises(NotFound):
            evidence.of_fax(site.runtime, actor, asked)
    with pytest.raises(Forbidden, match="masked"):
        Actor("default", "v", frozenset({"operate"}), masked=True).require_whole("operate")
