"""A wrong setting ends a command in one line that names it, and what a command writes is for its own user only."""

from __future__ import annotations

import subprocess

import pytest

from tests.installation import FAXBOT, Installation
from tests.integration.command import environment, one_line, run, run_process

WRONG = [
    ("FAXBOT_DEFAULT_REGION", "ZZ"),
    ("REDIS_URL", "redis://h:port/0"),
    ("FAXBOT_SWEEP_SECONDS", "1e300"),
    ("FAXBOT_CHECK_SECONDS", "1e7"),
    ("DATABASE_URL", "postgresql://u:pass-word@[bad/x"),
    ("FAX_HEADER", "\xdcn\xefcode"),
    ("API_KEY", "\u0416"),
    ("FAXBOT_PORT", "\u0663"),
    ("FAX_DATA_DIR", "/dev/null/x"),
    ("FAX_DATA_DIR", "/etc/hostname"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_one_line_that_names_it(
    embedded: Installation, name: str, value: str
) -> None:
    ended = run(embedded, "prepare", **{name: value})

    assert ended.code == 1
    assert one_line(ended.err).startswith("faxbot: ")
    assert name in ended.err
    assert "pass-word" not in ended.err


def test_a_data_folder_that_cannot_be_is_named_before_anything_starts(
    embedded: Installation,
) -> None:
    ended = run_process(embedded, "up", FAX_DATA_DIR="/dev/null/x")

    first, last = ended.err.splitlines()
    assert ended.code == 1
    assert first == "faxbot starts, with its data in /dev/null/x"
    assert "set FAX_DATA_DIR to a folder" in last


def test_what_a_command_writes_is_for_its_user_only(embedded: Installation) -> None:
    folder = embedded.folder / "new"

    subprocess.run(
        [FAXBOT, "db", "upgrade"],
        env=environment(embedded, {"FAX_DATA_DIR": str(folder)}),
        umask=0o022,
        check=True,
        timeout=60,
    )

    written = {path.name: path.stat().st_mode & 0o077 for path in (folder, *folder.rglob("*"))}
    assert "faxbot.db" in written
    assert written == dict.fromkeys(written, 0)
