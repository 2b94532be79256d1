"""The sweeps beat rings: what is due and was not announced, whatever the reason, is announced
again."""

from __future__ import annotations

from celery import shared_task

from faxbot import artifacts, auditlog, retention, spool, sweeps
from faxbot.tasks.worker import runtime


@shared_task(name="faxbot.sweep")
def sweep() -> None:
    """Announce what is due: faxes of each open status, and stored callbacks."""
    sweeps.run(runtime())


@shared_task(name="faxbot.sweep_spool")
def sweep_spool() -> None:
    """Remove what crashed processes left in the spool."""
    spool.collect(runtime().config.spool_dir)


@shared_task(name="faxbot.sweep_documents")
def sweep_documents() -> None:
    """Remove stored bytes whose fax was never recorded."""
    artifacts.collect(runtime())


@shared_task(name="faxbot.write_audit_log")
def write_audit_log() -> None:
    """Write the audit trail on, beside the sweeps: a log that is away keeps nobody waiting."""
    auditlog.write_on(runtime())


@shared_task(name="faxbot.purge")
def purge(run_id: str) -> None:
    """Work on a run of retention for some seconds."""
    retention.work(runtime(), run_id)
