"""Webhooks in the console: made, tried, changed, and what was delivered there sent again."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from faxbot import replays, webhooks
from faxbot.actors import ADMIN, CLI
from faxbot.config import Config
from faxbot.events import Event
from faxbot.results import stamp
from faxbot.runtime import Runtime
from faxbot.web.console.webhooks import MOST_COUNTED
from tests.installation import Installation
from tests.integration.console import (
    deed,
    filled,
    filtered_again,
    page,
    problem,
    said,
    shown_once,
    words,
)
from tests.integration.hooks import HERE, deliver, hook, rows, subscribe
from tests.integration.web import SECRET, browser_of, client_of, new_key, new_user, send
from tests.receiver import Receiver, verified

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
HOME = "/admin/ui/webhooks"


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config(SIMULATOR_SECRET=SECRET, FAXBOT_WEBHOOK_SECONDS="3", **HERE)


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return browser_of(runtime, new_user(runtime, ADMIN))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def made(admin: FlaskClient, url: str, *types: str, name: str = "records") -> tuple[str, str]:
    """The page and the secret of a new webhook."""
    wish: dict[str, str | list[str]] = {"name": name, "url": url, "types": ["", *types]}
    secret = shown_once(deed(admin, HOME, 200, **wish))
    led = re.search(rf'href="({HOME}/[0-9a-f]{{32}})"', page(admin, HOME))
    assert led is not None
    return led[1], secret


def sent(runtime: Runtime, count: int = 1) -> None:
    """So many faxes are queued, and told of."""
    client = client_of(runtime, new_key(runtime))
    for _ in range(count):
        send(client)
    deliver(runtime)


def test_a_webhook_is_made_tried_and_active_and_its_secret_is_shown_once(
    admin: FlaskClient, receiver: Receiver
) -> None:
    path, secret = made(admin, f"{receiver.url}/s3cret", "*")
    assert "before it has taken a test event" in words(page(admin, path))
    answer = deed(admin, f"{path}/test", 200)
    assert "was taken" in words(answer.text)
    verified(receiver.heard[0], secret)
    assert "active" in words(page(admin, path))
    for shown in (HOME, path, f"{path}/deliveries"):
        text = page(admin, shown)
        assert secret not in text
        assert "s3cret" not in text


def test_a_test_that_is_refused_shows_how_it_was_answered(
    admin: FlaskClient, receiver: Receiver
) -> None:
    path, _ = made(admin, receiver.url, "*")
    receiver.does = lambda _: 503
    told = words(deed(admin, f"{path}/test", 200).text)
    assert "was not taken" in told
    assert "503" in told
    assert "before it has taken" in words(page(admin, path))


@pytest.mark.parametrize(
    "wish",
    [
        {}, {"name": "n"}, {"name": "n", "url": "ftp://example.org/"},
        {"name": "n", "url": "http://10.0.0.1:8080/"},
        {"name": "n", "url": "https://hooks.example.org:8080/", "types": ""},
        {"name": "n", "url": "https://hooks.example.org:8080/", "types": "FAX_EATEN"},
        {"name": "x" * 256, "url": "https://hooks.example.org:8080/"},
        {"name": "n", "url": "https://h:8080/" + "x" * 9000},
        {"name": "n", "url": "https://hooks.example.org:8080/", "state": "active"},
    ],
)  # fmt: skip
def test_a_webhook_that_cannot_be_is_refused_in_the_form(
    runtime: Runtime, admin: FlaskClient, wish: dict[str, str]
) -> None:
    problem(deed(admin, HOME, 422, **wish), 422, "invalid-fields")
    with runtime.database.reading() as session:
        assert not webhooks.everybody(session, "default")


def test_what_is_changed_is_changed_and_an_empty_address_stays(
    runtime: Runtime, admin: FlaskClient, receiver: Receiver
) -> None:
    path, _ = made(admin, receiver.url, "*")
    webhook_id = path.rpartition("/")[2]
    before = hook(runtime, webhook_id).url_sealed
    answer = deed(admin, path, 204, name=HOSTILE, url="", types=["", "FAX_FAILED", "FAX_DELIVERED"])
    assert answer.headers["HX-Redirect"] == path
    after = hook(runtime, webhook_id)
    assert (after.name, after.types) == (HOSTILE, ["FAX_DELIVERED", "FAX_FAILED"])
    assert after.url_sealed == before
    for shown in (HOME, path, f"{path}/deliveries"):
        assert "<img" not in page(admin, shown)
    ticked = re.findall(r'name="types" value="(\w+)" checked', page(admin, path))
    assert ticked == ["FAX_DELIVERED", "FAX_FAILED"]
    problem(deed(admin, path, 422, name="n", types=""), 422, "invalid-fields")


def test_every_event_can_be_ticked(admin: FlaskClient) -> None:
    text = page(admin, HOME)
    assert set(re.findall(r'name="types" value="(\S+)"', text)) == {"*", *map(str, Event)}


def test_a_new_secret_stands_beside_the_old_one_for_as_long_as_was_asked(
    admin: FlaskClient, receiver: Receiver
) -> None:
    path, first = made(admin, receiver.url, "*")
    second = shown_once(deed(admin, f"{path}/rotate", 200, overlap_hours="1"))
    deed(admin, f"{path}/test", 200)
    for secret in (first, second):
        verified(receiver.heard[-1], secret)
    assert "Two secrets" in page(admin, path)
    problem(deed(admin, f"{path}/rotate", 422, overlap_hours="721"), 422, "invalid-fields")


def test_a_deleted_webhook_is_gone(admin: FlaskClient, receiver: Receiver) -> None:
    path, _ = made(admin, receiver.url, "*")
    assert deed(admin, f"{path}/delete").headers["HX-Redirect"] == HOME
    page(admin, path, 404)
    assert "There is no webhook yet" in page(admin, HOME)


# Deliveries ---------------------------------------------------------------------------------------------


def test_a_delivery_shows_its_body_as_sent_and_its_tries(
    runtime: Runtime, admin: FlaskClient, receiver: Receiver
) -> None:
    webhook_id, _ = subscribe(runtime, receiver.url)
    receiver.does = lambda _: 500
    sent(runtime)
    (delivery,) = rows(runtime)
    told = words(page(admin, f"{HOME}/deliveries/{delivery.id}"))
    assert receiver.heard[0].body.decode() in told
    assert "500" in told
    assert "another status than 2xx" in told
    assert f"{delivery.id}" in page(admin, f"{HOME}/{webhook_id}/deliveries?status=waiting")
    assert "No delivery is here" in page(admin, f"{HOME}/{webhook_id}/deliveries?status=dead")


def test_one_delivery_and_all_that_match_are_sent_again(
    runtime: Runtime, admin: FlaskClient, receiver: Receiver
) -> None:
    webhook_id, _ = subscribe(runtime, receiver.url)
    sent(runtime, 3)
    one, *_ = rows(runtime)
    assert "sent again" in said(deed(admin, f"{HOME}/deliveries/{one.id}/replay"))
    deliver(runtime)
    assert [heard.id for heard in receiver.heard].count(one.id) == 2
    asked = deed(admin, f"{HOME}/{webhook_id}/ask", 200, status="delivered", type="FAX_QUEUED")
    assert "Send 3 deliveries again?" in words(asked.text)
    wish = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
    assert wish == {"status": "delivered", "type": "FAX_QUEUED"}
    assert said(deed(admin, f"{HOME}/{webhook_id}/replay", **wish)) == "Sent again: 3."
    deliver(runtime)
    assert len(receiver.heard) == 7
    nothing = deed(admin, f"{HOME}/{webhook_id}/ask", 200, fax_id="0" * 32)
    assert "No delivery that has ended matches" in words(nothing.text)


def test_where_there_are_more_than_one_request_takes_it_goes_on_behind_them(
    runtime: Runtime, admin: FlaskClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_id, _ = subscribe(runtime, receiver.url)
    sent(runtime, 3)
    monkeypatch.setattr(replays, "MOST", 2)
    monkeypatch.setattr(replays, "SOME", 2)
    asked = deed(admin, f"{HOME}/{webhook_id}/ask", 200)
    assert "more than 2" in words(asked.text)
    first = deed(admin, f"{HOME}/{webhook_id}/replay", 200)
    assert "2 are sent again, and there are more" in words(first.text)
    rest = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', first.text))
    assert said(deed(admin, f"{HOME}/{webhook_id}/replay", **rest)) == "Sent again: 1."
    assert [row.replays for row in rows(runtime)] == [1, 1, 1]


def test_a_time_that_an_address_sets_is_said_and_kept_for_all_that_match(
    runtime: Runtime, admin: FlaskClient
) -> None:
    webhook_id, _ = subscribe(runtime, "https://hooks.example.org:8080/")
    send(client_of(runtime, new_key(runtime)))
    path = f"{HOME}/{webhook_id}/deliveries"
    later = stamp(runtime.now())
    text = page(admin, f"{path}?since={later}&status=")
    for _ in range(2):
        assert "No delivery is here" in text
        assert "Only deliveries made since" in words(text)
        again = filled(
            text.partition(f'action="{HOME}/{webhook_id}/ask"')[2].partition("</form>")[0]
        )
        assert again["since"] == later
        text = filtered_again(admin, text)
    assert "No delivery is here" not in filtered_again(admin, text, since="2020-01-01")


def test_what_waits_and_is_given_up_is_counted_no_further_than_to_a_hundred(
    runtime: Runtime, admin: FlaskClient
) -> None:
    webhook_id, _ = subscribe(runtime, "https://hooks.example.org:8080/")
    client = client_of(runtime, new_key(runtime))
    send(client)
    text = page(admin, HOME)
    assert re.search(r"status=waiting\">1<", text)
    assert re.search(r"status=dead\">0<", text)
    with runtime.database.reading() as session:
        wanted = replays.Filters(status="waiting")
        assert replays.count(session, CLI, webhook_id, wanted, most=0) == 1
    assert MOST_COUNTED == 100


@pytest.mark.parametrize(
    "query",
    ["status=lost", "type=FAX_EATEN", "fax_id=+15550100000", "since=now", "cursor=1", "until=3000-01-01", "limit=1"],
)  # fmt: skip
def test_what_no_list_of_deliveries_can_show_is_said_beside_the_filters(
    runtime: Runtime, admin: FlaskClient, query: str
) -> None:
    webhook_id, _ = subscribe(runtime, "https://hooks.example.org:8080/")
    answer = admin.get(f"{HOME}/{webhook_id}/deliveries?{query}")
    assert answer.status_code in (400, 422)
    assert "data-problem=" in answer.text
    assert "No delivery is here" not in answer.text
    form = answer.text.partition('class="filters"')[2].partition("</form>")[0]
    assert "status" not in filled(form), "what no field shows is not sent once more"
    assert "/ask" not in answer.text, (
        "who cannot be shown what matches is not asked whether to send it"
    )
