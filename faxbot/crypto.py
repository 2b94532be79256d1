"""Sealing and keyed hashes: what keeps numbers, replies and raw callbacks unreadable in the
database.

A Keyring holds 32-byte master keys by id; every sealed value names the key that sealed it, so keys
can rotate. From a master key HKDF-SHA256 (RFC 5869) derives one key per purpose. Sealing is
AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce and the place of the value as associated
data, so that a value copied to another column does not open.

While master keys rotate the database says which one seals (Keys), and a value is looked for under
the hashes of both. What is only hashed and cannot be hashed anew lives on for a while: the keys
that were derived for it stay in the database, sealed under the new master key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from faxbot.errors import ConfigError, FaxbotError, KeyMissing

_VERSION = b"\x01"
_ID_BYTES = 4
_NONCE_BYTES = 12

LASTING = ("api-key", "csrf", "session")
"""Purposes whose values are random and long (256 bits), so that no key need hide them: their hash key outlives master
keys, and nobody needs a new API key."""
WRAPPED = ("idempotency-key", "fingerprint")
"""Purposes whose hashes are hashed once more under the new master key: what was hashed is not kept."""
GIVEN_OUT = ("callback token", "document link", "provider settings")
"""Purposes whose hashes are out at carriers, or with calls under way: old ones are good until those have ended."""
RENEWED = ("number", "callback")
"""Purposes whose hashes are made anew from what is sealed beside them."""
PURPOSES = frozenset({*LASTING, *WRAPPED, *GIVEN_OUT, *RENEWED})
"""All there are: for a new one it is decided what becomes of it when master keys rotate."""


class Unsealable(FaxbotError):
    """A sealed value does not open: the key is not the one it was sealed with, or the value was
    changed."""

    code = "unsealable"


@dataclass(frozen=True, slots=True)
class Past:
    """A master key that seals nothing any more, as far as its hashes live on."""

    key_id: str
    hash_keys: Mapping[str, bytes] = field(repr=False)
    """By purpose, those of wraps() among them."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Which master keys are at work, by id, as the database says."""

    sealing: str | None = None
    """None: nobody has said so yet; then it is the older one of two."""
    upcoming: str | None = None
    """It will seal soon: a process that does not have it must say so."""
    retiring: str | None = None
    """It sealed before; there may be values left that only it opens."""
    past: tuple[Past, ...] = ()
    """Oldest first."""
    lasting: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Hash keys by purpose, those of LASTING."""


class Keyring:
    """Master keys by id, oldest first; one of them seals, all of them open.

    >>> ring = Keyring({"k1": bytes(32)}, current="k1")
    >>> ring.open(ring.seal(b"+15550100000", "jobs.to"), "jobs.to")
    b'+15550100000'
    """

    def __init__(
        self,
        keys: dict[str, bytes],
        current: str | None = None,
        load: Callable[[], dict[str, bytes]] | None = None,
    ) -> None:
        """`current`: the one that seals while nobody has followed the database (follow); None: the oldest. `load` gives
        the keys that are there now, where they may become more."""
        self._load = load
        self._first = current or next(iter(keys))
        unsaid = Keys()
        self._state: Callable[[], Keys] = lambda: unsaid
        self._take(keys)

    def _take(self, keys: dict[str, bytes]) -> None:
        self._keys = {key_id: bytes(key) for key_id, key in keys.items()}
        self._ciphers = {
            self.tag(key_id): AESGCM(_derive(key, b"seal")) for key_id, key in keys.items()
        }
        if len(self._ciphers) < len(keys):
            raise ConfigError("two master keys look alike: make another new one")
        self._view: tuple[Keys, _View] | None = None

    @staticmethod
    def tag(key_id: str) -> bytes:
        """How a sealed value names its key; bytes 2 to 5 of it."""
        return hashlib.sha256(key_id.encode()).digest()[:_ID_BYTES]

    def follow(self, state: Callable[[], Keys]) -> None:
        """Go by what the database says; `state` is asked whenever something is sealed or hashed."""
        self._state = state

    def holds(self, key_id: str) -> bool:
        """Whether this key is among those that open; looks for new ones where they may become more."""
        if key_id not in self._keys and self._load is not None:
            with suppress(ConfigError):
                self._take(self._load())
        return key_id in self._keys

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all keys, oldest first."""
        return tuple(self._keys)

    @property
    def current(self) -> str:
        """The one that seals."""
        return self._now().sealing

    @property
    def rotates(self) -> bool:
        """Whether the database says so: then something may stand under the hashes of two master keys."""
        state = self._state()
        return state.upcoming is not None or state.retiring is not None

    @property
    def at_work(self) -> tuple[str | None, str | None]:
        """The key that seals, and the one before that is not done with yet; None: nobody has said so."""
        state = self._state()
        return state.sealing, state.retiring

    def still(self) -> Keyring:
        """The same, which notices nothing any more: what is sealed and hashed for one row belongs together."""
        ring, state = copy(self), self._state()
        ring.follow(lambda: state)
        return ring

    def seal(self, plain: bytes, place: str) -> bytes:
        """Version, key id (4 bytes), nonce (12 bytes), ciphertext and tag (16 bytes); `place` is
        "table.column:account", and of a setting also its name."""
        return self.seal_with(self._now().sealing, plain, place)

    def seal_with(self, key_id: str, plain: bytes, place: str) -> bytes:
        """The same with a key that need not be the one that seals."""
        tag, nonce = self.tag(key_id), os.urandom(_NONCE_BYTES)
        return _VERSION + tag + nonce + self._ciphers[tag].encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """The plain bytes; raises Unsealable for an unknown key, a changed value or another
        place."""
        start = 1 + _ID_BYTES
        cipher = self._ciphers.get(sealed[1:start])
        if sealed[:1] != _VERSION or cipher is None:
            raise Unsealable
        nonce, body = sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, body, place.encode())
        except (InvalidTag, ValueError):
            raise Unsealable from None

    def keyed_hash(self, value: bytes, purpose: str) -> str:
        """HMAC-SHA256 under a key of its own per purpose (PURPOSES); 64 hex digits. Equal values
        give equal hashes."""
        _check(purpose)
        now = self._now()
        return digest(now.lasting.get(purpose) or self.hash_key(now.sealing, purpose), value)

    def hashes(self, value: bytes, purpose: str) -> tuple[str, ...]:
        """All hashes under which this value may be found now: one, and more while master keys rotate and a while after;
        those of the oldest key first, in the same order for all of WRAPPED."""
        _check(purpose)
        now = self._now()
        found: list[str] = []
        wrapped: list[str] = []
        if purpose in now.lasting:
            return (digest(now.lasting[purpose], value),)
        for hash_keys in now.generations:
            key = hash_keys(purpose)
            if key is None:
                continue
            wrap = hash_keys(wraps(purpose)) if wrapped and purpose in WRAPPED else None
            wrapped = [
                *(digest(wrap, each.encode()) for each in wrapped if wrap),
                digest(key, value),
            ]
            found += wrapped
        return tuple(found)

    def hash_key(self, key_id: str, purpose: str) -> bytes:
        """What this master key hashes with for this purpose."""
        return _derive(self._keys[key_id], purpose.encode())

    def _now(self) -> _View:
        state, view = self._state(), self._view
        if view is None or view[0] is not state:
            view = self._view = (state, self._seen(state))
        return view[1]

    def _seen(self, state: Keys) -> _View:
        """Master keys at work are the one that retires, the one that seals, the one that is announced, and those that
        came after it: a process that has a new key looks under its hashes from the beginning, so that nobody need
        change at the same moment."""
        sealing = state.sealing or self._first
        if sealing not in self._keys:
            raise KeyMissing
        ids, gone = list(self._keys), [each.key_id for each in state.past]
        later = [each for each in ids[ids.index(sealing) + 1 :] if each not in gone]
        masters = dict.fromkeys(
            [state.retiring or sealing, sealing, state.upcoming or sealing, *later]
        )
        known = [each for each in masters if each in self._keys]

        def derived(key_id: str) -> Callable[[str], bytes | None]:
            return lambda purpose: self.hash_key(key_id, purpose)

        past = [each.hash_keys.get for each in state.past if each.key_id not in known]
        generations = (*past, *(derived(each) for each in known))
        return _View(sealing, generations, state.lasting)


