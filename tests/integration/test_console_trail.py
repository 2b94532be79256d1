"""The audit trail in the console: read with filters, verified and exported; and how people are told."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import audit, chain, wiring
from faxbot.actors import ADMIN, CLI, OPERATOR
from faxbot.audit import Action
from faxbot.auditors import COLUMNS
from faxbot.db import table
from faxbot.models import AuditEvent
from faxbot.results import stamp
from faxbot.runtime import Runtime
from faxbot.web import audit as web_audit
from faxbot.web.console.trail import ROWS
from faxbot.web.patience import Sender, paced
from tests.installation import Stores
from tests.integration.console import deed, filled, filtered_again, page, problem, words
from tests.integration.test_audit_chain import tamper
from tests.integration.test_audit_deeds import rows
from tests.integration.web import SECRET, browser_of, new_user
from tests.mailserver import MailServer

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
TRAIL = "/admin/ui/audit"


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with MailServer() as mail:
        yield mail


@pytest.fixture(scope="module")
def runtime(stores: Stores, mail: MailServer) -> Iterator[Runtime]:
    config = stores.embedded().config(
        **{**mail.environ, "FAXBOT_NOTIFICATIONS": ""},
        SIMULATOR_SECRET=SECRET,
        FAXBOT_LOGIN_FAILURES="0",
    )
    runtime = wiring.build(config)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def admin(runtime: Runtime) -> FlaskClient:
    return browser_of(runtime, new_user(runtime, ADMIN, name="Ada"))


def written(runtime: Runtime, action: Action, kind: str, object_id: str, **details: object) -> None:
    audit.note(runtime, CLI, action, (kind, object_id), details=details)
    runtime.notes.flush()


def listed(text: str) -> list[str]:
    return re.findall(r'id="row-(\d+)"', text)


def test_each_row_says_who_did_what_to_which_object_and_leads_there(
    runtime: Runtime, admin: FlaskClient
) -> None:
    user = new_user(runtime, "viewer", name="Vic")
    fax_id = "0193f2c4a1b27c3d8e4f5a6b7c8d9e0f"
    written(runtime, Action.FAX_SHOWN, "fax", fax_id, masked=True)
    text = page(admin, TRAIL)
    assert f'href="/admin/ui/faxes/{fax_id}"' in text
    assert f'href="/admin/ui/users/{user.id}">Vic' in text
    told = words(text)
    assert "fax shown" in told
    assert "masked true" in told
    assert "user created" in told
    assert "session opened" in words(page(admin, f"{TRAIL}?action=session.opened"))
    assert "Ada" in told


def test_filters_stand_in_the_address_and_are_written_down(
    runtime: Runtime, admin: FlaskClient
) -> None:
    written(runtime, Action.DOCUMENT_OPENED, "inbound", "0123456789abcdef")
    found = page(admin, f"{TRAIL}?action=document.opened&object_id=0123456789abcdef&actor=cli")
    assert len(listed(found)) == 1
    assert "Nothing that matches" in page(admin, f"{TRAIL}?object_id=0123456789abcde0")
    read = rows(runtime, Action.AUDIT_READ)[-2:]
    assert read[0].details == {
        "action": "document.opened", "object_id": "0123456789abcdef", "actor": "cli",
    }  # fmt: skip
    today = runtime.now().date().isoformat()
    assert listed(page(admin, f"{TRAIL}?since={today}&until={today}"))
    assert "Nothing that matches" in page(admin, f"{TRAIL}?until=2001-01-01")


def test_a_time_that_an_address_sets_is_said_and_kept_when_the_trail_is_filtered_further(
    runtime: Runtime, admin: FlaskClient
) -> None:
    until = stamp(runtime.now())
    written(runtime, Action.FAX_SHOWN, "fax", "0193f2c4a1b27c3d8e4f5a6b7c8d9e0f")
    text = page(admin, f"{TRAIL}?until={until}")
    last = listed(text)
    for _ in range(2):
        assert listed(text) == last
        assert "Only what happened before" in words(text)
        assert "?until=" in text.partition("Export as")[0], "nor is more exported"
        text = filtered_again(admin, text)
    assert len(listed(page(admin, TRAIL))) > len(last)


def test_the_pages_hold_every_row_once_the_newest_first(
    runtime: Runtime, admin: FlaskClient
) -> None:
    for number in range(ROWS + 3):
        written(runtime, Action.FAX_SHOWN, "fax", f"{number:032x}", number=number)
    numbers: list[int] = []
    path: str | None = f"{TRAIL}?action=fax.shown&object_kind=fax"
    while path:
        text = page(admin, path)
        numbers += [int(each) for each in listed(text)]
        led = re.search(r'href="([^"]*)" rel="next"', text)
        path = led[1].replace("&amp;", "&") if led else None
    assert len(numbers) > ROWS
    assert numbers == sorted(set(numbers), reverse=True)
    assert len(numbers) == len(rows(runtime, Action.FAX_SHOWN))


def test_what_somebody_called_himself_or_a_plugin_is_text(
    runtime: Runtime, admin: FlaskClient
) -> None:
    written(runtime, Action.PLUGIN_CONFIGURED, "plugin", HOSTILE[:64], why=HOSTILE)
    text = page(admin, f"{TRAIL}?action=plugin.configured")
    assert "<img" not in text
    assert "<script>" not in text
    assert "alert(1)" in text


@pytest.mark.parametrize(
    "query",
    ["action=eaten", "actor=%00", f"actor={'x' * 99}", "since=now", "until=9999-12-31", "cursor=1", "outcome=odd",
     "limit=9", "actor=a&actor=b"],
)  # fmt: skip
def test_what_no_trail_can_show_is_said_in_a_page(admin: FlaskClient, query: str) -> None:
    for path in (TRAIL, f"{TRAIL}/export/jsonl"):
        answer = admin.get(f"{path}?{query}&object_id=4711")
        assert answer.status_code in (400, 422)
        assert answer.mimetype == "text/html"
        assert "data-problem=" in answer.text
        if path == TRAIL:
            assert filled(answer.text)["object_id"] == "4711"


def test_the_trail_is_verified_part_by_part_and_a_change_is_told(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_audit, "MOST_LINKS", 3)
    runtime = wiring.build(stores.embedded().config(SIMULATOR_SECRET=SECRET))
    try:
        asks = browser_of(runtime, new_user(runtime, ADMIN))
        for number in range(4):
            written(runtime, Action.FAX_SHOWN, "fax", f"{number:032x}")
        chain.link(runtime)
        first = deed(asks, f"{TRAIL}/verify", 200)
        assert "As it was written : 3 rows" in words(first.text)
        after = re.search(r'name="after" value="(\d+)"', first.text)
        assert after is not None
        second = deed(asks, f"{TRAIL}/verify", 200, after=after[1])
        assert "not linked yet" in words(second.text)
        assert 'name="after"' not in second.text
        assert rows(runtime, Action.AUDIT_VERIFIED)
        tamper(runtime, sa.delete(table(AuditEvent)).where(AuditEvent.object_id == "0" * 32))
        told = words(deed(asks, f"{TRAIL}/verify", 200).text)
        assert "1 fault : 3 rows" in told
        assert "removed" in told
    finally:
        runtime.close()


def test_what_is_verified_from_is_a_number(admin: FlaskClient) -> None:
    for after in ("x", "-1", "9" * 30, "1.5"):
        problem(deed(admin, f"{TRAIL}/verify", 422, after=after), 422, "invalid-fields")


def test_an_export_holds_what_the_filters_let_through_and_is_written_down(
    runtime: Runtime, admin: FlaskClient
) -> None:
    written(runtime, Action.INBOUND_SHOWN, "inbound", "00000000000000aa", name="=1+1")
    answer = admin.get(f"{TRAIL}/export/jsonl?object_id=00000000000000aa")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(each["action"], each["details"]) for each in lines] == [
        ("inbound.shown", {"name": "=1+1"})
    ]
    assert answer.headers["Content-Disposition"] == 'attachment; filename="audit.jsonl"'
    assert answer.headers["Cache-Control"] == "no-store"
    table = list(csv.reader(io.StringIO(admin.get(f"{TRAIL}/export/csv?actor=cli").text)))
    assert table[0] == list(COLUMNS)
    assert len(table) > 2
    *_, before, last = rows(runtime, Action.AUDIT_EXPORTED)
    assert before.details == {"object_id": "00000000000000aa", "format": "jsonl"}
    assert last.details == {"actor": "cli", "format": "csv"}
    page(admin, f"{TRAIL}/export/xml", 404)


def test_a_slow_client_of_a_long_answer_costs_the_memory_of_one_piece() -> None:
    ours, theirs = socket.socketpair()
    client = Sender(ours.family, ours.type, ours.proto, fileno=ours.detach())
    piece, many, kept = "x" * 100_000, 200, 0

    def read() -> None:
        while theirs.recv(4096):
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for each in paced({"gunicorn.socket": client}, [piece] * many):
            client.sendall(each.encode())
            kept = max(kept, len(client.unsent))
    finally:
        client.close()
        reader.join()
        theirs.close()
    assert kept <= len(piece)


# How people are told ------------------------------------------------------------------------------------


def test_operators_see_how_people_are_told_and_send_a_test_notice(
    runtime: Runtime, mail: MailServer
) -> None:
    asks = browser_of(runtime, new_user(runtime, OPERATOR))
    text = words(page(asks, "/admin/ui/notifications"))
    assert "email" in text
    assert "Nobody was told of anything yet" in text
    told = words(deed(asks, "/admin/ui/notifications/email/test", 200).text)
    assert "The test notice was sent" in told
    assert mail.taken
    assert "a test" in words(page(asks, "/admin/ui/notifications"))
    for nobody in ("simulator", "nobody", "x" * 200):
        problem(deed(asks, f"/admin/ui/notifications/{nobody}/test", 404), 404, "not-found")
