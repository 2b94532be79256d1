"""`faxbot setup`: the questions of the set-up at a terminal, or from a file of answers; at the database itself."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from faxbot import jobs, questions, schema, setup
from faxbot.actors import CLI
from faxbot.cli.ledger import at_the_ledger
from faxbot.config import Config
from faxbot.errors import ConfigError, FaxbotError, InvalidFields
from faxbot.events import TERMINAL, Status
from faxbot.questions import UNTESTED, Question, Standing
from faxbot.supervisor.program import pasteable, program

_FOLLOW_SECONDS, _IDLE_SECONDS = 120.0, 15.0
"""So long a test page is followed, and so long it may stand in the queue before somebody is told that none works."""
_TAKE_BACK = "-"


@click.command("setup", short_help="Set faxbot up by questions and answers.")
@click.option(
    "--answers",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True, path_type=Path),
    help="A JSON file with the answers: nothing is asked.",
)
@click.option("--print-answers", is_flag=True, help="Print such a file, to be filled in, and end.")
@click.option("--provider", metavar="ID", help="Which provider --print-answers is for.")
@click.option("--dry-run", is_flag=True, help="Ask and check everything, and save nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def setup_(
    answers: Path | None, print_answers: bool, provider: str | None, dry_run: bool, as_json: bool
) -> int | None:
    """Choose a provider and set it, make the first API key and the first administrator, and send a test page.

    Each answer is checked at once, and the carrier is asked whether it takes them. Until the last question is answered
    nothing is saved, and Ctrl-C leaves everything as it was; then all is saved at once. A second run shows what is
    set.

    \b
    faxbot setup
    faxbot setup --print-answers --provider phaxio > answers.json
    faxbot setup --answers answers.json --dry-run
    """
    if provider and not print_answers:
        raise click.UsageError("--provider is for --print-answers; the set-up asks for it")
    if not (answers or print_answers):
        _must_be_a_terminal()
        _make_database()
    with at_the_ledger() as runtime:
        standing = questions.begin(runtime, CLI)
        if print_answers:
            _print_answers(standing, provider)
            return None
        given = _read_all(standing, answers) if answers else _ask_all(standing)
        if given is None:
            return None
        return _finish(standing, given, dry_run=dry_run, as_json=as_json)


# From a file ----------------------------------------------------------------------------------------------------------


def _read_all(standing: Standing, path: Path) -> dict[str, Any]:
    """The answers in a file, which the carrier takes."""
    try:
        with click.open_file(str(path), encoding="utf-8-sig") as file:
            document = json.load(file)
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not JSON: --print-answers shows how it looks") from None
    answers = questions.read(standing, document)
    if not answers.get(UNTESTED) and setup.must_be_tested(standing, answers):
        found = setup.test(standing, CLI, answers)
        if not found["ok"]:
            raise ConfigError(found["detail"])
    return answers


def _print_answers(standing: Standing, provider: str | None) -> None:
    document = questions.template(standing, provider)
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    for question in questions.everything(standing, document["provider"]):
        marks = ", ".join(
            word
            for word, holds in (("needed", question.required), ("secret", question.secret))
            if holds
        )
        choices = f" One of: {', '.join(question.choices)}." if question.choices else ""
        more = f" ({marks})" if marks else ""
        click.echo(f"{question.key}{more}: {question.title}. {question.help}{choices}", err=True)


# At a terminal --------------------------------------------------------------------------------------------------------


def _must_be_a_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("questions are asked at a terminal; --answers FILE needs none")


def _make_database() -> None:
    config = Config.load()
    if config.database_url or (config.data_dir / "faxbot.db").exists():
        return
    if not click.confirm(f"There is no faxbot in {config.data_dir} (FAX_DATA_DIR). Make one here?"):
        raise click.Abort
    config.make_data_dir()
    schema.upgrade(config)


def _ask_all(standing: Standing) -> dict[str, Any] | None:
    """The answers, which the carrier takes; None where they are not to be saved."""
    click.echo(
        f"Enter keeps what stands in [brackets]; {_TAKE_BACK} takes back what is saved; Ctrl-C leaves, and nothing "
        "is saved."
    )
    answers: dict[str, Any] = {}
    before: dict[str, Any] = {}
    try:
        while True:
            while (question := questions.unanswered(standing, answers)) is not None:
                answers[question.key] = _ask(question, before.get(question.key))
            if _works(standing, answers, before):
                break
        lines = setup.summary(standing, answers)
        click.echo("\nTo be saved:" if lines else "\nThere is nothing to save.")
        for line in lines:
            click.echo(f"  {line}")
        if lines and not click.confirm("Save this?", default=True):
            raise click.Abort
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nNothing was saved.", err=True)
        raise
    return answers if lines else None


def _ask(question: Question, before: Any = None) -> Any:
    """One answer that is right by itself; `before` is what was answered last time, which Enter keeps."""
    click.echo()
    if question.help:
        click.secho(question.help, dim=True)
    while True:
        text = _prompt(question, before)
        if text == "" and before is not None:
            return before
        value = "" if text == _TAKE_BACK and question.saved else text or None
        try:
            kept = questions.checked(question, value)
        except InvalidFields as error:
            click.secho(" ".join(error.errors[question.key]), fg="red")
            continue
        if (
            not question.twice
            or click.prompt("Once more", default="", show_default=False, hide_input=True) == text
        ):
            return kept
        click.secho("These were two different ones.", fg="red")


def _prompt(question: Question, before: Any) -> str:
    now = question.value if before is None else before
    title = question.title
    if question.choices:
        title += f" ({', '.join(question.choices)})"
    if before == "":
        shown = "taken back"
    elif question.type == "boolean":
        shown = "yes" if now else "no"
    else:
        shown = "" if now is None else "set" if question.secret else str(now)
    answer: str = click.prompt(
        title + (f" [{shown}]" if shown else ""),
        default="",
        show_default=False,
        hide_input=question.secret,
    )
    return answer.strip() if not question.secret else answer


def _works(standing: Standing, answers: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether the carrier takes the answers, or they are to be saved all the same; else those that are to be asked
    again are moved from `answers` to `before`."""
    if answers.get(UNTESTED) or not setup.must_be_tested(standing, answers):
        return True
    click.echo("\nAsking the carrier whether it takes this ...")
    try:
        found = setup.test(standing, CLI, answers)
    except InvalidFields as error:
        _refuse(answers, before, error)
        return False
    if found["ok"]:
        click.secho("It works.", fg="green")
        return True
    click.secho(pasteable(found["detail"]), fg="red")
    if click.confirm("Save it all the same?", default=False):
        answers[UNTESTED] = True
        return True
    _forget(answers, before)
    return False


