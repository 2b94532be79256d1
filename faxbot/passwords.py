"""People's passwords: which ones are taken, and how they are kept.

Kept as Argon2id with the second recommended parameters of RFC 9106 (3 passes, 4 lanes, 64 MiB): 110 to 160 ms each on
two cores (measured). A process works on one at a time, so that whoever tries many takes neither its memory nor all of
its threads.
"""

from __future__ import annotations

import os
import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from faxbot.errors import InvalidFields, SignInCrowded

SHORTEST = 15
"""Characters of a password that is the only proof (NIST SP 800-63B-4, 3.1.1.2); no rules on which ones (ibid.)."""
LONGEST = 256
_LEFT = 8
"""So many characters, and so many kinds of them less three, must be left without what everybody tries first."""
_PASSES, _LANES, _KIB = 3, 4, 64 * 1024
_FORM = f"$argon2id$v=19$m={_KIB},t={_PASSES},p={_LANES}$"
_WAIT_SECONDS = 2.0
_TRIED_FIRST = (
    "password", "passwort", "passw0rd", "p@ssw0rd", "p@ssword", "kennwort", "qwertyuiop", "qwertzuiop", "qwerty",
    "qwertz", "azerty", "asdfghjkl", "yxcvbnm", "zxcvbnm", "1q2w3e4r5t", "1qaz2wsx3edc", "1234567890", "123456789",
    "0123456789", "0987654321", "987654321", "12345", "abcdefghijklm", "abcdefgh", "nopqrstuvwxyz", "administrator",
    "admin", "letmein", "welcome", "willkommen", "iloveyou", "changeme", "changeit", "default", "trustno1", "sunshine",
    "princess", "football", "baseball", "superman", "starwars", "whatever", "secret", "monkey", "dragon", "master",
    "login", "hospital", "clinic", "medical", "doctor", "hipaa", "faxbot", "summer", "winter", "spring", "autumn",
)  # fmt: skip
_one_at_a_time = threading.Lock()


def plain(text: str) -> str:
    """The same text however it was typed (SP 800-63B-4, 3.1.1.2: NFKC)."""
    return unicodedata.normalize("NFKC", text)


def check(password: str, name: str) -> None:
    """Raise InvalidFields for a password that is not taken for a user of this name."""
    password = plain(password)
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidFields(
            errors={
                "password": [f"it has {SHORTEST} to {LONGEST} characters; several words will do"]
            }
        )
    if not password.isprintable():
        raise InvalidFields(errors={"password": ["only printable characters"]})
    rest = _rest(password.casefold(), plain(name).casefold())
    if len(rest) < _LEFT or len(set(rest)) < _LEFT - 3:
        sentence = (
            "too easy to guess: common words, rows of keys, repetitions and the name do not count"
        )
        raise InvalidFields(errors={"password": [sentence]})


def _rest(password: str, name: str) -> str:
    """What is left of it without what everybody tries first, and without repetitions."""
    for word in sorted((*_TRIED_FIRST, *name.split(), name), key=len, reverse=True):
        if len(word) > 2:
            password = password.replace(word, "")
    return re.sub(r"(.{1,8}?)\1+", r"\1", password)


def keep(password: str) -> str:
    """What is kept of it: a PHC string of at most 255 characters. Raises SignInCrowded."""
    with _turn():
        kept = Argon2id(
            salt=os.urandom(16), length=32, iterations=_PASSES, lanes=_LANES, memory_cost=_KIB
        )
        return kept.derive_phc_encoded(plain(password).encode())


def matches(password: str, kept: str | None) -> bool:
    """Whether `kept` was made of this password; None, for a user who is not there or has none, takes as long as a
    wrong one. Raises SignInCrowded."""
    with _turn(), suppress(InvalidKey):
        Argon2id.verify_phc_encoded(plain(password).encode(errors="replace"), kept or _NOBODYS)
        return kept is not None
    return False


def is_outdated(kept: str) -> bool:
    """Whether it was made with other parameters than today's."""
    return not kept.startswith(_FORM)


@contextmanager
def _turn() -> Iterator[None]:
    if not _one_at_a_time.acquire(timeout=_WAIT_SECONDS):
        raise SignInCrowded(retry_after=_WAIT_SECONDS)
    try:
        yield
    finally:
        _one_at_a_time.release()


_NOBODYS = f"{_FORM}AAAAAAAAAAAAAAAAAAAAAA${'A' * 43}"
"""Made of no password that anybody could find."""
