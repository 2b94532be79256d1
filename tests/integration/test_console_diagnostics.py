"""Diagnostics and retention, as pages and over HTTP: what is wrong is named with its mend, and nothing leaks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import configuration, diagnostics, jobs, oversight, retention, wiring
from faxbot.actors import CLI, OPERATOR
from faxbot.db import table
from faxbot.models import AuditEvent
from faxbot.plugins.base import FaxbotPlugin, Health
from faxbot.production import Finding
from faxbot.purging import CLASSES
from faxbot.runtime import Runtime
from faxbot.web import diagnostics as api
from tests.ground import eventually
from tests.installation import Stores
from tests.integration.console import BY_SCRIPT, deed, page, problem, words
from tests.integration.web import NUMBER, browser_of, client_of, new_key, new_user, send

DIAGNOSTICS, RETENTION = "/admin/ui/diagnostics", "/admin/ui/retention"
CANARY = "c4n4ry-that-nobody-may-see-c4n4ry"
LISTENERS = {"listeners": 0, "most": 10, "read_at": None}


@pytest.fixture(scope="module")
def runtime(stores: Stores) -> Iterator[Runtime]:
    """With a canary wherever a secret, a number or something that people wrote can be."""
    runtime = wiring.build(
        stores.embedded().config(
            API_KEY=CANARY, SIMULATOR_SECRET=CANARY, SIMULATOR_BASE_URL="http://127.0.0.1:9",
            PHAXIO_API_KEY=CANARY, PHAXIO_API_SECRET=CANARY, PHAXIO_CALLBACK_TOKEN=CANARY,
            FAX_HEADER=CANARY, FAXBOT_HOTS="misspelt", REDIS_URL=f"redis://:{CANARY}@127.0.0.1:9/0",
            PUBLIC_API_URL="https://fax.example.org", ASTERISK_CALLER_ID="+15550109999",
        )
    )  # fmt: skip
    send(client_of(runtime, new_key(runtime)))
    oversight.change(runtime, CLI, "simulator", "reset", note=CANARY)
    configuration.change(runtime, CLI, {"FAX_HEADER": f"{CANARY} 2"}, note=CANARY)
    configuration.change(
        runtime, CLI, {"phaxio.apiSecret": CANARY},
        note="n", untested=True,
    )  # fmt: skip
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def admin(runtime: Runtime) -> FlaskClient:
    return browser_of(runtime, new_user(runtime))


def actions(runtime: Runtime) -> list[str]:
    runtime.notes.flush()
    rows = table(AuditEvent)
    return [row.action for row in runtime.database.rows(sa.select(rows.c.action), {})]


# Diagnostics ----------------------------------------------------------------------------------------


def test_each_finding_names_the_setting_and_its_mend_and_leads_there(admin: FlaskClient) -> None:
    text = page(admin, f"{DIAGNOSTICS}/findings")
    assert 'href="/admin/ui/settings#CELERY_BROKER_URL"' in text
    assert "start it, or mend its address or password" in words(text)
    assert "is FAXBOT_HOST meant?" in words(text)
    grades = [part.partition('"')[0] for part in text.split('data-grade="')[1:]]
    order = ["fault", "warning", "unknown", "ok"]
    assert grades == sorted(grades, key=order.index)
    assert {"fault", "ok"} <= set(grades)


def test_the_page_itself_waits_for_no_carrier(admin: FlaskClient) -> None:
    text = page(admin, DIAGNOSTICS)
    assert f'hx-get="{DIAGNOSTICS}/findings"' in text
    for word in ("sweeps", "broker", "status_lookup", "listeners at this process", "schema"):
        assert word in text


def test_the_file_holds_what_helps_and_nothing_else(runtime: Runtime, admin: FlaskClient) -> None:
    answer = admin.get(f"{DIAGNOSTICS}/bundle")
    assert answer.content_type == "application/json"
    assert "attachment" in answer.headers["Content-Disposition"]
    for secret in (CANARY, NUMBER, NUMBER[1:], "+15550109999", "15550109999"):
        assert secret not in answer.text
    found = json.loads(answer.text)
    assert not api.Diagnostics().validate(found)
    settings = {one["name"]: (one["value"], one["source"]) for one in found["settings"]}
    assert settings["FAX_HEADER"] == ("********", "db")
    assert settings["PUBLIC_API_URL"] == ("https://fax.example.org", "env")
    assert settings["FAXBOT_MAX_PAGES"] == (350, "default")
    assert found["schema"]["found"] == found["schema"]["expected"]
    (phaxio,) = (one for one in found["plugins"]["items"] if one["id"] == "phaxio")
    assert phaxio["settings"]["apiSecret"] == "db"
    (simulator,) = (one for one in found["providers"] if one["id"] == "simulator")
    assert simulator["history"]
    assert set(simulator["history"][0]) == {"type", "reason", "recorded_at"}
    assert not found["summary"]["healthy"]
    assert "diagnostics.read" in actions(runtime)


def test_credentials_in_an_address_are_masked() -> None:
    one = {"name": "DOCS_BASE_URL", "value": f"https://me:{CANARY}@docs.example.org/"}
    assert diagnostics._redacted(one) == "https://********@docs.example.org/"


def test_over_http_it_is_the_same(runtime: Runtime) -> None:
    client = client_of(runtime, new_key(runtime, "admin"))
    answer = client.get("/admin/diagnostics")
    assert answer.status_code == 200
    assert CANARY not in answer.text
    assert {"findings", "summary", "parts", "sweeps"} <= json.loads(answer.text).keys()
    assert (
        client_of(runtime, new_key(runtime, "operate")).get("/admin/diagnostics").status_code == 403
    )


def test_the_short_answer_has_the_words_of_the_earlier_one(runtime: Runtime) -> None:
    client = client_of(runtime, new_key(runtime, "admin"))
    found = json.loads(client.get("/admin/health-status").data)
    assert not api.HealthStatus().validate(found)
    assert found["backend"] == "simulator"
    assert found["backend_healthy"] is True
    assert found["api_keys_configured"] is found["require_auth"] is True
    assert found["jobs"]["recent_failures"] == 0
    queued = found["jobs"]["queued"]
    send(client_of(runtime, new_key(runtime)))
    assert json.loads(client.get("/admin/health-status").data)["jobs"]["queued"] == queued + 1


class Hanging:
    """The simulator's carrier does not answer until it is let go."""

    def __init__(self) -> None:
        self.asked, self.go_on = 0, threading.Event()

    def health(self) -> Health:
        self.asked += 1
        self.go_on.wait(60)
        return Health(True)


