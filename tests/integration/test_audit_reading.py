"""Auditors read, export and verify the trail; that they did stands in it too."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import audit, auditors, chain
from faxbot.actors import CLI, Actor
from faxbot.audit import Action
from faxbot.auditors import Filters
from faxbot.runtime import Runtime
from faxbot.web import audit as web_audit
from faxbot.web import audit_schemas
from tests.installation import Installation
from tests.integration.command import run
from tests.integration.test_audit_chain import EVENTS, linked, tamper, write
from tests.integration.web import assert_problem, client_of, new_key, opened

HOUR = timedelta(hours=1)


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "admin"))


def actions(runtime: Runtime) -> list[tuple[str, dict[str, Any]]]:
    runtime.notes.flush()
    found = auditors.rows(runtime, "default", Filters())
    told = [(row["action"], row["details"]) for row in found]
    return [each for each in told if each[0] != "key.created"]


def ids(answer: Any) -> list[int]:
    return [item["id"] for item in json.loads(answer.data)["items"]]


# Over HTTP ----------------------------------------------------------------------------------------


def test_the_trail_comes_in_pages_newest_first_and_nothing_twice(
    runtime: Runtime, admin: FlaskClient
) -> None:
    now = runtime.now()
    for minute in (0, 5, 5, 5, 3):
        write(replace(runtime, now=lambda m=minute: now - m * HOUR / 60))  # type: ignore[misc]
    chain.link(runtime)
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = admin.get(f"/admin/audit?limit=2&until=2100-01-01T00:00:00Z{cursor}")
        page = json.loads(answer.data)
        assert not audit_schemas.AuditPage().validate(page)
        found += page["items"]
        cursor = page["next"] and f"&cursor={page['next']}"

    times = [item["happened_at"] for item in found]
    assert times == sorted(times, reverse=True)
    assert len({item["id"] for item in found}) == len(found)
    assert len([item for item in found if item["object_id"] == "abc"]) == 5
    assert all(item["mac"] for item in found if item["object_id"] == "abc")


def test_the_trail_is_filtered(runtime: Runtime, admin: FlaskClient) -> None:
    now = runtime.now()
    other = Actor("default", "abc", frozenset())
    foreign = Actor("other", "abc", frozenset())
    with runtime.database.transaction() as session:
        for actor, action, of, outcome, at in (
            (CLI, Action.KEY_CREATED, ("key", "1"), "done", now - 2 * HOUR),
            (CLI, Action.KEY_REVOKED, ("key", "1"), "done", now - HOUR),
            (other, Action.FAX_CANCELLED, ("fax", "2"), "failed", now - HOUR / 2),
            (foreign, Action.KEY_CREATED, ("key", "1"), "done", now - HOUR),
        ):
            audit.record(session, actor, action, of, now=at, outcome=outcome)

    def asked(query: str) -> list[str]:
        found = json.loads(admin.get(f"/admin/audit?{query}").data)["items"]
        return [item["action"] for item in found]

    hour_ago = (now - HOUR).isoformat().replace("+00:00", "Z")
    assert asked("actor=abc") == ["fax.cancelled"]
    assert asked("action=key.created&object_id=1") == ["key.created"]
    assert asked("object_kind=key&object_id=1") == ["key.revoked", "key.created"]
    assert asked("object_kind=key&object_id=2") == []
    assert asked("outcome=failed") == ["fax.cancelled"]
    assert asked(f"since={hour_ago}&actor=cli&object_id=1") == ["key.revoked"]
    assert asked(f"until={hour_ago}") == ["key.created"]


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "9" * 18 + "-1", "-1-1"])
def test_a_cursor_that_is_none_is_refused(admin: FlaskClient, cursor: str) -> None:
    assert_problem(admin.get(f"/admin/audit?cursor={cursor}"), 400, "malformed")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "action=nonsense",
        "since=yesterday",
        "outcome=x",
        "who=me",
        "actor=%00",
        "object_id=a%00",
    ],
)
def test_a_filter_that_is_none_is_refused(admin: FlaskClient, query: str) -> None:
    assert_problem(admin.get(f"/admin/audit?{query}"), 422, "invalid-fields")


def test_who_reads_the_trail_stands_in_it_with_what_he_asked_for(
    runtime: Runtime, admin: FlaskClient
) -> None:
    admin.get("/admin/audit?action=key.created")
    assert actions(runtime) == [("audit.read", {"action": "key.created"})]


def test_the_trail_is_verified_over_http_in_parts(
    runtime: Runtime, admin: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_audit, "MOST_LINKS", 3)
    numbers = linked(runtime, 5)
    tamper(runtime, sa.update(EVENTS).where(EVENTS.c.id == numbers[3]).values(actor="x"))
    first = json.loads(admin.get("/admin/audit/verify").data)
    second = json.loads(admin.get(f"/admin/audit/verify?after={first['next']}").data)

    assert not audit_schemas.AuditVerdict().validate(first)
    assert (first["ok"], first["links"], first["next"]) == (True, 3, 3)
    assert (second["ok"], second["links"], second["next"]) == (False, 3, None)
    assert second["faults"] == [f"row {numbers[3]} (link 4) was changed"]
    said = [details for action, details in actions(runtime) if action == "audit.verified"]
    assert said == [{"links": 3, "faults": 0}, {"links": 3, "faults": 1}]


@pytest.mark.parametrize("value", ["%2B15550101234", "15550101234", "Jane Doe"])
def test_what_somebody_takes_for_an_id_is_not_written_down(
    runtime: Runtime, admin: FlaskClient, value: str
) -> None:
    admin.get(f"/admin/audit?actor={value}&object_id={'ab12' * 8}")
    assert actions(runtime) == [("audit.read", {"actor": "?", "object_id": "ab12" * 8})]


# By command ---------------------------------------------------------------------------------------


def test_verify_says_that_it_is_sound_and_names_the_head(store: Installation) -> None:
    with opened(store) as runtime:
        linked(runtime, 3)
        write(runtime)
        end = chain.end(runtime, "default")
    assert end
    ended = run(store, "audit", "verify")

    assert ended.code == 0
    assert ended.out.splitlines() == [
        "sound; links 1 to 3, 1 rows not linked yet; compared with 1 earlier ends",
        f"head {end.position}:{end.mac}",
    ]
    told = run(store, "audit", "verify", "--json", "--head", f"2:{'0' * 64}").json
    assert (told["ok"], told["fault_count"], told["heads"]) == (False, 1, 2)


def test_verify_names_what_was_changed_and_ends_with_1(store: Installation) -> None:
    with opened(store) as runtime:
        numbers = linked(runtime, 3)
        tamper(runtime, sa.update(EVENTS).where(EVENTS.c.id == numbers[1]).values(outcome="x"))
    ended = run(store, "audit", "verify")

    assert ended.code == 1
    assert ended.out.startswith(f"row {numbers[1]} (link 2) was changed\nNOT SOUND: 1 faults; ")
    with opened(store) as runtime:
        (row,) = auditors.rows(runtime, "default", Filters(action="audit.verified"))
    assert (row["outcome"], row["details"]) == ("failed", {"links": 3, "faults": 1})


def test_verify_says_that_it_cannot_tell_whether_the_end_was_cut_off(store: Installation) -> None:
    with opened(store) as runtime:
        linked(runtime, 1)
        chain.heads_file(runtime.config).unlink()
    assert "cannot be told: no earlier end is known" in run(store, "audit", "verify").out


@pytest.mark.parametrize("head", ["1", "1:abc", f"x:{'0' * 64}", f"1:{'G' * 64}"])
def test_a_head_that_is_none_is_misuse(embedded: Installation, head: str) -> None:
    ended = run(embedded, "audit", "verify", "--head", head)
    assert ended.code == 2
    assert "POSITION:MAC" in ended.err


def test_the_trail_is_exported_as_lines_of_json_with_its_chain(store: Installation) -> None:
    with opened(store) as runtime:
        numbers = linked(runtime, 2)
        end = chain.end(runtime, "default")
    assert end
    ended = run(store, "audit", "export", "--action", "key.created")
    rows = [json.loads(line) for line in ended.out.splitlines()]

    assert [row["id"] for row in rows] == numbers
    assert [row["position"] for row in rows] == [1, 2]
    assert rows[-1]["mac"] == end.mac
    assert set(rows[0]) == set(auditors.COLUMNS)
    assert ended.err == f"2 rows; head 2:{end.mac}\n"
    with opened(store) as runtime:
        assert actions(runtime)[-1] == (
            "audit.exported",
            {"action": "key.created", "format": "jsonl"},
        )


def test_an_export_to_a_file_is_its_owner_s_alone_and_takes_filters(
    store: Installation, tmp_path: Path
) -> None:
    with opened(store) as runtime:
        now = runtime.now()
        write(replace(runtime, now=lambda: now - 48 * HOUR), 2, "old")
        write(runtime, 1, "new")
    target = tmp_path / "trail.csv"
    since = f"{now - 24 * HOUR:%Y-%m-%dT%H:%M:%SZ}"
    words = ("--since", since, "--format", "csv", "--object", "key", "--actor", "cli")
    assert run(store, "audit", "export", *words, "-o", target).code == 0
    (row,) = csv.DictReader(io.StringIO(target.read_bytes().decode()))

    assert target.stat().st_mode & 0o077 == 0
    assert (row["object_id"], json.loads(row["details"])) == ("new", {})
    until = run(store, "audit", "export", "--until", since, "--object", "key:old")
    assert len(until.out.splitlines()) == 2


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_cell_that_a_spreadsheet_would_take_for_a_formula_is_text(
    runtime: Runtime, cell: str
) -> None:
    evil = replace(CLI, id=cell, address=cell)
    with runtime.database.transaction() as session:
        audit.record(session, evil, Action.KEY_CREATED, ("key", cell), now=runtime.now())
    (row,) = auditors.rows(runtime, "default", Filters())
    (line,) = csv.reader(io.StringIO(auditors.as_csv(row), newline=""))

    told = dict(zip(auditors.COLUMNS, line, strict=True))
    assert {told["actor"], told["address"], told["object_id"]} == {f"'{cell}"}
    assert row["actor"] == cell


def test_an_export_goes_over_all_pages(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditors, "PAGE", 3)
    now = runtime.now()
    write(replace(runtime, now=lambda: now), 10)
    found = [row["id"] for row in auditors.rows(runtime, "default", Filters())]
    assert found == sorted(set(found))
    assert len(found) == 10
