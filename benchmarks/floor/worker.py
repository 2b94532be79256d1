"""The floor's worker: Celery with two processes and two tasks, sending through a carrier, or only writing its rows.

python -m benchmarks.floor.worker SETTINGS
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import requests
from celery import Celery

from benchmarks.floor.settings import Settings
from benchmarks.floor.store import Store, open_store

SEND = "floor.send"
ROWS = "floor.rows"


def celery_app(settings: Settings) -> Celery:
    """A Celery that acknowledges late, prefetches one and keeps no results, as faxbot's does."""
    app = Celery("floor", broker=settings.redis)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
    )
    return app


class Sender:
    """What one sending process keeps: database connection and session are made after the fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._store: Store | None = None
        self._session: requests.Session | None = None

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = open_store(self.settings.database)
        return self._store

    @property
    def session(self) -> requests.Session:
        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = False
        return self._session

    def send(self, job_id: str) -> None:
        """Claim, hand over, note the carrier's id."""
        tag = uuid.uuid4().hex
        claimed = self.store.claim(job_id, tag)
        if claimed is None:
            return
        recipient, path = claimed
        external_id = hand_over(self.session, self.settings, tag, recipient, Path(path))
        self.store.sent(job_id, external_id)

    def rows(self, job_id: str) -> None:
        """Claim and finish, with no carrier between."""
        tag = uuid.uuid4().hex
        if self.store.claim(job_id, tag):
            self.store.final(tag)


def hand_over(
    session: requests.Session, settings: Settings, tag: str, recipient: str, document: Path
) -> str:
    """POST the document to the carrier; its id for the fax."""
    with document.open("rb") as file:
        response = session.post(
            f"{settings.carrier_url}/v1/faxes",
            data={"to": recipient, "tag": tag, "callback_url": f"{settings.api_url}/callbacks"},
            files={"file": ("document", file, "application/octet-stream")},
            headers={"Authorization": f"Bearer {settings.carrier_secret}"},
            timeout=(5, 30),
        )
    response.raise_for_status()
    return str(response.json()["fax"]["id"])


def main(path: str) -> None:
    """Run the worker until it is stopped."""
    settings = Settings.load(path)
    app = celery_app(settings)
    sender = Sender(settings)
    app.task(name=SEND)(sender.send)
    app.task(name=ROWS)(sender.rows)
    app.worker_main(
        ["worker", "--concurrency", str(settings.processes), "--loglevel", "WARNING",
         "--without-gossip", "--without-mingle"]
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