@dataclass(frozen=True, slots=True)
class _View:
    """What follows from Keys for one keyring."""

    sealing: str
    generations: tuple[Callable[[str], bytes | None], ...]
    """By purpose the hash key of each that anything may stand under, oldest first."""
    lasting: Mapping[str, bytes]


def _check(purpose: str) -> None:
    if purpose not in PURPOSES:
        raise LookupError(f"what becomes of hashes for {purpose!r} when master keys rotate?")


def wraps(purpose: str) -> str:
    """The purpose of hashing once more what was hashed for this one (WRAPPED)."""
    return f"{purpose} again"


def digest(key: bytes, value: bytes) -> str:
    """HMAC-SHA256; 64 hex digits."""
    return hmac.digest(key, value, "sha256").hex()


@lru_cache(maxsize=64)
def _derive(master: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"faxbot:" + purpose).derive(
        master
    )


def key_file(path: Path) -> bytes:
    """The 32 bytes of the key file at `path`, made (0600) on first use, safely when several
    processes start at once."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            # link() refuses to replace: the first of several starters wins, and all read the
            # winner's key.
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        _to_disk(path.parent)
    return _read(path)


def _to_disk(folder: Path) -> None:
    """Have the names in this folder outlive a power cut: what is sealed with a key is lost with it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != 32:
        raise ConfigError(
            f"the key file {path.name} in FAX_DATA_DIR is damaged: restore it from a backup"
        )
    if path.stat().st_mode & 0o077:
        raise ConfigError(
            f"the key file {path.name} in FAX_DATA_DIR is readable by others: chmod 600 it"
        )
    return key


