"""Retention: what is kept how long, when the next run is due, what runs have removed, and one that is wanted now."""

from __future__ import annotations

import time
from typing import Any

from flask import Response

from faxbot import retention
from faxbot.config import OPTIONS
from faxbot.purging import CLASSES
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame

pages = frame.Pages("retention", __name__)

RUNS = 30
LOOK_SECONDS = 3.0
"""For so long it is counted what a run would remove; then it is at least so much."""
_BY_FIELD = {option.field: option for option in OPTIONS}


@pages.page("/retention", access="operate")
def show_retention() -> Response:
    """What is kept how long, and the newest runs."""
    config, now = runtime().config, runtime().now()
    kept, cutoffs = retention.kept(config), retention.cutoffs(config, now)
    return frame.show(
        "retention.html",
        classes=[
            {
                "name": name,
                "option": _BY_FIELD[of.days],
                "days": kept[name],
                "set": getattr(config, of.days),
                "behind": of.behind,
                "cutoff": cutoffs.get(name),
            }
            for name, of in CLASSES.items()
        ],
        next_at=retention.next_at(config, now),
        runs=retention.runs(runtime(), limit=RUNS),
        called=frame.called(),
    )


@pages.deed("/retention/look", access="admin")
def rehearse() -> Response:
    """What a run would remove now, of every account; nothing is."""
    actor().require_house()
    until, whole = time.monotonic() + LOOK_SECONDS, True
    found: dict[str, dict[str, Any]] = {}
    for name, cutoff, count in retention.would_remove(runtime()):
        found[name] = {"cutoff": cutoff, "count": count}
        if time.monotonic() > until:
            whole = False
            break
    return frame.show("rehearsed.html", found=found, whole=whole)


@pages.deed("/retention/run", access="admin")
def run_retention() -> Response:
    """Have what is old removed now."""
    run_id = retention.ask(runtime(), actor())
    runtime().ring(retention.TASK, run_id)
    return frame.done("A worker works on it. Its figures appear here.")
