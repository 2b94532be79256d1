"""`faxbot config`: at the database itself, for people and programs; a secret never stands on a command line."""

from __future__ import annotations

import io
import json
import os
import pty
import resource
import stat
import subprocess
from typing import Any

import pytest

from faxbot import configuration, wiring
from faxbot.config import Config
from faxbot.plugins.manifest import MASK
from faxbot.settings import OPTIONS, Settings
from tests.ground import eventually
from tests.installation import FAXBOT, Installation
from tests.integration.command import Ended, environment, one_line, run, run_process
from tests.integration.test_configuration import force
from tests.integration.web import SECRET

NAMES = {"SIMULATOR_SECRET": SECRET}


@pytest.fixture
def store(embedded: Installation) -> Installation:
    embedded.env.update(NAMES)
    return embedded


def config(store: Installation, *words: str, **changes: str) -> Ended:
    return run(store, "config", *words, **changes)


def piped(store: Installation, monkeypatch: pytest.MonkeyPatch, text: str, *words: str) -> Ended:
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return config(store, *words)


def shown(store: Installation, name: str) -> dict[str, Any]:
    ended = config(store, "get", name, "--json")
    assert ended.code == 0, ended.err
    found: dict[str, Any] = ended.json
    return found


def test_a_value_is_set_shown_and_taken_back(store: Installation) -> None:
    assert config(store, "get", "FAX_HEADER").out == "\n"
    ended = config(store, "set", "FAX_HEADER", "Practice", "--note", "as on our paper")
    assert (ended.code, ended.out.split()) == (0, ["FAX_HEADER", "db", "Practice"])
    assert (shown(store, "FAX_HEADER")["value"], shown(store, "FAX_HEADER")["source"]) == (
        "Practice",
        "db",
    )

    assert config(store, "set", "FAX_HEADER", "", FAX_HEADER="theirs").code == 0
    ended = config(store, "get", "FAX_HEADER", "--json", FAX_HEADER="theirs")
    assert (ended.json["value"], ended.json["source"]) == ("", "db")

    assert config(store, "set", "FAX_HEADER", "--unset").code == 0
    ended = config(store, "get", "FAX_HEADER", FAX_HEADER="theirs")
    assert ended.out == "theirs\n"


def test_a_setting_of_a_plugin_is_written_as_in_the_environment(store: Installation) -> None:
    names = {"ASTERISK_AMI_PASSWORD": "p", "ASTERISK_FOLDER": "/var/spool/faxbot"}
    assert config(store, "set", "asterisk.t38", "yes", "--untested", **names).code == 0
    assert shown(store, "asterisk.t38")["value"] is True
    ended = config(store, "set", "asterisk.t38", "perhaps", "--untested", **names)
    assert (ended.code, "must be a boolean" in one_line(ended.err)) == (1, True)


def test_a_warning_is_said_with_the_value(store: Installation) -> None:
    ended = config(store, "set", "FAX_DISABLED", "true")
    assert one_line(ended.err) == "mind: no fax is sent: all are taken, and wait"
    assert config(store, "set", "FAX_DISABLED", "false").err == ""


def test_the_list_says_where_everything_comes_from(store: Installation) -> None:
    ended = config(store, "list", FAX_HEADER="theirs", API_KEY="the-key-of-all")
    lines = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines()}
    assert lines["FAX_HEADER"] == ["env", "theirs"]
    assert lines["FAX_DISABLED"] == ["default", "false"]
    assert lines["API_KEY"] == ["env", MASK]
    assert one_line(ended.err) == configuration.USING_ENVIRONMENT

    config(store, "set", "FAXBOT_MAX_PAGES", "9")
    ended = config(store, "list", "--saved", "--json")
    assert [each["name"] for each in ended.json["items"]] == ["FAXBOT_MAX_PAGES"]
    assert ended.json["using_environment"] is False


def test_a_value_in_the_list_is_one_line_and_moves_no_cursor(store: Installation) -> None:
    claim = "realm\n\x1b[2Jgroups"
    names = {"OIDC_ISSUER": "https://id.example.org", "OIDC_CLIENT_ID": "faxbot"}
    assert config(store, "set", "oidc.groupsClaim", claim, "--untested", **names).code == 0

    (line,) = config(store, "list", "--saved", **names).out.splitlines()
    assert line.split() == ["oidc.groupsClaim", "db", r"realm\n\x1b[2Jgroups"]
    rehearsed = config(store, "rollback", "0", "--dry-run", **names).out
    assert r"realm\n\x1b[2Jgroups -> taken back" in rehearsed
    assert shown(store, "oidc.groupsClaim")["value"] == claim


