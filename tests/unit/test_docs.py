"""What the pages say of events, settings, errors and commands is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from faxbot import events
from faxbot.cli import cli
from faxbot.config import OPTIONS
from scripts.reference import DOCS, PAGES

ROOT = DOCS.parent
PROSE = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


@pytest.mark.parametrize("name", PAGES)
def test_the_page_made_from_the_code_is_up_to_date(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")

    assert written == PAGES[name](), "run .venv/bin/python scripts/reference.py"


def test_every_event_and_every_open_status_has_its_line() -> None:
    page = (DOCS / "events.md").read_text(encoding="utf-8")

    assert set(events.EVENT_MEANING) == set(events.Event)
    assert [
        event
        for event in events.Event
        if f"| `{event}` | {events.EVENT_MEANING[event]} |" not in page
    ] == []


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_faxbot_command_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`faxbot ([a-z]+)(?: ([a-z]+))?", text))
    unknown = [words for words in named if not _is_command(*words)]

    assert unknown == []


def _is_command(first: str, second: str) -> bool:
    command = cli.get_command(click.Context(cli), first)
    if command is None:
        return False
    children = getattr(command, "commands", None)
    return not second or children is None or second in children


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_variable_named_is_a_setting(page: Path) -> None:
    known = {option.name for option in OPTIONS}
    named = re.findall(
        r"`((?:FAX|FAXBOT|CELERY|REDIS|DATABASE|CONFIG|PUBLIC|STORAGE)_[A-Z_]+)[`=]",
        page.read_text(encoding="utf-8"),
    )
    events_too = {str(event) for event in events.Event}

    assert sorted({name for name in named if name not in known | events_too}) == []


def test_every_room_of_the_house_is_on_the_map() -> None:
    page = (DOCS / "map.md").read_text(encoding="utf-8")
    house = ROOT / "faxbot"
    modules = {path.stem for path in house.glob("*.py")} - {"__init__"}
    packages = {f"{path.parent.name}/" for path in house.glob("*/__init__.py")}

    assert sorted(room for room in modules | packages if f"`{room}`" not in page) == []
