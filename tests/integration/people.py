"""What the tests of notices share: a messenger that works until nothing is due, and what stands in its tables."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import sqlalchemy as sa

from faxbot.db import table
from faxbot.messenger import Messenger
from faxbot.models import Notice, SentNotification
from faxbot.runtime import Runtime
from tests.ground import eventually


def tell(runtime: Runtime, _due: str = "due", *, timeout: float = 60.0) -> None:
    """What the task starts, until it is done."""
    with closing(Messenger(runtime)) as messenger:
        messenger.wake()
        eventually(messenger.is_idle, timeout)


def notices(runtime: Runtime) -> Sequence[sa.Row[Any]]:
    return runtime.database.rows(sa.select(table(Notice)).order_by(Notice.id), {})


def messages(runtime: Runtime) -> Sequence[sa.Row[Any]]:
    query = sa.select(table(SentNotification)).order_by(SentNotification.id)
    return runtime.database.rows(query, {})
