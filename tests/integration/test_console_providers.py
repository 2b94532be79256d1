"""Providers and plugins in the console: how they stand, what is done to them and by whom, and how they are set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from faxbot import breaker, catalogue, configuration, oversight, wiring
from faxbot.actors import CLI, OPERATOR, VIEWER
from faxbot.db import table
from faxbot.models import CallbackRefusal
from faxbot.runtime import Runtime
from tests.installation import Stores
from tests.integration.console import deed, filled, page, problem, said, words
from tests.integration.web import SECRET, browser_of, new_user

PROVIDERS, PLUGINS = "/admin/ui/providers", "/admin/ui/plugins"
SIMULATOR, PHAXIO = f"{PROVIDERS}/simulator", f"{PLUGINS}/phaxio"
CANARY = "c4n4ry-that-nobody-may-see"
EVIL = "<script>alert(1)</script>"
NOTE = {"note": "the carrier works on its lines"}


@pytest.fixture(scope="module")
def runtime(stores: Stores) -> Iterator[Runtime]:
    runtime = wiring.build(
        stores.embedded().config(
            SIMULATOR_SECRET=SECRET, SIMULATOR_BASE_URL="http://127.0.0.1:9", PHAXIO_API_SECRET=CANARY,
            PHAXIO_API_KEY="key", DOCS_BASE_URL="https://docs.example.org/",
        )
    )  # fmt: skip
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def admin(runtime: Runtime) -> FlaskClient:
    return browser_of(runtime, new_user(runtime))


@pytest.fixture(scope="module")
def operator(runtime: Runtime) -> FlaskClient:
    return browser_of(runtime, new_user(runtime, OPERATOR))


def state(runtime: Runtime) -> str:
    runtime.breakers.forget()
    return str(oversight.provider(runtime, CLI, "simulator")["state"])


# Providers ------------------------------------------------------------------------------------------


def test_every_provider_is_a_card_with_its_traits_in_words(admin: FlaskClient) -> None:
    text = words(page(admin, PROVIDERS))
    for name in ("Simulator", "Phaxio", "Sinch", "Asterisk"):
        assert name in text
    assert "the carrier can be asked by tag and by its own id" in text
    assert text.index("Simulator outbound") < text.index("Phaxio not active")


def test_a_pause_says_what_will_wait_and_its_end_lets_it_go_on(
    runtime: Runtime, operator: FlaskClient
) -> None:
    assert "no other provider may see them" in words(page(operator, SIMULATOR))
    until = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M}"
    assert "Paused" in said(deed(operator, f"{SIMULATOR}/pause", **NOTE, until=until))
    text = words(page(operator, SIMULATOR))
    assert state(runtime) == "paused"
    assert NOTE["note"] in text
    assert "Resume" in text
    deed(operator, f"{SIMULATOR}/resume", note="they are done")
    assert state(runtime) == "closed"
    deed(operator, f"{SIMULATOR}/reset", note="it is mended")


def test_who_did_something_to_it_is_told_by_name_to_who_may_know_names(
    runtime: Runtime, admin: FlaskClient
) -> None:
    ada = new_user(runtime, OPERATOR, name="Ada")
    deed(browser_of(runtime, ada), f"{SIMULATOR}/reset", note="it is mended")
    text = page(admin, SIMULATOR)
    assert ">Ada</span>" in text
    assert ada.id not in text


@pytest.mark.parametrize(
    ("verb", "fields", "wrong"),
    [
        ("pause", {}, "note"),
        ("pause", {**NOTE, "until": "2020-01-01T00:00"}, "until"),
        ("pause", {**NOTE, "until": "tomorrow"}, "until"),
        ("pause", {**NOTE, "until": "9999-12-31T23:59"}, "until"),
        ("pause", {"note": "\x1b[2J"}, "note"),
        ("pause", {"note": ["a", "b"]}, "note"),
        ("resume", {"note": "n" * 256}, "note"),
        ("reset", {**NOTE, EVIL: "1"}, "unknown"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_the_form(
    operator: FlaskClient, verb: str, fields: dict[str, Any], wrong: str
) -> None:
    refused = deed(operator, f"{SIMULATOR}/{verb}", 422, **fields)
    problem(refused, 422, "invalid-fields")
    assert f'data-field="{wrong}"' in refused.text
    assert EVIL not in refused.text


def test_a_connection_that_fails_says_what_to_look_at(
    admin: FlaskClient, operator: FlaskClient
) -> None:
    for client, leads in ((admin, True), (operator, False)):
        tested = deed(client, f"{SIMULATOR}/test", 200)
        assert 'data-ok="no"' in tested.text
        assert ("/admin/ui/plugins/simulator#settings" in tested.text) is leads


def test_refused_callbacks_are_counted_with_the_reason_and_the_address_to_paste(
    runtime: Runtime, admin: FlaskClient, operator: FlaskClient
) -> None:
    now = runtime.now()
    refused = {
        "account_id": "default", "provider_id": "simulator", "reason": "not_proven", "count": 7,
        "first_at": now, "last_at": now,
    }  # fmt: skip
    with runtime.database.writing() as connection:
        connection.execute(table(CallbackRefusal).insert(), refused)
    text = words(page(admin, SIMULATOR))
    assert "7 refused" in text
    assert f"{runtime.config.base_url}/callbacks/simulator" in text
    assert "compare the secret" in text
    assert "refused" not in words(page(operator, SIMULATOR))


def test_what_people_wrote_is_shown_as_text(admin: FlaskClient) -> None:
    deed(admin, f"{SIMULATOR}/reset", note=EVIL)
    text = page(admin, SIMULATOR)
    assert EVIL not in text
    assert EVIL in words(text)


def test_an_operator_is_shown_no_setting_and_nothing_that_he_may_not_do(
    admin: FlaskClient, operator: FlaskClient
) -> None:
    assert "/admin/ui/plugins/simulator/settings" in page(admin, SIMULATOR)
    text = page(operator, SIMULATOR)
    assert "/admin/ui/plugins" not in text
    assert "Deactivate" not in text


def test_a_page_of_what_there_is_not_is_not_found(admin: FlaskClient) -> None:
    for path in (f"{PROVIDERS}/nobody", f"{PROVIDERS}/local", f"{PLUGINS}/nobody"):
        page(admin, path, 404)


# Plugins --------------------------------------------------------------------------------------------


def test_every_plugin_is_listed_with_its_state_and_the_registry_with_its_notices(
    runtime: Runtime, admin: FlaskClient
) -> None:
    text = words(page(admin, PLUGINS))
    for one in catalogue.plugins(runtime, CLI)["items"]:
        assert one["name"] in text
        assert one["version"] in text
    assert "takes an agreement (BAA)" in text
    assert 'href="https://docs.example.org/providers/phaxio"' in page(admin, PLUGINS)


@pytest.mark.parametrize("plugin_id", ["phaxio", "local", "email", "simulator", "asterisk", "oidc"])
def test_each_has_a_page_with_a_form_that_changes_nothing_when_nobody_touches_it(
    runtime: Runtime, admin: FlaskClient, plugin_id: str
) -> None:
    text = page(admin, f"{PLUGINS}/{plugin_id}")
    assert CANARY not in text
    form = text.partition(f'hx-post="/admin/ui/plugins/{plugin_id}/settings"')[2]
    if not form:
        assert catalogue.settings(runtime, plugin_id)["settings"] == []
        return
    sent: dict[str, Any] = filled(form.partition("</form>")[0]).to_dict(flat=False)
    done = deed(admin, f"{PLUGINS}/{plugin_id}/settings", **{**sent, **NOTE})
    assert said(done) == "Nothing was changed."


def test_settings_are_saved_when_the_plugin_works_so_or_nobody_wants_to_know(
    runtime: Runtime, admin: FlaskClient
) -> None:
    path = f"{PLUGINS}/simulator/settings"
    fields = {"settings.baseUrl": "http://127.0.0.1:7", "settings.secret": SECRET, **NOTE}
    problem(deed(admin, path, 409, **fields), 409, "change-refused")
    assert runtime.settings.stored().saved == {}
    assert "Saved" in said(deed(admin, path, **fields, untested="true"))
    saved = runtime.settings.stored().saved["simulator"]
    assert saved["baseUrl"] == "http://127.0.0.1:7"
    text = page(admin, f"{PLUGINS}/simulator")
    assert SECRET not in text
    assert 'name="back.baseUrl"' in text
    configuration.change(
        runtime, CLI, {f"simulator.{key}": None for key in saved}, note="as before", untested=True
    )


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"settings.cancelTimeoutMinutes": "many", **NOTE}, "settings"),
        ({"settings.apiKey": "another"}, "note"),
        ({"settings.apiKey": "another", **NOTE, "untested": "perhaps"}, "untested"),
        ({"settings.apiKey": "another", **NOTE, EVIL: "1"}, "unknown"),
    ],
)  # fmt: skip
def test_settings_that_are_wrong_are_refused_in_the_form(
    runtime: Runtime, admin: FlaskClient, fields: dict[str, Any], wrong: str
) -> None:
    refused = deed(admin, f"{PHAXIO}/settings", 422, **fields)
    assert EVIL not in problem(refused, 422, "invalid-fields")
    assert f'data-field="{wrong}"' in refused.text
    assert runtime.settings.stored().saved == {}


def left_by(admin: FlaskClient, path: str) -> list[str]:
    """The slots that this page offers to take it out of."""
    text = page(admin, path)
    offered = re.findall("<option>([a-z]+)", text.partition('id="deactivate-slot"')[2])
    offered = offered if 'id="deactivate-slot"' in text else []
    assert ('data-opens="#deactivate"' in text) == bool(offered)
    return offered


def test_a_plugin_gets_a_slot_and_loses_it(runtime: Runtime, admin: FlaskClient) -> None:
    wish = {**NOTE, "slot": "outbound", "first": "false", "covered": "true"}
    problem(deed(admin, f"{PHAXIO}/activate", 409, **wish), 409, "change-refused")
    deed(admin, f"{PHAXIO}/activate", **wish, untested="true")
    assert runtime.settings.read().config.providers_for(None) == ("simulator", "phaxio")
    assert "go to phaxio" in words(page(admin, SIMULATOR))
    assert left_by(admin, PHAXIO) == left_by(admin, SIMULATOR) == ["outbound", "inbound"]
    deed(admin, f"{PHAXIO}/deactivate", **NOTE, slot="outbound")
    assert runtime.settings.read().config.provider_ids == ("simulator",)
    assert left_by(admin, PHAXIO) == left_by(admin, SIMULATOR) == []
    last = deed(admin, f"{PLUGINS}/simulator/deactivate", 409, **NOTE, slot="outbound")
    assert "only one" in problem(last, 409, "change-refused")
    problem(deed(admin, f"{PHAXIO}/activate", 422, **NOTE, slot="storage"), 422, "invalid-fields")
    configuration.rollback(runtime, CLI, 0, note="as before", untested=True)


def test_a_disabled_plugin_is_enabled_again(runtime: Runtime, admin: FlaskClient) -> None:
    with runtime.database.transaction() as session:
        row = breaker.locked(session, "default", "simulator", runtime.now())
        row.disabled_at = runtime.now()
    runtime.breakers.forget()
    assert 'data-opens="#enable"' in page(admin, f"{PLUGINS}/simulator")
    assert "failed too often" in words(page(admin, f"{PLUGINS}/simulator"))
    deed(admin, f"{PLUGINS}/simulator/enable", **NOTE)
    runtime.breakers.forget()
    assert 'data-opens="#enable"' not in page(admin, f"{PLUGINS}/simulator")


def test_a_viewer_sees_neither(runtime: Runtime) -> None:
    viewer = browser_of(runtime, new_user(runtime, VIEWER))
    for path in (PROVIDERS, PLUGINS):
        assert "forbidden" in page(viewer, path, 403).lower()
