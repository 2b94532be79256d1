"""A stand-in for Sinch's Fax API v3: its sign-in, faxes, errors and webhooks, and what goes wrong
between a carrier and its client; written from the vendor's documentation.

It places no call. The last four digits of a number choose what happens (numbers.py;
docs/sinch-carrier.md). It has to repeat numbers and give back documents, so its ledger holds both
in clear: use it with invented ones.
"""

from __future__ import annotations

from pathlib import Path

from faxbot.carriers import door
from faxbot.carriers.ledger import Ledger
from faxbot.carriers.sinch.access import Access, Account
from faxbot.carriers.sinch.carrier import Carrier
from faxbot.carriers.sinch.routes import Incoming, Routes
from faxbot.carriers.sinch.submission import CONTENT_TYPES, MULTIPART
from faxbot.carriers.sinch.teller import Times
from faxbot.errors import ConfigError

__all__ = ["CONTENT_TYPES", "serve"]


def serve(
    host: str = "127.0.0.1",
    port: int = 8093,
    ledger_path: Path = Path("sinch.db"),
    project_id: str = "",
    key: str = "",
    secret: str = "",
    *,
    incoming_url: str = "",
    incoming_type: str = MULTIPART,
    page_seconds: float = 0.3,
    late_seconds: float = 30.0,
    token_seconds: float = 3600.0,
    scale: float = 1.0,
) -> None:
    """Run the carrier until SIGTERM or SIGINT. Prints its address once it listens (port 0 takes a
    free one).

    `incoming_url` and `incoming_type` are the service's incomingWebhookUrl and webhookContentType.
    `page_seconds`: how long a page takes on the line; 0 ends every call at once. `late_seconds`: how
    long what is late waits. `token_seconds`: how long a token is good. `scale` multiplies the
    vendor's own times: the wait before a redial, and webhooks that are posted again. Raises
    ConfigError without project, key or secret, OSError where it cannot listen.
    """
    if not (project_id and key and secret):
        raise ConfigError(
            "SINCH_PROJECT_ID, SINCH_API_KEY or SINCH_API_SECRET is not set: the carrier and its client "
            "need the same"
        )
    if incoming_type not in CONTENT_TYPES:
        raise ConfigError(f"webhooks are of one of {', '.join(CONTENT_TYPES)}")
    account = Account(project_id, key, secret)
    times = Times(page_seconds, late_seconds, scale)
    carrier = Carrier(Ledger(ledger_path), account, times)
    access = Access(account, token_seconds)
    routes = Routes(carrier, access, project_id, Incoming(incoming_url, incoming_type))
    try:
        door.serve("sinch", host, port, routes, ready=carrier.resume)
    finally:
        carrier.close()
