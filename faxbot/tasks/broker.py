"""Celery's way to Redis, with one client a channel, and with a place for who is not to wait.

kombu makes a new client for each message, which costs three times as much as sending it (measured: 0.07 ms of 0.25 a
publish, and as much for each message that a worker takes and acknowledges). And it takes whatever comes next: while an
account surges, all sending processes would be at its faxes whenever another's arrives, which then waits until one of
them is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import RedisError

SEND = "send"
"""The queue of faxes that are to be sent."""
BEHIND = 6
"""The step of priority from which on a message stands in a list behind that of usual faxes."""
KEPT_FOR = 10.0
"""Seconds after a usual fax for which the last free process is kept for the next one."""
LOOK_AGAIN = 0.1
"""Seconds after which all lists are looked into again where the broker forbids us to end a wait (CLIENT UNBLOCK); Redis
6.0 and newer take a fraction."""


class Places(redis.QoS):
    """kombu's count of what is under way, which also knows whether usual faxes come."""

    prefetch_count: int  # kombu's
    channel: Channel  # kombu's
    _usual_at = float("-inf")

    def append(self, message: Any, delivery_tag: str) -> None:
        super().append(message, delivery_tag)
        is_fax = message.delivery_info["routing_key"] == SEND
        if is_fax and (message.properties.get("priority") or 0) < BEHIND:
            self._usual_at = time.monotonic()

    def ack(self, delivery_tag: str) -> None:
        super().ack(delivery_tag)
        self.channel.look_again()

    def keeps_last_place(self) -> bool:
        """Whether one place is left, of several, and usual faxes come that are to find one."""
        return (
            self.prefetch_count > 1
            and self.can_consume_max_estimate() == 1
            and time.monotonic() - self._usual_at < KEPT_FOR
        )


class Channel(redis.Channel):
    """kombu's channel. A client is stateless beside its pool, so one serves all threads."""

    QoS = Places
    qos: Places
    client: Any
    priority_steps: list[int]
    _waits_as: int | None = None
    """The broker's number of the connection on which usual faxes alone are waited for."""
    _kept: Any = None
    _create_client: Callable[[], Any]  # kombu's

    def _brpop_start(self, timeout: float | None = None) -> None:
        self._waits_as = None
        if not self.qos.keeps_last_place():
            super()._brpop_start(timeout)  # type: ignore[misc]
            return
        every = self.priority_steps
        self.priority_steps = [step for step in every if step < BEHIND]
        try:
            super()._brpop_start(LOOK_AGAIN)  # type: ignore[misc]
        finally:
            self.priority_steps = every
        # From its greeting (HELLO): to ask for it here could read the answer to an earlier BRPOP, and lose its message.
        self._waits_as = (self.client.connection.handshake_metadata or {}).get(b"id")

    def look_again(self) -> None:
        """End a wait for usual faxes alone: there is one place more."""
        waits_as, self._waits_as = self._waits_as, None
        if waits_as is not None:
            with suppress(RedisError), self.conn_or_acquire() as client:
                client.client_unblock(waits_as)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        if client is None:
            # After a lost connection kombu makes a new pool.
            if self._kept is None or self._kept.connection_pool is not self.pool:
                self._kept = self._create_client()
            client = self._kept
        yield client


class Transport(redis.Transport):
    """kombu's transport over such channels."""

    Channel = Channel


def register() -> None:
    """Let redis:// and its kin mean this transport in this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{Transport.__module__}:{Transport.__qualname__}"
