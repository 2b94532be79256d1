"""The `faxbot` command as people meet it first: help, misuse, wrong settings, and what each command loads."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from faxbot import cli
from tests.installation import Installation
from tests.integration.command import ID, one_line, run_process


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and every subcommand, by its words."""
    context = click.Context(cli.cli)
    for name in cli.COMMANDS:
        command = cli.cli.get_command(context, name)
        assert command is not None
        yield (name,)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.commands)


@pytest.mark.parametrize("words", [(), *commands()], ids=" ".join)
def test_every_command_explains_itself(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*words, "--help"]) == 0

    usage, sentence, *_ = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert usage.startswith(f"Usage: faxbot {' '.join(words)}".rstrip())
    assert sentence.startswith("  ")
    assert len(sentence.split()) > 3


def test_the_list_of_commands_says_what_the_commands_say() -> None:
    context = click.Context(cli.cli)
    for name, (_, line) in cli.COMMANDS.items():
        command = cli.cli.get_command(context, name)
        assert command is not None
        assert (command.short_help or "") == line or command.hidden


def loaded(*words: str) -> set[str]:
    """The modules that `faxbot words...` has in memory when it has printed its help."""
    program = f"import sys; from faxbot.cli import run; run({list(words)!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.split())


FOREIGN = {"alembic", "celery", "flask", "gunicorn", "pikepdf", "psycopg", "redis", "sqlalchemy"}


@pytest.mark.parametrize(
    ("words", "never"),
    [
        ((), FOREIGN | {"requests", "faxbot.supervisor.processes"}),
        (("up",), FOREIGN | {"requests", "faxbot.tasks", "faxbot.web"}),
        (("demo",), FOREIGN | {"requests"}),
        (("send",), FOREIGN | {"faxbot.supervisor.processes"}),
        (("web",), {"faxbot.supervisor.processes", "faxbot.tasks.worker"}),
        (("db",), {"celery", "flask", "gunicorn", "faxbot.wiring"}),
        (("worker",), {"flask", "gunicorn", "faxbot.web"}),
        (("carrier",), FOREIGN),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_loads_nothing_that_only_others_need(
    words: tuple[str, ...], never: set[str]
) -> None:
    assert loaded(*words, "--help") & never == set()


@pytest.mark.parametrize("group", [None, "carrier", "keys", "plugins", "db"])
def test_no_line_in_a_list_of_commands_is_cut_off(
    group: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run([group, "--help"] if group else ["--help"])
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("send", "128"),
        ("send", "default: fine"),
        ("send", "printable ASCII"),
        ("up", "carrier"),
        ("demo", "examples/three-pages.pdf"),
    ],
)
def test_help_names_defaults_and_limits(
    command: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run([command, "--help"])
    assert told in " ".join(capsys.readouterr().out.split())


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert re.fullmatch(r"faxbot \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["send", "--to", "+15550100000"],
        ["send", "no-such-file.pdf", "--to", "+15550100000"],
        ["send", __file__],
        ["send", __file__, "--to", "+15550100000", "--tag", "nameless"],
        ["send", __file__, "--to", "+15550100000", "--resolution", "superfine"],
        ["send", __file__, "--to", "+15550100000", "--priority", "256"],
        ["keys", "create", "--name", "n", "--scope", "fax:everything"],
        ["keys", "create", "--name", "n"],
        ["web", "--fd", "one"],
        ["carrier", "simulator", "--port", "70000"],
        ["up", "--no-such-option"],
    ],
)
def test_misuse_ends_with_2_and_a_hint(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == 2
    assert "Error: " in capsys.readouterr().err


def test_a_number_given_for_an_id_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["status", "+15550100000"]) == 2
    assert "5550100000" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["up"], ["web"], ["worker"], ["beat"], ["db", "check"], ["status", ID]]
)
def test_a_wrong_setting_is_one_line_that_names_it(
    embedded: Installation, words: list[str]
) -> None:
    ended = run_process(embedded, *words, FAXBOT_PORT="eighty")

    assert ended.code == 1
    assert one_line(ended.err) == "faxbot: FAXBOT_PORT is not a whole number"


@pytest.mark.parametrize("words", [["up"], ["demo"], ["db", "upgrade"]])
def test_a_folder_without_permission_names_the_setting(
    embedded: Installation, words: list[str]
) -> None:
    # Nobody, root included, makes a folder there.
    ended = run_process(embedded, *words, FAX_DATA_DIR="/sys/faxdata")

    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert "(/sys/faxdata): set FAX_DATA_DIR to a folder where you may write" in last


def test_a_data_folder_that_cannot_be_is_one_line(embedded: Installation) -> None:
    (embedded.folder / "in-the-way").touch()
    for words in (["up"], ["db", "upgrade"], ["keys", "list"]):
        ended = run_process(embedded, *words, FAX_DATA_DIR="in-the-way")
        assert ended.code == 1
        assert "in-the-way" in ended.err.splitlines()[-1]
        assert "Traceback" not in ended.err
