"""Puts a process's runtime together: the one place where configuration becomes working parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from faxbot import fanout, notices, phone, production, rotation, trail
from faxbot.breaker import Breakers
from faxbot.cache import SharedCache
from faxbot.config import MOST_PAGES, MOST_PIXELS, Config
from faxbot.db import Database, utcnow
from faxbot.documents import NICE_BEHIND, Checker, Limits, Renderer
from faxbot.errors import ConfigError
from faxbot.leases import Leases
from faxbot.plugins import loader, registry
from faxbot.plugins.base import Cache, Context, OwnCache
from faxbot.plugins.loader import Plugins
from faxbot.plugins.manifest import Manifest
from faxbot.providers.http import HttpClient
from faxbot.restored import Restores
from faxbot.runtime import Ring, Runtime, nothing_unanswered, silent
from faxbot.settings import Settings
from faxbot.tallies import Tallies
from faxbot.trail import Notes


def build(
    config: Config,
    *,
    ring: Ring = silent,
    unanswered: Callable[[str], int] = nothing_unanswered,
    threads: int = 4,
) -> Runtime:
    """The runtime of this process; made after a fork, never before. Raises ConfigError.

    Nothing is connected or started yet: child processes, connections and plugins come with their
    first use.
    """
    if config.production and not config.master_key:
        raise ConfigError(f"production needs CONFIG_MASTER_KEY: {production.key_from(config)}")
    if config.default_region and not phone.is_region(config.default_region):
        raise ConfigError("FAXBOT_DEFAULT_REGION is the code of no country: write it like US or DE")
    processes = config.render_processes
    checker, rendering = Checker(Limits.of(config)), _rendering(config)
    renderer = Renderer(rendering, processes)
    renderer_behind = Renderer(rendering, processes, nice=NICE_BEHIND)
    database = Database(config, pool_size=threads)
    keyring = rotation.ring(config)
    trail.attach(database, keyring)
    breakers = Breakers(config, database)

    def follow(changed: Config) -> None:
        checker.set(Limits.of(changed))
        renderer.set(_rendering(changed))
        renderer_behind.set(_rendering(changed))
        breakers.set(changed)

    settings = Settings(config, database, keyring, follow=follow)
    keyring.follow(settings.keys)
    found = plugins(config, lambda plugin_id: SharedCache(database, keyring, plugin_id))
    fanout.attach(database, ring, notices.Wanted(settings, found))
    return Runtime(
        config=config,
        database=database,
        keyring=keyring,
        plugins=found,
        checker=checker,
        renderer=renderer,
        renderer_behind=renderer_behind,
        leases=Leases(config, database),
        breakers=breakers,
        restores=Restores(database),
        settings=settings,
        tallies=Tallies(database),
        notes=Notes(database),
        ring=ring,
        unanswered=unanswered,
    )


def _rendering(config: Config) -> Limits:
    """What was accepted is drawn, whatever new faxes may have by now."""
    return Limits(MOST_PAGES, MOST_PIXELS, config.render_seconds, config.document_memory_mb)


def plugins(config: Config, cache: Callable[[str], Cache] | None = None) -> Plugins:
    """Every installed plugin, with what it gets from us; nothing of a plugin runs yet. `cache`
    gives a plugin of this id what it shares with other processes (None: with nobody)."""

    def context(manifest: Manifest, settings: Mapping[str, Any]) -> Context:
        return Context(
            logger=logging.getLogger(f"faxbot.plugins.{manifest.id}"),
            now=utcnow,
            http=HttpClient(
                manifest.addresses(settings),
                connect=config.provider_connect_seconds,
                read=config.provider_read_seconds,
                total=config.provider_call_seconds,
            ),
            cache=cache(manifest.id) if cache else OwnCache(),
        )

    return loader.discover(
        environ=config.environ,
        make_context=context,
        registry=registry.load(config.plugin_registry),
        start_seconds=config.plugin_start_seconds,
        from_outside=config.plugins_from_outside,
    )
