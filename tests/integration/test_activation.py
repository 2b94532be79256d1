"""Slots and settings are changed while everything runs: only for a plugin that works so, with a reason that is kept,
and without a secret in any answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot import followup, sending, wiring
from faxbot.db import utcnow
from faxbot.models import ProviderHistory, ProviderState
from faxbot.plugins.manifest import MASK
from faxbot.runtime import Runtime
from faxbot.web import schemas
from tests.carrier import SimulatorProcess
from tests.ground import Ground
from tests.installation import Installation
from tests.integration.command import Ended, run
from tests.integration.site import Site, open_site
from tests.integration.web import assert_problem, client_of, new_key
from tests.misbehaving import OK, Server

NOTE = "the carrier has moved"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def site(
    store: Installation, carrier_of_all: SimulatorProcess, admin_names: dict[str, str]
) -> Iterator[Site]:
    with open_site(store, carrier_of_all, **admin_names) as site:
        site.runtime = replace(site.runtime, plugins=wiring.plugins(site.runtime.config))
        yield site
        site.runtime.plugins.close()


@pytest.fixture
def admin_names() -> dict[str, str]:
    """Another provider has all it needs, and a carrier that does not answer."""
    return {
        "PHAXIO_API_KEY": "phaxio-key",
        "PHAXIO_API_SECRET": "phaxio-secret",
        "PHAXIO_CALLBACK_TOKEN": "phaxio-token",
        "PHAXIO_BASE_URL": f"{NOWHERE}/v2.1",
    }


@pytest.fixture
def runtime(site: Site) -> Runtime:
    return site.runtime


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "admin"))


@pytest.fixture
def second(ground: Ground) -> Iterator[SimulatorProcess]:
    """Another carrier of the same kind, with an account of its own."""
    with SimulatorProcess(ground.new_folder("second")) as carrier:
        yield carrier


def configured(
    admin: FlaskClient, values: dict[str, Any], plugin_id: str = "simulator", **more: Any
) -> TestResponse:
    wish = {"settings": values, "note": NOTE, **more}
    return admin.put(f"/plugins/{plugin_id}/config", json=wish)


def activated(
    admin: FlaskClient, plugin_id: str, deed: str = "activate", **more: Any
) -> TestResponse:
    return admin.post(f"/admin/providers/{plugin_id}/{deed}", json={"note": NOTE, **more})


def history(runtime: Runtime) -> list[tuple[str, str, str | None, str | None]]:
    with runtime.database.reading() as session:
        rows = session.scalars(sa.select(ProviderHistory).order_by(ProviderHistory.id))
        return [(row.provider_id, row.type, row.reason, row.note) for row in rows]


def version(runtime: Runtime) -> int:
    return runtime.settings.read().version


def settings_of(second: SimulatorProcess) -> dict[str, str]:
    return {
        "baseUrl": second.environ["SIMULATOR_BASE_URL"],
        "secret": second.environ["SIMULATOR_SECRET"],
    }


def test_saved_settings_are_used_for_the_next_fax_and_taken_back_the_environment_counts_again(
    site: Site, admin: FlaskClient, second: SimulatorProcess
) -> None:
    first = site.fax()
    sending.attempt(site.runtime.fresh(), first)

    answer = configured(admin, settings_of(second))
    assert answer.status_code == 200, answer.data
    shown = {each["key"]: each for each in json.loads(answer.data)["settings"]}
    assert shown["baseUrl"]["value"] == second.environ["SIMULATOR_BASE_URL"]
    assert shown["secret"]["value"] == MASK
    assert {each["source"] for each in shown.values()} == {"db"}
    assert second.environ["SIMULATOR_SECRET"] not in answer.get_data(as_text=True)
    other = site.fax()
    sending.attempt(site.runtime.fresh(), other)

    assert configured(admin, {"baseUrl": None, "secret": None}).status_code == 200
    third = site.fax()
    sending.attempt(site.runtime.fresh(), third)

    tags = {each: site.attempts(each)[0].tag for each in (first, other, third)}
    assert [len(site.carrier.faxes(tags[each])) for each in (first, other, third)] == [1, 0, 1]
    assert [len(second.faxes(tags[each])) for each in (first, other, third)] == [0, 1, 0]
    assert history(site.runtime) == [("simulator", "PROVIDER_CONFIGURED", None, NOTE)] * 2


def test_settings_that_do_not_work_are_not_saved_unless_that_is_wanted(
    admin: FlaskClient, runtime: Runtime, second: SimulatorProcess
) -> None:
    wrong = {**settings_of(second), "secret": "not this one"}

    body = assert_problem(configured(admin, wrong), 409, "change-refused")
    assert "does not work so" in body["detail"]
    assert "not this one" not in json.dumps(body)
    assert (version(runtime), history(runtime)) == (0, [])

    assert configured(admin, wrong, untested=True).status_code == 200
    assert history(runtime) == [("simulator", "PROVIDER_CONFIGURED", "untested", NOTE)]
    assert runtime.settings.read().of_plugin("simulator") == wrong


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"no_such": "x"}, "settings"),
        ({"\ud800": "x"}, "settings"),
        ({"baseUrl": "http://127.0.0.1:9/\ud800", "secret": "s"}, "settings"),
        ({"baseUrl": NOWHERE, "secret": "\ud800"}, "settings"),
        ({"baseUrl": float("nan"), "secret": "s"}, "settings"),
        ({"baseUrl": "ftp://example.org", "secret": "s"}, "settings"),
        ({"baseUrl": 5, "secret": "s"}, "settings"),
        ({"secret": ""}, "settings"),
        ({"secret": {"a": "b"}}, "settings"),
        ({"baseUrl": NOWHERE}, "secret"),
        ({"baseUrl": NOWHERE, "secret": MASK}, "secret"),
        ({"baseUrl": NOWHERE, "secret": None}, "secret"),
        ({}, "settings"),
    ],
)
def test_settings_that_the_manifest_does_not_allow_are_refused_by_name_and_nothing_is_saved(
    admin: FlaskClient, runtime: Runtime, values: dict[str, Any], field: str
) -> None:
    """Those of `secret`: what is masked here must not be had by sending it to an address of one's own."""
    body = assert_problem(configured(admin, values, untested=True), 422, "invalid-fields")

    assert field in body["errors"]
    assert "no_such" not in json.dumps(body)
    assert (version(runtime), history(runtime)) == (0, [])


