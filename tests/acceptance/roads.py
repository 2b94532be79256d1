"""All that clients, carriers, operators and accidents do to a faxbot, with what is personal in their hands."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from faxbot.carriers.phaxio.words import Callback
from faxbot.events import TERMINAL
from tests.acceptance.house import House
from tests.canary import AREAS, FILE_NAME, HEADER, NAME, SECRET, TEXT, http, number
from tests.ground import eventually
from tests.integration.command import UNFORESEEN
from tests.phaxio_carrier import TOKEN
from tests.plugins_careless.careless import END, STUMBLE
from tests.providers.ami import Answer, Asked, Manager, error, text

ENDINGS: Mapping[str, tuple[str, ...]] = {
    # Delivered, busy, told twice, only asked for, dead, refused, barred, 5xx, reply lost, a word that no list has.
    "simulator": (
        *("0000", "0017", "0022", "0044", "0404", "0429", "0433", "0500", "0504", "0999"),
    ),
    # Delivered, not in service, reply lost; and what QUOTING answers.
    "phaxio": ("0000", "2034", "0504", "0200", "0400", "0500"),
    # The same, and no answer.
    "sinch": ("0000", "2034", "0504", "0508", "0200", "0400", "0500"),
    # Delivered, failed; and what a manager says that quotes: refused, no message.
    "asterisk": ("0000", "2034", "0400", "0500"),
    # tests/plugins_careless.
    "careless": ("6001", "6002", "6003", "6004", "6005", "6006", "6007", "6008"),
}
"""By provider: the last digits of the numbers that it is given."""
AREA = dict(zip(ENDINGS, AREAS, strict=False))
ALL_ENDINGS = sorted({"0023", *(each for endings in ENDINGS.values() for each in endings)})
DOCUMENT = f"{TEXT}\n{NAME}, {number('0000')}\n".encode()
HOOK = ("hook", "open-sesame:0123/@")
"""Name and password with which Sinch proves itself."""
_TOO_MUCH = {"field": "to", "description": SECRET}
_REFUSED = {
    "phaxio": {"success": False, "message": f"{SECRET} is not formatted correctly"},
    "sinch": {"code": "422", "message": SECRET, "details": {"fieldViolations": [_TOO_MUCH]}},
}
_TAKEN = {"phaxio": {"success": True, "data": {"id": SECRET}}, "sinch": {"id": SECRET}}

Faxes = Mapping[str, Mapping[str, str]]
"""The ids of faxes, by provider and the last digits of their number."""


def quoting(provider: str) -> dict[bytes, bytes]:
    """What a carrier says to three of the numbers, in free words that quote."""
    answers = {
        "0400": http("422 Unprocessable Entity", _REFUSED[provider]),
        "0500": http("500 Internal Server Error", SECRET),
        "0200": http("200 OK", _TAKEN[provider]),
    }
    return {number(each, AREA[provider]).encode(): said for each, said in answers.items()}


def quoting_manager(asked: Asked) -> Answer | None:
    """The same of an Asterisk's manager, which is asked to call."""
    if number("0400", AREA["asterisk"]) in asked["Channel"]:
        return error(f"Allocation failed for {SECRET}")
    if number("0500", AREA["asterisk"]) in asked["Channel"]:
        return f"Response: {SECRET}\r\n{SECRET}\r\n\r\n".encode()
    return None


def submitted(house: House, provider: str, ending: str, **fields: str) -> str:
    to = number(ending, AREA[provider])
    answer = house.ask(
        "POST",
        "/fax/send",
        data={"to": to, "header": HEADER, "provider_id": provider, **fields},
        files={"file": (FILE_NAME, DOCUMENT)},
        headers={"Idempotency-Key": f"Mxyzptlk-{to}"},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def all_submitted(house: House, endings: Mapping[str, Iterable[str]]) -> Faxes:
    wanted = [(provider, ending) for provider, each in endings.items() for ending in each]
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda each: submitted(house, *each), wanted))
    found: dict[str, dict[str, str]] = {provider: {} for provider in endings}
    for (provider, ending), fax_id in zip(wanted, ids, strict=True):
        found[provider][ending] = fax_id
    return found


