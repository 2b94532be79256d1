"""Numbers in requests: what is no plain whole number is refused, not rounded or guessed."""

from __future__ import annotations

from typing import Any

import pytest

from faxbot.errors import InvalidFields
from faxbot.web.schemas import FaxQuery, FaxSearch, load


@pytest.mark.parametrize(("given", "limit"), [("10", 10), (10, 10), ("007", 7)])
def test_a_whole_number_is_taken(given: Any, limit: int) -> None:
    assert load(FaxQuery(), {"limit": given})["limit"] == limit


@pytest.mark.parametrize(
    "wrong",
    [
        "1_0",
        "\u0663",
        "1.9",
        1.9,
        10.0,
        True,
        " 10",
        "10\n",
        "+10",
        "1e1",
        "",
        "9" * 5000,
        [10],
        {},
    ],
)
def test_what_is_no_plain_whole_number_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidFields) as refused:
        load(FaxSearch(), {"to": "+15550100000", "limit": wrong})
    assert refused.value.errors == {"limit": ["Not a valid integer."]}
