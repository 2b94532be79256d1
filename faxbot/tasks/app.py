"""The Celery app: settings, queues, beat table, and the bell. Celery only here; a task body is one
call.

Celery with Redis alone loses tasks under kill -9 (kombu pops a message before it notes it: 7 of 20
runs lost one, measured), so a message carries one id, the row is the truth, and every task may run
twice or never without harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from kombu.utils.uuid import uuid

from faxbot.config import Config
from faxbot.errors import FaxbotError
from faxbot.shares import URGENT
from faxbot.tasks import broker

log = logging.getLogger(__name__)

QUEUES: dict[str, str] = {
    "faxbot.send_fax": broker.SEND,
    # Beside the queue of those that wait to be sent: a thousand of them must not keep one that may be out from being
    # looked up.
    "faxbot.settle_fax": "follow",
    "faxbot.look_up_fax": "follow",
    "faxbot.poll_fax": "follow",
    "faxbot.review_fax": "follow",
    "faxbot.delete_copy": "follow",
    "faxbot.apply_callback": "callbacks",
    # Neither fetching nor drawing them keeps the news of sent faxes waiting.
    "faxbot.fetch_inbound": "follow",
    "faxbot.deliver_webhooks": "webhooks",
    # Both only wake who sends, beside the tasks.
    "faxbot.tell_people": "webhooks",
    "faxbot.sweep": "sweep",
    "faxbot.sweep_spool": "sweep",
    "faxbot.sweep_documents": "sweep",
    "faxbot.write_audit_log": "sweep",
    "faxbot.purge": "sweep",
}
"""Which queue a task waits in; a worker serves all of them unless told otherwise."""

SILENCE_AFTER_FAILURE = 5.0
"""Seconds for which the bell is not tried after the broker did not answer: a dead broker must not
slow every request."""
SPOOL_EVERY = 600.0
DOCUMENTS_EVERY = 3600.0


class TaskFailed(FaxbotError):
    """A task met what nobody expects; the detail is the kind of that exception."""

    code = "task-failed"


class _Task(Task[Any, Any]):
    """Fails without what a foreign exception says: Celery writes that into its log and, where somebody watches its
    events as Flower does, into the broker."""

    Request = "faxbot.tasks.worker:Request"

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        try:
            return self.run(*arguments, **named)
        except FaxbotError:
            raise
        except Exception as error:  # noqa: BLE001 - raised again
            failure = TaskFailed(type(error).__name__)
            raise failure.with_traceback(error.__traceback__) from None


def celery_app(config: Config) -> Celery:
    """The app of a worker, of beat, or of Celery's own tools; nothing is connected yet. The tasks
    themselves come with worker.serve(): beat only names them."""
    app = _bare(config)
    app.conf.beat_schedule = beat_table(config)
    return app


def _bare(config: Config) -> Celery:
    broker.register()
    app: Celery[Task[Any, Any]] = Celery(
        "faxbot", broker=config.broker, task_cls=_Task, set_as_current=False
    )
    app.conf.update(_settings(config))
    return app


def _settings(config: Config) -> dict[str, Any]:
    """Measured to hold under kills, freezes and restarts of broker and workers: a message is given
    back when its worker is gone, never while it works, and none is waited for in vain."""
    # A rendering, a cancel and a question to the carrier, and a database that is away for a while.
    longest = config.render_seconds + 2 * config.provider_call_seconds + config.lease_seconds
    return {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure_or_timeout": True,
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": broker.SEND,
        "task_routes": {task: {"queue": queue} for task, queue in QUEUES.items()},
        "task_soft_time_limit": longest,
        "task_time_limit": longest + 30,
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.2,
        },
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": 5000,
        "worker_max_memory_per_child": 400_000,  # KiB
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # a provider call is not repeated blindly
        "worker_soft_shutdown_timeout": 20.0,
        "worker_enable_remote_control": True,
        "worker_send_task_events": False,  # two more messages a task; Flower asks for them itself
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_limit": 10,
        "broker_transport_options": {
            # Longer than any task: a message is given to a second worker only when the first one is gone.
            "visibility_timeout": longest + 360,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 15,
            "retry_on_timeout": True,
            "global_keyprefix": "faxbot:",
        },
        "timezone": "UTC",
        "enable_utc": True,
    }


def beat_table(config: Config) -> dict[str, dict[str, Any]]:
    """What beat rings and how often. One message for all that may be due: while no worker lives,
    beat's messages are all that comes into the broker."""
    every = config.sweep_seconds
    table = {
        "sweep": {
            "task": "faxbot.sweep",
            "schedule": every,
            # An old ring is worth nothing once the next one is out.
            "options": {"expires": max(every * 2, 10.0)},
        },
        "sweep-spool": {
            "task": "faxbot.sweep_spool",
            "schedule": SPOOL_EVERY,
            "options": {"expires": SPOOL_EVERY},
        },
        "sweep-documents": {
            "task": "faxbot.sweep_documents",
            "schedule": DOCUMENTS_EVERY,
            "options": {"expires": DOCUMENTS_EVERY},
        },
    }
    if config.audit_sinks:
        table["audit-log"] = {**table["sweep"], "task": "faxbot.write_audit_log"}
    return table