@pytest.mark.parametrize("name", ["simulator.secret", "phaxio.apiSecret"])
def test_a_secret_is_not_taken_from_the_command_line(store: Installation, name: str) -> None:
    ended = config(store, "set", name, "very-secret", "--untested")
    assert ended.code == 2
    assert "pipe it in" in ended.err
    assert "very-secret" not in ended.out + ended.err


def test_a_secret_comes_through_a_pipe_and_is_masked(
    store: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("", "\n"):
        assert piped(store, monkeypatch, text, "set", "simulator.secret", "--untested").code == 2
    ended = piped(store, monkeypatch, "very-secret\n", "set", "simulator.secret", "--untested")
    assert ended.code == 0, ended.err
    assert "very-secret" not in ended.out + ended.err
    assert shown(store, "simulator.secret")["value"] == MASK
    runtime = wiring.build(store.config())
    assert runtime.settings.read().of_plugin("simulator") == {"secret": "very-secret"}
    runtime.close()
    assert piped(store, monkeypatch, "Practice\n", "set", "FAX_HEADER").code == 0
    assert shown(store, "FAX_HEADER")["value"] == "Practice"


def test_a_secret_is_typed_twice_at_a_terminal_and_not_shown(store: Installation) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [FAXBOT, "config", "set", "simulator.secret", "--untested"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=store.folder,
        env=environment(store, {}), start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    told = ""

    def hears(words: str) -> None:
        nonlocal told
        while words not in told:
            told += os.read(ours, 4096).decode()

    for words in ("simulator.secret: ", "Repeat for confirmation: "):
        hears(words)
        os.write(ours, b"very-secret\n")
    assert process.wait(30) == 0, told
    assert "very-secret" not in told
    os.close(ours)
    assert shown(store, "simulator.secret")["source"] == "db"


def test_a_plugin_is_asked_first(store: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = piped(store, monkeypatch, "other", "set", "simulator.secret")
    assert ended.code == 1
    assert "because the plugin simulator does not work so" in one_line(ended.err)
    assert config(store, "list").err.startswith(configuration.USING_ENVIRONMENT)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("get", "FAX_HEDER"), "there is no such option (is FAX_HEADER meant?)"),
        (("set", "FAX_HEDER", "Jane Doe"), "there is no such option (is FAX_HEADER meant?)"),
        (("set", "FAXBOT_MAX_PAGES", "0"), "faxbot: FAXBOT_MAX_PAGES must be at least 1"),
        (("set", "DATABASE_URL", "--unset"), "from the environment only"),
        (("set", "FAXBOT_PORT", "1"), "from the environment only"),
        (("set", "DATABASE_URL", "x"), "faxbot: DATABASE_URL is taken from the environment only"),
        (("rollback", "5"), "faxbot config backups"),
        (("backup", ""), "why?"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    store: Installation, words: tuple[str, ...], told: str
) -> None:
    ended = config(store, *words)
    assert ended.code == 1
    assert told in one_line(ended.err)
    assert "Jane" not in ended.err


@pytest.mark.parametrize(
    "words",
    [
        ("set", "FAX_HEADER", "x", "--unset"),
        ("rollback", "-1"),
        ("rollback", "one"),
        ("rollback", "9" * 30),
        ("import", "no-such-file"),
        ("set",),
    ],
)
def test_misuse_ends_with_2(store: Installation, words: tuple[str, ...]) -> None:
    assert config(store, *words).code == 2


def test_versions_are_listed_named_and_gone_back_to(store: Installation) -> None:
    for header in ("one", "two"):
        config(store, "set", "FAX_HEADER", header, "--note", f"it is {header}")
    assert config(store, "backup", "before the move").out == "version 2 is kept\n"
    first, second = config(store, "backups").out.splitlines()
    assert "2 now" in first
    assert "backup: before the move  it is two  FAX_HEADER" in first
    assert second.endswith("it is one  FAX_HEADER")

    dry = config(store, "rollback", "1", "--dry-run")
    assert dry.out == "FAX_HEADER: two -> one\n"
    assert "dry run" in dry.err
    ended = config(store, "rollback", "1", "--json")
    assert ended.json["changes"] == [{"name": "FAX_HEADER", "was": "two", "becomes": "one"}]
    assert shown(store, "FAX_HEADER")["value"] == "one"
    assert [each["version"] for each in config(store, "backups", "--json").json] == [3, 2, 1]
    assert config(store, "rollback", "3").out == "nothing changes\n"


def test_an_export_is_written_for_its_user_alone_and_comes_back(
    store: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(store, monkeypatch, "very-secret", "set", "simulator.secret", "--untested")
    config(store, "set", "FAX_HEADER", "Practice")
    assert "very-secret" not in config(store, "export").out
    path = store.folder / "settings.json"
    assert config(store, "export", "--reveal", "--output", str(path)).code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["plugins"]["simulator"]["secret"] == "very-secret"
    again = config(store, "export", "--output", str(path))
    assert (again.code, "--output" in one_line(again.err), "exists" in again.err) == (1, True, True)
    nowhere = config(store, "export", "--output", str(store.folder / "no-such-folder" / "x"))
    assert (nowhere.code, "--output" in one_line(nowhere.err)) == (1, True)

    assert config(store, "rollback", "0", "--untested").code == 0
    ended = config(store, "import", str(path), "--untested")
    assert "very-secret" not in ended.out + ended.err
    assert "simulator.secret: not saved -> ********" in ended.out
    assert shown(store, "FAX_HEADER")["value"] == "Practice"


def test_an_export_that_does_not_fit_on_the_disk_leaves_no_part_of_a_secret_behind(
    store: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(store, monkeypatch, "very-secret" * 9000, "set", "simulator.secret", "--untested")
    path = store.folder / "settings.json"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))  # in the place of a full disk
    try:
        ended = config(store, "export", "--reveal", "--output", str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (ended.code, "--output" in one_line(ended.err)) == (1, True)
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\xff", "{}", '{"kind": 1}'])
def test_a_file_that_is_no_export_is_one_line(store: Installation, content: str) -> None:
    path = store.folder / "settings.json"
    path.write_bytes(content.encode("latin-1"))
    ended = config(store, "import", str(path))
    assert ended.code == 1
    assert "is no export of faxbot" in one_line(ended.err)


def test_what_keeps_every_other_command_out_is_listed_and_taken_back(store: Installation) -> None:
    runtime = wiring.build(store.config())
    force(runtime, {OPTIONS: {"FAXBOT_MAX_PAGES": "0"}})
    runtime.close()

    for words in (("keys", "list"), ("prepare",), ("providers", "list")):
        ended = run(store, *words)
        assert ended.code == 1
        assert "config set FAXBOT_MAX_PAGES --unset` takes it back" in one_line(ended.err)
    ended = config(store, "list")
    assert ended.code == 0
    assert "FAXBOT_MAX_PAGES: FAXBOT_MAX_PAGES must be at least 1; " in ended.err
    assert "at least 1" in config(store, "get", "FAXBOT_MAX_PAGES").err
    assert config(store, "set", "FAXBOT_MAX_PAGES", "--unset").code == 0
    assert run(store, "keys", "list").code == 0


def test_it_needs_a_database_that_is_there(store: Installation) -> None:
    ended = run_process(store, "config", "list", FAX_DATA_DIR="nowhere")
    assert ended.code == 1
    assert "db upgrade" in one_line(ended.err)


def test_two_commands_at_once_lose_nothing(store: Installation) -> None:
    names = ("FAX_HEADER", "FAXBOT_MAX_PAGES", "FAXBOT_ALARM_SECONDS")
    processes = [
        subprocess.Popen(
            [FAXBOT, "config", "set", name, "77"], env=environment(store, {}), cwd=store.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in names
    ]  # fmt: skip
    ended = [(*process.communicate(timeout=60), process.returncode) for process in processes]

    saved = {each["name"] for each in config(store, "list", "--saved", "--json").json["items"]}
    assert saved == {name for name, (_, _, code) in zip(names, ended, strict=True) if code == 0}
    for _, error, code in ended:
        assert code == 0 or "changed meanwhile" in error
    assert saved


def test_settings_of_a_process_that_runs_are_those_of_the_command(store: Installation) -> None:
    """It is another process that saves; this one looks again within LOOK_EVERY."""
    runtime = wiring.build(store.config())
    clock = [0.0]
    settings = Settings(Config.load(store.env), runtime.database, runtime.keyring, lambda: clock[0])
    assert settings.snapshot().config.fax_header == ""
    assert config(store, "set", "FAX_HEADER", "Practice").code == 0
    clock[0] = 2.0
    assert eventually(lambda: settings.snapshot().config.fax_header) == "Practice"
    runtime.close()
