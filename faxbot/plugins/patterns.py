"""Patterns that plugins write for their settings: only such as Python's engine, which goes back and forth, is done
with soon on any text. `(a+)+$` would keep it busy for years."""

from __future__ import annotations

import re

LONGEST = 256
"""Characters of a text that is compared with a pattern."""
_OPEN_COUNTS = 3
"""The work grows with the text's length to this power: 7 ms at worst for LONGEST (measured)."""
RULE = (
    f"between ^ and $ write characters and [sets], with at most {_OPEN_COUNTS} of * + ? {{m,n}}, "
    "and no groups"
)
_PIECE = (
    r"(?:\\[dDsSwW]|\\[^0-9A-Za-z]|\[(?:\\.|[^\]\[\\])+\]|[^\\\[\](){}*+?|^$])"  # one character or set
    r"(?:([*+?]|\{[0-9]{1,3},[0-9]{0,3}\})|\{[0-9]{1,3}\})?"  # how often: open, or fixed
)


def is_quick(pattern: str) -> bool:
    """Whether a pattern keeps to RULE, and is one.

    >>> is_quick("^[a-z]+:[0-9]{1,5}$"), is_quick("(a+)+$")
    (True, False)
    """
    inner = re.fullmatch(rf"\^((?:{_PIECE})*)\$", pattern)
    if inner is None:
        return False
    try:
        re.compile(pattern)
    except re.error:  # [z-a], a{3,2}
        return False
    return sum(bool(count) for count in re.findall(_PIECE, inner[1])) <= _OPEN_COUNTS


def match(pattern: str, text: str) -> bool:
    """Whether the whole of `text` matches, and is not too long to be asked."""
    return len(text) <= LONGEST and re.fullmatch(pattern, text) is not None
