"""While faxbot works its settings change under it: in other processes, for faxes under way, for plugins that are
gone, and with a key that does not fit."""

from __future__ import annotations

import base64
import io
import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from faxbot import callbacks, configuration, followup, rotation, sending, wiring
from faxbot.actors import CLI
from faxbot.errors import KeyMissing
from faxbot.models import ProviderHistory
from faxbot.plugins.base import FaxbotPlugin
from faxbot.plugins.manifest import MASK
from faxbot.runtime import Runtime
from faxbot.settings import Settings
from faxbot.web import schemas
from tests.carrier import SimulatorProcess
from tests.ground import Ground
from tests.installation import Installation
from tests.integration.command import one_line, run
from tests.integration.site import Site, number, open_site
from tests.integration.web import assert_problem, client_of, left_behind, new_key, send
from tests.threads import at_once

NOTE = "the carrier has moved"
NOWHERE = "http://127.0.0.1:9"
ENVIRONMENT = {
    "PHAXIO_API_SECRET": "phaxio-secret",
    "FAX_BACKENDS": "gone,simulator",
    "FAX_BACKENDS_COVERED": "simulator",
}
"""One that is not installed, and of another provider the half of what it needs."""


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, **ENVIRONMENT) as site:
        site.runtime = another(site)
        yield site


@pytest.fixture
def runtime(site: Site) -> Runtime:
    return site.runtime


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "admin"))


@pytest.fixture
def elsewhere(site: Site) -> Iterator[FlaskClient]:
    """Another web process; neither looks by itself."""
    other = another(site)
    yield client_of(other, new_key(other, "admin"))
    other.plugins.close()


@pytest.fixture
def second(ground: Ground) -> Iterator[SimulatorProcess]:
    """Another carrier of the same kind, with an account of its own."""
    with SimulatorProcess(ground.new_folder("second")) as carrier:
        yield carrier


def another(site: Site) -> Runtime:
    """As another process has it, whose clock stands."""
    this = site.runtime
    settings = Settings(this.config, this.database, this.keyring, lambda: 1000.0)
    return replace(this, plugins=wiring.plugins(this.config), settings=settings)


def configured(
    admin: FlaskClient, values: dict[str, Any], plugin_id: str = "simulator", **more: Any
) -> TestResponse:
    wish = {"settings": values, "note": NOTE, **more}
    return admin.put(f"/plugins/{plugin_id}/config", json=wish)


def changed(admin: FlaskClient, plugin_id: str, deed: str, **more: Any) -> TestResponse:
    wish = {"slot": "outbound", "note": NOTE, **more}
    return admin.post(f"/admin/providers/{plugin_id}/{deed}", json=wish)


def settings_of(second: SimulatorProcess) -> dict[str, str]:
    return {
        "baseUrl": second.environ["SIMULATOR_BASE_URL"],
        "secret": second.environ["SIMULATOR_SECRET"],
    }


def deeds(runtime: Runtime) -> int:
    with runtime.database.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(ProviderHistory)) or 0


@pytest.mark.parametrize("wish", [{"FAXBOT_MAX_PAGES": 1}, {"FAXBOT_MAX_PIXELS": 1000}])
def test_a_fax_that_was_taken_is_sent_whatever_new_ones_may_have(
    site: Site, wish: dict[str, int]
) -> None:
    worker = wiring.build(site.runtime.config)
    job_id = site.submit(number(), uploads=[site.upload(picture(), pages=2)]).job_id

    configuration.change(worker, CLI, wish, note=NOTE)
    sending.attempt(worker.fresh(), job_id)
    worker.close()

    assert (site.job(job_id).status, site.job(job_id).pages) == ("sent", 2)


def picture() -> bytes:
    """Two pages that are not fax pages yet."""
    file = io.BytesIO()
    one, two = (Image.new("L", (200, 200), shade) for shade in (0, 255))
    one.save(file, "TIFF", save_all=True, append_images=[two], dpi=(100, 100))
    return file.getvalue()


def test_absence_proves_nothing_either_where_the_worker_had_not_noticed_the_change(
    site: Site, admin: FlaskClient, second: SimulatorProcess
) -> None:
    """Its pages took a while: it calls the account that was left, after the change."""
    this = another(site).fresh()
    assert configured(admin, settings_of(second)).status_code == 200
    site.now += timedelta(minutes=4)
    job_id = site.fax("0504")  # taken, and the reply is lost
    sending.attempt(this, job_id)
    assert site.at_carrier(job_id) == 1

    for _ in range(6):
        site.after(3700)
        followup.look_up(site.runtime.fresh(), job_id)

    assert site.job(job_id).status == "uncertain"
    assert [(each.looks, each.absences) for each in site.attempts(job_id)] == [(6, 0)]
    this.plugins.close()


