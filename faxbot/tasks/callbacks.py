"""The task that applies a stored callback."""

from __future__ import annotations

from celery import shared_task

from faxbot import callbacks
from faxbot.tasks.worker import runtime


@shared_task(name="faxbot.apply_callback")
def apply_callback(callback_id: str) -> None:
    """Apply one stored callback."""
    callbacks.apply(runtime(), callback_id)
