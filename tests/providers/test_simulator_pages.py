"""What a stand-in carrier sees in a document: that it is a TIFF, every page counted, and whether it is whole."""

from __future__ import annotations

import io
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from faxbot.carriers.pages import Document, Unreadable, inspect


def tiff(pages: int) -> bytes:
    """Group 4 pages with something on them, so that every strip has bytes that can be missing."""
    made = [
        Image.frombytes("1", (1728, 100), random.Random(number).randbytes(1728 * 100 // 8))
        for number in range(pages)
    ]
    file = io.BytesIO()
    made[0].save(file, "TIFF", compression="group4", save_all=True, append_images=made[1:])
    return file.getvalue()


def big_endian_tiff() -> bytes:
    """One page of one strip by hand: TIFF 6.0 in the byte order that Pillow does not write."""
    fields = [(256, 8), (257, 1), (273, 100), (279, 1)]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in fields)
    head = b"MM\x00*" + struct.pack(">I", 8) + struct.pack(">H", len(fields)) + entries + bytes(4)
    return head.ljust(100, b"\x00") + b"\xff"


WHOLE = tiff(3)


@pytest.mark.parametrize("pages", [1, 2, 7])
def test_the_pages_of_a_tiff_are_counted(pages: int) -> None:
    assert inspect(tiff(pages)) == Document("image/tiff", pages)


def test_both_byte_orders_are_read() -> None:
    assert inspect(big_endian_tiff()) == Document("image/tiff", 1)


# Pillow fills the file up to a multiple of 16 bytes; these belong to no page.
@given(length=st.integers(0, len(WHOLE) - 16))
def test_a_tiff_that_was_cut_off_anywhere_is_noticed(length: int) -> None:
    with pytest.raises(Unreadable):
        inspect(WHOLE[:length])


def test_a_page_whose_last_byte_is_missing_is_noticed() -> None:
    with pytest.raises(Unreadable, match="a page is cut off"):
        inspect(big_endian_tiff()[:-1])


@given(place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
def test_a_damaged_tiff_is_counted_or_refused_and_never_a_crash(place: int, value: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[place] = value
    try:
        assert inspect(bytes(damaged)).pages > 0
    except Unreadable:
        return


@given(head=st.sampled_from([b"", b"II*\x00", b"MM\x00*"]), rest=st.binary(max_size=300))
def test_any_bytes_at_all_are_counted_or_refused(head: bytes, rest: bytes) -> None:
    try:
        assert inspect(head + rest).pages > 0
    except Unreadable:
        return


def test_directories_in_a_loop_end() -> None:
    looped = bytearray(big_endian_tiff())
    looped[58:62] = struct.pack(">I", 8)
    with pytest.raises(Unreadable, match="loop"):
        inspect(bytes(looped))


def test_a_field_that_claims_to_be_huge_is_refused_at_once() -> None:
    huge = bytearray(big_endian_tiff())
    huge[38:42] = struct.pack(">I", 0xFFFFFFFF)
    with pytest.raises(Unreadable, match="longer than the file"):
        inspect(bytes(huge))


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"hello", b"II*\x00\x00\x00\x00\x00", b"%PDF-1.4\n%%EOF"]
)
def test_what_is_no_fax_document_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        inspect(data)
