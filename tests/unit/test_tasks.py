"""Celery's settings: no limit of its own cuts short what a setting of ours allows; and what it is told of failures."""

from __future__ import annotations

import pytest

from faxbot.config import Config
from faxbot.errors import PluginError
from faxbot.tasks.app import TaskFailed, celery_app


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


def test_celery_is_not_told_what_a_foreign_exception_says() -> None:
    """It would write that into its log and into its events, which lie in the broker."""
    app = celery_app(Config.load({"PATH": ""}))
    raised: list[Exception] = [UnicodeError("+15550100000"), PluginError("It is not there.")]

    @app.task(name="fails")
    def fails() -> None:
        raise raised.pop(0)

    for kind, says in ((TaskFailed, "UnicodeError"), (PluginError, "It is not there.")):
        result = fails.apply()
        assert type(result.result) is kind
        assert str(result.result) == says
        assert "5550100000" not in str(result.traceback)
