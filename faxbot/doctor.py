"""What is missing here, and which setting mends it: before a role starts in production, and whenever somebody asks
(`faxbot doctor`).

It says what it cannot ask and goes on. No finding holds a secret or PHI.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from faxbot import auditlog, db, health, oversight, sweeps, webhooks, wiring
from faxbot.config import FILE, STDERR, SYSLOG, Config
from faxbot.configuration import DB, Configuration
from faxbot.errors import ConfigError, DatabaseAway, FaxbotError, PluginError
from faxbot.plugins.base import CallbackRequest, TransportPlugin
from faxbot.plugins.loader import OURS, Plugins
from faxbot.plugins.manifest import Manifest
from faxbot.production import Finding, demand, of_config, sqlite_file, without_database
from faxbot.runtime import Runtime
from faxbot.settings import Stored

LEAST_FREE = 500 * 1024 * 1024
"""Bytes that the disk of FAX_DATA_DIR must have left: some hundred faxes, and what the database writes."""
LONGEST_BEHIND = timedelta(minutes=2)
"""For so long a row of the audit trail may wait to be written on: a log that took nothing is tried twice a minute."""
LONGEST_SKEW = 2.0
"""Seconds between this machine's clock and the database's: leases are compared between machines."""


def start(config: Config) -> None:
    """What a role asks before it serves: raise ConfigError with all that production misses."""
    if config.production:
        demand(config, _without_runtime(config))


def examine(config: Config, runtime: Runtime | None) -> list[Finding]:
    """Everything, one after the other. `runtime`: over a database that is there; None where there is none, and then
    what it would be asked is said to be unasked."""
    if runtime is None:
        return [*_without_runtime(config), *_of_machine(config), _broker(config)]
    return list(look(runtime))


def look(runtime: Runtime) -> Iterator[Finding]:
    """The same over a database, as it is found; what asks somebody else's computer comes last."""
    with suppress(FaxbotError, sa.exc.SQLAlchemyError):  # the parts say it
        runtime = runtime.fresh()
    # It waits for no heartbeat: what was not heard of does not run.
    runtime = replace(runtime, started_at=datetime.min.replace(tzinfo=UTC))
    config, parts = runtime.config, health.parts(runtime)
    yield from of_config(config)
    yield from _proofs(config, runtime.plugins, running=True)
    yield _sending(runtime)
    yield from _of_machine(config)
    yield from _of_database(runtime, parts)
    yield _broker(config)
    yield from (_part(parts, name) for name in ("settings", "storage", "provider", "queue"))
    yield _listeners(config, parts)
    yield _sweeps(runtime)
    yield from _audit_log(runtime)
    yield from _webhooks(runtime)
    yield from _of_plugins(runtime)


def of_installation(config: Config) -> list[Finding]:
    """The same for who has no runtime yet. It makes nothing: no database, no key file."""
    runtime, fault = None, _nothing_to_open(config)
    if not fault:
        try:
            runtime = wiring.build(config)
        except FaxbotError as error:
            fault = error.detail
    if runtime is None:
        unasked = Finding(name="database", ok=None, sentence=f"cannot be asked: {fault}")
        return [*examine(config, None), unasked]
    try:
        return examine(config, runtime)
    finally:
        runtime.close()


def _nothing_to_open(config: Config) -> str:
    file = sqlite_file(config)
    if file is not None and not file.exists():
        where = "where DATABASE_URL says" if config.database_url else "in FAX_DATA_DIR"
        return f"there is none yet {where}: `faxbot up` and `faxbot db upgrade` make one"
    if not config.master_key and not (config.data_dir / "master.key").exists():
        return "neither CONFIG_MASTER_KEY is set nor is master.key in FAX_DATA_DIR: what is sealed does not open"
    return ""


# Providers ------------------------------------------------------------------------------------------


def _without_runtime(config: Config) -> list[Finding]:
    """What the configuration says, and whether callbacks are proven: with what is saved, where the database can be
    asked."""
    plugins = wiring.plugins(config)
    try:
        stored = None if _nothing_to_open(config) else _stored(config)
    except DatabaseAway:
        # Then nothing is received either; and what is saved may be all that is missing.
        unknown = Finding(
            name="saved settings",
            ok=None,
            sentence="the database is away: what else production needs may be saved there",
        )
        return [*without_database(config), unknown]
    if stored is not None:
        config = config.with_sound(stored.options)
        plugins.set(stored.saved, 1)
    return [*of_config(config), *_proofs(config, plugins)]