MAIN, NEXT = "master.key", "master.key.next"
"""The key's file, and the new key's while master keys rotate; those that were are called after their id."""


def key_files(data_dir: Path) -> dict[str, bytes]:
    """The master keys that lie under `data_dir` by id, oldest first. Raises ConfigError, also where there is none: who
    runs goes on with those that he has, and another one would open nothing."""
    while True:
        # One that was there, and is gone when it is read, was promoted or deleted meanwhile.
        with suppress(FileNotFoundError):
            return _key_files(data_dir)


def _key_files(data_dir: Path) -> dict[str, bytes]:
    """The newest first: each goes the other way, and none is missed."""
    following = [_read(data_dir / NEXT)] if (data_dir / NEXT).exists() else []
    if not (data_dir / MAIN).exists():
        raise ConfigError(f"the key file {MAIN} in FAX_DATA_DIR is gone: restore it from a backup")
    current = _read(data_dir / MAIN)
    earlier = sorted(data_dir.glob("master.key.*"), key=lambda path: path.stat().st_mtime_ns)
    keys = [_read(path) for path in earlier if _EARLIER.fullmatch(path.name)]
    return {id_of(key): key for key in (*keys, current, *following)}


_EARLIER = re.compile(r"master\.key\.[0-9a-f]{12}")


def promote(data_dir: Path) -> None:
    """Have the new key's file take the place of the one before, which stays under its id; nothing where that is done.
    Whoever reads the files meanwhile finds both keys."""
    following, current = data_dir / NEXT, data_dir / MAIN
    if following.exists():
        with suppress(FileExistsError):
            os.link(current, data_dir / f"master.key.{id_of(key_file(current))}")
        with suppress(FileNotFoundError):  # somebody else has done it just now
            following.replace(current)
        _to_disk(data_dir)


def id_of(key: bytes) -> str:
    """The id of a master key, which says nothing of it."""
    return hashlib.sha256(b"faxbot key id" + key).hexdigest()[:12]


def keyring(master_key: bytes | None, data_dir: Path, previous: bytes | None = None) -> Keyring:
    """The ring of this installation: `master_key` (32 bytes) and the one before it when given, else the key files under
    `data_dir`; the first one is made where there is none. Raises ConfigError."""
    if master_key is None:
        main = id_of(key_file(data_dir / MAIN))
        return Keyring(key_files(data_dir), main, lambda: key_files(data_dir))
    given = [each for each in (previous, master_key) if each is not None]
    return Keyring({id_of(key): key for key in given})
