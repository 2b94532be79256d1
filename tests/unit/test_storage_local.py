"""Stored documents in a folder, beyond the contract (tests/storage): whole or not there, durable,
readable by this user only, and never outside their folder."""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faxbot.errors import ArtifactNotFound, PluginError, StorageAway
from faxbot.plugins.base import Context
from faxbot.providers.http import HttpClient
from faxbot.storage.local import LocalStorage

KEY = "2026/11/20/0190f3c2-document"
Make = Callable[[bytes], Path]


def storage_in(folder: Path) -> LocalStorage:
    storage = LocalStorage()
    context = Context(logging.getLogger("test"), lambda: datetime.now(UTC), HttpClient([]))
    storage.initialize({"dataDir": str(folder)}, context)
    return storage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "documents"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return storage_in(tmp_path / "data")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(b"..."): a file outside the store with this content."""

    def write(content: bytes) -> Path:
        path = tmp_path / "upload"
        path.write_bytes(content)
        path.chmod(0o644)
        return path

    return write


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """A folder on another file system than the tests' own."""
    folder = Path("/dev/shm") / f"faxbot-test-{os.getpid()}"  # it must be another file system
    folder.mkdir(mode=0o700)
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read(storage: LocalStorage, key: str) -> bytes:
    with storage.open(key) as file:
        return file.read()


def test_files_are_0600_in_folders_of_0700(storage: LocalStorage, make: Make, root: Path) -> None:
    storage.put(KEY, make(b"pages"))
    assert [file.relative_to(root).as_posix() for file in files_below(root)] == [KEY]
    assert stat.S_IMODE((root / KEY).stat().st_mode) == 0o600
    folders = [root.parent, root, *(path for path in root.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_document_on_the_same_file_system_is_moved_not_copied(
    storage: LocalStorage, make: Make, root: Path
) -> None:
    source = make(b"pages")
    inode = source.stat().st_ino
    storage.put(KEY, source)
    assert (root / KEY).stat().st_ino == inode
    assert not source.exists()


def test_a_document_from_another_file_system_is_copied_whole(
    storage: LocalStorage, other_disk: Path, root: Path, tmp_path: Path
) -> None:
    assert other_disk.stat().st_dev != tmp_path.stat().st_dev, (
        "this machine has only one file system to write to"
    )
    source = other_disk / "upload"
    content = os.urandom(3_000_000)
    source.write_bytes(content)
    storage.put(KEY, source)
    assert read(storage, KEY) == content
    assert stat.S_IMODE((root / KEY).stat().st_mode) == 0o600
    assert [file.relative_to(root).as_posix() for file in files_below(root)] == [KEY]


_TRACED = """
import logging, sys
from datetime import UTC, datetime
from pathlib import Path
from faxbot.plugins.base import Context
from faxbot.providers.http import HttpClient
from faxbot.storage.local import LocalStorage
storage = LocalStorage()
context = Context(logging.getLogger(), lambda: datetime.now(UTC), HttpClient([]))
storage.initialize({"dataDir": sys.argv[1]}, context)
events, names = [], {}
def look(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, Path)):
        events.append(("open", str(arguments[0])))
    elif event == "os.rename":
        events.append(("rename", str(arguments[1])))
sys.addaudithook(look)
import os
real = os.fsync
def fsync(descriptor):
    events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
    real(descriptor)
os.fsync = fsync
storage.put("2026/11/20/one", Path(sys.argv[2]))
for kind, name in events:
    if kind != "open":
        print(kind, name)
"""


def test_the_bytes_are_durable_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, make: Make
) -> None:
    data, source = tmp_path / "data", make(b"pages")
    traced = subprocess.run(
        [sys.executable, "-c", _TRACED, str(data), str(source)],
        capture_output=True,
        text=True,
        check=True,
    )
    day = data / "documents/2026/11/20"
    made = [tmp_path, data, data / "documents", data / "documents/2026", data / "documents/2026/11"]
    assert traced.stdout.splitlines() == [
        *(f"fsync {folder}" for folder in made),
        f"fsync {source}",
        f"rename {day / 'one'}",
        f"fsync {day}",
    ]


@pytest.mark.parametrize("key", [KEY + "-never", "2026", "2026/11/20", KEY + "/below"])
def test_what_is_not_there_is_an_artifact_not_found(
    storage: LocalStorage, make: Make, key: str
) -> None:
    storage.put(KEY, make(b"pages"))
    with pytest.raises(ArtifactNotFound):
        storage.open(key)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        "a//b",
        "a/",
        ".hidden",
        "a/.b",
        "A",
        "a b",
        "a\nb",
        "a\x00b",
        "ä",
        "a\\b",
        "x" * 200,
        "/".join("abcdefghi"),
        "a/./b",
        "~",
    ],
)
def test_a_key_that_is_none_is_refused_and_touches_nothing(
    storage: LocalStorage, make: Make, root: Path, key: str
) -> None:
    source = make(b"pages")
    for act in (
        lambda: storage.put(key, source),
        lambda: storage.open(key),
        lambda: storage.delete(key),
    ):
        with pytest.raises(PluginError, match="no storage key"):
            act()
    assert source.exists()
    assert not root.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(key=st.text(st.sampled_from("ab./-_~\\\n\x00A ä"), max_size=12))
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    storage = storage_in(tmp_path / "data")
    source = tmp_path / "upload"
    source.write_bytes(b"pages")
    try:
        storage.put(key, source)
    except PluginError:
        return
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return  # a key that an earlier one made a folder of, or a file
    assert (tmp_path / "data/documents" / key).resolve().is_relative_to(tmp_path / "data/documents")


