"""What the pages say of events, settings, errors and commands is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from faxbot import events
from faxbot.claims import TASKS
from faxbot.cli import cli
from faxbot.config import OPTIONS
from faxbot.plugins.manifest import TRAITS
from scripts.reference import DOCS, EXAMPLE, PAGES, copies

ROOT = DOCS.parent
PROSE = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("howto/*.md")])


@pytest.mark.parametrize("name", PAGES)
def test_the_page_made_from_the_code_is_up_to_date(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")

    assert written == PAGES[name](), "run .venv/bin/python scripts/reference.py"


def test_the_published_schema_and_the_example_package_are_those_of_the_code() -> None:
    made = copies()
    wrong = [
        str(path.relative_to(ROOT))
        for path, text in made.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    kept = {path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".json", ".toml", ".md")}

    assert wrong == [], "run .venv/bin/python scripts/reference.py"
    assert kept <= set(made)


def test_every_event_status_and_cause_has_its_line() -> None:
    lines = re.findall(
        r"^\| `([A-Za-z0-9_]+)` \|", (DOCS / "events.md").read_text(encoding="utf-8"), re.M
    )

    for words in (events.Event, events.Status, events.CAUSES, events.HOLD_REASONS):
        assert [str(word) for word in words if str(word) not in lines] == []
    page = PAGES["events.md"]()
    for status in events.OPEN:
        assert f"| `{status}` | `{TASKS[status]}` |" in page
    for status, meaning in events.STATUS_MEANING.items():
        assert f"| `{status}` | {meaning} |" in page


@pytest.mark.parametrize(
    "row",
    [
        "| `busy` | 12 times in all, after 2 min, 3 min, 5 min (x2), 10 min (x2), 15 min, 30 min (x4) |",
        "| `incompatible_image` | 2 times in all, after 1 s |",
        "| `doc_fetch_failed` | 3 times in all, after 10 s, 1 min |",
        "| `number_dead` | no; where a fax has arrived before: 2 times in all, after 15 min |",
    ],
)
def test_the_page_names_tries_and_waits_in_numbers(row: str) -> None:
    assert row in PAGES["events.md"]()


def test_a_trait_that_is_said_to_be_read_is_asked_for_by_that_module_and_by_no_other() -> None:
    house = ROOT / "faxbot"
    asked: dict[str, set[str]] = {}
    for path in house.rglob("*.py"):
        module = ".".join(path.relative_to(house).with_suffix("").parts)
        if module.startswith("testing."):
            continue  # what checks plugins knows all traits
        for name in re.findall(
            r"\.(?:has|values)\((?:\w+, )?\"(\w+)\"\)", path.read_text(encoding="utf-8")
        ):
            asked.setdefault(name, set()).add(module)

    assert {name: set(trait.readers) for name, trait in TRAITS.items() if trait.readers} == asked


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_faxbot_command_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`faxbot ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", text))
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
    of_tests = {
        name
        for source in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r'"(FAXBOT_TEST_[A-Z_]+)"', source.read_text(encoding="utf-8"))
    }

    assert sorted(set(named) - known - events_too - of_tests) == []


def test_every_room_of_the_house_is_on_the_map() -> None:
    page = (DOCS / "map.md").read_text(encoding="utf-8")
    house = ROOT / "faxbot"
    modules = {path.stem for path in house.glob("*.py")} - {"__init__"}
    packages = {f"{path.parent.name}/" for path in house.glob("*/__init__.py")}

    assert sorted(room for room in modules | packages if f"`{room}`" not in page) == []
