"""Phone numbers: what a client wrote -> E.164, or a clear refusal; and how a number is shown
without showing it."""

from __future__ import annotations

import re

import phonenumbers

from faxbot.errors import Malformed

# ASCII only: \d and str.isdigit() take digits of other scripts, and $ takes a trailing newline.
_WRITTEN = re.compile(r"\+?[0-9(][0-9 ().\-/]{4,30}")


def parse(text: str, region: str = "") -> str:
    """E.164 with +, checked as a possible number (not as an assigned one).

    `region` is the two-letter country for numbers written without +; empty: + is required. Raises
    Malformed.
    """
    if not _WRITTEN.fullmatch(text):
        raise Malformed(
            "`to` is not a fax number: write it as +, country code and digits, like +15550100000."
        )
    if not text.startswith("+") and not region:
        raise Malformed(
            "`to` needs the country code: write it as +, country code and digits, like +15550100000."
        )
    try:
        number = phonenumbers.parse(text, region.upper() or None)
    except phonenumbers.NumberParseException:
        raise Malformed(
            "`to` is not a fax number: the country code is unknown or digits are missing."
        ) from None
    if not phonenumbers.is_possible_number(number):
        raise Malformed("`to` has too few or too many digits for its country.")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def is_region(code: str) -> bool:
    """Whether numbers can be read as written in the country `code` (two letters)."""
    return code.upper() in phonenumbers.SUPPORTED_REGIONS


def mask(number: str) -> str:
    """The number with all but its last two digits hidden: +•••••••••00."""
    return "+" + "•" * max(0, len(number) - 3) + number[-2:]
