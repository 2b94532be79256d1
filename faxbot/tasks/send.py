"""The tasks around one fax: send it, settle a vanished worker's call, look it up, poll it, review a
held one, have the carrier's copy deleted."""

from __future__ import annotations

from dataclasses import replace

from celery import Task, shared_task

from faxbot import copies, followup, sending
from faxbot.tasks.app import is_behind
from faxbot.tasks.worker import runtime


@shared_task(name="faxbot.send_fax", bind=True)
def send_fax(self: Task[[str], None], job_id: str) -> None:
    """Make one attempt at a due fax. One that stands behind others, as those of an account that
    surges, is also drawn behind theirs."""
    this = runtime()
    if is_behind((self.request.delivery_info or {}).get("priority") or 0):
        this = replace(this, renderer=this.renderer_behind)
    sending.attempt(this, job_id)


@shared_task(name="faxbot.settle_fax")
def settle_fax(job_id: str) -> None:
    """Say of a vanished worker's call that its outcome is unknown."""
    followup.settle(runtime(), job_id)


@shared_task(name="faxbot.look_up_fax")
def look_up_fax(job_id: str) -> None:
    """Look an uncertain fax up at its carrier."""
    followup.look_up(runtime(), job_id)


@shared_task(name="faxbot.poll_fax")
def poll_fax(job_id: str) -> None:
    """Ask the carrier how a sent fax is doing; pass a kept cancel on first."""
    followup.poll(runtime(), job_id)


@shared_task(name="faxbot.review_fax")
def review_fax(job_id: str) -> None:
    """Look at a held fax again."""
    followup.review(runtime(), job_id)


@shared_task(name="faxbot.delete_copy")
def delete_copy(row_id: str) -> None:
    """Have a carrier delete its copy of a document."""
    copies.delete(runtime(), row_id)
