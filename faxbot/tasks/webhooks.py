"""The task that has due webhooks delivered: it wakes this process's courier, and waits for nobody."""

from __future__ import annotations

from celery import shared_task

from faxbot.tasks.worker import courier


@shared_task(name="faxbot.deliver_webhooks")
def deliver_webhooks(_due: str) -> None:
    """Deliver what is due, beside the tasks of this process."""
    courier().wake()
