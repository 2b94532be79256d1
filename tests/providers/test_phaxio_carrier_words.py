"""What the stand-in Phaxio says, against the vendor's files; and that its page has every test number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from faxbot.carriers.ledger import RECEIVED, Fax
from faxbot.carriers.phaxio.account import REPOST_SECONDS
from faxbot.carriers.phaxio.details import new_details
from faxbot.carriers.phaxio.numbers import CLASSES, OUTCOMES, TYPES, outcome
from faxbot.carriers.phaxio.words import Callback, File, callback, fax_object, fax_object_v1
from tests.phaxio_carrier import (
    form,
)

ROOT = Path(__file__).resolve().parents[2]
VENDOR = Path(__file__).parent / "vendor" / "phaxio"


def vendor(name: str) -> Any:
    return json.loads((VENDOR / name).read_text("utf-8-sig"))


@pytest.mark.parametrize("vector", vendor("signatures.json"), ids=lambda each: each["source"][:20])
def test_a_worked_signature_comes_out(vector: dict[str, Any]) -> None:
    files = [
        File(name, "a.pdf", "application/pdf", text.encode("latin-1"))
        for name, text in vector["files"].items()
    ]
    said = Callback(vector["parameters"], files)
    assert said.signature(vector["url"], vector["token"]) == vector["signature"]


COMPOSED = [
    each
    for each in vendor("callbacks.json")
    if each["type"].startswith("multipart") and "typed" not in each["file"]
]


@pytest.mark.parametrize("each", COMPOSED, ids=lambda each: each["file"])
def test_a_callback_of_the_vendors_is_written_and_signed_to_the_byte(each: dict[str, Any]) -> None:
    body = (VENDOR / "callbacks" / each["file"]).read_bytes()
    fields, files = form(each["type"], body)
    said = Callback(
        fields,
        [File(name, file[0], "application/pdf", file[1]) for name, file in files.items()],
    )
    assert said.body(each["type"].partition("boundary=")[2]) == body
    assert said.signature(each["url"], each["token"]) == each["signature"]


def record(content: Mapping[str, Any]) -> Fax:
    """A fax of the vendor's as the carrier has it."""

    def seconds(text: str | None) -> float | None:
        return None if text is None else datetime.fromisoformat(text).timestamp()

    details = new_details([], is_test=content["is_test"])
    details |= {name: value for name, value in content.items() if name in details}
    details["recipients"] = [
        {**each, "completed_at": seconds(each["completed_at"])} for each in content["recipients"]
    ]
    received_at = seconds(content["created_at"])
    assert received_at is not None
    return Fax(
        *(str(content["id"]), "", "", "", "", 0, 0, "", "", "", received_at),
        status=content["status"],
        ended_at=seconds(content["completed_at"]),
        direction=content["direction"],
        details=details,
    )


OBJECTS = [
    path.name for path in sorted((VENDOR / "faxes").iterdir()) if not path.name.startswith("v1_")
]


@pytest.mark.parametrize("name", OBJECTS)
def test_a_fax_object_of_the_vendors_comes_out(name: str) -> None:
    content = vendor(f"faxes/{name}")
    # Daylight saving: the record has -05:00 in November, as we have all year.
    assert json.dumps(fax_object(record(content))) == json.dumps(content)


def test_a_fax_object_of_version_1_has_its_own_shape() -> None:
    for old, new in (("v1_success", "success"), ("v1_failure", "failure_busy")):
        said = json.dumps(fax_object_v1(record(vendor(f"faxes/{new}.json"))))
        assert said == json.dumps(vendor(f"faxes/{old}.json"))


@pytest.mark.parametrize("version", ["v1", "v2", "v2.1"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("success", "success"), ("failure", "failure_busy"), ("received", "received")],
)
def test_a_callback_has_the_fields_of_its_version(version: str, name: str, content: str) -> None:
    (entry,) = [each for each in COMPOSED if each["file"] == f"{version}_{name}.body"]
    fields, files = form(
        entry["type"], (VENDOR / "callbacks" / f"{version}_{name}.body").read_bytes()
    )
    of = record(vendor(f"faxes/{content}.json"))
    said = callback(of, version, file=b"%PDF-1.4\n" if of.direction == RECEIVED else None)
    assert dict(said.fields) == fields
    assert {file.name: (file.filename, file.content) for file in said.files} == files


def test_every_class_of_errors_has_its_numbers() -> None:
    digits = {kind: digit for digit, kind in TYPES.items()}
    for each in CLASSES:
        for kind, ids in each.ids.items():
            for number in ids:
                error = outcome(f"{digits[kind]}{number:03}").error
                assert error is not None
                assert (error.type, error.id) == (kind, number)
    assert outcome("5309") == OUTCOMES["0000"], "the vendor's example number succeeds"


def test_the_vendor_posts_a_callback_again_16_times() -> None:
    minutes = [seconds / 60 for seconds in REPOST_SECONDS]
    assert minutes == [5, 10, 20, 30, *[360] * 12]


def test_the_page_has_every_test_number() -> None:
    page = (ROOT / "docs/phaxio-carrier.md").read_text()
    rows = {
        line.split("|")[1].strip(" `"): line.split("|")[2].strip()
        for line in page.splitlines()
        if line.startswith("| `0")
    }
    assert rows == {last: each.meaning for last, each in OUTCOMES.items()}
    for each in CLASSES:
        for kind, ids in each.ids.items():
            digit = next(digit for digit, name in TYPES.items() if name == kind)
            assert all(f"{digit}{number:03}" in page for number in ids)
