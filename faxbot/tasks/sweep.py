"""The sweeps beat rings: what is due and was not announced, whatever the reason, is announced
again."""

from __future__ import annotations

from celery import shared_task

from faxbot import callbacks, claims, spool
from faxbot.events import Status
from faxbot.tasks.worker import runtime


@shared_task(name="faxbot.sweep")
def sweep(status: str) -> None:
    """Announce the due faxes of one status."""
    claims.announce_due(runtime(), Status(status))


@shared_task(name="faxbot.sweep_callbacks")
def sweep_callbacks() -> None:
    """Announce stored callbacks that wait."""
    callbacks.announce_waiting(runtime())


@shared_task(name="faxbot.sweep_spool")
def sweep_spool() -> None:
    """Remove what crashed processes left in the spool."""
    spool.collect(runtime().config.spool_dir)