def test_a_link_is_not_moved_in_place_of_what_it_names(
    storage: LocalStorage, tmp_path: Path, root: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        storage.put(KEY, link)
    assert files_below(root) == []


def test_a_source_that_is_not_there_leaves_nothing(
    storage: LocalStorage, tmp_path: Path, root: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        storage.put(KEY, tmp_path / "nothing")
    assert files_below(root) == []


def test_a_full_disk_leaves_no_part_of_a_document(other_disk: Path, tmp_path: Path) -> None:
    """The copy is made in a child whose files may not grow beyond a limit: write() fails as on a
    full disk."""
    source = other_disk / "upload"
    source.write_bytes(os.urandom(500_000))
    ended = put_with_little_room(tmp_path / "data", source, "SIG_IGN")
    assert "File too large" in ended.stderr
    assert files_below(tmp_path / "data") == []
    assert source.exists()


def put_with_little_room(data: Path, source: Path, how: str) -> subprocess.CompletedProcess[str]:
    """Put `source` in a child whose files may not grow beyond a limit: `how` it takes the signal
    that this sends."""
    program = (
        "import resource, signal; from pathlib import Path;"
        "from tests.unit.test_storage_local import storage_in;"
        f"signal.signal(signal.SIGXFSZ, signal.{how});"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
        f"storage_in(Path({str(data)!r})).put({KEY!r}, Path({str(source)!r}))"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_what_a_process_left_that_was_killed_while_it_copied_is_deleted_with_its_key(
    storage: LocalStorage, other_disk: Path, root: Path
) -> None:
    source = other_disk / "upload"
    source.write_bytes(os.urandom(500_000))
    ended = put_with_little_room(root.parent, source, "SIG_DFL")
    assert ended.returncode == -signal.SIGXFSZ
    assert len(files_below(root)) == 1
    with pytest.raises(ArtifactNotFound):
        storage.open(KEY)

    storage.delete(KEY)
    assert files_below(root) == []


def test_without_the_folder_of_its_day_nothing_is_said_to_be_gone(
    storage: LocalStorage, make: Make, root: Path
) -> None:
    """As of a process without the volume of the others: also after it has kept something on the wrong disk."""

    def cannot_tell(key: str) -> None:
        for deed in (storage.open, storage.delete):
            with pytest.raises(StorageAway, match="FAX_DATA_DIR"):
                deed(key)

    for has_folder in (False, True):
        assert root.is_dir() is has_folder
        cannot_tell(KEY)
        assert storage.health().ok
    storage.put("2026/11/21/of-today", make(b"pages"))
    for key in (KEY, "2026/10/20/a-month-ago", "2025/11/21/a-year-ago"):
        cannot_tell(key)
    assert read(storage, "2026/11/21/of-today") == b"pages"


def test_the_folder_of_a_day_stays_when_all_in_it_is_deleted_and_can_be_made_by_hand(
    storage: LocalStorage, make: Make, root: Path
) -> None:
    storage.put(f"{KEY}-2", make(b"pages"))
    storage.delete(f"{KEY}-2")
    (root / "2026/11/19").mkdir()
    for key in (KEY, f"{KEY}-2", "2026/11/19/another"):
        storage.delete(key)
        with pytest.raises(ArtifactNotFound):
            storage.open(key)


def test_health_says_whether_documents_can_be_kept(
    storage: LocalStorage, root: Path, tmp_path: Path
) -> None:
    assert storage.health().ok
    assert files_below(root) == []
    (tmp_path / "file").write_text("in the way")
    blocked = storage_in(tmp_path / "file").health()
    assert not blocked.ok
    assert "FAX_DATA_DIR" in blocked.detail
    assert str(tmp_path) not in blocked.detail