# Clients ---------------------------------------------------------------------------------------------


def requests_that_are_refused(house: House, faxes: Faxes) -> None:
    """What clients do wrong with what is personal in their hands."""
    to, fax_id = number("0000"), faxes["simulator"]["0000"]
    latin = b"\xff\xfe\x00" + SECRET.encode("latin-1")
    file = {"file": (FILE_NAME, DOCUMENT)}
    forms_of_a_fax: list[dict[str, Any]] = [
        {"data": {"to": SECRET}, "files": file},
        {"data": {"to": to, SECRET: SECRET}, "files": file},
        {"data": {"to": to, "header": NAME}, "files": file},
        {"data": {"to": to, "send_at": SECRET}, "files": file},
        {"data": {"to": to, "provider_id": NAME}, "files": file},
        {"data": {"to": to}, "files": {NAME: (FILE_NAME, DOCUMENT)}},
        {"data": {"to": to}, "files": {"file": (FILE_NAME, b"%PDF-1.7\n" + DOCUMENT)}},
        {"data": {"to": to}, "files": {"file": (FILE_NAME, latin)}},
        {"data": {"to": to, "name": NAME}},
    ]
    json_of_a_search: list[dict[str, Any]] = [
        {"json": {"to": SECRET}},
        {"json": {NAME: to}},
        {"json": {"to": to, "tags": {"x": [NAME]}}},
        {"data": SECRET.encode(), "headers": {"Content-Type": "application/json"}},
    ]
    config_of_a_plugin = [
        {"settings": {"secret": SECRET}, "note": "n"},
        {"settings": {NAME: SECRET}, "note": "n"},
    ]
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        *(("POST", "/fax/send", options) for options in forms_of_a_fax),
        *(("POST", "/fax/search", options) for options in json_of_a_search),
        *(
            ("PUT", f"/plugins/{each}/config", {"json": wish})
            for each in ("simulator", NAME)
            for wish in config_of_a_plugin
        ),
        *(
            ("GET", path, {})
            for path in (f"/fax?to={to}", f"/fax?cursor={NAME}", f"/fax?{NAME}=1", f"/fax/{to}")
        ),
        *(("GET", path, {}) for path in (f"/{NAME}/{TEXT}", f"/fax/{fax_id}/pdf?token={NAME}")),
        ("POST", f"/fax/{NAME}/cancel", {}),
        ("DELETE", f"/fax/{to}", {}),
        ("GET", "/fax", {"headers": {"X-API-Key": to}}),
        ("POST", "/admin/session", {"json": {"name": NAME, "password": SECRET}}),
        ("POST", "/admin/session", {"json": {"name": to, "password": NAME}}),
        ("POST", "/admin/users", {"json": {"name": SECRET, "role": NAME, "password": to}}),
        ("PATCH", "/admin/config", {"json": {"values": {NAME: to, "FAX_HEADER": to}, "note": "n"}}),
        ("PATCH", "/admin/config", {"json": {NAME: to}}),
        (
            "POST",
            "/admin/config/import",
            {"json": {"document": {"options": {NAME: to}}, "note": "n"}},
        ),
        ("POST", "/admin/api-keys", {"json": {"name": "n", "scopes": [NAME]}}),
        ("GET", f"/admin/audit?{NAME}={to}", {}),
        ("GET", f"/admin/session/providers/{NAME}/finish?code={to}&state={TEXT}", {}),
    ]
    for method, path, options in wrong:
        answer = house.ask(method, path, **options)
        assert 400 <= answer.status_code < 500, (path, answer.status_code, answer.text)
    heads = {"X-Request-Id": to.strip("+"), "User-Agent": SECRET.encode(), "Referer": f"/{to}"}
    assert house.ask("GET", f"/fax/{fax_id}", headers=heads).status_code == 200


