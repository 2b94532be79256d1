"""Celery's settings: no limit of its own cuts short what a setting of ours allows."""

from __future__ import annotations

import pytest

from faxbot.config import Config
from faxbot.tasks.app import celery_app


@pytest.mark.parametrize(
    ("render", "call", "lease"), [("300", "120", "60"), ("3600", "120", "60"), ("60", "900", "30")]
)
def test_a_task_may_last_as_long_as_rendering_calls_and_a_database_that_is_away(
    render: str, call: str, lease: str
) -> None:
    settings = {
        "FAXBOT_RENDER_SECONDS": render,
        "FAXBOT_PROVIDER_CALL_SECONDS": call,
        "FAXBOT_LEASE_SECONDS": lease,
    }
    conf = celery_app(Config.load({"PATH": "", **settings})).conf

    needed = float(render) + 2 * float(call) + float(lease)
    given_up = conf.broker_transport_options["visibility_timeout"]
    assert needed <= conf.task_soft_time_limit < conf.task_time_limit < given_up, (
        "a message goes to a second worker while the first one still works"
    )
