"""Where Asterisk and Chromium come from: locked, checked, cached, the next best where one is gone."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.browser.packages import CHROMIUM
from tests.debian import (
    Locked,
    NoPackages,
    Package,
    Program,
    Store,
    Tree,
    archives_of_this_machine,
)
from tests.providers.asterisk.packages import ASTERISK

NOWHERE = "http://127.0.0.1:1/debian"
BELL = Program("bell", Tree, ("newer", "new"), needs=lambda _apt: {"bell"}, module="tests.bell")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive with one small package in it."""
    source = tmp_path / "source"
    (source / "DEBIAN").mkdir(parents=True)
    (source / "DEBIAN" / "control").write_text(
        "Package: bell\nVersion: 1:99.1.2+dfsg-1\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.invalid>\nDescription: none\n"
    )
    (source / "usr" / "sbin").mkdir(parents=True)
    (source / "usr" / "sbin" / "bell").write_text("here\n")
    (source / "usr" / "share" / "man").mkdir(parents=True)
    (source / "usr" / "share" / "man" / "bell.8").touch()
    folder = tmp_path / "archive"
    folder.mkdir()
    build: list[str | Path] = [
        "/usr/bin/dpkg-deb",
        "--root-owner-group",
        "--build",
        source,
        folder / "bell.deb",
    ]
    subprocess.run(build, check=True, capture_output=True)
    return folder


@pytest.fixture
def locked(archive: Path) -> Locked:
    digest = hashlib.sha256((archive / "bell.deb").read_bytes()).hexdigest()
    here = ASTERISK.read_lock()[0].architecture
    package = Package("bell", "1:99.1.2+dfsg-1", "bell.deb", digest)
    return Locked("new", here, (package,))


def test_it_is_unpacked_once_and_then_found_without_an_archive(
    tmp_path: Path, archive: Path, locked: Locked
) -> None:
    tree = Store(BELL, tmp_path / "cache", [locked], [f"file:{archive}"]).fetch()
    assert (tree.version, tree.suite) == ("99.1.2", "new")
    assert (tree.root / "usr/sbin/bell").read_text() == "here\n"
    assert not (tree.root / "usr/share/man").exists()
    again = Store(BELL, tmp_path / "cache", [locked], [NOWHERE])
    assert again.present() == again.fetch() == tree
    assert sorted(path.name for path in again.folder.iterdir()) == sorted([tree.root.name, "lock"])


def test_another_content_under_a_locked_name_is_refused(
    tmp_path: Path, archive: Path, locked: Locked
) -> None:
    (archive / "bell.deb").write_bytes((archive / "bell.deb").read_bytes() + b"\n")
    store = Store(BELL, tmp_path / "cache", [locked], [f"file:{archive}"])
    with pytest.raises(ValueError, match="SHA-256"):
        store.fetch()
    assert store.present() is None


def test_the_next_suite_where_the_archive_has_the_locked_version_no_longer(
    tmp_path: Path, archive: Path, locked: Locked
) -> None:
    (package,) = locked.packages
    moved_on = replace(locked, suite="newer", packages=(replace(package, path="newer.deb"),))
    store = Store(BELL, tmp_path / "cache", [moved_on, locked], [f"file:{archive}"])
    assert store.fetch().suite == "new"
    assert "newer" in store.describe()
    assert "--lock" in store.describe()
    # It is not asked again, also when it would answer.
    (archive / "newer.deb").write_bytes((archive / "bell.deb").read_bytes())
    assert store.fetch().suite == "new"


@pytest.mark.parametrize("archives", [[], [NOWHERE]])
def test_an_archive_out_of_reach_is_said_and_asked_again(
    tmp_path: Path, archive: Path, locked: Locked, archives: list[str]
) -> None:
    with pytest.raises(NoPackages, match="new: "):
        Store(BELL, tmp_path / "cache", [locked], archives).fetch()
    assert Store(BELL, tmp_path / "cache", [locked], [f"file:{archive}"]).fetch().suite == "new"


@pytest.mark.parametrize("program", [ASTERISK, CHROMIUM], ids=lambda program: program.name)
def test_the_lock_names_every_suite_and_no_host(program: Program[Tree]) -> None:
    assert [locked.suite for locked in program.read_lock()] == list(program.suites)
    assert "//" not in program.lock.read_text()
    for locked in program.read_lock():
        assert all(len(package.sha256) == 64 for package in locked.packages)
        assert locked.version(program.name)


def test_this_machine_s_archives_end_without_a_slash() -> None:
    assert all(not archive.endswith("/") for archive in archives_of_this_machine())