def people_read_and_decide(house: House, faxes: Faxes) -> None:
    of_simulator = faxes["simulator"]
    wish = {"outcome": "delivered", "reason": SECRET}
    house.ask("POST", f"/fax/{of_simulator['0504']}/decide", json=wish)
    busy = of_simulator["0017"]
    eventually(lambda: house.fax(busy)["status"] in ("retrying", "sent"), 30)
    house.ask("POST", f"/fax/{busy}/cancel")
    house.ask("POST", f"/fax/{of_simulator['0000']}/release")
    assert house.ask("POST", "/fax/search", json={"to": number("0000")}).json()["items"]
    assert house.ask("GET", f"/fax/{of_simulator['0000']}").json()["to"] == number("0000")


# Carriers --------------------------------------------------------------------------------------------


def tag_of(house: House, fax_id: str) -> str:
    """What the carrier was told that the first attempt is called."""
    attempts = eventually(lambda: house.attempts(fax_id), 30)
    return str(attempts[0]["tag"])


def callbacks_of_the_simulator(house: House, faxes: Faxes) -> None:
    """The carrier, and who says he is the carrier, tell more than is asked."""
    tag = tag_of(house, faxes["simulator"]["0000"])
    secret = house.service.env["SIMULATOR_SECRET"].encode()
    more = {"to": number("0000"), "name": NAME, "note": TEXT}
    for body in (
        {"event": "fax.progress", "fax": {"id": "sim-x", "tag": tag, "status": SECRET, **more}},
        {"event": SECRET, "fax": {"id": SECRET, "tag": SECRET, "status": "failed", "code": SECRET}},
        {"event": "x", "fax": SECRET},
    ):
        raw = json.dumps(body).encode()
        at = str(int(time.time()))
        proof = hmac.new(secret, f"{at}.".encode() + raw, hashlib.sha256)
        head = {"X-Simulator-Signature": f"t={at},v1={proof.hexdigest()}"}
        assert house.ask("POST", "/callbacks/simulator", data=raw, headers=head).status_code == 200
        refused = house.ask("POST", f"/callbacks/simulator?attempt={NAME}&token={TEXT}", data=raw)
        assert refused.status_code == 401


def callbacks_of_phaxio(house: House, faxes: Faxes) -> None:
    path = "/callbacks/phaxio"
    tag = tag_of(house, faxes["phaxio"]["2034"])
    fax = {"id": 7, "tags": {"faxbot": tag}, "to_number": number("2034"), "status": "failure"}
    fax |= {"error_type": SECRET, "error_message": SECRET, "recipients": [{"error": SECRET}]}
    for fields in (
        {"event_type": "fax_completed", "fax": json.dumps(fax)},
        {"event_type": "fax_completed", "fax": json.dumps({**fax, "tags": {"faxbot": SECRET}})},
        {"event_type": "fax_completed", "fax": SECRET},
        {"event_type": SECRET, SECRET: SECRET},
    ):
        proof = Callback(fields).signature(house.service.url + path, TOKEN)
        head = {"X-Phaxio-Signature": proof}
        good = house.ask("POST", path, data=fields, headers=head)
        forged = house.ask(
            "POST", path, data=fields, headers={"X-Phaxio-Signature": SECRET.encode()}
        )
        assert (good.status_code, forged.status_code) == (200, 401), good.text
    malformed = {"Content-Type": "multipart/form-data; boundary=x", "X-Phaxio-Signature": "x"}
    assert house.ask("POST", path, data=SECRET.encode(), headers=malformed).status_code == 401