@pytest.mark.parametrize("same", [True, False])
def test_absence_proves_nothing_where_the_environment_names_another_account(
    store: Installation, carrier_of_all: SimulatorProcess, second: SimulatorProcess, same: bool
) -> None:
    """faxbot was ended and started anew in between."""
    with open_site(store, carrier_of_all) as site:
        # The carrier takes it, or never hears of it, and the reply is lost.
        job_id = site.sent("0500" if same else "0504")
        assert site.job(job_id).status == "uncertain"
    with open_site(store, carrier_of_all if same else second) as site:
        for _ in range(3):
            site.after(3700)

        tags = [each.tag for each in site.attempts(job_id)]
        assert (len(tags) > 1) is same
        assert sum(len(each.faxes(tag)) for each in (carrier_of_all, second) for tag in tags) <= 1


def test_a_fax_that_the_account_that_was_left_has_is_not_sent_by_the_other(
    site: Site, admin: FlaskClient, second: SimulatorProcess
) -> None:
    job_id = site.sent("0044")  # taken, and never heard of
    assert configured(admin, settings_of(second)).status_code == 200

    for _ in range(6):
        site.after(3700)
        site.runtime.fresh()

    assert (site.job(job_id).status, len(site.attempts(job_id))) == ("uncertain", 1)
    assert (site.at_carrier(job_id), second.faxes(site.attempt(job_id).tag)) == (1, [])


def test_what_another_process_has_saved_counts_where_it_is_not_known_yet(
    admin: FlaskClient, elsewhere: FlaskClient, second: SimulatorProcess
) -> None:
    assert admin.get("/plugins/simulator/config").status_code == 200
    assert configured(elsewhere, settings_of(second)).status_code == 200

    # The address is another than this process knows, and not another than the one that is saved.
    assert configured(admin, {"secret": MASK}).status_code == 200

    assert elsewhere.get("/plugins/simulator/config").status_code == 200
    wrong = {**settings_of(second), "secret": "wrong"}
    assert configured(admin, wrong, untested=True).status_code == 200
    assert_problem(changed(elsewhere, "simulator", "activate"), 409, "change-refused")


def test_of_changes_at_the_same_time_each_is_made_whole_or_refused(
    runtime: Runtime, admin: FlaskClient, elsewhere: FlaskClient
) -> None:
    deed = [
        lambda: changed(admin, "phaxio", "activate", untested=True),
        lambda: changed(elsewhere, "simulator", "activate", untested=True, covered=True),
        lambda: configured(admin, {"apiKey": "k"}, "phaxio", untested=True),
        lambda: changed(elsewhere, "gone", "deactivate"),
    ]
    answers = at_once(len(deed), lambda number: deed[number]())

    for each in answers:
        if each.status_code != 200:
            assert_problem(each, 409, "changed-meanwhile")
    done = sum(each.status_code == 200 for each in answers)
    assert 1 <= done == runtime.settings.read().version == deeds(runtime)


def test_a_secret_of_the_environment_does_not_go_elsewhere_because_another_setting_was_missing(
    runtime: Runtime, admin: FlaskClient
) -> None:
    answer = configured(admin, {"apiKey": "k", "baseUrl": NOWHERE}, "phaxio", untested=True)
    assert set(assert_problem(answer, 422, "invalid-fields")["errors"]) == {"apiSecret"}
    assert deeds(runtime) == 0

    assert configured(admin, {"apiKey": "k"}, "phaxio", untested=True).status_code == 200


def test_a_secret_of_the_environment_does_not_come_back_to_an_address_that_was_saved(
    runtime: Runtime, admin: FlaskClient
) -> None:
    theirs = {"baseUrl": NOWHERE, "secret": "theirs"}
    assert configured(admin, theirs, untested=True).status_code == 200

    answer = configured(admin, {"secret": None}, untested=True)

    assert set(assert_problem(answer, 422, "invalid-fields")["errors"]) == {"secret"}
    assert runtime.settings.read().of_plugin("simulator") == theirs
    assert configured(admin, {"baseUrl": None, "secret": None}).status_code == 200