def _refuse(answers: dict[str, Any], before: dict[str, Any], error: InvalidFields) -> None:
    """Settings that do not hold together: those that are named are given again, or all of them."""
    for key, sentences in error.errors.items():
        click.secho(f"{key.removeprefix('settings.')}: {' '.join(sentences)}", fg="red")
    named = [key for key in error.errors if key in answers]
    for key in named:
        del answers[key]
    if not named:
        _forget(answers, before)


def _forget(answers: dict[str, Any], before: dict[str, Any]) -> None:
    for key in [key for key in answers if key.startswith("settings.")]:
        before[key] = answers.pop(key)


# Doing it -------------------------------------------------------------------------------------------------------------


def _finish(standing: Standing, answers: dict[str, Any], *, dry_run: bool, as_json: bool) -> int:
    if dry_run:
        lines = setup.summary(standing, answers)
        if as_json:
            click.echo(json.dumps({"dry_run": True, "summary": lines}))
        else:
            click.echo("\n".join(lines) or "There is nothing to save.")
            click.echo("--dry-run: nothing was saved", err=True)
        return 0
    try:
        done = setup.save(standing, CLI, answers)
    except KeyboardInterrupt:
        click.echo(
            f"Whether it was saved is not known: {program()} config list shows it.", err=True
        )
        raise
    facts: dict[str, Any] = {"version": done.version, "before": done.before}
    if done.token:
        facts["key"] = {"id": done.key_id, "key": done.token}
    if done.user_id:
        facts["admin"] = {"id": done.user_id, "name": answers["admin.name"]}
    if not as_json:
        _tell(standing, done)
    status = _send_test(standing, answers, facts, quiet=as_json)
    if as_json:
        click.echo(json.dumps({"dry_run": False, **facts}))
    return 0 if status in (None, Status.DELIVERED) else 1


def _send_test(
    standing: Standing, answers: dict[str, Any], facts: dict[str, Any], *, quiet: bool
) -> str | None:
    """Send the test page where one is wanted, and put into `facts` what became of it; its status. All else is done by
    now, and is told whatever becomes of the page."""
    try:
        fax_id = setup.send_test(standing, CLI, answers)
    except FaxbotError as error:
        click.echo(f"The test page was not taken: {pasteable(error.detail)}", err=True)
        facts["fax"] = {"id": None, "status": "refused"}
        return "refused"
    if fax_id is None:
        return None
    status = _follow(standing, fax_id, quiet=quiet)
    facts["fax"] = {"id": fax_id, "status": status}
    return status


def _tell(standing: Standing, done: setup.Done) -> None:
    if done.version != done.before:
        click.echo(
            f"Saved. {program()} config rollback {done.before} takes it back (--untested where what was set before "
            "does not work from here).",
            err=True,
        )
    if done.token:
        click.echo(f"The API key {done.key_id}, shown this once:", err=True)
        click.echo(done.token)
    for sentence in setup.advice(standing):
        click.echo(pasteable(sentence), err=True)


def _follow(standing: Standing, fax_id: str, *, quiet: bool) -> str:
    """Tell how the test page goes, until it has ended or nobody seems to work on it; its status then."""
    began, said, job = time.monotonic(), "", {"status": ""}
    click.echo(f"Test page {fax_id}:", err=True)
    with suppress(KeyboardInterrupt):
        while time.monotonic() < began + _FOLLOW_SECONDS:
            runtime = standing.runtime.fresh()
            job = jobs.describe(runtime, jobs.find(runtime, CLI, fax_id))
            if job["explanation"] != said and not quiet:
                said = job["explanation"]
                click.echo(f"  {job['status']}: {said}", err=True)
            if job["status"] in TERMINAL:
                return str(job["status"])
            if job["status"] == Status.QUEUED and time.monotonic() > began + _IDLE_SECONDS:
                click.echo("  nobody works on it: is `faxbot up` running?", err=True)
                break
            time.sleep(0.3)
    click.echo(f"  it goes on by itself: {program()} status {fax_id} --events", err=True)
    return str(job["status"])
