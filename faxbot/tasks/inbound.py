"""The task that has the document of a received fax."""

from __future__ import annotations

from celery import shared_task

from faxbot import arrivals
from faxbot.tasks.worker import runtime


@shared_task(name="faxbot.fetch_inbound")
def fetch_inbound(inbound_id: str) -> None:
    """Have the document of one received fax, and store it."""
    arrivals.fetch(runtime(), inbound_id)