def callbacks_of_sinch(house: House, faxes: Faxes) -> None:
    path, head = "/callbacks/sinch", {"Content-Type": "application/json"}
    name = eventually(lambda: house.fax(faxes["sinch"]["0000"])["external_id"], 30)
    fax = {"id": name, "to": number("0000"), "status": "FAILURE", "errorMessage": SECRET}
    for body in (
        json.dumps({"event": "FAX_COMPLETED", "fax": fax}),
        json.dumps({"event": "FAX_COMPLETED", "fax": {**fax, "id": SECRET}}),
        json.dumps({"event": "FAX_COMPLETED", "fax": {**fax, "id": "01ABCDEF", SECRET: SECRET}}),
        json.dumps({"event": SECRET, "fax": SECRET}),
        SECRET,
    ):
        raw = body.encode()
        good = house.ask("POST", path, data=raw, headers=head, auth=HOOK)
        forged = house.ask("POST", path, data=raw, headers=head, auth=("hook", "x"))
        stranger = base64.b64encode(SECRET.encode()).decode()
        malformed = {**head, "Authorization": f"Basic {stranger}"}
        refused = house.ask("POST", f"{path}?attempt={NAME}", data=raw, headers=malformed)
        found = (good.status_code, forged.status_code, refused.status_code)
        assert found == (200, 401, 401), good.text


def callbacks_of_the_careless(house: House, _faxes: Faxes) -> None:
    """Its code stumbles over what a carrier says: as it proves it, and as it reads it."""
    for word in (b"", STUMBLE, END):
        for proof in (b"", STUMBLE, END):
            raw = word + SECRET.encode()
            path = f"/callbacks/careless?{NAME}={TEXT}"
            answer = house.ask("POST", path, data=raw, headers={"X-Proof": proof})
            assert answer.status_code == (401 if proof else 200), (word, proof, answer.text)


def the_asterisk_answers(house: House, faxes: Faxes, manager: Manager) -> None:
    """Calls end as Asterisk's dialplan tells it; a result may hold what the far end says of itself."""
    of_asterisk = faxes["asterisk"]
    eventually(lambda: [each for each in manager.of("Login") if each["Events"] == "on"], 40)
    quoted = quote(SECRET)
    results = {
        "0000": "status=SUCCESS&pages=1&remote=" + quoted,
        "2034": f"status=FAILED&error={quoted}&text={quoted}&pages=0&remote={quoted}&cause=0",
        # It had taken what it answered so oddly.
        "0500": f"status=SUCCESS&pages=1&text={quoted}",
    }
    for ending, result in results.items():
        tag = tag_of(house, of_asterisk[ending])
        eventually(lambda: any(tag in each["Variable"] for each in manager.of("Originate")), 30)  # noqa: B023
        manager.database[tag] = result
        event = (("Event", "UserEvent"), ("UserEvent", "FaxbotResult"), ("JobID", tag))
        manager.tell(text(*event, ("Result", result)), text(("Event", SECRET), (SECRET, SECRET)))
    for ending, status in (("0000", "delivered"), ("0500", "delivered")):
        eventually(lambda: house.fax(of_asterisk[ending])["status"] == status, 30, every=0.1)  # noqa: B023


# Commands --------------------------------------------------------------------------------------------


def a_command_that_all_see(house: House, _faxes: Faxes) -> None:
    """For as long as the fax is on its way, with a number from where nobody sees it."""
    folder = house.service.installation.folder
    letter = folder / "letter.txt"
    letter.write_bytes(DOCUMENT)
    to = number("0022", "421")
    house.faxbot_process("send", letter, "--to", "-", "--wait", stdin=f"{to}\n")
    assert any("faxbot" in each for each in house.watch.command_lines)
    assert "--wait" in house.watch.command_lines


