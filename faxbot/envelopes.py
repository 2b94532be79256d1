"""Documents sealed as streams: what a storage holds can be read with its data key only, and is whole or does not open.

    "faxdoc" 0 1 | chunk | chunk | ... | last chunk

A chunk is 64 KiB of the document (the last one what is left, also nothing), encrypted with AES-256-GCM, and its tag of
16 bytes. Its nonce is its number (11 bytes) and whether it is the last one (1 byte): the STREAM construction of Hoang,
Reyhanitabar, Rogaway and Vizar (Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, 2015). So a
document that was cut off, lengthened, put together anew or changed does not open. Each document has a data key of its
own, which seals nothing else: no nonce comes twice. Who keeps data keys, and for which document they open, is for
others to say (artifacts).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from faxbot.crypto import Unsealable

HEAD = b"faxdoc\x00\x01"
CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
KEY_BITS = 256


def new_key() -> bytes:
    """A data key for one document."""
    return AESGCM.generate_key(KEY_BITS)


def seal(source: BinaryIO, target: BinaryIO, key: bytes) -> None:
    """Write the document in `source` into `target`, sealed; a chunk at a time is in memory."""
    cipher = AESGCM(key)
    target.write(HEAD)
    for number, (chunk, is_last) in enumerate(_pieces(source, CHUNK_BYTES)):
        target.write(cipher.encrypt(_nonce(number, is_last), chunk, HEAD))


def opened(source: BinaryIO, key: bytes) -> Iterator[bytes]:
    """The document that is sealed in `source`, chunk by chunk; raises Unsealable where it is not as it was sealed. What
    was given until then is a part of the document, and nothing else."""
    if _read(source, len(HEAD)) != HEAD:
        raise Unsealable
    cipher = AESGCM(key)
    for number, (chunk, is_last) in enumerate(_pieces(source, CHUNK_BYTES + TAG_BYTES)):
        try:
            piece = cipher.decrypt(_nonce(number, is_last), chunk, HEAD)
        except (InvalidTag, ValueError):
            raise Unsealable from None
        yield piece


def _nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _pieces(source: BinaryIO, size: int) -> Iterator[tuple[bytes, bool]]:
    """Pieces of this size, and whether each is the last one; at least one, which may be empty."""
    piece = _read(source, size)
    while following := _read(source, size):
        yield piece, False
        piece = following
    yield piece, True


def _read(source: BinaryIO, size: int) -> bytes:
    """So many bytes, less only at the end: a stream may give fewer than it is asked for."""
    found = source.read(size)
    while 0 < len(found) < size and (more := source.read(size - len(found))):
        found += more
    return found
