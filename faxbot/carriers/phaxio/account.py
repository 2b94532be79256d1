"""What the vendor's console would hold of its customer, and how long things take here."""

from __future__ import annotations

from dataclasses import dataclass

REPOST_SECONDS = (300, 600, 1200, 1800, *(6 * 3600 for _ in range(12)))
"""When a callback that was not taken is posted again, 16 times
(phaxio.com/docs/api/v2/faxes/send_callback)."""


@dataclass(frozen=True, slots=True)
class Account:
    """Key, secret, and the settings of the console. `version` is that of the webhook format,
    `numbers` those it may call from (none: any), `receive_url` where news of received faxes goes."""

    key: str
    secret: str
    callback_token: str = ""
    version: str = "v2.1"
    inflight: bool = False
    live: bool = False
    callback_url: str = ""
    receive_url: str = ""
    numbers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Times:
    """How long things take, in seconds. `scale` shortens the vendor's own times: re-posts,
    `batch_delay`, `cancel_timeout`."""

    page: float = 0.3
    late: float = 30.0
    scale: float = 1.0
