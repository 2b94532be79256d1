"""The error tree and the table of answers say the same."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator

import pytest

import faxbot
from faxbot import errors
from faxbot.errors import FaxbotError, RequestError
from faxbot.web import problems
from scripts.reference import INSIDE


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


def leaves(root: type[FaxbotError]) -> set[type[FaxbotError]]:
    """Those with a word of their own that are raised; what has kinds with other words is a branch."""
    named = {kind for kind in kinds(root) if "code" in vars(kind)}
    return named - {base for kind in named for base in kind.__mro__[1:]}


def test_every_kind_of_error_has_its_row_on_the_page() -> None:
    answers = set(problems.RAISED)

    # A plugin may know no more than that nothing was sent; and these two have one special kind each.
    raised_too = {errors.NotSent, errors.PluginError, errors.ArtifactNotFound}
    assert set(INSIDE) == (leaves(FaxbotError) - answers) | raised_too


def test_every_error_about_a_request_has_its_answer() -> None:
    about_requests: set[type[FaxbotError]] = {
        *leaves(RequestError),
        errors.Forbidden,  # it has one special kind
        errors.DatabaseAway,
        errors.KeyMissing,
        errors.StorageAway,
    }

    assert set(problems.RAISED) == about_requests
    assert all(problems.of_error(kind()).code == kind.code for kind in about_requests)


@pytest.mark.parametrize("problem", problems.PROBLEMS.values(), ids=lambda problem: problem.code)
def test_title_and_detail_are_sentences_and_not_the_same(problem: problems.Problem) -> None:
    body = json.loads(problems.body(problem, "request-1", detail=problem.title))

    assert body["title"] != body["detail"]
    assert all(re.fullmatch(r"[A-Z`].*\.", body[name]) for name in ("title", "detail"))


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
        "detail": "Not valid: priority.",
        "errors": {"priority": ["Not a valid integer."]},
        "request_id": "request-1",
    }


def test_what_the_domain_says_in_passing_goes_out_as_a_sentence() -> None:
    problem = problems.of_error(errors.NotFound())
    fields = {"to": ["lies in the past", "`to` is short."]}
    body = json.loads(problems.body(problem, "r", detail="there is no such fax", fields=fields))

    assert body["detail"] == "There is no such fax."
    assert body["errors"] == {"to": ["Lies in the past.", "`to` is short."]}
