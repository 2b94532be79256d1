"""A provider that does what a test says, and else what the simulator's client does: it may answer
or raise anything, or be gone in the middle of a call.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeVar

from faxbot.db import utcnow
from faxbot.errors import ProcessEnds
from faxbot.plugins.base import (
    Arrival,
    CallbackRequest,
    Context,
    Gap,
    Notice,
    OutboundFax,
    Receipt,
    Update,
)
from faxbot.plugins.loader import GROUP, Found, Plugins
from faxbot.plugins.manifest import Manifest
from faxbot.providers.http import HttpClient
from faxbot.providers.simulator import SimulatorProvider
from faxbot.runtime import Runtime
from faxbot.storage.local import LocalStorage

A = TypeVar("A")
R = TypeVar("R")
Deed = Callable[[Callable[[Any], Any], Any], Any]
"""(what the simulator's client would do, the argument) -> the answer."""


def answers(value: object) -> Deed:
    return lambda _usual, _fax: value


def raises(error: BaseException) -> Deed:
    def deed(_usual: object, _fax: object) -> object:
        raise error

    return deed


def news(**facts: Any) -> Update:
    """An update of whatever kinds, as a careless plugin makes it."""
    return Update(**facts)


class Vanished(ProcessEnds):
    """The worker is gone: no code of ours runs any more, as after kill -9."""


def taken_and_gone(usual: Callable[[OutboundFax], Receipt], fax: OutboundFax) -> object:
    """The carrier takes the fax, and the worker vanishes before it can write that down."""
    usual(fax)
    raise Vanished


class Odd(SimulatorProvider):
    """`does` holds a test's deeds by the name of the method."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        self.does: dict[str, Deed] = {}

    def send(self, fax: OutboundFax) -> Receipt:
        return self._do("send", super().send, fax)

    def look_up(self, tag: str, **where: Any) -> Update:
        return self._do("look_up", partial(super().look_up, **where), tag)

    def fetch(self, external_id: str) -> Update:
        return self._do("fetch", super().fetch, external_id)

    def cancel(self, external_id: str) -> None:
        self._do("cancel", super().cancel, external_id)

    def delete_copy(self, external_id: str) -> None:
        self._do("delete_copy", super().delete_copy, external_id)

    def attached(self, request: CallbackRequest, target: BinaryIO) -> None:
        self._do("attached", lambda both: super(Odd, self).attached(*both), (request, target))

    def document(self, external_id: str, target: BinaryIO) -> None:
        self._do("document", lambda both: super(Odd, self).document(*both), (external_id, target))

    def claim(self, request: CallbackRequest) -> None:
        self._do("claim", super().claim, request)

    def taken(self, external_id: str) -> None:
        self._do("taken", super().taken, external_id)

    def verify_callback(self, request: CallbackRequest) -> bool:
        return self._do("verify_callback", super().verify_callback, request)

    def read_callback(self, request: CallbackRequest) -> list[Update | Arrival]:
        return self._do("read_callback", super().read_callback, request)

    def listen(self) -> Iterator[Notice | Gap | None]:
        heard: Iterator[Notice | Gap | None] = self._do("listen", lambda _: iter(()), None)
        return heard

    def _do(self, name: str, usual: Callable[[A], R], argument: A) -> R:
        deed = self.does.get(name)
        answer: R = usual(argument) if deed is None else deed(usual, argument)
        return answer


class LateStorage(LocalStorage):
    """Fails when it has kept the bytes already, as a disk may."""

    def put(self, key: str, source: Path) -> None:
        super().put(key, source)
        raise OSError(errno.EIO, "the disk says no")


def plugins(
    runtime: Runtime,
    without: Collection[str] = (),
    storage: type[LocalStorage] = LocalStorage,
    others: Mapping[str, Collection[str]] = MappingProxyType({}),
    more: Collection[str] = (),
) -> Plugins:
    """The runtime's plugins with Odd as `simulator`, which lacks the traits `without` and has `more`, and as
    `others` with such traits (none: the same), and `storage` as `local`."""
    config = runtime.config

    def context(manifest: Manifest, settings: Mapping[str, Any]) -> Context:
        http = HttpClient(
            manifest.addresses(settings),
            connect=config.provider_connect_seconds,
            read=config.provider_read_seconds,
        )
        return Context(logging.getLogger(f"faxbot.plugins.{manifest.id}"), utcnow, http)

    simulator = runtime.plugins.manifest("simulator")
    usual = dict.fromkeys((*simulator.traits, *more))
    traits = tuple(trait for trait in usual if trait not in without)
    found = [
        _found(replace(simulator, traits=traits), f"{__name__}:Odd"),
        _found(runtime.plugins.manifest("local"), f"{storage.__module__}:{storage.__name__}"),
        _found(runtime.plugins.manifest("s3"), "faxbot.storage.s3:S3Storage"),
        _found(runtime.plugins.manifest("email"), "faxbot.notifications.email:EmailNotifier"),
    ]
    for name, own in others.items():
        other = replace(simulator, id=name, traits=tuple(own) or traits)
        found.append(_found(other, f"{__name__}:Odd"))
    return Plugins(found, (), environ=config.environ, make_context=context)


def _found(manifest: Manifest, value: str) -> Found:
    return Found(manifest, EntryPoint(manifest.id, value, GROUP), Path(__file__))