def commands(house: House, faxes: Faxes) -> None:
    """Every command that touches a fax, a key, a user or a setting: as it should be, and wrong. What they print is for
    who typed it."""
    folder, to = house.service.installation.folder, number("0000", "420")
    letter, env = folder / FILE_NAME, folder / "earlier.env"
    letter.write_bytes(DOCUMENT)
    env.write_text(f"FAX_HEADER={SECRET}\nPHAXIO_API_KEY={to}\n{NAME}={TEXT}\n")
    document = folder / "document.json"
    document.write_text(json.dumps({"options": {NAME: to, "FAX_HEADER": SECRET}}))

    def good(*words: Any, stdin: str = "") -> str:
        ended = house.faxbot(*words, stdin=stdin)
        assert ended.code == 0, (words, ended.out, ended.err)
        return ended.out

    def bad(*words: Any, stdin: str = "") -> None:
        ended = house.faxbot(*words, stdin=stdin)
        assert ended.code in (1, 2), (words, ended.code, ended.out)
        assert "Traceback" not in ended.err, ended.err
        assert UNFORESEEN not in ended.err, ended.err

    sent = good(
        "send",
        letter,
        "--to",
        to,
        "--header",
        HEADER,
        "--idempotency-key",
        SECRET.encode("ascii", "ignore").decode(),
        "--json",
    )
    fax_id = str(json.loads(sent)["id"])
    good("send", letter, "--to", number("0404", "420"), "--resolution", "standard")
    bad("send", letter, "--to", SECRET)
    bad("send", folder / f"{NAME}.pdf", "--to", to)
    bad("send", letter, "--to", to, "--header", TEXT * 3)
    bad("send", letter, "--to", to, "--send-at", TEXT)
    bad("send", letter, "--to", to, "--tag", NAME)
    bad("send", letter, "--to", to, "--key", "wrong-key", "--url", house.service.url)
    good("status", fax_id, "--events")
    good("list", "--json")
    bad("status", to)
    bad("cancel", NAME)
    bad("decide", fax_id, "--outcome", "delivered", "--reason", SECRET)
    uncertain = faxes["simulator"]["0500"]
    house.faxbot("decide", uncertain, "--outcome", "failed", "--reason", SECRET)
    house.faxbot("release", uncertain)
    house.faxbot("cancel", uncertain)

    key = json.loads(good("keys", "create", "--name", "ward", "--scope", "fax:send", "--json"))
    good("keys", "rotate", key["id"])
    good("keys", "revoke", key["id"])
    bad("keys", "create", "--name", "ward", "--scope", NAME)
    bad("keys", "revoke", to)
    bad("keys", "rotate", NAME)

    good("users", "create", "jo", "--role", "viewer", stdin="a-wholly-unheard-of-phrase")
    good("users", "disable", "jo")
    bad("users", "create", "sam", "--role", "viewer", stdin=NAME)
    bad("users", "create", "jo", "--role", "viewer", stdin=SECRET)
    bad("users", "password", SECRET, stdin=SECRET)
    bad("users", "role", to, "viewer")
    bad("users", "bind", to, SECRET, SECRET)

    good("config", "set", "FAXBOT_PAGES_PER_DAY", "100000")
    good("config", "set", "phaxio.callbackToken", stdin=TOKEN)
    good("config", "backup", "before")
    good("config", "export", "--output", folder / "export.json")
    good("config", "import", folder / "export.json", "--dry-run")
    bad("config", "get", NAME)
    bad("config", "set", NAME, to)
    bad("config", "set", "FAXBOT_PAGES_PER_DAY", SECRET)
    bad("config", "set", "phaxio.callerId", SECRET)
    bad("config", "import", document)
    bad("config", "import", letter)
    bad("config", "rollback", NAME)
    bad("config", "migrate-env", "--env", env, "--apply")
    bad("config", "rotate-key", to)

    good("providers", "pause", "phaxio", "--note", "a test")
    good("providers", "resume", "phaxio", "--note", "a test")
    good("providers", "test", "simulator")
    good("plugins", "show", "sinch")
    bad("providers", "show", NAME)
    bad("providers", "pause", to, "--note", "a test")
    bad("plugins", "show", SECRET)
    bad("plugins", "validate", letter)
    house.faxbot("plugins", "validate")

    good("audit", "export", "--output", folder / "audit.jsonl")
    house.faxbot("audit", "export", "--object", SECRET)
    bad("audit", "export", "--output", folder / NAME / "audit.jsonl")
    house.faxbot("audit", "export", "--actor", SECRET)


