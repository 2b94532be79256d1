"""Send a fax by hand: the API's own form, with a key of its own, so that a page that is sent twice is one fax."""

from __future__ import annotations

import secrets

from flask import Response

from faxbot import jobs
from faxbot.web import submission
from faxbot.web.auth import runtime
from faxbot.web.console import frame
from faxbot.web.schemas import MAX_TAGS

pages = frame.Pages("send", __name__)


@pages.page("/send", access="fax:send")
def ask_what_to_send() -> Response:
    """The form."""
    config = runtime().config
    return frame.show(
        "send.html",
        key=secrets.token_hex(16),
        providers=config.provider_ids,
        most=config.max_documents,
        megabytes=config.max_file_size_mb,
        region=config.default_region,
        header=config.fax_header,
        most_tags=MAX_TAGS,
    )


@pages.deed("/send", access="fax:send")
def send_fax() -> Response:
    """Record the fax, and go to its page."""
    answer = submission.submitted(jobs.no_body, by_hand=True)
    return frame.lead(f"/admin/ui/faxes/{answer.job_id}")