# The bell -----------------------------------------------------------------------------------------------------------


def _publish(app: Celery, task: str, row_id: str, urgency: int) -> None:
    """Celery's send_task() for a message that has one id and needs no more than to be put into its
    queue: the same message at half the cost (measured)."""
    message = app.amqp.as_task_v2(uuid(), task, args=(row_id,))
    with app.producer_pool.acquire(block=True) as producer:
        producer.publish(
            message.body,
            exchange="",
            routing_key=QUEUES[task],
            serializer="json",
            headers=message.headers,
            retry=False,
            priority=_step(urgency),
            **message.properties,
        )


def _step(urgency: int) -> int:
    """The priority of a message. kombu has four lists a queue for the steps 0, 3, 6 and 9; 0 is
    looked into first."""
    return (URGENT - min(max(urgency, 0), URGENT)) * 9 // URGENT


def is_behind(step: int) -> bool:
    """Whether a message of this priority stands in a list behind that of usual faxes."""
    return step >= broker.BEHIND


class Bell:
    """A process's bell: gives up after `patience` seconds and then stays silent for 5 s. The sweep
    finds what it did not announce."""

    def __init__(
        self,
        config: Config,
        *,
        patience: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = _bare(config)
        self._app.conf.broker_connection_timeout = patience
        self._app.conf.broker_pool_limit = config.web_threads
        self._app.conf.broker_transport_options = {
            **self._app.conf.broker_transport_options,
            "socket_timeout": patience,
            "socket_connect_timeout": patience,
            "retry_on_timeout": False,
            "health_check_interval": 0,
            "max_retries": 0,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
        }
        self._clock, self._silent_until = clock, 0.0

    def __call__(self, task: str, row_id: str, urgency: int = URGENT, /) -> bool:
        """Announce a row; whether the broker took it (runtime.Ring)."""
        return self._tried(task, lambda: _publish(self._app, task, row_id, urgency))

    def unanswered(self, task: str, /) -> int:
        """Rings that wait for a worker in this task's queue; 0 where the broker does not say."""
        counted: list[int] = []
        self._tried(task, lambda: counted.append(_length(self._app, QUEUES[task])))
        return sum(counted)

    def _tried(self, task: str, deed: Callable[[], object]) -> bool:
        if self._clock() < self._silent_until:
            return False
        try:
            deed()
        except Exception as error:  # noqa: BLE001 - whatever ails the broker, the row is the truth
            self._silent_until = self._clock() + SILENCE_AFTER_FAILURE
            log.warning("bell not rung", extra={"task": task, "exception": type(error).__name__})
            return False
        return True


def _length(app: Celery, queue: str) -> int:
    with app.producer_pool.acquire(block=True) as producer:
        channel: Any = producer.channel
        return int(channel.queue_declare(queue).message_count)
