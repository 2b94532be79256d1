"""What is saved goes out as a document and comes back: all of it or nothing, without secrets unless they are asked for,
and never with what could be a person's data."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faxbot import configuration
from faxbot.actors import CLI, Actor
from faxbot.db import table
from faxbot.errors import ChangeRefused, Forbidden, InvalidFields
from faxbot.models import AuditEvent
from faxbot.plugins.manifest import MASK
from faxbot.runtime import Runtime
from tests.integration.test_configuration import NOTE, NOWHERE, errors, force, saved, trail

ADMIN = Actor("default", "a1b2c3", frozenset({"admin"}))
WISH = {
    "FAX_HEADER": "ours",
    "FAX_DISABLED": False,
    "simulator.baseUrl": NOWHERE,
    "simulator.secret": "very-secret",
}


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    configuration.change(runtime, CLI, WISH, note=NOTE, untested=True)
    return runtime


def document(**parts: Any) -> dict[str, Any]:
    return {"kind": configuration.KIND, "format": configuration.FORMAT, **parts}


def restored(runtime: Runtime, found: Any, **more: Any) -> dict[str, Any]:
    return configuration.restore(runtime, CLI, found, note=NOTE, **{"untested": True, **more})


def test_an_export_masks_secrets_and_says_so(runtime: Runtime) -> None:
    found = configuration.export(runtime, ADMIN)

    assert "very-secret" not in json.dumps(found)
    assert (found["redacted"], found["version"], found["left_out"]) == (True, 1, [])
    assert found["options"] == {"FAX_HEADER": "ours", "FAX_DISABLED": "false"}
    assert found["plugins"] == {"simulator": {"baseUrl": NOWHERE, "secret": MASK}}
    assert trail(runtime)[-1][0] == "config.exported"


def test_secrets_are_revealed_to_whoever_has_every_scope_and_that_is_written_down(
    runtime: Runtime,
) -> None:
    with pytest.raises(Forbidden):
        configuration.export(runtime, ADMIN, reveal=True)
    assert trail(runtime)[-1][0] == "config.changed"

    master = Actor("default", "master", frozenset({"*"}))
    found = configuration.export(runtime, master, reveal=True)

    assert found["plugins"]["simulator"]["secret"] == "very-secret"
    assert found["redacted"] is False
    rows = table(AuditEvent)
    (last,) = runtime.database.rows(sa.select(rows).where(rows.c.action == "config.revealed"), {})
    assert (last.actor, "very-secret" in str(last.details)) == ("master", False)


def test_what_nobody_here_knows_is_masked_and_what_does_not_count_is_left_out(
    runtime: Runtime,
) -> None:
    force(
        runtime, {"": {"GONE": "1", "FAXBOT_MAX_PAGES": "0"}, "gone": {"key": "a-secret-perhaps"}}
    )

    found = configuration.export(runtime, ADMIN)

    assert found["plugins"]["gone"] == {"key": MASK}
    assert sorted(found["left_out"]) == ["FAXBOT_MAX_PAGES", "GONE"]


def test_a_redacted_export_comes_back_and_leaves_secrets_as_they_are(runtime: Runtime) -> None:
    found = configuration.export(runtime, ADMIN)
    before = runtime.settings.stored().saved
    configuration.change(runtime, CLI, {"FAX_HEADER": "other", "FAX_DISABLED": True}, note=NOTE)

    told = restored(runtime, found, untested=False)  # nothing of a plugin changes: nobody is asked

    assert runtime.settings.stored().saved == before
    assert told["changes"] == [
        {"name": "FAX_DISABLED", "was": "true", "becomes": "false"},
        {"name": "FAX_HEADER", "was": "other", "becomes": "ours"},
    ]
    assert trail(runtime)[-1][0] == "config.restored"


def test_a_redacted_export_does_not_send_a_secret_to_another_address(runtime: Runtime) -> None:
    found = configuration.export(runtime, ADMIN)
    found["plugins"]["simulator"]["baseUrl"] = "http://127.0.0.1:8"

    with pytest.raises(InvalidFields) as caught:
        restored(runtime, found)
    assert "another address" in str(errors(caught)["simulator.secret"])


def test_a_revealed_export_brings_everything_back(runtime: Runtime) -> None:
    found = json.loads(json.dumps(configuration.export(runtime, CLI, reveal=True)))
    before = runtime.settings.stored().saved
    configuration.rollback(runtime, CLI, 0, note=NOTE, untested=True)

    told = restored(runtime, found)

    assert runtime.settings.stored().saved == before
    assert "very-secret" not in json.dumps(told)


def test_what_a_document_does_not_name_stays_or_is_taken_back(runtime: Runtime) -> None:
    part = document(options={"FAX_HEADER": None, "FAXBOT_MAX_PAGES": 9})
    restored(runtime, part)
    assert saved(runtime) == {"FAX_DISABLED": "false", "FAXBOT_MAX_PAGES": "9"}
    assert runtime.settings.stored().saved["simulator"]["secret"] == "very-secret"

    restored(runtime, document(options={"FAX_HEADER": "ours"}), whole=True)
    assert runtime.settings.stored().saved == {"": {"FAX_HEADER": "ours"}}


def test_a_dry_run_checks_everything_and_changes_nothing(runtime: Runtime) -> None:
    told = restored(runtime, document(options={"FAX_HEADER": "x"}), dry_run=True)
    assert (told["dry_run"], told["version"], len(told["changes"])) == (True, 1, 1)
    with pytest.raises(InvalidFields):
        restored(runtime, document(options={"FAXBOT_MAX_PAGES": 0}), dry_run=True)
    found = document(plugins={"simulator": {"secret": "other"}})
    with pytest.raises(ChangeRefused):
        restored(runtime, found, dry_run=True, untested=False)
    assert (runtime.settings.stored().version, saved(runtime)["FAX_HEADER"]) == (1, "ours")


def test_a_plugin_is_tested_before_an_import_is_saved(runtime: Runtime) -> None:
    wish = document(options={"FAX_HEADER": "x"}, plugins={"simulator": {"secret": "other"}})
    with pytest.raises(ChangeRefused, match="the plugin simulator does not work so"):
        restored(runtime, wish, untested=False)
    assert (runtime.settings.stored().version, saved(runtime)["FAX_HEADER"]) == (1, "ours")


NO_DOCUMENT: list[tuple[Any, str]] = [
    (None, "document"),
    ([], "document"),
    ("text", "document"),
    ({}, "document"),
    ({"kind": "something else"}, "document"),
    (document(format=2), "document"),
    (document(extra=1), "document"),
    (document(options=[]), "document"),
    (document(plugins=[]), "plugins"),
    (document(plugins={"simulator": "x"}), "document"),
    (document(plugins={"": {"FAX_HEADER": "x"}}), "plugins"),
    (document(plugins={"phaxia": {"apiKey": "x"}}), "plugins"),
    (document(options={"to": "+15550100000"}), "options"),
    (document(options={"FAX_HEADER": "x", "patient_name": "Jane Doe"}), "options"),
    (document(options={"Jane Doe": "x"}), "options"),
    (document(options={"DATABASE_URL": "sqlite:////x"}), "DATABASE_URL"),
    (document(options={"FAX_HEDDER": "Jane Doe"}), "FAX_HEADER"),
    (document(plugins={"simulator": {"to": "+15550100000"}}), "simulator"),
    (document(plugins={"simulator": {"baseUrl": ["Jane Doe"]}}), "simulator"),
    (document(plugins={"simulator": {"baseUrl": "+1 555 010 0000"}}), "simulator.baseUrl"),
]


@pytest.mark.parametrize(("found", "name"), NO_DOCUMENT)
def test_what_is_no_document_is_refused_whole_and_not_repeated(
    runtime: Runtime, found: Any, name: str
) -> None:
    with pytest.raises(InvalidFields) as caught:
        restored(runtime, found)
    assert set(errors(caught)) == {name}
    for said in ("Jane", "0100000", "010 0000"):
        assert said not in str(errors(caught))
    assert (runtime.settings.stored().version, len(trail(runtime))) == (1, 1)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    options=TREES,
    plugins=TREES,
    key=st.sampled_from(["FAX_HEADER", "FAX_DISABLED", "FAXBOT_MAX_PAGES"]),
    value=TREES,
)
def test_whatever_comes_it_is_refused_by_name_or_saved_so_that_it_holds(
    runtime: Runtime, options: Any, plugins: Any, key: str, value: Any
) -> None:
    for found in (document(options=options, plugins=plugins), document(options={key: value})):
        with suppress(InvalidFields):
            restored(runtime, found)
    runtime.settings.read()
    assert not runtime.settings.stored().faults


def test_an_import_over_what_does_not_hold_mends_it(runtime: Runtime) -> None:
    force(runtime, {"": {"FAXBOT_MAX_PAGES": "0"}})
    with pytest.raises(InvalidFields):
        restored(runtime, document(options={"FAX_HEADER": "x"}))
    restored(runtime, document(options={"FAX_HEADER": "x"}), whole=True)
    assert runtime.fresh().config.fax_header == "x"
