"""Sealing: what goes in comes out, under the right key, at its own place and unchanged, and in no
other way."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.crypto import Keyring, Unsealable, key_file, keyring
from faxbot.errors import ConfigError
from faxbot.hidden import Hidden

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
RING = Keyring({"old": OLD}, "old")
BOTH = Keyring({"old": OLD, "new": NEW}, "new")
NUMBER = b"+15550100042"
PLACE = "jobs.to:default"


@given(st.binary(max_size=2000), st.text(max_size=80))
def test_what_is_sealed_opens_again_at_its_place(plain: bytes, place: str) -> None:
    sealed = RING.seal(plain, place)

    assert RING.open(sealed, place) == plain
    assert len(sealed) == len(plain) + 1 + 4 + 12 + 16


@given(st.binary(min_size=8, max_size=200))
def test_nothing_of_the_plain_bytes_shows_and_no_two_sealings_are_alike(plain: bytes) -> None:
    first, second = RING.seal(plain, PLACE), RING.seal(plain, PLACE)

    assert plain not in first
    assert first != second
    assert first[5:17] != second[5:17], "a nonce was used twice"


@given(st.integers(1, 255))
def test_a_change_of_any_byte_is_seen(change: int) -> None:
    sealed = RING.seal(NUMBER, PLACE)

    for place in range(len(sealed)):
        broken = bytearray(sealed)
        broken[place] ^= change
        with pytest.raises(Unsealable):
            RING.open(bytes(broken), PLACE)


def test_what_is_cut_or_padded_does_not_open() -> None:
    sealed = RING.seal(NUMBER, PLACE)

    for wrong in [sealed[:size] for size in range(len(sealed))] + [sealed + b"\0", b"\0" + sealed]:
        with pytest.raises(Unsealable):
            RING.open(wrong, PLACE)


@pytest.mark.parametrize("place", ["jobs.to:other", "jobs.header:default", "", "jobs.to:default "])
def test_a_value_that_was_moved_elsewhere_does_not_open(place: str) -> None:
    with pytest.raises(Unsealable):
        RING.open(RING.seal(NUMBER, PLACE), place)


def test_keys_rotate_the_old_one_still_opens_and_the_new_one_seals() -> None:
    before = RING.seal(NUMBER, PLACE)

    assert BOTH.open(before, PLACE) == NUMBER
    after = BOTH.seal(NUMBER, PLACE)
    assert BOTH.open(after, PLACE) == NUMBER
    with pytest.raises(Unsealable):
        RING.open(after, PLACE)
    with pytest.raises(Unsealable):
        Keyring({"old": NEW}, "old").open(before, PLACE)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_keyed_hashes_are_equal_for_equal_values_only(one: bytes, other: bytes) -> None:
    assert (RING.keyed_hash(one, "number") == RING.keyed_hash(other, "number")) == (one == other)
    assert RING.keyed_hash(one, "number") != RING.keyed_hash(one, "callback")
    assert RING.keyed_hash(one, "number") != BOTH.keyed_hash(one, "number")


def test_nothing_secret_is_in_what_can_be_printed(tmp_path: Path) -> None:
    ring = keyring(None, tmp_path)
    key = (tmp_path / "master.key").read_bytes()
    hidden = Hidden("Jane Doe")
    with pytest.raises(Unsealable) as refused:
        ring.open(RING.seal(NUMBER, PLACE), PLACE)

    shown = f"{ring!r} {ring} {hidden} {hidden!r} {hidden:>40} {[hidden]} {refused.value!r}"

    assert "Jane" not in shown
    assert "0100042" not in shown
    assert key.hex() not in shown
    assert str(key) not in shown
    record = logging.makeLogRecord({"msg": "%s", "args": (hidden,)})
    assert record.getMessage() == "[hidden]"
    assert hidden.reveal() == "Jane Doe"
    assert hidden == Hidden("Jane Doe") != Hidden("John Doe")


@pytest.mark.parametrize("take", [pickle.dumps, copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_hidden_value_does_not_leave_by_pickling(take: object) -> None:
    assert callable(take)
    with pytest.raises(TypeError, match="not pickled"):
        take(Hidden("Jane Doe"))


_MAKER = """
import sys
from pathlib import Path
from faxbot.crypto import key_file
sys.stdin.read(1)
sys.stdout.write(key_file(Path(sys.argv[1])).hex())
"""


def test_eight_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    path = tmp_path / "data" / "master.key"
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", _MAKER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("x")
        maker.stdin.flush()
    keys = {maker.communicate(timeout=60)[0] for maker in makers}

    assert keys == {path.read_bytes().hex()}
    assert len(path.read_bytes()) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["master.key"]


def test_the_key_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        key_file(tmp_path / "new" / "master.key")
    finally:
        os.umask(before)

    assert (tmp_path / "new" / "master.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"", 0o600, "damaged"),
        (bytes(31), 0o600, "damaged"),
        (bytes(33), 0o600, "damaged"),
        (bytes(32), 0o640, "readable by others"),
        (bytes(32), 0o604, "readable by others"),
    ],
)
def test_a_key_file_that_is_damaged_or_readable_by_others_is_refused(
    tmp_path: Path, content: bytes, mode: int, words: str
) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(mode)

    with pytest.raises(ConfigError, match=words):
        keyring(None, tmp_path)
    assert path.read_bytes() == content


def test_a_given_master_key_makes_no_file(tmp_path: Path) -> None:
    ring = keyring(OLD, tmp_path)

    assert keyring(OLD, tmp_path).open(ring.seal(NUMBER, PLACE), PLACE) == NUMBER
    assert list(tmp_path.iterdir()) == []
