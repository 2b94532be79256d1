"""What docs/simulator.md says of new tries is what faxbot/retry.py does."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from faxbot.carriers.simulator import OUTCOMES
from faxbot.providers.simulator import CAUSES
from faxbot.retry import Again, End, Past, decide

PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulator.md"
UNITS = {"s": 1.0, "min": 60.0}


def seconds(text: str) -> tuple[float, ...]:
    """`15 s, 30 s, 1, 2 min` as (15, 30, 60, 120): a number without a unit has that of the next one."""
    found: list[float] = []
    unit = ""
    for number, named in reversed(re.findall(r"(\d+)(?: (s|min))?", text)):
        unit = named or unit
        found.insert(0, float(number) * UNITS[unit])
    return tuple(found)


def test_every_number_that_is_tried_again_has_its_pauses_and_tries() -> None:
    rows = re.findall(r"^\| `(\d{4})` \| ([^|`]+) \| (\d+) \|$", PAGE.read_text(), re.MULTILINE)
    said = {
        digits: [*seconds(pauses), *[seconds(pauses)[-1]] * 20][: int(tries) - 1]
        for digits, pauses, tries in rows
    }
    calls = {
        digits: waits(Past(End.FAILED, CAUSES.get(outcome.code or "", ""), outcome.pages))
        for digits, outcome in OUTCOMES.items()
        if outcome.refused is None
    }

    assert said == {digits: found for digits, found in calls.items() if found}


def waits(end: Past) -> list[float]:
    """The pauses of a fax whose calls all end so."""
    now = datetime(2026, 11, 20, tzinfo=UTC)
    found: list[float] = []
    while isinstance(next_one := decide([end] * (len(found) + 1), now=now, luck=0.0), Again):
        found.append((next_one.at - now).total_seconds())
    return found