def _stored(config: Config) -> Stored | None:
    """What is saved; None before there is a schema, or without a master key. Raises DatabaseAway."""
    if db.current(config) is None:
        return None
    try:
        runtime = wiring.build(config)
    except ConfigError:
        return None
    try:
        return runtime.settings.stored()
    except sa.exc.SQLAlchemyError:
        return None  # an older schema
    finally:
        runtime.close()


def _proofs(config: Config, plugins: Plugins, *, running: bool = False) -> list[Finding]:
    """Of each active provider whose carrier calls back, that nobody else can; `running`: by a forged callback too."""
    wanted = dict.fromkeys((*config.provider_ids, *config.inbound_provider_ids))
    found = []
    for provider_id in wanted:
        with suppress(PluginError):  # the part "provider" says it
            manifest = plugins.manifest(provider_id)
            if manifest.has("webhook_hmac") or manifest.has("webhook_basic_auth"):
                found.append(_proof(config, plugins, manifest, running=running))
    return found


def _proof(config: Config, plugins: Plugins, manifest: Manifest, *, running: bool) -> Finding:
    name = f"callbacks of {manifest.id}"
    by_up = manifest.id == "simulator" and not config.environ.get("SIMULATOR_BASE_URL")
    unset = [
        key
        for key in oversight.proof_settings(manifest)
        if plugins.source(manifest.id, key) == "unset"
    ]
    if unset and not by_up:
        settings = [" or ".join(manifest.variables.get(key, (key,))) for key in unset]
        return Finding(
            name=name,
            ok=False,
            sentence="what its carrier sends cannot be proven, and is refused",
            setting=", ".join(settings),
            mend=f"set it, or save it with `PUT /plugins/{manifest.id}/config`",
            needed_in_production=True,
        )
    if running and _takes_anything(config, plugins, manifest):
        return Finding(
            name=name,
            ok=False,
            sentence="a forged callback was taken for its carrier's",
            setting=f"`faxbot providers deactivate {manifest.id}`",
            mend="take it out of service, and tell the author of the plugin",
            needed_in_production=True,
        )
    return Finding(name=name, ok=True, sentence="each must be proven", needed_in_production=True)


def _takes_anything(config: Config, plugins: Plugins, manifest: Manifest) -> bool:
    """Whether a callback without a proof, or with an invented one, is taken as genuine."""
    proofs = {header.lower(): "0" * 64 for header in manifest.values("verify_header")}
    invented = {**proofs, "authorization": "Basic Og=="}  # an empty name and password
    url = f"{config.base_url}/callbacks/{manifest.id}"
    try:
        plugin = plugins.get(manifest.id, TransportPlugin)
        return any(
            plugin.verify_callback(CallbackRequest("POST", url, headers, b"{}"))
            for headers in ({}, invented)
        )
    except Exception:  # noqa: BLE001 - a plugin raises anything, and takes nothing then
        return False


def _sending(runtime: Runtime) -> Finding:
    """Who switched it off for a day may have forgotten it, and another one never knew."""
    if not runtime.config.fax_disabled:
        return Finding(name="sending", ok=True, sentence="it is switched on")
    origin = "said by the environment"
    with suppress(FaxbotError, sa.exc.SQLAlchemyError):
        if Configuration(runtime).source("FAX_DISABLED") == DB:
            origin = "saved"
    return Finding(
        name="sending",
        ok=False,
        sentence=f"it is switched off: faxes are accepted and held, and FAX_DISABLED is {origin}",
        setting="FAX_DISABLED",
        mend="switch it on: `faxbot config set FAX_DISABLED false`, or in the console's settings",
    )


def _of_plugins(runtime: Runtime) -> Iterator[Finding]:
    for broken in runtime.plugins.broken:
        yield Finding(
            name=f"plugin {broken.name}",
            ok=False,
            sentence=f"cannot be used: {broken.reason}",
            mend=f"see `faxbot plugins show {broken.name}`"
            if broken.package == OURS
            else f"mend or uninstall the package {broken.package}",
        )
    providers, notifiers = runtime.config.provider_ids, runtime.config.notification_plugin_ids
    all_say = oversight.health_in_time(runtime, (*providers, *notifiers))
    for provider_id in providers:
        said = all_say[provider_id]
        yield Finding(
            name=f"carrier of {provider_id}",
            ok=said["ok"],
            sentence=said["detail"] or "lets us in",
            mend="" if said["ok"] else f"see `faxbot plugins show {provider_id}`",
        )
    for plugin_id in notifiers:
        said = all_say[plugin_id]
        yield Finding(
            name=f"notices by {plugin_id}",
            ok=said["ok"],
            sentence=said["detail"] or "can be sent",
            setting="FAXBOT_NOTIFICATIONS",
            mend="" if said["ok"] else f"see `faxbot plugins show {plugin_id}`",
        )
    if "simulator" in runtime.config.provider_ids:
        yield Finding(
            name="simulator",
            ok=not runtime.config.production,
            sentence="faxes through it go to nobody",
            setting="FAX_BACKEND",
            mend="name a provider that sends (docs/providers)",
        )


