"""The words of the ledger: the table of moves is the contract's, every move folds, and nothing open is forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot import events
from faxbot.claims import TASKS
from faxbot.config import Config
from faxbot.events import (
    CAUSES,
    EVENT_MEANING,
    HOLD_REASONS,
    KEEPS_STATUS,
    OPEN,
    RECEPTION_MEANING,
    STATUS_MEANING,
    TERMINAL,
    TRANSITIONS,
    Event,
    Reception,
    Retry,
    Status,
    allowed,
    fold,
)
from faxbot.retry import SCHEDULES
from faxbot.tasks.app import QUEUES, beat_table, celery_app
from faxbot.tasks.worker import TASK_MODULES

# Written down a second time, on purpose: from, to, the events that may do it.
CONTRACT = """
-           queued      FAX_QUEUED
queued      submitting  FAX_SUBMITTING
retrying    submitting  FAX_SUBMITTING
queued      held        FAX_HELD
retrying    held        FAX_HELD
queued      failed      FAX_FAILED
retrying    failed      FAX_FAILED
submitting  held        FAX_HELD
sent        held        FAX_HELD
held        queued      FAX_RELEASED
submitting  sent        FAX_SENT
submitting  retrying    FAX_RETRYING
submitting  failed      FAX_FAILED
submitting  uncertain   FAX_UNCERTAIN
uncertain   sent        FAX_SENT
uncertain   retrying    FAX_RECONCILED FAX_DECIDED
uncertain   delivered   FAX_DECIDED
uncertain   failed      FAX_DECIDED
sent        delivered   FAX_DELIVERED
sent        retrying    FAX_RETRYING
sent        failed      FAX_FAILED
sent        uncertain   FAX_UNCERTAIN
queued      cancelled   FAX_CANCELLED
held        cancelled   FAX_CANCELLED
retrying    cancelled   FAX_CANCELLED
submitting  cancelled   FAX_CANCELLED
sent        cancelled   FAX_CANCELLED
uncertain   cancelled   FAX_CANCELLED
queued      expired     FAX_EXPIRED
held        expired     FAX_EXPIRED
retrying    expired     FAX_EXPIRED
"""
STAYS = {"FAX_PROGRESS", "FAX_RECONCILED", "FAX_CANCEL_REQUESTED", "FAX_ANOMALY", "FAX_PURGED"}


def contract() -> set[tuple[str, str, str]]:
    lines = [line.split() for line in CONTRACT.strip().splitlines()]
    return {(before, after, event) for before, after, *kinds in lines for event in kinds}


def test_the_moves_are_those_of_the_contract_and_no_others() -> None:
    moves = {(move.source or "-", str(move.target), str(move.event)) for move in TRANSITIONS}

    assert moves == contract()
    assert len(TRANSITIONS) == len(moves)
    assert {(before or "-", str(after)) for before, after in events.PAIRS} == {
        move[:2] for move in moves
    }


@pytest.mark.parametrize("before", [None, *Status])
def test_allowed_says_yes_to_the_contract_and_no_to_all_else(before: Status | None) -> None:
    said = {
        (str(after), str(event))
        for after in Status
        for event in Event
        if allowed(before, after, event)
    }

    moves = {(after, event) for source, after, event in contract() if source == (before or "-")}
    stays = {(str(before), event) for event in STAYS} if before else set()
    assert said == moves | stays


def test_only_final_statuses_have_no_way_out() -> None:
    leaves = {move.source for move in TRANSITIONS}

    assert set(Status) - leaves == TERMINAL == set(Status) - set(OPEN)


def test_every_word_is_explained() -> None:
    used = {move.event for move in TRANSITIONS} | KEEPS_STATUS

    assert used | {Event.RECEIVED, Event.RECEIVE_FAILED} == set(Event) == set(EVENT_MEANING)
    assert set(RECEPTION_MEANING) == set(Reception)
    assert set(STATUS_MEANING) == set(Status)
    assert all(move.only_if for move in TRANSITIONS)
    assert all(
        code == cause.code and cause.sentence.endswith(".") for code, cause in CAUSES.items()
    )


def test_every_cause_that_is_tried_again_has_a_schedule_and_no_other_has() -> None:
    tried = {cause.code for cause in CAUSES.values() if cause.retry is Retry.AGAIN}

    assert set(SCHEDULES) == tried
    assert not {cause for cause in CAUSES if len(cause) > 32}, "too long for its column"
    assert not {reason for reason in HOLD_REASONS if len(reason) > 32}


def code() -> Iterator[ast.AST]:
    """Every node of what may record something: all of the package but these words, and what only shows them."""
    package = Path(events.__file__).parent
    shown = {package / "events.py", package / "retry.py", *package.glob("cli/*.py")}
    for path in set(package.rglob("*.py")) - shown:
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_what_the_page_calls_not_written_yet_is_what_the_code_never_writes() -> None:
    nodes = list(code())
    named = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Event"
    }
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}

    assert {event for event in Event if event.name not in named} == set()
    # "exhausted" is what retry.decide() says in the end.
    assert {cause for cause in CAUSES if cause not in texts} == set()


@st.composite
def walks(draw: st.DrawFn) -> list[tuple[Event, Status]]:
    """A timeline that the table allows."""
    walk: list[tuple[Event, Status]] = []
    status: Status | None = None
    for _ in range(draw(st.integers(0, 30))):
        steps = [(move.event, move.target) for move in TRANSITIONS if move.source is status]
        steps += [(event, status) for event in sorted(KEEPS_STATUS) if status is not None]
        event, status = draw(st.sampled_from(steps))
        walk.append((event, status))
    return walk


@given(walks())
def test_an_allowed_walk_folds_to_where_it_ended(walk: list[tuple[Event, Status]]) -> None:
    assert fold(walk) == (walk[-1][1] if walk else None)


@given(walks(), st.sampled_from(list(Event)), st.sampled_from(list(Status)))
def test_one_step_that_is_not_allowed_is_refused(
    walk: list[tuple[Event, Status]], event: Event, target: Status
) -> None:
    status = walk[-1][1] if walk else None
    if allowed(status, target, event):
        assert fold([*walk, (event, target)]) is target
        return

    with pytest.raises(ValueError, match=f"{event} may not lead from {status} to {target}"):
        fold([*walk, (event, target)])


def test_every_open_status_has_its_task_its_sweep_and_a_queue_that_is_served() -> None:
    config = Config.load({"PATH": ""})
    rows = beat_table(config).values()

    assert sorted(map(str, OPEN)) == sorted(map(str, TASKS))
    assert {row["task"] for row in rows} | set(TASKS.values()) <= set(QUEUES)
    assert all(row["schedule"] <= 3600 for row in rows)
    often = [row["task"] for row in rows if row["schedule"] < 60]
    assert often == ["faxbot.sweep"], "nobody takes these while no worker lives"


def test_every_task_that_is_named_exists_and_every_one_that_exists_has_a_queue() -> None:
    app = celery_app(Config.load({"PATH": ""}))
    app.conf.include = TASK_MODULES
    app.loader.import_default_modules()

    assert {name for name in app.tasks if name.startswith("faxbot.")} == set(QUEUES)
    routed = {name: app.amqp.router.route({}, name)["queue"].name for name in QUEUES}
    assert routed == QUEUES
