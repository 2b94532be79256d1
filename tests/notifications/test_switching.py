"""Who tells people is switched while everything runs, asked first whether it works; operators see how it stands and
send a test notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from faxbot import notices, notifiers, wiring
from faxbot.events import Notable
from faxbot.runtime import Runtime
from faxbot.web import schemas
from tests import certificates
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.command import run
from tests.integration.site import ACTOR, Site, open_site
from tests.integration.web import assert_problem, client_of, new_key
from tests.mailserver import HANG, PASSWORD, USER, MailServer
from tests.servers import free_port

NOTE = {"note": "the front desk wants to know"}
SLOT = {**NOTE, "slot": "notification"}
TEST_NOTICE = "/admin/notifications/email/test"
ACTIVATE, DEACTIVATE = (f"/admin/providers/email/{deed}" for deed in ("activate", "deactivate"))


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all) as site:
        site.runtime = replace(site.runtime, plugins=wiring.plugins(site.runtime.config))
        yield site
        site.runtime.plugins.close()


@pytest.fixture
def runtime(site: Site) -> Runtime:
    return site.runtime


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "admin"))


def test_a_mail_server_that_hangs_costs_one_thread_and_another_test_meanwhile_is_put_off(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> None:
    mail.data = lambda _mail: HANG
    said: list[dict[str, Any]] = []
    with open_site(store, carrier_of_all, **mail.environ) as site:
        one, other = (client_of(site.runtime, new_key(site.runtime, "operate")) for _ in "ab")
        thread = threading.Thread(target=lambda: said.append(one.post(TEST_NOTICE).get_json()))
        thread.start()
        eventually(lambda: mail.handed)
        begun_at = time.monotonic()
        for path in (TEST_NOTICE, "/admin/providers/simulator/test"):
            answer = other.post(path)
            assert_problem(answer, 429, "plugin-tests-crowded")
            assert int(answer.headers["Retry-After"]) >= 1
        took = time.monotonic() - begun_at
        thread.join()
        assert said[0]["ok"] is False
        assert took < 3, "they waited for the mail server, which had three seconds"
        mail.data = lambda _mail: "250 OK"
        assert other.post(TEST_NOTICE).get_json()["ok"] is True


def wanted(runtime: Runtime) -> dict[str, frozenset[str]]:
    runtime.settings.catch_up()
    return dict(notices.Wanted(runtime.settings, runtime.plugins)())


def test_it_is_set_switched_on_and_off_while_everything_runs(
    admin: FlaskClient, runtime: Runtime, mail: MailServer
) -> None:
    settings = {**mail.settings, "events": "failed, held"}
    answer = admin.put("/plugins/email/config", json={**NOTE, "settings": settings})
    assert answer.status_code == 200, answer.data
    assert wanted(runtime) == {}
    before = mail.visits
    answer = admin.post(ACTIVATE, json=SLOT)
    assert (answer.status_code, answer.get_json()["slots"]) == (200, ["notification"])
    assert mail.visits == before + 1, "it was asked whether it takes our mail"
    assert mail.handed == []
    assert wanted(runtime) == {"email": frozenset({Notable.FAILED, Notable.HELD})}
    assert {"id": "email", "ok": True}.items() <= _health(admin)["email"].items()

    answer = admin.post(DEACTIVATE, json=SLOT)
    assert (answer.status_code, answer.get_json()["slots"]) == (200, [])
    assert wanted(runtime) == {}


def _health(admin: FlaskClient) -> dict[str, dict[str, Any]]:
    items = admin.get("/plugins/health").get_json()["items"]
    return {each["id"]: each for each in items}


def test_one_that_would_tell_nobody_is_not_switched_on_unless_somebody_insists(
    admin: FlaskClient, runtime: Runtime, mail: MailServer
) -> None:
    settings = {**NOTE, "settings": {**mail.settings, "port": free_port()}, "untested": True}
    assert admin.put("/plugins/email/config", json=settings).status_code == 200
    refused = admin.post(ACTIVATE, json=SLOT)
    assert_problem(refused, 409, "change-refused")
    assert "EMAIL_HOST" in refused.get_json()["detail"]
    assert wanted(runtime) == {}
    assert admin.post(ACTIVATE, json={**SLOT, "untested": True}).status_code == 200
    assert wanted(runtime).keys() == {"email"}


def test_only_notification_plugins_tell_people_and_they_do_nothing_else(
    admin: FlaskClient, runtime: Runtime
) -> None:
    assert_problem(admin.post("/admin/providers/local/activate", json=SLOT), 422, "invalid-fields")
    for slot in ("outbound", "inbound", "storage"):
        answer = admin.post(ACTIVATE, json={**NOTE, "slot": slot})
        assert_problem(answer, 422, "invalid-fields")
    for names in ("emial", "email,local"):
        wish = {**NOTE, "settings": {"FAXBOT_NOTIFICATIONS": names}}
        assert_problem(admin.patch("/admin/config", json=wish), 422, "invalid-fields")
    assert wanted(runtime) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"to": "desk@practice.example\r\nBcc: x@evil.example"},
        {"from": "fax@practice.example\n"},
        {"security": "sometimes"},
        {"seconds": 0},
    ],
)
def test_what_would_be_two_lines_of_a_mail_is_not_even_saved(
    admin: FlaskClient, runtime: Runtime, mail: MailServer, wrong: dict[str, Any]
) -> None:
    wish = {**NOTE, "settings": {**mail.settings, **wrong}, "untested": True}
    assert_problem(admin.put("/plugins/email/config", json=wish), 422, "invalid-fields")
    assert runtime.settings.read().saved.get("email") is None


def test_a_password_is_sealed_masked_and_not_led_to_another_server(
    admin: FlaskClient, certificate: Path
) -> None:
    with MailServer(certificate=certificates.serving(certificate), login=True) as mail:
        proof = {"user": USER, "password": PASSWORD, "caFile": str(certificate)}
        settings = {**mail.settings, **proof, "security": "starttls"}
        wish = {**NOTE, "settings": settings}
        assert admin.put("/plugins/email/config", json=wish).status_code == 200
        answer = admin.get("/plugins/email/config")
        assert PASSWORD.encode() not in answer.data
        moved = {**NOTE, "settings": {"host": "mail.evil.example"}, "untested": True}
        assert_problem(admin.put("/plugins/email/config", json=moved), 422, "invalid-fields")


# What operators see ---------------------------------------------------------------------------------


@pytest.fixture
def telling(
    store: Installation, carrier_of_all: SimulatorProcess, mail: MailServer
) -> Iterator[Site]:
    store.env.update(mail.environ)
    with open_site(store, carrier_of_all) as site:
        yield site


def test_the_answers_are_what_the_schemas_say(telling: Site, mail: MailServer) -> None:
    operator = client_of(telling.runtime, new_key(telling.runtime, "operate"))
    answer = operator.post("/admin/notifications/email/test")
    assert answer.get_json() == {"ok": True, "detail": "A test notice is on its way."}
    assert [each.subject for each in mail.taken] == ["[faxbot] Test notice"]
    found = operator.get("/admin/notifications").get_json()
    assert schemas.Notifications().validate(found) == {}
    assert [each["notices"] for each in found["messages"]] == [0]
    assert found == notifiers.notifiers(telling.runtime, ACTOR)
    assert "practice.example" not in str(found), "nobody's address"


def test_a_test_of_what_tells_nobody_says_so(telling: Site, mail: MailServer) -> None:
    operator = client_of(telling.runtime, new_key(telling.runtime, "operate"))
    for other in ("local", "nobody"):
        answer = operator.post(f"/admin/notifications/{other}/test")
        assert_problem(answer, 404, "not-found")
    mail.recipient = lambda _address: "550 gone"
    answer = operator.post("/admin/notifications/email/test").get_json()
    assert answer == {
        "ok": False,
        "detail": "The mail server takes mail to nobody of EMAIL_TO (550).",
    }
    assert mail.taken == []


def test_the_command_sends_a_test_and_lists_what_was_sent(telling: Site, mail: MailServer) -> None:
    store = telling.runtime.config.environ
    assert store["FAXBOT_NOTIFICATIONS"] == "email"
    installation = Installation("", Path(), None, dict(store))  # type: ignore[arg-type]
    ended = run(installation, "notifications", "test")
    assert (ended.code, ended.out) == (0, "A test notice is on its way.\n")
    listed = run(installation, "notifications", "list")
    first, second = listed.out.splitlines()
    assert first.split() == [
        "email", "active", "delivered,failed,held,receive_failed,received", "0", "waiting",
    ]  # fmt: skip
    assert second.split()[1:] == ["email", "sent", "test"]
    assert run(installation, "notifications", "list", "--json").json["items"][0]["fault"] is None

    mail.sender = lambda _address: "550 no"
    failed = run(installation, "notifications", "test", "email")
    assert (failed.code, failed.out) == (
        1,
        "The mail server does not take mail from EMAIL_FROM (550).\n",
    )
