"""A test page of our own, submitted as any other fax, to see whether faxes arrive."""

from __future__ import annotations

from faxbot import artifacts, jobs
from faxbot.actors import Actor
from faxbot.hidden import Hidden
from faxbot.runtime import Runtime
from faxbot.spool import SpoolFile

TAGS = {"test": "page"}
"""By which such faxes are found again."""
_PAGE = """faxbot test page

This page was sent to see whether faxes go out and arrive. There is nothing
else to it.

ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789
"""


def send(runtime: Runtime, actor: Actor, to: Hidden[str], *, key: str | None = None) -> str:
    """Submit it to a number in E.164; the fax's id, the same for the same `key`. Raises Forbidden, and what
    jobs.submit() raises."""
    actor.require("fax:send")
    file = SpoolFile(runtime.config.spool_dir)
    try:
        file.write(_PAGE.encode())
        uploads = artifacts.accept(runtime, [(file.path, file.sha256, file.size)])
        submission = jobs.Submission(to=to, uploads=uploads, tags=TAGS)
        return jobs.submit(runtime, actor, submission, key=key).job_id
    finally:
        file.remove()