@pytest.fixture
def hanging(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    monkeypatch.setattr(diagnostics, "FRESH", -1.0)  # what others found is not shown again
    carrier = Hanging()
    plugin = runtime.plugins.get("simulator", FaxbotPlugin)
    monkeypatch.setattr(plugin, "health", carrier.health)
    yield carrier
    carrier.go_on.set()
    diagnostics.look(runtime).found(60.0)


def grade_of(text: str, name: str) -> str:
    row = text.partition(f"<td>{name}</td>")[0].rpartition('data-grade="')[2]
    return row.partition('"')[0]


def test_a_carrier_that_hangs_holds_up_no_page_and_is_asked_once_by_all_who_look(
    runtime: Runtime, admin: FlaskClient, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faxbot.web.console.diagnostics.AT_A_TIME", 0.1)
    page(admin, DIAGNOSTICS)
    assert hanging.asked == 0
    eventually(lambda: "sweeps" in page(admin, f"{DIAGNOSTICS}/findings"))
    for _ in range(3):
        shown = page(admin, f"{DIAGNOSTICS}/findings")
        assert f'hx-get="{DIAGNOSTICS}/findings" hx-trigger="load delay:1s"' in shown
        assert "carrier of simulator" not in shown
    doctors = [each for each in threading.enumerate() if each.name == "doctor"]
    assert (hanging.asked, len(doctors)) == (1, 1)
    under_way = diagnostics.look(runtime)
    hanging.go_on.set()
    found, more = under_way.found(60.0)
    assert not more
    assert {"carrier of simulator", "disk", "broker"} <= {each.name for each in found}


def test_one_that_does_not_answer_in_time_is_a_finding_and_is_not_asked_twice_at_a_time(
    runtime: Runtime, admin: FlaskClient, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oversight, "ANSWERED_WITHIN", 0.1)
    for _ in range(2):
        text = page(admin, f"{DIAGNOSTICS}/findings")
        assert "It did not answer within 0.1 s." in words(text)
        assert grade_of(text, "carrier of simulator") == "warning"
        assert "hx-get" not in text
    of_all = admin.get("/plugins/health").get_json()["items"]
    assert of_all[0] == {
        "id": "simulator",
        "ok": False,
        "detail": "It did not answer within 0.1 s.",
    }
    assert hanging.asked == 1
    hanging.go_on.set()
    eventually(
        lambda: (
            oversight.health_in_time(runtime, ["simulator"], 1.0)["simulator"]["ok"]
            and hanging.asked > 1
        )
    )


@pytest.mark.usefixtures("hanging")
def test_who_looks_for_too_long_is_not_waited_for_and_what_he_found_is_shown(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "LONGEST", 0.3)
    under_way = diagnostics.look(runtime)
    eventually(lambda: not under_way.found(0.0)[1])
    found, more = under_way.found(60.0)
    assert not more
    assert (found[-1].name, found[-1].ok) == ("doctor", None)
    assert "after 0.3 s something does not answer" in found[-1].sentence


def test_what_was_found_just_now_is_shown_to_who_asks_next_and_then_looked_for_anew(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "FRESH", 60.0)
    first = diagnostics.look(runtime)
    first.found(60.0)
    assert diagnostics.look(runtime) is first
    monkeypatch.setattr(diagnostics, "FRESH", 0.0)
    assert diagnostics.look(runtime) is not first


@pytest.mark.parametrize(
    ("ok", "needed", "in_production", "production", "grade"),
    [
        (True, True, True, True, "ok"),
        (None, True, True, True, "unknown"),
        (False, True, False, False, "fault"),
        (False, False, True, True, "fault"),
        (False, False, True, False, "warning"),
        (False, False, False, True, "warning"),
    ],
)  # fmt: skip
def test_how_grave_a_finding_is(
    ok: bool | None, needed: bool, in_production: bool, production: bool, grade: str
) -> None:
    finding = Finding(
        name="n", ok=ok, sentence="s", needed=needed, needed_in_production=in_production
    )
    assert diagnostics.worst_first([finding], production=production) == [(grade, finding)]


def test_a_test_fax_is_a_fax_like_any_other_and_one_is_led_to_it(
    runtime: Runtime, admin: FlaskClient
) -> None:
    answer = deed(admin, f"{DIAGNOSTICS}/test-fax", to=NUMBER)
    path = answer.headers["HX-Redirect"]
    fax = jobs.describe(runtime, jobs.find(runtime, CLI, path.rpartition("/")[2]))
    assert (fax["to"], fax["pages"], fax["status"]) == (NUMBER, 1, "queued")
    assert fax["tags"] == {"test": "page"}
    assert NUMBER not in path
    assert not list(runtime.config.spool_dir.iterdir())


@pytest.mark.parametrize(
    ("number", "status"),
    [
        ("", 422),
        ("9" * 65, 422),
        ("not a number", 400),
        ("1", 400),
        ("+" + "9" * 40, 400),
        ("<script>", 400),
    ],
)
def test_a_test_fax_to_no_number_is_refused(admin: FlaskClient, number: str, status: int) -> None:
    refused = deed(admin, f"{DIAGNOSTICS}/test-fax", status, to=number)
    code = {422: "invalid-fields", 400: "malformed"}[status]
    assert "<script>" not in problem(refused, status, code)
    assert 'data-field="to"' in refused.text


# Retention ------------------------------------------------------------------------------------------


def test_every_class_is_there_with_its_days_and_its_setting(admin: FlaskClient) -> None:
    text = page(admin, RETENTION)
    for name in CLASSES:
        assert f"<strong>{name}</strong>" in text
    assert 'href="/admin/ui/settings#ARTIFACT_TTL_DAYS"' in text


def test_what_must_go_before_keeps_what_comes_behind(runtime: Runtime, admin: FlaskClient) -> None:
    configuration.change(runtime, CLI, {"ARTIFACT_TTL_DAYS": 0}, note="n")
    text = words(page(admin, RETENTION))
    configuration.change(runtime, CLI, {"ARTIFACT_TTL_DAYS": None}, note="n")
    kept = [name for name, one in CLASSES.items() if "document" in one.behind]
    assert text.count("must go before, and is kept for ever") >= len(kept)
    assert "document for ever" in text


def test_what_would_be_removed_is_counted_and_nothing_is(
    runtime: Runtime, admin: FlaskClient
) -> None:
    found = words(deed(admin, f"{RETENTION}/look", 200).text)
    for name in retention.cutoffs(runtime.config, runtime.now()):
        assert name in found
    assert retention.runs(runtime, limit=5) == []


def test_a_run_is_asked_for_and_shown_with_what_it_removed(
    runtime: Runtime, admin: FlaskClient
) -> None:
    assert "No run yet" in words(page(admin, RETENTION))
    deed(admin, f"{RETENTION}/run")
    (run,) = retention.runs(runtime, limit=5)
    assert run["state"] == "running"
    asks_again = f'hx-get="{RETENTION}" hx-trigger="every'
    assert asks_again in page(admin, RETENTION)
    while not retention.work(runtime, run["id"]):
        pass
    text = page(admin, RETENTION)
    assert "done due" in words(text)
    assert asks_again not in text
    assert "retention.asked" in actions(runtime)


def test_an_operator_sees_runs_and_asks_for_none(runtime: Runtime) -> None:
    text = page(browser_of(runtime, new_user(runtime, OPERATOR)), RETENTION)
    assert "What is kept how long" in text
    assert "/run" not in text
    assert "/look" not in text


def test_a_test_fax_is_one_however_often_its_button_is_pressed(admin: FlaskClient) -> None:
    key = {**BY_SCRIPT, "Idempotency-Key": "0" * 32}
    led = {
        admin.post(f"{DIAGNOSTICS}/test-fax", data={"to": NUMBER}, headers=key).headers[
            "HX-Redirect"
        ]
        for _ in range(3)
    }
    assert len(led) == 1