def test_a_mask_that_comes_back_leaves_the_secret_as_it_is(
    admin: FlaskClient, runtime: Runtime, second: SimulatorProcess
) -> None:
    assert configured(admin, settings_of(second)).status_code == 200

    assert configured(admin, {**settings_of(second), "secret": MASK}).status_code == 200

    assert runtime.settings.read().of_plugin("simulator") == settings_of(second)


def test_new_credentials_that_were_let_in_close_the_breaker_that_the_old_ones_opened(
    site: Site, admin: FlaskClient, second: SimulatorProcess
) -> None:
    refused = site.fax()
    wrong = {**settings_of(second), "secret": "old"}
    assert configured(admin, wrong, untested=True).status_code == 200
    sending.attempt(site.runtime.fresh(), refused)
    with site.runtime.database.reading() as session:
        assert session.scalars(sa.select(ProviderState)).one().opened_at is not None

    assert configured(admin, settings_of(second)).status_code == 200

    with site.runtime.database.reading() as session:
        assert session.scalars(sa.select(ProviderState)).one().opened_at is None


def test_a_provider_gets_the_first_place_or_the_last_and_what_it_may_see_is_said(
    admin: FlaskClient, runtime: Runtime
) -> None:
    answer = activated(admin, "phaxio", slot="outbound", untested=True, first=False, covered=True)
    assert answer.status_code == 200, answer.data
    found = json.loads(answer.data)
    assert not schemas.Plugin().validate(found)
    assert (found["slots"], found["active"]) == (["outbound", "inbound"], True)
    config = runtime.fresh().config
    assert (config.provider_ids, config.covered_provider_ids) == (
        ("simulator", "phaxio"),
        ("phaxio",),
    )

    assert activated(admin, "phaxio", slot="outbound", untested=True).status_code == 200
    config = runtime.fresh().config
    assert (config.provider_ids, config.covered_provider_ids) == (
        ("phaxio", "simulator"),
        ("phaxio",),
    )

    assert activated(admin, "simulator", slot="outbound", covered=True).status_code == 200
    assert activated(admin, "phaxio", "deactivate", slot="outbound").status_code == 200
    assert runtime.fresh().config.provider_ids == ("simulator",)
    assert history(runtime) == [
        ("phaxio", "PROVIDER_ACTIVATED", "outbound", NOTE),
        ("phaxio", "PROVIDER_ACTIVATED", "outbound", NOTE),
        ("simulator", "PROVIDER_ACTIVATED", "outbound", NOTE),
        ("phaxio", "PROVIDER_DEACTIVATED", "outbound", NOTE),
    ]


