"""A worker process's runtime, courier and messenger: made after the fork, closed at its end, found by the tasks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from celery import Celery, Task, signals
from celery.apps.worker import Worker
from celery.worker import request

from faxbot import logcontext, rotation, spool, stopping, wiring
from faxbot.config import Config
from faxbot.courier import Courier
from faxbot.messenger import Messenger
from faxbot.runtime import Runtime
from faxbot.tasks.app import Bell

TASK_MODULES = [
    f"faxbot.tasks.{name}"
    for name in ("send", "callbacks", "inbound", "sweep", "webhooks", "notices")
]
HIDDEN = "[hidden]"
_ID = re.compile(r"[0-9a-f]{32}")
_runtimes: dict[str, Runtime] = {}
_couriers: dict[str, Courier] = {}
_messengers: dict[str, Messenger] = {}


class Request(request.Request):
    """A message that a worker has, as it is told to Celery's own tools (its events, `celery inspect`, Flower): without
    what it is about."""

    argsrepr = kwargsrepr = HIDDEN

    def info(self, safe: bool = False) -> Any:
        return {**super().info(safe), "args": HIDDEN, "kwargs": HIDDEN}


def serve(config: Config, app: Celery) -> None:
    """Have this worker know the tasks, and give each of its processes a runtime of its own."""
    rotation.admit(config)
    app.conf.include = TASK_MODULES
    stopping.ignore()

    def start(**_: object) -> None:
        stopping.listen()
        spool.collect(config.spool_dir)  # of one that was killed, in whose place this one came
        bell = Bell(config, patience=1.0)
        _runtimes["worker"] = wiring.build(config, ring=bell, unanswered=bell.unanswered)
        _couriers["worker"] = Courier(_runtimes["worker"])
        _messengers["worker"] = Messenger(_runtimes["worker"])

    def stop(**_: object) -> None:
        if messenger := _messengers.pop("worker", None):
            messenger.close()
        if courier := _couriers.pop("worker", None):
            courier.close()
        if runtime := _runtimes.pop("worker", None):
            runtime.close()

    signals.task_prerun.connect(_begin, weak=False)
    signals.task_postrun.connect(_end, weak=False)
    signals.worker_process_init.connect(start, weak=False)
    signals.worker_process_shutdown.connect(stop, weak=False)


def _begin(task_id: str, task: Task[Any, Any], args: tuple[Any, ...], **_: object) -> None:
    """What is logged from here on is about this task and the row whose id it is told, if that looks like one."""
    rows = dict(zip(_parameters(task.run), args, strict=False))
    named = {
        name: row
        for name, row in rows.items()
        if not name.startswith("_") and isinstance(row, str) and _ID.fullmatch(row)
    }
    logcontext.begin(task=task.name, task_id=task_id, **named)


@cache
def _parameters(run: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(run).parameters)


def _end(**_: object) -> None:
    logcontext.begin()


def heed_the_end(worker: Worker) -> None:
    """Have this worker's processes give back what they only prepare as soon as it is asked to end."""

    def ask(**_: object) -> None:
        pool: Any = worker.pool
        if pool is not None:  # it has begun
            stopping.ask(pool.info["processes"])

    signals.worker_shutting_down.connect(ask, weak=False)


def runtime() -> Runtime:
    """What this worker process works with, as it is set when a task begins; raises DatabaseAway and
    ConfigError as Runtime.fresh()."""
    return _runtimes["worker"].fresh()


def courier() -> Courier:
    """Who delivers this process's webhooks."""
    return _couriers["worker"]


def messenger() -> Messenger:
    """Who tells people, of this process."""
    return _messengers["worker"]
