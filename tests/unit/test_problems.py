"""The error tree, the table of answers and docs/errors.md say the same."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import faxbot
from faxbot import errors
from faxbot.errors import FaxbotError, RequestError
from faxbot.web import problems

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def kinds(root: type[FaxbotError]) -> Iterator[type[FaxbotError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("faxbot."):
            yield from kinds(child)


@pytest.fixture(scope="module", autouse=True)
def _every_module() -> None:
    """Errors live beside what raises them: have all of them defined."""
    for module in pkgutil.walk_packages(faxbot.__path__, "faxbot."):
        if not module.name.endswith("__main__") and ".migrations" not in module.name:
            importlib.import_module(module.name)


def rows(columns: int) -> list[list[str]]:
    """The page's table rows of so many columns, without heads."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| (\d+|`)", line)]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if len(row) == columns]


def test_the_page_lists_every_answer_as_the_table_has_it() -> None:
    page = [(int(status), code.strip("`"), title, mend) for status, code, title, mend in rows(4)]

    assert page == [
        (problem.status, problem.code, problem.title, problem.mend)
        for problem in problems.PROBLEMS.values()
    ]


def test_the_page_lists_every_other_error_with_its_meaning() -> None:
    inside = {
        kind.code: (kind.__doc__ or "").splitlines()[0]
        for kind in reversed(list(kinds(FaxbotError)))
        if kind.code not in problems.PROBLEMS
    }

    assert {code.strip("`"): meaning for code, meaning, _ in rows(3)} == inside


def test_every_error_about_a_request_has_its_answer() -> None:
    about_requests: list[type[FaxbotError]] = [*kinds(RequestError), errors.DatabaseAway]

    assert set(problems.RAISED) <= set(about_requests)
    assert all(problems.of_error(kind()).code == kind.code for kind in about_requests)


@pytest.mark.parametrize(
    "kind", [errors.ConfigError, errors.OutcomeUnknown, errors.PluginError, errors.LeaseLost]
)
def test_an_error_that_is_not_about_the_request_is_internal(kind: type[FaxbotError]) -> None:
    assert problems.of_error(kind("something inside")) is problems.INTERNAL


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "not-found"),
        (405, "method-not-allowed"),
        (413, "request-too-large"),
        (418, "malformed"),
        (502, "internal"),
    ],
)
def test_what_the_framework_refuses_has_a_problem(status: int, code: str) -> None:
    assert problems.of_status(status).code == code


def test_the_body_has_all_members_and_leads_to_the_page() -> None:
    problem = problems.of_error(errors.InvalidFields())
    body = json.loads(
        problems.body(problem, "request-1", fields={"priority": ["Not a valid integer."]})
    )

    assert body == {
        "type": "/docs#invalid-fields",
        "title": "Some fields are not valid.",
        "status": 422,
        "detail": "Some fields are not valid.",
        "errors": {"priority": ["Not a valid integer."]},
        "request_id": "request-1",
    }
