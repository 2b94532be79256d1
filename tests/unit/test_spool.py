"""The spool: private files with random names, hashed while written, collected when their process is
gone."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

from faxbot import spool
from faxbot.config import Config
from faxbot.spool import SpoolFile, SpoolFolder
from faxbot.web import patience


def aged(path: Path, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(path, (at, at))


def test_a_file_is_private_and_knows_its_size_and_hash(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "spool")
    file.write(b"one ")
    file.write(b"fax")

    assert file.path.read_bytes() == b"one fax"
    assert (file.size, file.sha256) == (7, hashlib.sha256(b"one fax").hexdigest())
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_two_files_never_share_a_name(tmp_path: Path) -> None:
    files = [SpoolFile(tmp_path) for _ in range(20)]

    assert len({file.path for file in files}) == 20


def test_removing_is_complete_and_may_come_after_a_move(tmp_path: Path) -> None:
    kept, moved = SpoolFile(tmp_path), SpoolFile(tmp_path)
    moved.path.rename(tmp_path / "elsewhere")
    kept.remove()
    moved.remove()
    kept.remove()

    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


HOLD = """
import sys
from pathlib import Path
from faxbot.spool import SpoolFile, SpoolFolder
spool = Path(sys.argv[1])
folder = SpoolFolder(spool)
(folder.path / "page").write_bytes(b"a patient's")
file = SpoolFile(spool)
file.write(b"a patient's")
file.path.with_name(file.path.name + ".sealed").touch()
print("held", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_collected_at_once_and_what_is_in_use_never(
    tmp_path: Path,
) -> None:
    file, folder = SpoolFile(tmp_path), SpoolFolder(tmp_path)
    for path in (file.path, folder.path):
        aged(path, 10 * spool.STALE_SECONDS)
    own = {file.path, folder.path}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        left = set(tmp_path.iterdir()) - own
        assert len(left) == 3
        assert spool.collect(tmp_path) == 0
    finally:
        other.kill()
        other.communicate()

    assert spool.collect(tmp_path) == 3
    assert set(tmp_path.iterdir()) == own
    file.remove()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_locked_yet_goes_by_its_age(tmp_path: Path) -> None:
    young, old = tmp_path / "new-young", tmp_path / "new-old"
    for path in (young, old):
        path.touch()
    aged(old, spool.STALE_SECONDS + 5)
    aged(young, spool.STALE_SECONDS - 60)

    assert spool.collect(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [young]


def test_the_first_document_of_the_slowest_form_is_not_old_when_the_last_has_come() -> None:
    assert Config.load({}).max_bytes / patience.KNOWN.rate < spool.STALE_SECONDS / 2


def test_a_spool_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert spool.collect(tmp_path / "none") == 0
