"""The form of a plugin's settings: whatever a manifest says, a form that nobody touches changes nothing, and what
somebody fills in comes in with its type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import render_template_string
from werkzeug.datastructures import MultiDict

from faxbot import catalogue, wiring
from faxbot.runtime import Runtime
from faxbot.web.app import create_app
from faxbot.web.console import schema_form
from tests.installation import Stores
from tests.integration.console import assert_still, filled, words

DRAW = '{% import "console/schema-form.html" as form %}{{ form.fields(settings) }}'
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def runtime(stores: Stores) -> Iterator[Runtime]:
    runtime = wiring.build(
        stores.embedded().config(
            PHAXIO_API_KEY="k3y-nobody-sees", PHAXIO_CANCEL_TIMEOUT_MINUTES="12"
        )
    )
    yield runtime
    runtime.close()


def drawn(runtime: Runtime, settings: list[dict[str, Any]]) -> str:
    with create_app(runtime).test_request_context("/"):
        text = render_template_string(DRAW, settings=settings)
    assert_still(text)
    return text


def of(runtime: Runtime, plugin_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = catalogue.settings(runtime.fresh(), plugin_id)["settings"]
    return found


def setting(**how: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "key": "one", "title": "One", "description": "", "type": "string", "secret": False, "required": False,
        "variables": [], "choices": [], "default": None, "minimum": None, "maximum": None, "option": None,
        "value": None, "source": "unset",
    }  # fmt: skip
    return plain | how


def test_a_form_that_nobody_touches_changes_nothing(runtime: Runtime) -> None:
    plugins = [each.id for each in runtime.plugins.manifests()]
    assert len(plugins) > 5
    for plugin_id in plugins:
        settings = of(runtime, plugin_id)
        sent = filled(drawn(runtime, settings))
        open_ones = {each["key"] for each in settings if each["option"] is None}
        fields = {name for name in sent if not name.startswith("shown.")}
        assert {name.removeprefix("settings.") for name in fields} == open_ones
        assert schema_form.wish(settings, sent) == {}, plugin_id


@pytest.mark.parametrize("secret", [True, False])
@pytest.mark.parametrize("kind", ["string", "integer", "number", "boolean"])
def test_a_field_that_did_not_come_stays_as_it_is(kind: str, secret: bool) -> None:
    here = setting(type=kind, secret=secret, value=None, source="db", required=True)
    assert schema_form.wish([here], MultiDict()) == {}


@pytest.mark.parametrize(
    ("how", "text", "wanted"),
    [
        ({}, " a word ", {"one": "a word"}),
        ({"value": "a word", "source": "env"}, "a word", {}),
        ({"value": "a word", "source": "db"}, "", {"one": None}),
        ({"value": "a word", "source": "env"}, "", {}),
        ({"secret": True, "value": "********", "source": "db"}, "", {}),
        ({"secret": True, "value": "********", "source": "db"}, " new ", {"one": " new "}),
        ({"type": "integer"}, "5", {"one": 5}),
        ({"type": "integer", "value": 5}, "5", {}),
        ({"type": "integer"}, "five", {"one": "five"}),
        ({"type": "integer"}, "9" * 5000, {"one": "9" * 5000}),
        ({"type": "number"}, "0.5", {"one": 0.5}),
        ({"type": "number", "value": 5}, "5.0", {}),
        ({"type": "number"}, "nan", {"one": "nan"}),
        ({"type": "boolean", "value": True}, "false", {"one": False}),
        ({"type": "boolean", "value": False}, "true", {"one": True}),
        ({"type": "boolean"}, "false", {}),
        ({"type": "boolean", "required": True}, "false", {"one": False}),
        ({"type": "boolean", "value": True}, "perhaps", {"one": "perhaps"}),
        ({"type": "number", "choices": [1, 2.5]}, "2.5", {"one": 2.5}),
        ({"choices": ["a", "b"], "value": "a"}, "b", {"one": "b"}),
        ({"option": "FAX_HEADER", "value": "a"}, "b", {}),
    ],
)
def test_what_is_filled_in_comes_with_its_type_and_only_where_it_changes_something(
    how: dict[str, Any], text: str, wanted: dict[str, Any]
) -> None:
    assert schema_form.wish([setting(**how)], MultiDict({"settings.one": text})) == wanted


@pytest.mark.parametrize(
    ("kind", "shown", "saved", "typed", "wanted"),
    [
        ("string", "a word", "another", "a third", "a third"),
        ("string", None, "another", "a third", "a third"),
        ("integer", 5, 6, "7", 7),
        ("number", 0.5, 1.5, "2", 2.0),
        ("boolean", True, False, None, None),
        ("boolean", False, True, None, None),
        ("boolean", None, True, None, None),
    ],
)
def test_what_somebody_saved_meanwhile_is_not_undone_by_who_left_that_field_alone(
    runtime: Runtime, kind: str, shown: Any, saved: Any, typed: str | None, wanted: Any
) -> None:
    sent = filled(drawn(runtime, [setting(type=kind, value=shown, source="db")]))
    here = setting(type=kind, value=saved, source="db")
    assert schema_form.wish([here], sent) == {}
    if typed is not None:
        sent["settings.one"] = typed
        assert schema_form.wish([here], sent) == {"one": wanted}


def test_what_is_saved_can_be_taken_back_a_secret_too(runtime: Runtime) -> None:
    here = setting(secret=True, value="********", source="db")
    assert 'name="back.one"' in drawn(runtime, [here])
    assert 'name="back.one"' not in drawn(runtime, [setting(value="x", source="env")])
    sent = MultiDict({"settings.one": "typed all the same", "back.one": "yes"})
    assert schema_form.wish([here], sent) == {"one": None}


def test_no_secret_and_nothing_of_a_plugin_runs_in_the_page(runtime: Runtime) -> None:
    hostile = dict.fromkeys(("title", "description", "value", "default"), HOSTILE)
    for kind in ("string", "integer", "boolean"):
        for more in (
            {},
            {"choices": [HOSTILE]},
            {"option": "FAX_HEADER"},
            {"variables": [HOSTILE]},
        ):
            text = drawn(runtime, [setting(type=kind, source="db", **hostile | more)])
            assert "<script" not in text
            assert HOSTILE in words(text)
    assert "k3y-nobody-sees" not in drawn(runtime, of(runtime, "phaxio"))
    assert HOSTILE not in drawn(runtime, [setting(secret=True, value=HOSTILE, source="db")])


def test_each_field_has_its_label_its_help_and_its_limits(runtime: Runtime) -> None:
    text = drawn(runtime, of(runtime, "phaxio"))
    assert 'for="setting-apiSecret"' in text
    assert 'aria-describedby="setting-apiSecret-help"' in text
    assert "PHAXIO_API_SECRET" in words(text)
    minutes = text.partition('name="settings.cancelTimeoutMinutes"')[2].partition(">")[0]
    assert 'min="3" max="60" value="12"' in minutes
