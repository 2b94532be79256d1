"""Setting faxbot up in the browser: the first administrator, made once and only by who runs this server; then a
provider that works, or nothing is saved."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import actors, configuration, jobs, limits, users, wiring
from faxbot.audit import Action
from faxbot.models import AuditEvent
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.installation import Installation, Stores
from tests.integration.console import BY_SCRIPT, filled, page, problem, words
from tests.integration.web import NUMBER, browser_of, client_of, new_key, new_user

FIRST = "/admin/ui/setup/first"
PASSWORD = "a heron walks over seven bridges"
KEYS = {"settings.apiKey": "k", "settings.apiSecret": "s"}
HOSTILE = '"><script>alert(1)</script>'


def everybody(runtime: Runtime) -> list[str]:
    with runtime.database.reading() as session:
        return [user.name for user in users.everybody(session, "default")]


def wish(key: str, name: str = "Ada") -> dict[str, str]:
    return {"key": key, "name": name, "password": PASSWORD}


# The first administrator ----------------------------------------------------------------------------------------------


def test_while_there_is_nobody_every_page_leads_to_making_the_first(runtime: Runtime) -> None:
    client = client_of(runtime)
    for _ in range(2):
        led = client.get("/admin/ui/", follow_redirects=True)
        assert led.request.path == FIRST
    assert "At least 15 characters" in words(page(client, FIRST))
    new_user(runtime, actors.VIEWER)
    assert client.get("/admin/ui/", follow_redirects=True).request.path == "/admin/ui/sign-in"
    assert client.get(FIRST).headers["Location"] == "/admin/ui/sign-in"


def test_who_shows_a_key_with_every_scope_is_the_first_administrator_and_signed_in(
    runtime: Runtime,
) -> None:
    client = client_of(runtime)
    answer = client.post(FIRST, data=wish(new_key(runtime, "*")), headers=BY_SCRIPT)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, "/admin/ui/setup")
    assert "Ada" in page(client, "/admin/ui/setup")
    with runtime.database.reading() as session:
        (user,) = users.everybody(session, "default")
        told = session.scalars(sa.select(AuditEvent.action)).all()
    assert (user.name, user.role) == ("Ada", actors.ADMIN)
    assert {"user.created", "session.opened"} <= {str(action) for action in told}


@pytest.mark.parametrize(
    ("changes", "status", "code", "said"),
    [
        ({"key": "fbk_live_000000000000_" + "x" * 43}, 401, "unauthenticated", "not valid"),
        ({"key": HOSTILE}, 401, "unauthenticated", "not valid"),
        ({"key": ""}, 422, "invalid-fields", "key"),
        ({"key": "x" * 600}, 422, "invalid-fields", "key"),
        ({"name": ""}, 422, "invalid-fields", "name"),
        ({"name": "x" * 65}, 422, "invalid-fields", "name"),
        ({"name": "a\x07b"}, 422, "invalid-fields", "name"),
        ({"password": ""}, 422, "invalid-fields", "password"),
        ({"password": "short"}, 422, "invalid-fields", "15"),
        ({"password": "password password"}, 422, "invalid-fields", "easy to guess"),
        ({"role": "admin"}, 422, "invalid-fields", "unknown"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nobody_is_made(
    runtime: Runtime, changes: dict[str, str], status: int, code: str, said: str
) -> None:
    sent = wish(new_key(runtime, "*")) | changes
    answer = client_of(runtime).post(FIRST, data=sent, headers=BY_SCRIPT)
    assert said in problem(answer, status, code)
    assert "<script" not in answer.text
    assert not any(sent[name] in answer.text for name in ("key", "password") if sent[name])
    assert everybody(runtime) == []


def test_a_key_that_may_less_is_none_and_a_wrong_one_is_written_down(runtime: Runtime) -> None:
    client = client_of(runtime)
    lesser = new_key(runtime, "admin", "keys:manage", "fax:send")
    problem(client.post(FIRST, data=wish(lesser), headers=BY_SCRIPT), 403, "forbidden")
    problem(client.post(FIRST, data=wish("wrong"), headers=BY_SCRIPT), 401, "unauthenticated")
    runtime.notes.flush(everything=True)
    with runtime.database.reading() as session:
        refused = session.scalars(
            sa.select(AuditEvent).where(AuditEvent.action == Action.AUTHENTICATION_FAILED.value)
        ).all()
    assert [each.details["why"] for each in refused] == ["forbidden", "no_such_key"]
    assert all("wrong" not in str(each.details) for each in refused)
    assert everybody(runtime) == []


def test_guessing_keys_is_barred_as_everywhere(store: Installation) -> None:
    runtime = wiring.build(store.config(FAXBOT_LOGIN_FAILURES="3"))
    client = client_of(runtime)
    statuses = [
        client.post(FIRST, data=wish(f"wrong {i}"), headers=BY_SCRIPT).status_code for i in range(5)
    ]
    barred = client_of(runtime).get("/fax", headers={"X-API-Key": "another"}).status_code
    runtime.close()
    assert statuses == [401, 401, 401, 429, 429]
    assert barred == 429


def test_once_there_is_a_user_no_key_helps_and_none_is_looked_at(runtime: Runtime) -> None:
    new_user(runtime, actors.VIEWER, name="Vera")
    client = client_of(runtime)
    for key in (new_key(runtime, "*"), "wrong"):
        problem(client.post(FIRST, data=wish(key), headers=BY_SCRIPT), 404, "not-found")
    assert everybody(runtime) == ["Vera"]


def test_another_site_makes_no_administrator(runtime: Runtime) -> None:
    sent = wish(new_key(runtime, "*"))
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
        answer = client_of(runtime).post(FIRST, data=sent, headers={**BY_SCRIPT, **headers})
        problem(answer, 403, "forbidden")
    assert everybody(runtime) == []


def test_of_two_at_once_one_is_the_first(runtime: Runtime) -> None:
    key, gate, statuses = new_key(runtime, "*"), threading.Barrier(4), list[int]()

    def ask(name: str) -> None:
        client = client_of(runtime)
        gate.wait()
        sent = wish(key, name=name)
        statuses.append(client.post(FIRST, data=sent, headers=BY_SCRIPT).status_code)

    threads = [threading.Thread(target=ask, args=(f"Ada {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses)[0] == 204
    assert set(sorted(statuses)[1:]) <= {404, 409, 503}
    assert len(everybody(runtime)) == 1


# Where it opens by itself ---------------------------------------------------------------------------------------------


def signs_in(runtime: Runtime, role: str, wanted: str = "") -> str:
    """Where somebody of this role is led who signs in."""
    user = new_user(runtime, role, password=PASSWORD)
    sent = {"name": user.name, "password": PASSWORD, "next": wanted}
    answer = client_of(runtime).post("/admin/ui/sign-in", data=sent)
    return answer.headers["Location"]


def test_while_nothing_is_set_an_administrator_is_led_to_the_steps(runtime: Runtime) -> None:
    assert signs_in(runtime, actors.ADMIN) == "/admin/ui/setup"
    assert signs_in(runtime, actors.OPERATOR) == "/admin/ui/"
    assert signs_in(runtime, actors.ADMIN, "/admin/ui/faxes") == "/admin/ui/faxes"
    admin = browser_of(runtime, new_user(runtime))
    operator = browser_of(runtime, new_user(runtime, actors.OPERATOR))
    assert "Nothing is set up yet" in words(page(admin, "/admin/ui/"))
    assert "Nothing is set up yet" not in words(page(operator, "/admin/ui/"))

    configuration.change(runtime, actors.CLI, {"FAX_HEADER": "Ada"}, note="n")
    assert signs_in(runtime, actors.ADMIN) == "/admin/ui/"
    assert "Nothing is set up yet" not in words(page(admin, "/admin/ui/"))


def test_a_provider_of_the_environment_is_set(store: Installation) -> None:
    runtime = wiring.build(
        store.config(FAX_BACKEND="phaxio", PHAXIO_API_KEY="k", PHAXIO_API_SECRET="s")
    )
    try:
        assert signs_in(runtime, actors.ADMIN) == "/admin/ui/"
    finally:
        runtime.close()


# Step by step ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unset(stores: Stores) -> Iterator[Runtime]:
    """Nothing but the stores is told by the environment."""
    runtime = wiring.build(stores.embedded().config())
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def admin(unset: Runtime) -> FlaskClient:
    return browser_of(unset, new_user(unset))


def form_of(admin: FlaskClient, provider: str, **changes: str) -> dict[str, str]:
    """The form of this provider, as a browser sends it after these changes."""
    text = page(admin, f"/admin/ui/setup?provider={provider}")
    found = filled(text.partition('<form id="provider-form"')[2].partition("</form>")[0])
    assert found["provider"] == provider
    return {**{name: values[-1] for name, values in found.lists()}, **changes}


def test_every_provider_that_can_send_can_be_chosen(admin: FlaskClient, unset: Runtime) -> None:
    able = [each for each in unset.plugins.manifests() if each.has("send_fax")]
    assert len(able) >= 4
    for each in able:
        text = page(admin, f"/admin/ui/setup?provider={each.id}")
        for key, rule in each.properties.items():
            assert f'id="setting-{key}"' in text
            assert rule.get("title", key) in words(text)
    assert 'href="/admin/ui/settings#CONFIG_MASTER_KEY"' in page(admin, "/admin/ui/setup")


@pytest.mark.parametrize("deed", ["test", "save"])
@pytest.mark.parametrize(
    ("provider", "changes", "said"),
    [
        ("phaxio", {}, "needed"),
        ("phaxio", {**KEYS, "settings.baseUrl": "ftp://x"}, "http"),
        ("phaxio", {**KEYS, "settings.cancelTimeoutMinutes": "two"}, "integer"),
        ("phaxio", {**KEYS, "options.FAXBOT_DEFAULT_REGION": HOSTILE}, "DEFAULT_REGION"),
        ("phaxio", {"provider": "none"}, "provider"),
        ("phaxio", {"provider": HOSTILE}, "provider"),
        ("phaxio", {"provider": "s3"}, "provider"),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_said_by_field_and_nothing_is_saved(
    admin: FlaskClient, unset: Runtime, deed: str, provider: str, changes: dict[str, str], said: str
) -> None:
    version = unset.settings.read().version
    sent = form_of(admin, provider) | changes
    answer = admin.post(f"/admin/ui/setup/{deed}", data=sent, headers=BY_SCRIPT)
    assert said in problem(answer, 422, "invalid-fields")
    assert "<script" not in answer.text
    assert unset.settings.read().version == version


def test_while_a_plugin_is_tested_another_test_is_put_off(
    admin: FlaskClient, carrier_of_all: SimulatorProcess
) -> None:
    good = {"settings.baseUrl": carrier_of_all.url, "settings.secret": carrier_of_all.secret}
    form = form_of(admin, "simulator", **good)
    with limits.one_test():
        for path in ("setup/test", "providers/simulator/test", "notifications/email/test"):
            put_off = admin.post(f"/admin/ui/{path}", data=form, headers=BY_SCRIPT)
            problem(put_off, 429, "plugin-tests-crowded")
    assert "lets us in" in words(
        admin.post("/admin/ui/setup/test", data=form, headers=BY_SCRIPT).text
    )


def test_a_provider_whose_carrier_is_there_is_tested_saved_and_sends_a_test_page(
    admin: FlaskClient, unset: Runtime, carrier_of_all: SimulatorProcess
) -> None:
    good = {"settings.baseUrl": carrier_of_all.url, "settings.secret": carrier_of_all.secret}
    bad = {**good, "settings.baseUrl": "http://127.0.0.1:9"}
    tried = admin.post(
        "/admin/ui/setup/test", data=form_of(admin, "simulator", **bad), headers=BY_SCRIPT
    )
    assert "does not work so" in words(tried.text)
    refused = admin.post(
        "/admin/ui/setup/save", data=form_of(admin, "simulator", **bad), headers=BY_SCRIPT
    )
    problem(refused, 409, "change-refused")

    form = form_of(admin, "simulator", **good)
    tried = admin.post("/admin/ui/setup/test", data=form, headers=BY_SCRIPT)
    assert "lets us in" in words(tried.text)
    saved = admin.post("/admin/ui/setup/save", data=form, headers=BY_SCRIPT)
    assert saved.status_code == 204, saved.text
    assert "Simulator sends faxes" in words(page(admin, saved.headers["HX-Redirect"]))
    assert carrier_of_all.secret not in page(admin, "/admin/ui/setup?provider=simulator")

    headers = {**BY_SCRIPT, "Idempotency-Key": "0" * 32}
    led = {
        admin.post(
            "/admin/ui/setup/fax", data={"test.to": NUMBER}, headers=headers
        ).headers["HX-Redirect"]
        for _ in range(2)
    }  # fmt: skip
    (path,) = led
    job = jobs.find(unset, actors.CLI, path.rpartition("/")[2])
    assert jobs.describe(unset, job)["to"] == NUMBER


@pytest.mark.parametrize("number", ["", "12", HOSTILE, "x" * 5000])
def test_a_number_that_is_none_gets_no_test_page(admin: FlaskClient, number: str) -> None:
    answer = admin.post("/admin/ui/setup/fax", data={"test.to": number}, headers=BY_SCRIPT)
    assert "test.to" in problem(answer, 422, "invalid-fields")
    assert "<script" not in answer.text


def test_a_test_page_takes_the_right_to_send(runtime: Runtime) -> None:
    client = client_of(runtime, new_key(runtime, "admin"))
    answer = client.post("/admin/ui/setup/fax", data={"test.to": NUMBER}, headers=BY_SCRIPT)
    assert "fax:send" in problem(answer, 403, "forbidden")