def test_a_provider_that_does_not_work_gets_no_slot(admin: FlaskClient, runtime: Runtime) -> None:
    body = assert_problem(activated(admin, "phaxio", slot="outbound"), 409, "change-refused")

    assert body["detail"].startswith(
        "Nothing was changed, because the plugin phaxio does not work so:"
    )
    assert (version(runtime), history(runtime)) == (0, [])
    assert runtime.fresh().config.provider_ids == ("simulator",)


def test_received_faxes_have_a_slot_of_their_own(admin: FlaskClient, runtime: Runtime) -> None:
    def receiving() -> list[str]:
        doors = json.loads(admin.get("/admin/webhooks").data)["items"]
        return [door["provider_id"] for door in doors if door["receives"]]

    assert receiving() == ["simulator"], "who sends receives too, until somebody chooses"
    assert activated(admin, "phaxio", slot="inbound", untested=True).status_code == 200
    assert activated(admin, "simulator", "deactivate", slot="inbound").status_code == 200
    assert receiving() == ["phaxio"]
    assert runtime.fresh().config.provider_ids == ("simulator",)
    with_inbound = json.loads(admin.get("/plugins").data)["items"]
    assert {each["id"]: each["slots"] for each in with_inbound}["phaxio"] == ["inbound"]
    assert runtime.fresh().config.inbound_backends == "phaxio"
    assert_problem(
        activated(admin, "simulator", "deactivate", slot="outbound"), 409, "change-refused"
    )
    assert_problem(
        activated(admin, "asterisk", "deactivate", slot="inbound"), 422, "invalid-fields"
    )
    assert_problem(activated(admin, "phaxio", "deactivate", slot="inbound"), 409, "change-refused")
    assert activated(admin, "sinch", slot="inbound", untested=True).status_code == 200
    assert receiving() == ["phaxio", "sinch"]
    answer = activated(admin, "phaxio", "deactivate", slot="inbound")
    assert json.loads(answer.data) == {"id": "phaxio", "slots": [], "active": False}
    assert receiving() == ["sinch"]


def test_storage_has_one_place(admin: FlaskClient, runtime: Runtime) -> None:
    assert activated(admin, "local", slot="storage").status_code == 200

    assert_problem(activated(admin, "local", "deactivate", slot="storage"), 409, "change-refused")
    assert runtime.fresh().config.storage_backend == "local"


