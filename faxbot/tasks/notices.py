"""The task that has people told what is due: it wakes this process's messenger, and waits for nobody."""

from __future__ import annotations

from celery import shared_task

from faxbot.tasks.worker import messenger


@shared_task(name="faxbot.tell_people")
def tell_people(_due: str) -> None:
    """Tell people what is due, beside the tasks of this process."""
    messenger().wake()
