"""Bodies that Sinch posts, read in pieces of any size: as a reader that has all of it at once would."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from faxbot.providers.sinch.bodies import (
    LARGEST_NEWS,
    MOST_DEPTH,
    MOST_PARTS,
    Base64,
    Head,
    News,
    form,
)

_SIZES = st.sampled_from([1, 2, 3, 5, 7, 16, 61, 4096])
_WORDS = st.text(max_size=12) | st.sampled_from(
    ["file", "files", 'a"b', "\\", "{", "é\n", "\ud800"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def read(body: bytes, size: int) -> tuple[Any, int, bytes]:
    """What is not a document, how many documents there are, and the text of the first."""
    first = bytearray()
    news = News(first.extend)
    for piece in pieces(body, size):
        news.feed(piece)
    return json.loads(news.text), news.documents, bytes(first)


def without_documents(value: Any) -> tuple[Any, list[str]]:
    """The same by a reader that has all at once."""
    found: list[str] = []

    def emptied(holder: Any) -> Any:
        if isinstance(holder, dict) and isinstance(holder.get("file"), str):
            found.extend([holder["file"]] if holder["file"] else [])
            return {**holder, "file": ""}
        return holder

    if isinstance(value, dict):
        names = list(value)
        for name in names:  # in the order in which they stand
            if name == "file":
                value = emptied(value)
            if name == "files" and isinstance(value["files"], list):
                value = {**value, "files": [emptied(each) for each in value["files"]]}
    return value, found


def decoded(text: bytes, size: int) -> bytes:
    written = bytearray()
    decoder = Base64(written.extend)
    for piece in pieces(text, size):
        decoder.feed(piece)
    decoder.close()
    return bytes(written)


# JSON ---------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(value=_JSON, size=_SIZES, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_any_json_is_read_as_by_one_who_has_it_all(
    value: Any, size: int, ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(errors="replace")
    value = json.loads(body)
    rest, documents, first = read(body, size)
    expected, found = without_documents(value)
    assert (rest, documents) == (expected, len(found))
    if found and found[0].isascii() and not set(found[0]) & {'"', "\\"} and found[0].isprintable():
        assert first.decode() == found[0]


@settings(max_examples=200)
@given(
    content=st.binary(min_size=1, max_size=400),
    size=_SIZES,
    escape=st.sampled_from(["", "/", "+", "="]),
    line=st.sampled_from([0, 4, 76]),
    in_list=st.booleans(),
)
def test_a_document_is_decoded_as_by_one_who_has_it_all(
    content: bytes, size: int, escape: str, line: int, in_list: bool
) -> None:
    text = base64.b64encode(content).decode()
    if line:
        text = "\r\n".join(text[at : at + line] for at in range(0, len(text), line))
    file: dict[str, Any] = {"file": text, "fileType": "PDF"}
    body = json.dumps({"event": "INCOMING_FAX", **({"files": [file]} if in_list else file)})
    if escape:
        body = body.replace(escape, f"\\u{ord(escape):04x}" if escape != "/" else "\\/")
    assert json.loads(body)["event"] == "INCOMING_FAX"

    written = bytearray()
    decoder = Base64(written.extend)
    news = News(decoder.feed)
    for piece in pieces(body.encode(), size):
        news.feed(piece)
    decoder.close()
    assert (bytes(written), news.documents) == (content, 1)


@given(text=st.text(alphabet="AZaz09+/=-_? \n", max_size=24), size=_SIZES)
def test_base64_is_taken_or_refused_as_by_the_library(text: str, size: int) -> None:
    bare = "".join(text.split())
    try:
        expected = base64.b64decode(bare, validate=True)
        # The library takes what stands behind the end for nothing.
        whole = len(bare) % 4 == 0 and "=" not in bare.rstrip("=") and bare[-3:] != "==="
    except ValueError:
        whole = False
    if whole:
        assert decoded(text.encode(), size) == expected
    else:
        with pytest.raises(ValueError):  # noqa: PT011 - any
            decoded(text.encode(), size)


@pytest.mark.parametrize(
    "body",
    [
        b'{"file": "AAAA',
        b'{"file": "AAAA\\',
        b'{"file": "\\uzzzz"}',
        b'{"event": "x',
        b'"' + b"x" * (LARGEST_NEWS + 1) + b'"',
        b'{"x": "' + b"AAAA" * (LARGEST_NEWS // 4) + b'"}',
        b"[" * (MOST_DEPTH + 1),
    ],
)
def test_what_is_cut_off_too_large_or_too_deep_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        read(body, 4096)


# Forms --------------------------------------------------------------------------------------------


def parsed(body: bytes, size: int) -> list[tuple[bytes, bytes, bool]]:
    """Name and content of each part, and whether it ended as it should."""
    found: list[tuple[bytes, bytes, bool]] = []
    for event in form(pieces(body, size)):
        if isinstance(event, Head):
            found.append((event.name, b"", False))
        else:
            name, content, _ = found[-1]
            found[-1] = (name, content + (event or b""), event is None)
    return found


def written(
    parts: list[tuple[str, bytes]], end: bytes = b"\r\n", boundary: bytes = b"--b0"
) -> bytes:
    pieces = [
        boundary
        + end
        + f'Content-Disposition: form-data; name="{name}"'.encode()
        + end
        + end
        + content
        + end
        for name, content in parts
    ]
    return b"".join(pieces) + boundary + b"--" + end


_CONTENTS = st.lists(
    st.sampled_from(
        [b"\r\n--b0", b"\n--b0x\n", b"\r\n--b", b"\r\n", b"\n", b"--", b"b0", b" ", b"x"]
    )
    | st.binary(max_size=9),
    max_size=12,
).map(b"".join)


@settings(max_examples=300)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from(["event", "fax", "file"]), _CONTENTS), min_size=1, max_size=4
    ),
    end=st.sampled_from([b"\r\n", b"\n"]),
    size=_SIZES,
)
def test_any_form_is_read_byte_for_byte(
    parts: list[tuple[str, bytes]], end: bytes, size: int
) -> None:
    # One that holds a whole delimiter ends there, whoever reads it.
    assume(not any(_holds_a_delimiter(content + end, end) for _, content in parts))
    body = written(parts, end)
    expected = [(name.encode(), content, True) for name, content in parts]
    assert parsed(body, size) == expected


def _holds_a_delimiter(content: bytes, end: bytes) -> bool:
    at = (end + content).find(end + b"--b0")
    whole = end + content
    while at >= 0:
        behind = whole[at + len(end) + 4 :].lstrip(b" \t")
        if behind.startswith((b"--", b"\n", b"\r\n")):
            return True
        at = whole.find(end + b"--b0", at + 1)
    return False


@settings(max_examples=200)
@given(body=st.binary(max_size=60).map(lambda some: b"--b\r\n" + some), size=_SIZES)
def test_a_form_is_the_same_in_pieces_of_any_size(body: bytes, size: int) -> None:
    assert parsed(body, size) == parsed(body, len(body))


@given(cut=st.integers(0, 200), size=_SIZES)
def test_a_part_that_is_cut_off_has_no_end(cut: int, size: int) -> None:
    body = written([("event", b"x"), ("file", b"%PDF-" + b"7" * 300)])
    found = parsed(body[: len(body) - 9 - cut], size)
    assert [name for name, _, ended in found if ended] == [b"event"]


def test_a_line_that_is_no_boundary_begins_no_form_and_parts_are_bounded() -> None:
    for body in (b"--", b"-" * 10_000 + b"\n", b"--b" + b" " * 400 + b"\nx", b"--b\x0b\r\nx" * 9):
        assert parsed(body, 7) == []
    many = written([("a", b"")] * (MOST_PARTS + 5))
    assert len(parsed(many, 64)) == MOST_PARTS
