"""Secrets that were planted come out nowhere; and what the web process need not open, it does not."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import wiring
from faxbot.config import Config
from faxbot.db import utcnow
from faxbot.errors import ConfigError
from faxbot.models import AuditEvent, ConfigEntry, ProviderHistory
from faxbot.plugins.base import FaxbotPlugin
from faxbot.runtime import Runtime
from tests.installation import Installation
from tests.integration.site import Site
from tests.integration.web import SECRET, client_of, new_key, send

PLANTED = "pl4nted-s3cret"
KEY = base64.b64encode(b"pl4nted-master-key-of-32-bytes!!").decode()


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config(
        SIMULATOR_SECRET=SECRET, CONFIG_MASTER_KEY=KEY, CONFIG_MASTER_KEY_PREVIOUS=KEY
    )


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "*"))


def save(runtime: Runtime, wish: dict[str, dict[str, Any]]) -> None:
    seen = runtime.settings.read().version
    with runtime.database.transaction() as session:
        runtime.settings.write(session, wish, seen=seen, now=utcnow())
    runtime.settings.catch_up()


def secrets_of(runtime: Runtime) -> dict[str, list[str]]:
    return {each.id: sorted(each.secrets) for each in runtime.plugins.manifests() if each.secrets}


def wrong(runtime: Runtime, planted: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every secret of every plugin, and what is near it, as somebody may send it by mistake."""
    for plugin_id, keys in secrets_of(runtime).items():
        manifest = runtime.plugins.manifest(plugin_id)
        for key in keys:
            for value in (
                planted,
                {planted: planted},
                [planted],
                f"{planted}\ud800",
                planted * 999,
            ):
                yield plugin_id, {key: value}
        for key in manifest.properties:
            yield plugin_id, {key: f"{planted}\n"}
            yield plugin_id, {key: {"secret": planted}}
        yield plugin_id, {planted: planted}


def test_a_planted_secret_is_in_no_answer_no_log_no_history_and_nothing_that_prints(
    runtime: Runtime, admin: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said, asked = [], 0
    for untested in (True, False):
        for plugin_id, settings in wrong(runtime, PLANTED):
            asked += 1
            wish = {"settings": settings, "note": "why not", "untested": untested}
            answer = admin.put(f"/plugins/{plugin_id}/config", json=wish)
            said += [answer.get_data(as_text=True), str(answer.headers)]
    assert asked > 100
    for plugin_id, keys in secrets_of(runtime).items():
        save(runtime, {plugin_id: dict.fromkeys(keys, PLANTED)})
        said += [admin.get(f"/plugins/{plugin_id}/config").get_data(as_text=True)]
        with pytest.raises(ConfigError) as refused:
            runtime.plugins.settings(plugin_id, {key: [PLANTED] for key in keys})
        said += [refused.value.detail, repr(refused.value)]
    this = runtime.fresh()
    for path in (
        "/plugins",
        "/plugins/health",
        "/admin/providers",
        "/admin/webhooks",
        "/health/ready",
    ):
        said.append(admin.get(path).get_data(as_text=True))
    said += [repr(this), repr(this.settings.snapshot()), repr(this.keyring), repr(this.plugins)]
    said += [repr(vars(this.keyring)["_view"][1]), str(this.settings.snapshot().saved)]
    with runtime.database.reading() as session:
        for model in (AuditEvent, ProviderHistory):
            rows = session.execute(sa.select(model.__table__))
            said.append(json.dumps([list(row) for row in rows], default=str))
    everything = "\n".join([*said, caplog.text])

    for leak in (PLANTED, KEY, KEY[:20], "master-key-of-32", repr(b"pl4nted")[2:-1]):
        assert leak not in everything, everything[max(0, everything.index(leak) - 300) :][:600]


def test_the_web_process_opens_the_secrets_of_those_alone_whose_callbacks_it_proves(
    runtime: Runtime,
) -> None:
    """What is saved of the others does not open here, and nobody misses it."""
    others = {
        plugin_id: keys
        for plugin_id, keys in secrets_of(runtime).items()
        if not runtime.plugins.has(plugin_id, "status_callback")
    }
    assert set(others) == {"email", "oidc", "s3"}
    wish: dict[str, dict[str, Any]] = {
        each: dict.fromkeys(keys, "x") for each, keys in others.items()
    }
    save(runtime, wish)
    with runtime.database.transaction() as session:
        for row in session.scalars(sa.select(ConfigEntry).where(ConfigEntry.scope != "")):
            row.value_sealed = row.value_sealed[:-1] + bytes([row.value_sealed[-1] ^ 1])
    other = wiring.build(runtime.config)
    client = client_of(other, new_key(other, "*"))

    fax = json.loads(send(client).data)["id"]
    for path in (
        f"/fax/{fax}",
        "/fax",
        f"/fax/{fax}/events",
        "/plugins",
        "/admin/providers",
        "/admin/webhooks",
    ):
        assert client.get(path).status_code == 200, path
    ready = json.loads(client.get("/health/ready").data)["parts"]
    assert ready["provider"]["ok"], ready["provider"]
    assert ready["settings"]["ok"]
    assert client.post("/callbacks/simulator", data=b"{}").status_code == 401
    shown = json.loads(client.get("/plugins/oidc/config").data)
    assert "does not open" in shown["fault"]
    other.close()


def test_what_does_not_open_stops_its_plugin_alone_and_says_so(site: Site) -> None:
    runtime = site.runtime
    save(runtime, {"simulator": {"secret": "x"}, "phaxio": {"apiKey": "k"}})
    with runtime.database.transaction() as session:
        for row in session.scalars(sa.select(ConfigEntry)):
            row.value_sealed = b"\x01" + bytes(40)
    runtime.settings.catch_up()
    other = wiring.build(runtime.config)
    other.fresh()
    with pytest.raises(ConfigError, match="saved setting phaxio: apiKey does not open"):
        other.plugins.settings("phaxio")
    other.plugins.get("local", FaxbotPlugin)
    other.close()
