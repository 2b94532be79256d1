"""What looks like a person's data: a telephone number, or a key that would hold one. Settings hold none, so who brings
some has taken the wrong file."""

from __future__ import annotations

import re

_WORDS_OF_RECORDS = """
    to from recipient sender caller patient patients person name names firstname lastname surname fullname
    phone phonenumber telephone mobile number numbers fax faxnumber email address street zip
    dob birth birthday birthdate born ssn mrn insurance diagnosis record subject
"""
_PERSONAL = frozenset(_WORDS_OF_RECORDS.split())
_NUMBER = re.compile(r"(?<![0-9.])(\+[0-9][0-9 ().-]{5,}[0-9]|[0-9]{7,})(?![0-9.])")
_HOST = re.compile(r"https?://[A-Za-z0-9.-]+(?=[:/]|$)")
"""Machines are numbered: faxbot-1234567.example.org."""
_UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
"""Tenants and groups of identity providers, projects of carriers."""
_SAID = re.compile(
    r"\b(dob|mrn|ssn|date of birth|born on|patient('s)? (name|id|no))\b", re.IGNORECASE
)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


def is_key(key: str) -> bool:
    """Whether a key is a person's (`patientName`, `to`), or is itself a number.

    >>> [is_key(key) for key in ("patientName", "to", "+15550100000", "apiKey", "FAX_HEADER")]
    [True, True, True, False, True]
    """
    words = {word.lower() for word in _WORDS.findall(key)}
    return bool(words & _PERSONAL) or has_number(key)


def has_number(text: str) -> bool:
    """Whether something in it could be a telephone number, but for the host of a web address, and UUIDs.

    >>> [has_number(text) for text in ("+1 (555) 010-0000", "5550100", "http://127.0.0.1:8080", "60.0")]
    [True, True, False, False]
    >>> [has_number(f"https://fax-1234567.example.org/{path}") for path in ("fax", "5550100")]
    [False, True]
    """
    return _NUMBER.search(_UUID.sub("", _HOST.sub("", text))) is not None


def is_personal(text: str) -> bool:
    """Whether a text says whose it is, in the words in which records do."""
    return _SAID.search(text) is not None
