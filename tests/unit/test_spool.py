"""The spool: private files with random names, hashed while written, collected when their process is
gone."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

from faxbot import spool
from faxbot.config import Config
from faxbot.spool import SpoolFile
from faxbot.web import patience


def aged(path: Path, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(path, (at, at))


def test_a_file_is_private_and_knows_its_size_and_hash(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "spool")
    file.write(b"one ")
    file.write(b"fax")
    file.close()

    assert file.path.read_bytes() == b"one fax"
    assert (file.size, file.sha256) == (7, hashlib.sha256(b"one fax").hexdigest())
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_two_files_never_share_a_name(tmp_path: Path) -> None:
    files = [SpoolFile(tmp_path) for _ in range(20)]
    for file in files:
        file.close()

    assert len({file.path for file in files}) == 20


def test_removing_is_complete_and_may_come_after_a_move(tmp_path: Path) -> None:
    kept, moved = SpoolFile(tmp_path), SpoolFile(tmp_path)
    moved.path.rename(tmp_path / "elsewhere")
    kept.remove()
    moved.remove()
    kept.remove()

    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_only_what_is_old_is_collected(tmp_path: Path) -> None:
    left, fresh = SpoolFile(tmp_path), SpoolFile(tmp_path)
    for file in (left, fresh):
        file.close()
    workspace = tmp_path / "work-of-a-killed-worker"
    workspace.mkdir()
    (workspace / "page").touch()
    for path in (left.path, workspace):
        aged(path, spool.STALE_SECONDS + 5)
    aged(fresh.path, spool.STALE_SECONDS - 60)

    assert spool.collect(tmp_path) == 2
    assert list(tmp_path.iterdir()) == [fresh.path]


def test_the_first_document_of_the_slowest_form_is_not_old_when_the_last_has_come() -> None:
    assert Config.load({}).max_bytes / patience.KNOWN.rate < spool.STALE_SECONDS / 2


def test_a_spool_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert spool.collect(tmp_path / "none") == 0