# Accidents -------------------------------------------------------------------------------------------


@contextmanager
def without(house: House, *tables: str) -> Iterator[None]:
    """These tables cannot be found for a while."""
    for table in tables:
        house.statement(f"ALTER TABLE {table} RENAME TO {table}_away")
    try:
        yield
    finally:
        for table in tables:
            house.statement(f"ALTER TABLE {table}_away RENAME TO {table}")


@contextmanager
def fails(house: House, task: str) -> Iterator[None]:
    """Waits until such a task has failed since the block began."""
    words = f"task {task} failed".encode()
    before = house.logs().count(words)
    yield
    eventually(lambda: house.logs().count(words) > before, 20, every=0.2)


def nothing_works(house: House) -> None:
    """Requests and tasks meet what nobody expects: a broken row, tables that are not there, a plugin that raises what
    is no exception."""
    tomorrow = (house.runtime.now() + timedelta(days=1)).isoformat()
    broken = submitted(house, "simulator", "0023", send_at=tomorrow)
    no_text = house.runtime.keyring.seal(SECRET.encode("latin-1"), "jobs.to:default")
    house.statement(
        "UPDATE jobs SET to_sealed = :no_text, next_at = created_at WHERE id = :id",
        no_text=no_text,
        id=broken,
    )
    assert house.ask("GET", f"/fax/{broken}").status_code == 500
    with fails(house, "faxbot.send_fax"):
        house.runtime.ring("faxbot.send_fax", broken)
    number_of_another = house.runtime.keyring.seal(b"+15550100000", "jobs.to:default")
    house.statement(
        "UPDATE jobs SET to_sealed = :sealed WHERE id = :id", sealed=number_of_another, id=broken
    )
    refused = house.ask("POST", "/admin/providers/careless/test")
    assert not refused.json()["ok"], refused.text
    secret = house.service.env["SIMULATOR_SECRET"].encode()
    raw, at = json.dumps({"event": SECRET, "fax": {"tag": SECRET}}).encode(), str(int(time.time()))
    proof = hmac.new(secret, f"{at}.".encode() + raw, hashlib.sha256).hexdigest()
    failing: list[tuple[str, dict[str, Any]]] = [
        (
            "/fax/send",
            {
                "data": {"to": number("0000", "421"), "header": HEADER},
                "files": {"file": (FILE_NAME, DOCUMENT)},
            },
        ),
        ("/fax/search", {"json": {"to": number("0000")}}),
        (
            "/callbacks/simulator",
            {"data": raw, "headers": {"X-Simulator-Signature": f"t={at},v1={proof}"}},
        ),
        ("/admin/session", {"json": {"name": NAME, "password": SECRET}}),
    ]
    with without(house, "jobs", "callbacks", "users"), fails(house, "faxbot.sweep"):
        for path, options in failing:
            answer = house.ask("POST", path, **options)
            assert answer.status_code == 500, (path, answer.status_code, answer.text)


# All of it ----------------------------------------------------------------------------------------------


def side_by_side(house: House, faxes: Faxes, *deeds: Callable[[House, Faxes], None]) -> None:
    """The first of them in this thread: commands run in this process, and take its standard output."""
    with ThreadPoolExecutor(len(deeds)) as pool:
        others = [pool.submit(deed, house, faxes) for deed in deeds[1:]]
        deeds[0](house, faxes)
    for each in others:
        each.result()


def settled(house: House, faxes: Faxes) -> dict[str, dict[str, str]]:
    """The statuses, once each fax has come to an end, or waits for longer than a test can or for a person."""
    found = {
        provider: {ending: str(house.fax(each)["status"]) for ending, each in of_it.items()}
        for provider, of_it in faxes.items()
    }
    waits = (*TERMINAL, "retrying", "held", "uncertain")
    open_ones = [
        status
        for provider, of_it in found.items()
        for status in of_it.values()
        if status not in waits and (provider != "careless" or status != "sent")
    ]
    return {} if open_ones else found