@pytest.mark.parametrize(
    ("plugin_id", "wish", "status", "code"),
    [
        ("nobody", {"slot": "outbound"}, 404, "not-found"),
        ("local", {"slot": "outbound"}, 422, "invalid-fields"),
        ("oidc", {"slot": "inbound"}, 422, "invalid-fields"),
        ("simulator", {"slot": "storage"}, 422, "invalid-fields"),
        ("simulator", {"slot": "everything"}, 422, "invalid-fields"),
        ("simulator", {}, 422, "invalid-fields"),
        ("simulator", {"slot": "outbound", "note": ""}, 422, "invalid-fields"),
        ("simulator", {"slot": "outbound", "note": "a\nb"}, 422, "invalid-fields"),
        ("simulator", {"slot": "outbound", "first": "perhaps"}, 422, "invalid-fields"),
        ("simulator", {"slot": "outbound", "more": 1}, 422, "invalid-fields"),
    ],
)
def test_a_slot_that_cannot_be_had_is_refused_and_nothing_is_saved(
    admin: FlaskClient,
    runtime: Runtime,
    plugin_id: str,
    wish: dict[str, Any],
    status: int,
    code: str,
) -> None:
    assert_problem(activated(admin, plugin_id, **wish), status, code)

    assert (version(runtime), history(runtime)) == (0, [])


def test_who_changes_what_somebody_else_has_just_changed_is_told(
    admin: FlaskClient, runtime: Runtime
) -> None:
    """Between reading and saving the carrier is asked, which takes seconds."""

    def meanwhile(connection: socket.socket, server: Server) -> None:
        server.read(connection)
        seen = runtime.settings.read().version
        with runtime.database.transaction() as session:
            wish = {"phaxio": {"apiKey": "k"}}
            runtime.settings.write(session, wish, seen=seen, now=utcnow())
        connection.sendall(OK)

    carrier = Server(meanwhile)
    try:
        answer = configured(admin, {"baseUrl": carrier.url, "secret": "s"})
    finally:
        carrier.close()

    assert_problem(answer, 409, "changed-meanwhile")
    assert runtime.settings.read().saved == {"phaxio": {"apiKey": "k"}}
    assert history(runtime) == []


def test_absence_proves_nothing_once_the_provider_was_set_anew(
    site: Site, admin: FlaskClient, second: SimulatorProcess
) -> None:
    """Another account never had the fax; to send it again could send it twice."""
    job_id = site.fax("0504")  # taken, and the reply is lost
    sending.attempt(site.runtime.fresh(), job_id)
    assert configured(admin, settings_of(second)).status_code == 200

    for _ in range(6):
        site.after(3700)
        followup.look_up(site.runtime.fresh(), job_id)

    assert site.job(job_id).status == "uncertain"
    assert [(each.looks, each.absences) for each in site.attempts(job_id)] == [(6, 0)]


def test_the_command_line_gives_and_takes_slots(
    store: Installation, carrier_of_all: SimulatorProcess, admin_names: dict[str, str]
) -> None:
    def providers(*words: str) -> Ended:
        return run(
            store, "providers", *words, "--note", NOTE, **carrier_of_all.environ, **admin_names
        )

    assert providers("activate", "simulator").code == 0
    refused = providers("activate", "phaxio")
    assert (refused.code, "nothing was changed" in refused.err.lower()) == (1, True)
    done = providers("activate", "phaxio", "--last", "--covered", "--untested")
    assert (done.code, done.out) == (0, "phaxio is active for outbound, inbound.\n")
    done = providers("deactivate", "simulator")
    assert (done.code, done.out) == (0, "simulator is active for nothing.\n")
    assert providers("deactivate", "phaxio").code == 1
    assert providers("activate", "phaxio", "--slot", "everything").code == 2

    listed = run(store, "plugins", "list", "--json", **carrier_of_all.environ).out
    active = {each["id"] for each in json.loads(listed)["plugins"] if each["active"]}
    assert active == {"phaxio", "local"}


def test_readiness_says_whether_anything_is_saved(admin: FlaskClient) -> None:
    def said() -> str:
        return str(json.loads(admin.get("/health/ready").data)["parts"]["settings"]["detail"])

    assert said() == "using the environment, nothing is saved"
    assert activated(admin, "phaxio", slot="outbound", untested=True).status_code == 200
    assert said() == "saved 1 times"
