"""Sealed documents: they come back byte for byte, and what was cut off, added, moved or changed does not open."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot import envelopes
from faxbot.crypto import Unsealable
from faxbot.envelopes import CHUNK_BYTES, HEAD, TAG_BYTES

SIZES = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7)
WHOLE = CHUNK_BYTES + TAG_BYTES
KEY = bytes(range(32))


def sealed(content: bytes, key: bytes = KEY) -> bytes:
    target = io.BytesIO()
    envelopes.seal(io.BytesIO(content), target, key)
    return target.getvalue()


def opened(bytes_: bytes, key: bytes = KEY) -> bytes:
    return b"".join(envelopes.opened(io.BytesIO(bytes_), key))


def content(size: int) -> bytes:
    """No two chunks of it are alike."""
    return b"".join(n.to_bytes(8, "big") for n in range(size // 8 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_opens_again_and_is_hardly_longer(size: int) -> None:
    sealed_ = sealed(content(size))
    assert opened(sealed_) == content(size)
    assert len(sealed_) == len(HEAD) + size + TAG_BYTES * max(1, -(-size // CHUNK_BYTES))
    assert size < 64 or content(size)[:64] not in sealed_


def test_every_document_is_sealed_with_a_key_of_its_own() -> None:
    one, two = envelopes.new_key(), envelopes.new_key()
    assert len(one) == 32
    assert one != two
    with pytest.raises(Unsealable):
        opened(sealed(b"pages", one), two)


def chunks(sealed_: bytes) -> list[bytes]:
    body = sealed_[len(HEAD) :]
    return [body[at : at + WHOLE] for at in range(0, len(body), WHOLE)]


def put_together(*some: bytes) -> bytes:
    return HEAD + b"".join(some)


HARM: dict[str, Callable[[list[bytes]], bytes]] = {
    "its last chunk is gone": lambda c: put_together(*c[:-1]),
    "only its first chunk is left": lambda c: put_together(c[0]),
    "nothing is left": lambda c: put_together(*c[:0]),
    "a chunk is missing": lambda c: put_together(c[0], *c[2:]),
    "two chunks changed places": lambda c: put_together(c[1], c[0], *c[2:]),
    "a chunk comes twice": lambda c: put_together(c[0], *c),
    "something follows": lambda c: put_together(*c, b"x"),
    "its last chunk comes twice": lambda c: put_together(*c, c[-1]),
    "it was cut off within a chunk": lambda c: put_together(*c)[:-1],
    "its head is another": lambda c: b"faxdoc\x00\x02" + b"".join(c),
    "it has no head": b"".join,
    "it is empty": lambda _: b"",
}


@pytest.mark.parametrize("how", HARM)
@pytest.mark.parametrize("size", [2 * CHUNK_BYTES + 7, 3 * CHUNK_BYTES])
def test_it_does_not_open_when(how: str, size: int) -> None:
    harmed = HARM[how](chunks(sealed(content(size))))
    with pytest.raises(Unsealable):
        opened(harmed)


@given(at=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_no_bit_can_be_changed(at: int, bit: int) -> None:
    changed = bytearray(sealed(content(CHUNK_BYTES + 100)))
    changed[at % len(changed)] ^= 1 << bit
    with pytest.raises(Unsealable):
        opened(bytes(changed))


def test_what_is_given_before_it_is_found_out_is_a_part_of_the_document() -> None:
    whole = content(3 * CHUNK_BYTES)
    given_: list[bytes] = []

    def read(harmed: bytes) -> None:
        given_.extend(envelopes.opened(io.BytesIO(harmed), KEY))

    with pytest.raises(Unsealable):
        read(sealed(whole)[:-1])
    assert b"".join(given_) == whole[: 2 * CHUNK_BYTES]


class Dripping(io.BytesIO):
    """A stream that gives a few bytes at a time, as a connection may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1000))


def test_a_stream_may_give_less_than_it_is_asked_for() -> None:
    target = io.BytesIO()
    envelopes.seal(Dripping(content(CHUNK_BYTES + 5)), target, KEY)
    assert target.getvalue() == sealed(content(CHUNK_BYTES + 5))
    assert b"".join(envelopes.opened(Dripping(target.getvalue()), KEY)) == content(CHUNK_BYTES + 5)


class Endless(io.RawIOBase):
    """So many bytes that were never in memory together."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1, /) -> bytes:
        given_ = min(size, self.left)
        self.left -= given_
        return bytes(given_)

    def write(self, data: object, /) -> int:
        return len(data)  # type: ignore[arg-type]


def test_a_chunk_at_a_time_is_in_memory() -> None:
    tracemalloc.start()
    try:
        envelopes.seal(Endless(64 * 1024 * 1024), Endless(0), KEY)  # type: ignore[arg-type]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1024 * 1024
