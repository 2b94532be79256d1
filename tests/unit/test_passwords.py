"""Passwords: length instead of rules, nothing that everybody tries first, and kept so that trying is dear."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot import passwords
from faxbot.errors import InvalidFields, SignInCrowded

GOOD = "tall ships pass the quiet harbour"


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "correct horse battery staple",
        "x7#Kd02!mQ-zz9p",
        "\u00fcber den Fluss und in den Wald",
        "\u4eca\u65e5\u306f\u3068\u3066\u3082\u3088\u3044\u5929\u6c17\u3067\u3059\u306d\u3048\u672c\u5f53",
        "only lower case letters",
        "j" + GOOD * 7,
    ],
)
def test_length_is_enough(password: str) -> None:
    passwords.check(password, "jo")


@pytest.mark.parametrize(
    "password",
    [
        "",
        "x7#Kd02!mQ-zz9",
        "y" * 257,
        "tall ships\npass the harbour",
        "passwordpassword",
        "Password12345678",
        "P@ssw0rdP@ssw0rd!",
        "123456789012345",
        "qwertyuiopasdfghjkl",
        "abcdefghijklmnopqrstuvwxyz",
        "aaaaaaaaaaaaaaaaaaaa",
        "abababababababababab",
        "faxbotfaxbot123",
        "hospital-admin-2026",
        "josephine.martin",
        "JosephineMartin1984",
        "iloveyou dragon monkey",
        "\uff50assword\uff50assword",
    ],
)
def test_what_is_short_or_tried_first_is_refused(password: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        passwords.check(password, "Josephine Martin")

    assert list(refused.value.errors) == ["password"]
    assert not password or password not in str(refused.value.errors)


def test_fifteen_characters_are_the_least() -> None:
    passwords.check("x7#Kd02!mQ-zz9p", "jo")
    with pytest.raises(InvalidFields, match="not valid"):
        passwords.check("x7#Kd02!mQ-zz9p"[:-1], "jo")


def test_it_is_kept_by_the_second_recommended_parameters_of_rfc_9106() -> None:
    one, other = passwords.keep(GOOD), passwords.keep(GOOD)

    assert re.fullmatch(r"\$argon2id\$v=19\$m=65536,t=3,p=4\$[\w+/]{22}\$[\w+/]{43}", one)
    assert one != other
    assert passwords.matches(GOOD, one)
    assert not passwords.matches(GOOD + " ", one)
    assert not passwords.matches(GOOD, None)
    assert not passwords.is_outdated(one)
    assert passwords.is_outdated(one.replace("t=3", "t=2"))


def test_however_it_is_typed_it_is_the_same() -> None:
    kept = passwords.keep("das Caf\u00e9 am alten Markt")

    assert passwords.matches("das Cafe\u0301 am alten Markt", kept)


@given(st.text(max_size=300))
def test_what_is_taken_can_be_printed_and_nothing_else_happens(text: str) -> None:
    with suppress(InvalidFields):
        passwords.check(text, text)
        assert text.isprintable() or passwords.plain(text).isprintable()


@pytest.mark.parametrize("text", ["\ud800" * 20, "nul\0", "x" * 100_000])
def test_any_text_can_be_compared(text: str) -> None:
    assert not passwords.matches(text, None)


def test_nobody_there_takes_as_long_as_a_wrong_password() -> None:
    kept = passwords.keep(GOOD)
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(14):
        there = bool(number % 2)
        began = time.perf_counter()
        passwords.matches("wrong", kept if there else None)
        times[there].append(time.perf_counter() - began)

    fastest, slowest = sorted(min(each) for each in times.values())
    assert slowest < 1.5 * fastest


def test_one_at_a_time_and_who_waits_too_long_is_told_so() -> None:
    began, done = threading.Event(), threading.Event()

    def occupy() -> None:
        with passwords._one_at_a_time:
            began.set()
            done.wait()

    thread = threading.Thread(target=occupy)
    thread.start()
    began.wait()
    try:
        with pytest.raises(SignInCrowded):
            passwords.matches(GOOD, None)
    finally:
        done.set()
        thread.join()
    assert not passwords.matches(GOOD, None)
