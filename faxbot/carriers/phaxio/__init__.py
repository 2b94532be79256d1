"""A stand-in for Phaxio: its API 2 and 2.1, its statuses, errors, callbacks and signature, and what
goes wrong between a carrier and its client; written from the vendor's documentation.

It places no call. The last four digits of a number choose what happens (numbers.py;
docs/phaxio-carrier.md). Unlike the simulator it has to repeat numbers and give back documents, so
its ledger holds both in clear: use it with invented ones.
"""

from __future__ import annotations

from pathlib import Path

from faxbot.carriers import door
from faxbot.carriers.ledger import Ledger
from faxbot.carriers.phaxio.account import Account, Times
from faxbot.carriers.phaxio.carrier import Carrier
from faxbot.carriers.phaxio.routes import Routes
from faxbot.carriers.phaxio.words import VERSIONS
from faxbot.errors import ConfigError

__all__ = ["VERSIONS", "serve"]


def serve(
    host: str = "127.0.0.1",
    port: int = 8092,
    ledger_path: Path = Path("phaxio.db"),
    key: str = "",
    secret: str = "",
    *,
    callback_token: str = "",
    version: str = "v2.1",
    inflight: bool = False,
    live: bool = False,
    byte_order_mark: bool = False,
    callback_url: str = "",
    receive_url: str = "",
    numbers: tuple[str, ...] = (),
    page_seconds: float = 0.3,
    late_seconds: float = 30.0,
    scale: float = 1.0,
) -> None:
    """Run the carrier until SIGTERM or SIGINT. Prints its address once it listens (port 0 takes a
    free one).

    The account's settings: `callback_token` signs callbacks (without one they are not signed),
    `version` of the webhook format (one of VERSIONS), `inflight`: events on the way, too,
    `live`: no test key, `callback_url` and `receive_url`: where it calls back when a fax names
    nothing else, and for faxes that come in, `numbers` it may call from (none: any).
    `byte_order_mark`: error bodies begin with one.

    `page_seconds`: how long a page takes on the line; 0 ends every call at once. `late_seconds`: how
    long late news waits. `scale` multiplies the vendor's own times: re-posts, batch_delay,
    cancel_timeout. Raises ConfigError without key or secret or for an unknown version, OSError where
    it cannot listen.
    """
    if not key or not secret:
        raise ConfigError(
            "PHAXIO_API_KEY or PHAXIO_API_SECRET is not set: the carrier and its client need the same"
        )
    if version not in VERSIONS:
        raise ConfigError(f"the webhook format is one of {', '.join(VERSIONS)}")
    account = Account(
        key,
        secret,
        callback_token,
        version,
        inflight,
        live,
        callback_url,
        receive_url,
        tuple(numbers),
    )
    times = Times(page_seconds, late_seconds, scale)
    carrier = Carrier(Ledger(ledger_path), account, times)
    routes = Routes(carrier, byte_order_mark=byte_order_mark)
    try:
        door.serve("phaxio", host, port, routes, ready=carrier.resume)
    finally:
        carrier.close()