# The machine ----------------------------------------------------------------------------------------


def _of_machine(config: Config) -> Iterator[Finding]:
    yield _folder(config)
    yield _disk(config)
    for name, near in config.strangers().items():
        mend = f"is {near} meant?" if near else "remove it: docs/settings.md has them all"
        yield Finding(
            name=f"setting {name}",
            ok=False,
            sentence="there is no such setting",
            setting=name,
            mend=mend,
        )
    if idle := sorted(set(config.covered_provider_ids) - set(config.provider_ids)):
        yield Finding(
            name="covered providers",
            ok=False,
            sentence=f"{', '.join(idle)} is covered and never asked",
            setting="FAX_BACKENDS",
            mend="name them in FAX_BACKENDS too",
        )


def _folder(config: Config) -> Finding:
    folders = [config.data_dir, *(config.data_dir / name for name in ("documents", "spool"))]
    opened = [each.name for each in folders if _is_open(each)]
    return Finding(
        name="data folder",
        ok=not opened,
        sentence=f"other users of this machine may look into {', '.join(opened)}"
        if opened
        else "it is this user's alone",
        setting="FAX_DATA_DIR",
        mend="chmod 700" if opened else "",
    )


def _is_open(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & 0o066)
    except OSError:
        return False


def _disk(config: Config) -> Finding:
    folder = config.data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free, files = shutil.disk_usage(folder).free, os.statvfs(folder)
    full = free < LEAST_FREE or (files.f_files and files.f_favail < 1000)
    return Finding(
        name="disk",
        ok=not full,
        sentence=f"{free / 1024**3:.1f} GiB are free",
        setting="FAX_DATA_DIR",
        mend="make room: without it no fax is accepted" if full else "",
        needed=True,
    )


# What it works with ---------------------------------------------------------------------------------


def _of_database(runtime: Runtime, parts: Mapping[str, health.Part]) -> Iterator[Finding]:
    part = _part(parts, "database", "DATABASE_URL")
    yield part
    if part.ok and not runtime.database.is_sqlite:
        with suppress(FaxbotError, sa.exc.SQLAlchemyError):
            yield _clock(runtime)
            yield _asked_for_password(runtime)


def _clock(runtime: Runtime) -> Finding:
    before = runtime.now()
    row = runtime.database.row(sa.select(sa.func.clock_timestamp()), {})
    after = runtime.now()
    theirs = row[0] if row else before
    skew = abs((theirs - (before + (after - before) / 2)).total_seconds())
    return Finding(
        name="clock",
        ok=skew <= LONGEST_SKEW,
        sentence=f"{skew:.1f} s apart from the database's",
        mend="keep both machines in step (NTP)" if skew > LONGEST_SKEW else "",
        needed=True,
    )


def _asked_for_password(runtime: Runtime) -> Finding:
    """Whether PostgreSQL would let in anybody who names the user (`trust`); of a new connection, which tells."""
    engine = runtime.database.engine
    given = engine.url.password is not None
    with db.faults(), engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        trusts = given and not driver.pgconn.used_password
    return Finding(
        name="database password",
        ok=not trusts,
        sentence="PostgreSQL did not ask for it (trust in pg_hba.conf)"
        if trusts
        else "PostgreSQL asks who we are",
        setting="pg_hba.conf",
        mend="have it ask: scram-sha-256 in the place of trust" if trusts else "",
        needed_in_production=True,
    )


