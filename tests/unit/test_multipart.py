"""The multipart parser: what real clients send comes out whole however it arrives; all else is refused."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata
from werkzeug.formparser import MultiPartParser

from faxbot.errors import Malformed
from faxbot.web import multipart
from faxbot.web.multipart import Part

BOUNDARY = "9f3c"
NASTY = [
    b"\r",
    b"\n",
    b"\r\n",
    b"-",
    b"--",
    b"\r\n--",
    b"--" + BOUNDARY.encode(),
    b"9f3c",
    b"\0",
    b"x",
]
contents = (
    st.lists(st.sampled_from(NASTY) | st.binary(max_size=9))
    .map(b"".join)
    .filter(lambda content: b"\r\n--" + BOUNDARY.encode() not in b"\r\n" + content)
)
forms = st.lists(
    st.tuples(st.sampled_from(["to", "file", "tags[a]"]), contents, st.booleans()), min_size=1
)


@dataclass
class Trickle:
    """A body that arrives in pieces of the given sizes, again and again."""

    body: bytes
    sizes: Sequence[int]
    reads: int = 0

    def read(self, size: int) -> bytes:
        piece = min(size, self.sizes[self.reads % len(self.sizes)])
        self.reads += 1
        data, self.body = self.body[:piece], self.body[piece:]
        return data


def parsed(read: Callable[[int], bytes], boundary: str = BOUNDARY) -> list[tuple[Part, bytes]]:
    found: list[tuple[Part, bytes]] = []
    for item in multipart.parts(read, multipart.boundary(boundary)):
        if isinstance(item, Part):
            found.append((item, b""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + item)
    return found


def in_memory(*_: Any, **__: Any) -> io.BytesIO:
    return io.BytesIO()


def encoded(form: Sequence[tuple[str, bytes, bool]]) -> bytes:
    fields = [(name, ("a.pdf", content) if is_file else content) for name, content, is_file in form]
    return encode_multipart_formdata(fields, BOUNDARY)[0]


@given(form=forms, sizes=st.lists(st.integers(1, 70), min_size=1))
def test_what_a_client_encodes_comes_out_whole_in_any_pieces(
    form: list[tuple[str, bytes, bool]], sizes: list[int]
) -> None:
    found = parsed(Trickle(encoded(form), sizes).read)

    assert [(part.name, content, part.is_file) for part, content in found] == form


@given(form=forms)
def test_it_agrees_with_the_parser_of_the_framework(form: list[tuple[str, bytes, bool]]) -> None:
    # Theirs takes a boundary behind a lone CR or LF for one too; no client means that.
    assume(not any(b"--" + BOUNDARY.encode() in content for _, content, _ in form))
    body = encoded([(name, content, True) for name, content, _ in form])

    _, files = MultiPartParser(stream_factory=in_memory).parse(
        io.BytesIO(body), BOUNDARY.encode(), len(body)
    )
    theirs = sorted((name, file.read()) for name, file in files.items(multi=True))

    assert sorted((part.name, content) for part, content in parsed(io.BytesIO(body).read)) == theirs


@given(form=forms, data=st.data())
def test_a_body_cut_anywhere_is_refused(
    form: list[tuple[str, bytes, bool]], data: st.DataObject
) -> None:
    body = encoded(form).removesuffix(b"\r\n")
    cut = data.draw(st.integers(0, len(body) - 1))

    with pytest.raises(Malformed):
        parsed(io.BytesIO(body[:cut]).read)


@given(
    body=st.lists(
        st.sampled_from([*NASTY, b"--9f3c\r\n", b"Content-Disposition: form-data;", b"\r\n\r\n"])
    ).map(b"".join)
)
def test_any_bytes_are_read_or_refused_and_nothing_else(body: bytes) -> None:
    with suppress(Malformed):
        parsed(io.BytesIO(body).read)


def one_part(head: str) -> bytes:
    return f"--{BOUNDARY}\r\n{head}\r\n\r\ncontent\r\n--{BOUNDARY}--\r\n".encode()


NAME = 'Content-Disposition: form-data; name="to"'
REFUSED = {
    "Content-Type: text/plain": "Missing Content-Disposition",
    "Content-Disposition: form-data": "Missing name",
    'Content-Disposition: attachment; name="to"': "Wrong type",
    'Content-Disposition: form-data; name="to': "cannot be read",
    'Content-Disposition: form-data; name="x"; name="to"': "a parameter twice",
    'Content-Disposition: form-data; name="to"; Name=to': "a parameter twice",
    "Content-Disposition: form-data; name*=UTF-8''to": "Missing name",
    NAME + "; name*=UTF-8''x": "no plain name",
    NAME + '; filename*="; name=x': "cannot be read",
    'Content-Disposition: form-data; filename*="; name=to"': "no plain name",
    NAME + "\r\n" + NAME: "a header twice",
    NAME + "\r\ncontent-disposition: form-data; name=x": "a header twice",
    NAME + "\r\nnonsense": "Malformed segment header",
    NAME + "\r\nX Y: z": "Invalid segment header name",
    NAME + ";\r\n filename=folded.pdf": "header continuation",
    NAME + "\nX: y": "control character",
    NAME + "\r\nX: a\0b": "control character",
    NAME + "\r\nX: a\rb": "control character",
    NAME + "\r\nContent-Transfer-Encoding: base64": "Content-Transfer-Encoding",
    NAME + "\r\nContent-Length: 3": "Content-Length exceeded",
    NAME + "\r\nX-Long: " + "x" * multipart.MAX_HEADER: "header length exceeded",
    NAME + "".join(f"\r\nX-{number}: y" for number in range(8)): "header count exceeded",
}


@pytest.mark.parametrize(("head", "said"), REFUSED.items(), ids=REFUSED.values())
def test_a_head_that_can_be_understood_in_two_ways_or_none_is_refused_by_name(
    head: str, said: str
) -> None:
    with pytest.raises(Malformed) as refused:
        parsed(io.BytesIO(one_part(head)).read)

    assert said in refused.value.detail
    assert "to" not in refused.value.detail.split()  # nothing of what was sent


@pytest.mark.parametrize(
    ("head", "is_file"),
    [
        ('Content-Disposition: form-data; name="file"', False),
        ('Content-Disposition: form-data; name="file"; filename=""', True),
        ("content-disposition: FORM-DATA; name=file; filename*=UTF-8''%e2%82%ac.pdf", True),
        ('Content-Disposition: form-data; name="file"\r\nContent-Type: application/pdf', True),
        (
            'Content-Disposition: form-data; name="file"\r\nContent-Type: text/plain; charset=utf-8',
            False,
        ),
        ('Content-Disposition: form-data; name="file"\r\nContent-Type: Text/Plain', False),
        ('Content-Disposition: form-data; name="file"\r\nContent-Type: text/plainfoo', True),
        ('Content-Disposition: form-data; name="file"; filename="a; name=b.pdf"', True),
        ('Content-Disposition: form-data; name="file"; filename="M\u00fcller \\"x\\".pdf"', True),
    ],
)
def test_a_file_is_what_has_a_file_name_or_a_type_of_its_own(head: str, is_file: bool) -> None:
    ((part, content),) = parsed(io.BytesIO(one_part(head)).read)

    assert (part, content) == (Part("file", is_file), b"content")


@pytest.mark.parametrize(
    "boundary", [None, "", "x" * 1025, "ends in space ", 'quo"te', "new\nline", "\u00fc"]
)
def test_a_content_type_without_a_boundary_is_refused(boundary: str | None) -> None:
    with pytest.raises(Malformed):
        multipart.boundary(boundary)


@pytest.mark.parametrize("start", ["preamble\r\n", "\n"])
def test_a_body_that_does_not_begin_with_its_boundary_is_refused(start: str) -> None:
    body = start.encode() + one_part('Content-Disposition: form-data; name="to"')

    with pytest.raises(Malformed):
        parsed(io.BytesIO(body).read)


def test_an_empty_line_before_the_first_boundary_is_forgiven() -> None:
    body = b"\r\n" + one_part('Content-Disposition: form-data; name="to"')

    assert parsed(io.BytesIO(body).read) == [(Part("to", is_file=False), b"content")]


@pytest.mark.parametrize("sizes", [[1], [17], [multipart.PIECE]])
@pytest.mark.parametrize("after", ["\r\n", "", "anything\r\n--9f3c\r\nat all"])
def test_what_follows_the_last_boundary_means_nothing(after: str, sizes: list[int]) -> None:
    body = one_part('Content-Disposition: form-data; name="to"').removesuffix(b"\r\n")

    assert parsed(Trickle(body + after.encode(), sizes).read) == [
        (Part("to", is_file=False), b"content")
    ]


def test_no_piece_of_a_large_file_is_larger_than_what_was_read_at_once() -> None:
    body = encoded([("file", b"\r\n-" * 1_000_000, True)])
    pieces = [
        len(item)
        for item in multipart.parts(io.BytesIO(body).read, BOUNDARY.encode())
        if isinstance(item, bytes)
    ]

    assert sum(pieces) == 3_000_000
    assert max(pieces) <= multipart.PIECE + len(BOUNDARY) + 8
