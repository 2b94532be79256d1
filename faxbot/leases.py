"""Keeps the leases of a process's claims alive: one thread for all of them, started with the first.

A worker that is stopped, or whose database is away, prolongs nothing, and its leases run out: that
is how others know.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

import sqlalchemy as sa

from faxbot.config import Config
from faxbot.db import Database, UtcDateTime
from faxbot.models import Job

log = logging.getLogger(__name__)

_PROLONG = (
    sa.update(Job)
    .where(
        Job.id == sa.bindparam("job_id"),
        Job.fence == sa.bindparam("number"),
        Job.lease_until.is_not(None),
    )
    .values(lease_until=sa.bindparam("until", type_=UtcDateTime))
    .execution_options(synchronize_session=False)
)


class Leases:
    """The claims this process works on; safe to share between threads."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config, self._database = config, database
        self._kept: dict[tuple[str, int], Callable[[], datetime]] = {}
        self._change = threading.Condition()
        self._heart: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def keep(self, job_id: str, fence: int, now: Callable[[], datetime]) -> Iterator[None]:
        """Prolong this claim's lease while the body runs, by the clock `now`."""
        with self._change:
            self._kept[job_id, fence] = now
            if self._heart is None:
                self._heart = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._heart.start()
        try:
            yield
        finally:
            with self._change:
                self._kept.pop((job_id, fence), None)

    def close(self) -> None:
        """End the thread; leases still kept run out by themselves."""
        with self._change:
            self._closed, heart = True, self._heart
            self._change.notify()
        if heart is not None:
            heart.join()

    def _beat(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed, self._config.heartbeat_seconds)
                if self._closed:
                    return
                kept = dict(self._kept)
            if not kept:
                continue
            try:
                self._prolong(kept)
            except Exception as error:  # noqa: BLE001 - this thread serves every later claim too
                # Nobody can say any more that these are ours: let them run out, unless it returns.
                log.warning("leases not prolonged", extra={"exception": type(error).__name__})

    def _prolong(self, kept: Mapping[tuple[str, int], Callable[[], datetime]]) -> None:
        lease = timedelta(seconds=self._config.lease_seconds)
        with self._database.transaction() as session:
            for (job_id, fence), now in kept.items():
                session.execute(
                    _PROLONG, {"job_id": job_id, "number": fence, "until": now() + lease}
                )
