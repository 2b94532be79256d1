"""Sealing and keyed hashes: what keeps numbers, replies and raw callbacks unreadable in the
database.

A Keyring holds 32-byte master keys by id; every sealed value names the key that sealed it, so keys
can rotate. From a master key HKDF-SHA256 (RFC 5869) derives one key per purpose. Sealing is
AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce and the place of the value as associated
data, so that a value copied to another column does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from faxbot.errors import ConfigError, FaxbotError

_VERSION = b"\x01"
_ID_BYTES = 4
_NONCE_BYTES = 12


class Unsealable(FaxbotError):
    """A sealed value does not open: the key is not the one it was sealed with, or the value was
    changed."""

    code = "unsealable"


class Keyring:
    """Master keys by id; `current` seals, all of them open.

    >>> ring = Keyring({"k1": bytes(32)}, current="k1")
    >>> ring.open(ring.seal(b"+15550100000", "jobs.to"), "jobs.to")
    b'+15550100000'
    """

    def __init__(self, keys: dict[str, bytes], current: str) -> None:
        self._keys = {key_id: bytes(key) for key_id, key in keys.items()}
        self.current = current
        self._ciphers = {
            self._tag(key_id): AESGCM(_derive(key, b"seal")) for key_id, key in keys.items()
        }

    @staticmethod
    def _tag(key_id: str) -> bytes:
        return hashlib.sha256(key_id.encode()).digest()[:_ID_BYTES]

    def seal(self, plain: bytes, place: str) -> bytes:
        """Version, key id (4 bytes), nonce (12 bytes), ciphertext and tag (16 bytes); `place` is
        "table.column:account"."""
        tag, nonce = self._tag(self.current), os.urandom(_NONCE_BYTES)
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
        """HMAC-SHA256 under a key of its own per purpose; 64 hex digits. Equal values give equal
        hashes."""
        key = _derive(self._keys[self.current], purpose.encode())
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


def keyring(master_key: bytes | None, data_dir: Path) -> Keyring:
    """The ring of this installation: `master_key` (32 bytes) when given, else the key file under
    `data_dir`."""
    key = master_key if master_key is not None else key_file(data_dir / "master.key")
    key_id = hashlib.sha256(b"faxbot key id" + key).hexdigest()[:12]
    return Keyring({key_id: key}, key_id)
