"""Documents that are broken, oversized, or made to harm: each small as a file."""

from __future__ import annotations

import struct
import zlib

from tests.documents.make import Sheet, assemble, letter_pdf, pdf


def cut(data: bytes, part: float = 0.6) -> bytes:
    return data[: int(len(data) * part)]


def many_pages(pages: int = 10_000) -> bytes:
    """A PDF whose tree names one page again and again."""
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count %d /Kids [%s] >>" % (pages, b"3 0 R " * pages),
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>",
        ]
    )


def no_pages() -> bytes:
    return assemble([b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Count 0 /Kids [] >>"])


def endless_tree() -> bytes:
    """A page tree that contains itself."""
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 5 /Kids [2 0 R 2 0 R 2 0 R 2 0 R 2 0 R] >>",
        ]
    )


def slow_pdf() -> bytes:
    """A few kilobytes that draw for minutes: large curves without end, well packed."""
    stream = zlib.compress(b"0 0 m 900 0 0 900 612 792 c 0 792 612 0 5 5 c f*\n" * 3_000_000, 9)
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R >>",
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    )


def long_pdf(pages: int = 300) -> bytes:
    """Pages that pass every check, and each of which takes a good part of a second to draw."""
    curves = (
        b"%d %d m %d %d %d %d %d %d c S\n"
        % (
            *(n * 37 % 612, n * 91 % 792),
            *(n * 53 % 612, n * 17 % 792),
            *(n * 71 % 612, n * 29 % 792),
            *(n * 11 % 612, n * 97 % 792),
        )
        for n in range(2000)
    )
    stream = zlib.compress(b"40 w\n" + b"".join(curves), 9)
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count %d /Kids [%s] >>" % (pages, b"3 0 R " * pages),
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R >>",
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    )


def image_bomb_pdf(side: int = 30_000) -> bytes:
    """A page that is one picture which says that it has side x side pixels."""
    data = zlib.compress(bytes(3 * side))
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources %s >>"
            % b"<< /XObject << /I 5 0 R >> >>",
            b"<< /Length 28 >>\nstream\nq 612 0 0 792 0 0 cm /I Do Q\nendstream",
            b"<< /Type /XObject /Subtype /Image /Width %d /Height %d"
            b" /BitsPerComponent 8 /ColorSpace /DeviceRGB"
            b" /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream"
            % (side, side, len(data), data),
        ]
    )


def vast_page() -> bytes:
    return pdf(Sheet(), Sheet(media=(0, 0, 900_000, 900_000)))


def png(width: int, height: int, *, colour: int = 6, rows: int | None = None) -> bytes:
    """A PNG of zeros whose header says width x height; `rows` of it are really there."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    row = bytes(1 + width * {6: 4, 2: 3, 0: 1}[colour])
    packer = zlib.compressobj(1)
    data = (
        b"".join(packer.compress(row) for _ in range(height if rows is None else rows))
        + packer.flush()
    )
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def jpeg_of_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with other dimensions in its frame header."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def tiff(
    *, width: int = 100, height: int = 100, strip: int | None = None, next_at: int = 0
) -> bytes:
    """A TIFF with one uncompressed strip; its length (`strip`) and the next directory can be
    lies."""
    data = bytes(64)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 1), (259, 3, 1, 1),
        (262, 3, 1, 0), (273, 4, 1, 8),
        (278, 4, 1, height), (279, 4, 1, len(data) if strip is None else strip),
    ]  # fmt: skip
    block = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", *entry) for entry in entries
    )
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + block + struct.pack("<I", next_at)
    )


def tail_of_nothing() -> bytes:
    """A sound PDF with the zeros behind it that some mail gateways leave."""
    return letter_pdf() + bytes(5000)
