"""The Idempotency-Key header: a client's own name for one request, so that it can be repeated without a second fax.

draft-ietf-httpapi-idempotency-key-header-07 wants a quoted string of Structured Headers (RFC 9651 section 3.3.3); most
clients send the bare value. Both forms of one value are one key.
"""

from __future__ import annotations

import re

from faxbot.errors import Malformed

MAX_LENGTH = 255
_BARE = re.compile(r"[\x20-\x7e]*")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')


def parse(value: str | None) -> str | None:
    """The key of a header's value, None without a header; raises Malformed.

    >>> parse('"8e03978e-40d5"') == parse("8e03978e-40d5")
    True
    """
    if value is None:
        return None
    value = value.strip(" \t")
    if value.startswith('"'):
        match = _QUOTED.fullmatch(value)
        key = re.sub(r"\\(.)", r"\1", match[1]) if match else ""
    else:
        key = value if _BARE.fullmatch(value) else ""
    if not 1 <= len(key) <= MAX_LENGTH:
        raise Malformed(
            f"Idempotency-Key must be 1 to {MAX_LENGTH} printable ASCII characters, bare or as one quoted string."
        )
    return key
