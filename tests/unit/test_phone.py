"""Numbers: what people write becomes E.164 or a clear refusal, and a number that is shown shows
nothing."""

from __future__ import annotations

import re

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faxbot import phone
from faxbot.errors import Malformed

E164 = re.compile(r"\+[1-9][0-9]{4,14}")


@pytest.mark.parametrize(
    ("written", "region", "number"),
    [
        ("+15550100000", "", "+15550100000"),
        ("+1 (555) 010-0000", "", "+15550100000"),
        ("+1.555.010.0000", "", "+15550100000"),
        ("+49 30 123456", "", "+4930123456"),
        ("+49/30/123456", "", "+4930123456"),
        ("030 123456", "DE", "+4930123456"),
        ("030 123456", "de", "+4930123456"),
        ("(555) 010-0000", "US", "+15550100000"),
        ("+15550100000", "DE", "+15550100000"),
        ("+39 06 12345678", "", "+390612345678"),
    ],
)
def test_what_people_write_becomes_e164(written: str, region: str, number: str) -> None:
    assert phone.parse(written, region) == number


@pytest.mark.parametrize(
    "written",
    [
        "",
        "+",
        "abc",
        "+1555ABC0077",
        "+1555010007\n7",
        "+15550100077\n",
        "\n+15550100077",
        " +15550100077",
        "+155501000\uff17\uff17",  # full-width digits
        "\uff0b15550100077",  # a full-width plus
        "+" + "\u0661\u0665\u0665\u0665\u0660\u0661\u0660\u0660\u0660\u0667\u0667",  # Arabic-Indic
        "+1777",
        "+1555010000000000000000000000000077",
        "+1 555 010 0077 ext 5",
        "+1 555 010 0077;ext=5",
        "tel:+15550100077",
        "+999 123 456 789",
        "15550100077",
        "++15550100077",
        "+1-5550100077'--",
        "+((((((((",
        "+000000077",
    ],
)
def test_what_is_no_number_is_refused_without_being_repeated(written: str) -> None:
    with pytest.raises(Malformed) as refused:
        phone.parse(written)

    assert "`to`" in refused.value.detail
    assert len(written) < 4 or written not in refused.value.detail


@pytest.mark.parametrize("region", ["ZZ", "XX", "??"])
def test_an_unknown_region_is_no_crash(region: str) -> None:
    with pytest.raises(Malformed):
        phone.parse("030 123456", region)


@given(st.one_of(st.text(max_size=40), st.from_regex(r"\+?[0-9(][0-9 ().\-/]{4,30}")))
@example("+1 555 010 0000")
def test_any_text_gives_a_possible_number_or_a_refusal(text: str) -> None:
    try:
        number = phone.parse(text)
    except Malformed:
        return

    assert E164.fullmatch(number)
    assert phonenumbers.is_possible_number(phonenumbers.parse(number))
    assert phone.parse(number) == number


@given(st.from_regex(E164, fullmatch=True))
def test_a_masked_number_keeps_its_length_and_two_digits(number: str) -> None:
    masked = phone.mask(number)

    assert len(masked) == len(number)
    assert masked == "+" + "•" * (len(number) - 3) + number[-2:]