def _broker(config: Config) -> Finding:
    if _nothing_runs(config):
        return Finding(
            name="broker",
            ok=None,
            sentence="nothing runs here: `faxbot up` starts the embedded one",
        )
    name = "FAX_DATA_DIR" if config.embedded_broker else "CELERY_BROKER_URL"
    if not health.answers(health.redis_url(config)):
        return Finding(
            name="broker",
            ok=False,
            sentence="it does not answer, or not to us: faxes are accepted and wait",
            setting=name,
            mend="start it, or mend its address or password",
            needed=True,
        )
    anybody = not config.embedded_broker and _lets_in_anybody(config)
    return Finding(
        name="broker",
        ok=not anybody,
        sentence="it answers whoever reaches it, without a password" if anybody else "answers",
        setting=name if anybody else "",
        mend="set requirepass at the server, and the password in the address" if anybody else "",
        needed_in_production=True,
    )


def _lets_in_anybody(config: Config) -> bool:
    scheme, _, rest = health.redis_url(config).partition("://")
    return scheme != "unix" and health.answers(f"{scheme}://{rest.rpartition('@')[2]}")


_MENDS = {
    "settings": "see `faxbot config list`",
    "database": "start it, mend DATABASE_URL, or run `faxbot db upgrade`",
    "storage": "see STORAGE_BACKEND, and FAX_DATA_DIR or the settings of that storage",
    "provider": "see FAX_BACKEND and `faxbot plugins list`",
    "queue": "start `faxbot worker` and `faxbot beat`",
    "listeners": "start `faxbot listen`",
}


def _part(parts: Mapping[str, health.Part], name: str, setting: str = "") -> Finding:
    """A part of fitness (health.parts)."""
    part = parts[name]
    mend = "" if part["ok"] else _MENDS[name]
    return Finding(
        name=name, ok=part["ok"], sentence=part["detail"], setting=setting, mend=mend, needed=True
    )


def _listeners(config: Config, parts: Mapping[str, health.Part]) -> Finding:
    found = _part(parts, "listeners")
    if not found.ok and _nothing_runs(config):
        return Finding(name="listeners", ok=None, sentence="nothing runs here")
    return found


def _nothing_runs(config: Config) -> bool:
    """Whether the embedded broker, without which nothing of an installation runs, is not there."""
    return config.embedded_broker and not config.broker_socket.exists()


def _sweeps(runtime: Runtime) -> Finding:
    """A sweep's heartbeat is a worker's: beat rings, a worker does it."""
    try:
        silent = sweeps.overdue(runtime)
    except (FaxbotError, sa.exc.SQLAlchemyError):
        return Finding(name="sweeps", ok=None, sentence="the database does not say")
    if silent and _nothing_runs(runtime.config):
        return Finding(name="sweeps", ok=None, sentence="nothing runs here")
    return Finding(
        name="sweeps",
        ok=not silent,
        sentence=f"overdue: {', '.join(silent)}" if silent else "all run, so beat and a worker do",
        mend="start `faxbot beat` and `faxbot worker`" if silent else "",
        needed=True,
    )


_SETTING_OF = {
    FILE: "AUDIT_LOG_FILE",
    SYSLOG: "AUDIT_LOG_SYSLOG_ADDRESS",
    STDERR: "AUDIT_LOG_ENABLED",
}


def _audit_log(runtime: Runtime) -> Iterator[Finding]:
    """Whether what is wanted elsewhere of the audit trail gets there."""
    wanted = runtime.config.audit_sinks
    if not wanted:
        return
    try:
        late = runtime.now() - LONGEST_BEHIND
        silent = [each.log for each in auditlog.behind(runtime) if each.since < late]
    except (FaxbotError, sa.exc.SQLAlchemyError):
        yield Finding(name="audit log", ok=None, sentence="the database does not say")
        return
    yield Finding(
        name="audit log",
        ok=not silent,
        sentence=f"nothing gets through to {', '.join(dict.fromkeys(silent))}; the trail itself is whole"
        if silent
        else f"the audit trail is written on: {', '.join(wanted)}",
        setting=_SETTING_OF[silent[0]] if silent else "",
        mend="see `audit log not written` in the worker's log" if silent else "",
    )


def _webhooks(runtime: Runtime) -> Iterator[Finding]:
    """Whether this process can send to those who subscribed."""
    try:
        shut = webhooks.unopened(runtime)
    except (FaxbotError, sa.exc.SQLAlchemyError):
        yield Finding(name="webhooks", ok=None, sentence="the database does not say")
        return
    yield Finding(
        name="webhooks",
        ok=not shut,
        sentence=f"{shut} do not open: this is not the master key that sealed them"
        if shut
        else "what is sealed of them opens",
        setting="CONFIG_MASTER_KEY" if shut else "",
        mend="give the key back, or delete these webhooks and make them anew" if shut else "",
    )