def test_a_plugin_that_is_gone_is_taken_out_and_is_nobody_who_sends(
    runtime: Runtime, admin: FlaskClient
) -> None:
    assert_problem(changed(admin, "simulator", "deactivate"), 409, "change-refused")
    assert_problem(changed(admin, "nobody", "deactivate"), 404, "not-found")
    assert deeds(runtime) == 0

    answer = changed(admin, "gone", "deactivate")

    assert answer.status_code == 200, answer.data
    found = json.loads(answer.data)
    assert not schemas.PluginSlots().validate(found)
    assert found == {"id": "gone", "slots": [], "active": False}
    assert runtime.fresh().config.provider_ids == ("simulator",)
    assert_problem(changed(admin, "gone", "deactivate"), 404, "not-found")


def test_where_documents_lie_is_not_changed_under_the_faxes_that_wait(
    site: Site, admin: FlaskClient, ground: Ground
) -> None:
    wish = {"dataDir": str(ground.new_folder("another"))}

    body = assert_problem(configured(admin, wish, "local"), 422, "invalid-fields")

    assert "FAX_DATA_DIR" in body["errors"]["dataDir"][0]
    assert deeds(site.runtime) == 0


def test_a_whole_number_is_one_however_json_writes_it(runtime: Runtime, admin: FlaskClient) -> None:
    wish = {"apiKey": "k", "cancelTimeoutMinutes": 5.0}
    assert configured(admin, wish, "phaxio", untested=True).status_code == 200

    plugin = runtime.fresh().plugins.get("phaxio", FaxbotPlugin)
    assert repr(plugin.config["cancelTimeoutMinutes"]) == "5"


def test_who_is_not_active_any_more_is_followed_to_the_end(site: Site, admin: FlaskClient) -> None:
    called, polled = site.sent(), site.sent()
    lost = site.fax("0504")
    sending.attempt(site.runtime.fresh(), lost)
    assert site.job(lost).status == "uncertain"
    assert configured(admin, {"apiKey": "k"}, "phaxio", untested=True).status_code == 200
    assert changed(admin, "phaxio", "activate", untested=True).status_code == 200
    assert changed(admin, "simulator", "deactivate").status_code == 200
    assert site.runtime.fresh().config.provider_ids == ("phaxio", "gone")

    callbacks.receive(
        site.runtime.fresh(), "simulator", site.callback(site.final_at_carrier(called))
    )
    site.work()
    assert site.job(called).status == "delivered"
    site.final_at_carrier(polled)
    site.now += timedelta(seconds=site.wait_of(polled))
    followup.poll(site.runtime.fresh(), polled)
    assert site.job(polled).status == "delivered"
    assert site.job(lost).status in ("sent", "delivered"), "it was looked up with the rest"
    assert [site.at_carrier(each) for each in (called, polled, lost)] == [1, 1, 1]


def test_with_another_master_key_nobody_begins_everybody_names_the_setting_and_no_fax_is_lost(
    site: Site, admin: FlaskClient, store: Installation
) -> None:
    waiting = site.fax()
    assert configured(admin, {"apiKey": "k"}, "phaxio", untested=True).status_code == 200
    names = {
        **ENVIRONMENT,
        **site.carrier.environ,
        "CONFIG_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
    }
    rotation.admit(site.runtime.config)  # as every process asks before it serves
    wrong = wiring.build(store.config(**names))
    client = client_of(wrong, "any-key")
    before = left_behind(site.runtime)

    assert_problem(send(client), 503, "key-missing")
    assert left_behind(site.runtime) == before
    ready = client.get("/health/ready")
    said = json.loads(ready.data)["parts"]["settings"]
    assert (ready.status_code, said["ok"], "CONFIG_MASTER_KEY" in said["detail"]) == (
        503,
        False,
        True,
    )
    with pytest.raises(KeyMissing, match="CONFIG_MASTER_KEY"):
        wrong.fresh()
    ended = run(store, "prepare", **names)
    assert (ended.code, "CONFIG_MASTER_KEY" in one_line(ended.err)) == (1, True)
    wrong.close()

    job = site.job(waiting)
    assert (job.status, job.faults, job.attempts) == ("queued", 0, 0)
    sending.attempt(site.runtime.fresh(), waiting)
    assert site.job(waiting).status == "sent"
