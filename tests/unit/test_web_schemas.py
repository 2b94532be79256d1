"""The fields of a request: what is taken, what is refused, and that a refusal never repeats what was sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.errors import InvalidFields
from faxbot.web import schemas

FAX = schemas.FaxRequest()
QUERY = schemas.FaxQuery()
WHOLE = {"to": "+15550100000", "file": ["a document"]}


def refused(schema: Any, values: dict[str, Any]) -> dict[str, list[str]]:
    with pytest.raises(InvalidFields) as caught:
        schemas.load(schema, values)
    return {name: list(sentences) for name, sentences in caught.value.errors.items()}


@pytest.mark.parametrize(
    ("field", "value", "taken"),
    [
        ("priority", "0", 0),
        ("priority", "255", 255),
        ("resolution", "standard", "standard"),
        ("header", "Practice Dr. Who, +1 555", "Practice Dr. Who, +1 555"),
        ("header", "x" * 50, "x" * 50),
        ("send_at", "2026-11-20T12:00:00+02:00", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("send_at", "2026-11-20T12:00:00Z", datetime(2026, 11, 20, 12, tzinfo=UTC)),
        ("provider_id", "simulator", "simulator"),
        (
            "tags",
            {"case": "4711", "a.b-c_d": "caf\u00e9"},
            {"case": "4711", "a.b-c_d": "caf\u00e9"},
        ),
        ("tags", {"n" * 64: "v" * 255}, {"n" * 64: "v" * 255}),
    ],
)
def test_a_field_is_taken(field: str, value: Any, taken: Any) -> None:
    assert schemas.load(FAX, {**WHOLE, field: value})[field] == taken


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", "-1"),
        ("priority", "256"),
        ("priority", "high"),
        ("priority", "9" * 5000),
        ("priority", ""),
        ("resolution", "superfine"),
        ("header", "x" * 51),
        ("header", "caf\u00e9"),
        ("header", "two\nlines"),
        ("header", "line end\n"),
        ("send_at", "2026-11-20T12:00:00"),
        ("send_at", "tomorrow"),
        ("send_at", ""),
        ("send_at", "0001-01-01T00:00:00+14:00"),
        ("send_at", "9999-12-31T23:59:59-14:00"),
        ("expires_at", "3000-01-01T00:00:00Z"),
        ("provider_id", "../simulator"),
        ("provider_id", "simulator\n"),
        ("provider_id", ""),
        ("to", "+" + "1" * 64),
        ("tags", {"": "x"}),
        ("tags", {"two words": "x"}),
        ("tags", {"n" * 65: "x"}),
        ("tags", {"name\n": "x"}),
        ("tags", {"name": "v" * 256}),
        ("tags", {"name": "line\nend"}),
        ("tags", {"name": "nul\0"}),
        ("tags", {f"n{number}": "x" for number in range(11)}),
    ],
)
def test_a_field_is_refused_under_its_name(field: str, value: Any) -> None:
    assert list(refused(FAX, {**WHOLE, field: value})) == [field]


@pytest.mark.parametrize(("days", "far"), [(0, []), (366, []), (367, ["send_at", "expires_at"])])
def test_a_fax_is_planned_for_a_year_from_the_given_clock_at_most(
    days: int, far: list[str]
) -> None:
    now = datetime(2031, 5, 1, tzinfo=UTC)
    wish = dict.fromkeys(("send_at", "expires_at"), now + timedelta(days=days))
    if not far:
        schemas.within_reach(wish, now)
        return

    with pytest.raises(InvalidFields) as refused:
        schemas.within_reach(wish, now)
    assert list(refused.value.errors) == far


def test_missing_fields_are_named() -> None:
    assert set(refused(FAX, {})) == {"to", "file"}


def test_a_fax_may_not_expire_before_it_is_sent() -> None:
    at = "2026-11-20T12:00:00Z"

    assert list(refused(FAX, {**WHOLE, "send_at": at, "expires_at": at})) == ["expires_at"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit", "0"),
        ("limit", "101"),
        ("status", "SUCCESS"),
        ("to_key", "+15550100000"),
        ("to_key", "a" * 63),
        ("since", "2026-11-20"),
        ("tag", {"two words": "x"}),
        ("cursor", "x" * 65),
    ],
)
def test_a_filter_is_refused_under_its_name(field: str, value: Any) -> None:
    assert list(refused(QUERY, {field: value})) == [field]


def test_a_page_has_fifty_faxes_unless_asked_otherwise() -> None:
    assert schemas.load(QUERY, {}) == {"limit": 50}


secrets = st.text(st.characters(codec="utf-8"), min_size=12, max_size=80).map(
    lambda text: f"Jane Doe {text}"
)


@given(secret=secrets, field=st.sampled_from(sorted(set(FAX.load_fields) - {"file"})))
def test_a_refusal_never_repeats_a_value(secret: str, field: str) -> None:
    value = {secret: secret * 20} if field == "tags" else secret * 20
    sentences = refused(FAX, {**WHOLE, field: value})

    assert "Jane" not in str(sentences)


@given(secret=secrets)
def test_a_refusal_never_repeats_an_unknown_name_but_names_the_known(secret: str) -> None:
    sentences = refused(FAX, {**WHOLE, secret: "x"})

    assert list(sentences) == ["unknown"]
    assert "Jane" not in str(sentences)
    assert "resolution" in sentences["unknown"][0]
