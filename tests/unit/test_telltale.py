"""What looks like a person's data is told from what settings hold."""

from __future__ import annotations

import pytest

from faxbot import telltale
from faxbot.config import OPTIONS


@pytest.mark.parametrize(
    "key",
    [
        "to", "To", "patientName", "patient_id", "PATIENT", "first-name", "dob", "MRN", "ssn", "fax_number",
        "+15550100000", "5550100",
    ],
)  # fmt: skip
def test_a_key_of_a_person_is_one(key: str) -> None:
    assert telltale.is_key(key)


@pytest.mark.parametrize("key", ["apiKey", "baseUrl", "maxRetries", "token", "tomorrow", ""])
def test_a_key_of_a_plugin_is_none(key: str) -> None:
    assert not telltale.is_key(key)


@pytest.mark.parametrize(
    "text",
    [
        "+15550100000", "15550100000", "5550100", "call +1 (555) 010-0000 now", "https://a.example/5550100000",
        "+49 30 1234567",
        "12345678-1234-4abc-8def-123456789012 +15550100000",
    ],
)  # fmt: skip
def test_a_telephone_number_is_seen(text: str) -> None:
    assert telltale.has_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "60",
        "86400.0",
        "http://127.0.0.1:8080",
        "https://192.168.100.200:65535/x",
        "phaxio,sinch",
        "US",
        "https://login.example.org/12345678-1234-4abc-8def-123456789012/v2.0",
    ],
)
def test_what_options_hold_is_no_number(text: str) -> None:
    assert not telltale.has_number(text)
    assert not telltale.is_personal(text)


@pytest.mark.parametrize(
    "text", ["DOB 1970-01-01", "Patient name: X", "mrn 7", "the patient's id", "date of birth"]
)
def test_a_text_that_says_whose_it_is_is_seen(text: str) -> None:
    assert telltale.is_personal(text)


@pytest.mark.parametrize(
    "text", ["Practice Dr. Who", "Patient First Medical", "Diagnostic Imaging, Suite 5"]
)
def test_the_name_of_a_practice_is_nobodys(text: str) -> None:
    assert not telltale.is_personal(text)


def test_no_default_of_ours_looks_like_a_person() -> None:
    for option in OPTIONS:
        if option.kind == "str":
            assert not telltale.has_number(str(option.default))
