"""Idempotency-Key: bare and quoted forms of one value are one key, and anything doubtful is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.errors import Malformed
from faxbot.web import idempotency

printable = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E),
    min_size=1,
    max_size=idempotency.MAX_LENGTH,
)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@given(text=printable)
def test_every_printable_text_is_a_key_when_quoted(text: str) -> None:
    assert idempotency.parse(quoted(text)) == text


@given(text=printable.filter(lambda text: text == text.strip() and not text.startswith('"')))
def test_the_bare_form_is_the_same_key_as_the_quoted_one(text: str) -> None:
    assert idempotency.parse(text) == idempotency.parse(quoted(text)) == text


@given(text=st.text(st.characters(max_codepoint=0xFF), max_size=300))
def test_any_header_gives_a_printable_key_or_is_refused(text: str) -> None:
    with suppress(Malformed):
        key = idempotency.parse(text)

        assert key is not None
        assert 1 <= len(key) <= idempotency.MAX_LENGTH
        assert key.isascii()
        assert key.isprintable()


@pytest.mark.parametrize(
    "value",
    [
        "", " ", '""', '"open', '"a"b', '"a";p=1', '"a", "b"', '"a\\b"', '"tab\t"', "tab\tin",
        "\x7f", "caf\xe9", '"caf\xe9"', "x" * 256, quoted("x" * 256), "line\nend", "nul\0",
    ],
)  # fmt: skip
def test_what_is_not_a_key_is_refused(value: str) -> None:
    with pytest.raises(Malformed):
        idempotency.parse(value)


def test_white_space_around_the_value_belongs_to_http() -> None:
    assert idempotency.parse('\t"a" ') == idempotency.parse(" a ") == "a"


def test_without_the_header_there_is_no_key() -> None:
    assert idempotency.parse(None) is None
