"""Puts a process's runtime together: the one place where configuration becomes working parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from faxbot import crypto, phone
from faxbot.breaker import Breakers
from faxbot.cache import SharedCache
from faxbot.config import Config
from faxbot.db import Database, utcnow
from faxbot.documents import NICE_BEHIND, Checker, Limits, Renderer
from faxbot.errors import ConfigError
from faxbot.leases import Leases
from faxbot.plugins import loader, registry
from faxbot.plugins.base import Cache, Context, OwnCache
from faxbot.plugins.loader import Plugins
from faxbot.plugins.manifest import Manifest
from faxbot.providers.http import HttpClient
from faxbot.runtime import Ring, Runtime, nothing_unanswered, silent
from faxbot.settings import Settings


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
        raise ConfigError(
            "production needs CONFIG_MASTER_KEY: make one with `openssl rand -base64 32`"
        )
    if config.default_region and not phone.is_region(config.default_region):
        raise ConfigError("FAXBOT_DEFAULT_REGION is the code of no country: write it like US or DE")
    limits = Limits.of(config)
    rendering, processes = replace(limits, seconds=config.render_seconds), config.render_processes
    database = Database(config, pool_size=threads)
    keyring = crypto.keyring(
        config.master_key_bytes() if config.master_key else None, config.data_dir
    )
    return Runtime(
        config=config,
        database=database,
        keyring=keyring,
        plugins=plugins(config, lambda plugin_id: SharedCache(database, keyring, plugin_id)),
        checker=Checker(limits),
        renderer=Renderer(rendering, processes),
        renderer_behind=Renderer(rendering, processes, nice=NICE_BEHIND),
        leases=Leases(config, database),
        breakers=Breakers(config, database),
        settings=Settings(config, database, keyring),
        ring=ring,
        unanswered=unanswered,
    )


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
    )
