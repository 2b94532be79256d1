"""The logs of a running faxbot, joined: a request, the fax it made, the tasks that sent it; every line's fields are
those that docs/logs.md names, and none has what is personal."""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from faxbot.events import TERMINAL
from tests.canary import FILE_NAME, NAME, TEXT, Search, number, words
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.containers import ROOT
from tests.ground import eventually
from tests.installation import Installation, Service
from tests.servers import free_port

Line = dict[str, Any]
ENDINGS = ("0000", "0017", "0500")
FIRST = {"at", "level", "role", "process", "logger", "message"}
FEW = {
    "task",
    "exception",
    "error",
    "cause",
    "alarm",
    "count",
    "days",
    "taskName",
    "position",
    "mac",
}


def documented() -> set[str]:
    """The fields of the table in docs/logs.md."""
    page = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


class Logs:
    """A web server and a worker, each with a log of its own."""

    def __init__(self, web: Service, worker: Service) -> None:
        self.web, self.worker = web, worker

    def lines(self, service: Service) -> list[Line]:
        return [json.loads(line) for line in service.output().splitlines()]

    def requests(self, **wanted: object) -> list[Line]:
        """The lines of requests that have this."""
        return [
            line
            for line in self.lines(self.web)
            if line["logger"] == "faxbot.web.access"
            and all(line.get(name) == value for name, value in wanted.items())
        ]

    def sends(self, to: str, **headers: str) -> Any:
        files = {"file": (FILE_NAME, TEXT.encode(), "text/plain")}
        data = {"to": to, "tags[ward]": NAME}
        return self.web.request("POST", "/fax/send", data=data, files=files, headers=headers)

    def ended(self, fax_id: str) -> bool:
        return self.web.request("GET", f"/fax/{fax_id}").json()["status"] in TERMINAL


@pytest.fixture
def logs(store: Installation, start_service: StartService) -> Iterator[Logs]:
    with SimulatorProcess(store.folder) as carrier:
        common = {
            **carrier.environ,
            "API_KEY": secrets.token_urlsafe(24),
            "FAXBOT_PORT": str(free_port()),
            "FAXBOT_SWEEP_SECONDS": "0.5",
        }
        worker = start_service(store, "worker", **common)
        beat = start_service(store, "beat", **common)
        web = start_service(store, "web", **common)
        yield Logs(web, worker)
        assert beat.process is not None


def test_a_fax_is_followed_from_its_request_to_its_carrier_and_nothing_personal_is_said(
    logs: Logs,
) -> None:
    given = secrets.token_hex(11) + "ab"
    answer = logs.sends(number(ENDINGS[0]), **{"X-Request-Id": given})
    fax_id = answer.json()["id"]
    eventually(lambda: logs.ended(fax_id), 30, every=0.1)
    (line,) = logs.requests(request_id=given)

    assert answer.headers["X-Request-Id"] == given
    assert line["job_id"] == fax_id
    assert (line["message"], line["method"], line["route"], line["status"]) == (
        "request", "POST", "/fax/send", 202,
    )  # fmt: skip
    assert line["bytes"] == len(answer.content)
    assert 0 < line["ms"] < 30_000
    assert (line["actor_kind"], line["actor"]) == ("key", "env")

    def sent() -> list[Line]:
        mine = [each for each in logs.lines(logs.worker) if each.get("job_id") == fax_id]
        return [each for each in mine if "send_fax" in each["message"]]

    task = next(each for each in eventually(sent, 10, every=0.1) if each.get("attempt"))
    assert (task["task"], task["attempt"], task["provider_id"]) == (
        "faxbot.send_fax", 1, "simulator",
    )  # fmt: skip
    assert task["task_id"] in task["message"]

    def applied() -> set[str]:
        """A task's line follows what it did: the fax may have ended before."""
        return {each["task"] for each in logs.lines(logs.worker) if each.get("callback_id")}

    assert eventually(applied) == {"faxbot.apply_callback"}


def test_every_line_has_its_fields_and_no_line_has_what_is_personal(logs: Logs) -> None:
    faxes = [logs.sends(number(ending)).json()["id"] for ending in ENDINGS]
    ask = logs.web.request
    path = number("0017").replace("+", "%2B")
    for method, address in (
        ("GET", f"/fax/{path}"),
        ("GET", f"/fax?to={path}"),
        ("GET", f"/fax?tag[ward]={NAME}"),
        ("GET", f"/{NAME}/{path}"),
        ("GET", f"/inbound/{path}/pdf?token={NAME}"),
        ("POST", f"/callbacks/{NAME}"),
        (NAME.encode("ascii", "ignore").decode().upper(), "/fax"),
        ("POST", "/fax/send"),
        ("GET", "/health"),
    ):
        ask(method, address, headers={"X-Request-Id": NAME.encode().decode("latin-1")})
    ask("POST", "/fax/search", json={"to": number("0017")}, headers={"User-Agent": "Zyzzyva"})
    ask("GET", "/fax", headers={"X-API-Key": f"fbk_live_{NAME.encode('ascii', 'ignore').decode()}"})
    eventually(lambda: logs.ended(faxes[0]), 30, every=0.1)
    asked = len(logs.requests(route="/fax/<fax_id>", job_id=faxes[0]))
    lines = [*logs.lines(logs.web), *logs.lines(logs.worker)]

    assert asked >= 1
    assert all(line.keys() >= FIRST for line in lines)
    assert {name for line in lines for name in line} - documented() - FEW == set()
    of_requests = logs.requests()
    assert all(
        {"request_id", "method", "route", "status", "ms"} <= line.keys() for line in of_requests
    )
    assert "other" in {line["method"] for line in of_requests}
    assert "" in {line["route"] for line in of_requests}
    assert {404, 401, 202} <= {line["status"] for line in of_requests}
    assert logs.requests(route="/health") == [], "which machines ask all the time"
    tasks = [line for line in logs.lines(logs.worker) if "succeeded" in line["message"]]
    assert len(tasks) > 3
    assert all({"task", "task_id"} <= line.keys() for line in tasks)
    said = logs.web.log.read_bytes() + logs.worker.log.read_bytes()
    assert Search(words(ENDINGS)).hits(said) == []
    assert b"token=" not in said
    assert logs.web.key.encode() not in said


def test_what_is_no_request_has_its_line_without_a_word_of_it(logs: Logs) -> None:
    with socket.create_connection(("127.0.0.1", logs.web.port), timeout=10) as client:
        client.sendall(f"{NAME} {number('0017')}\r\n\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 400")
    unread = [line for line in logs.lines(logs.web) if line["message"] == "request not read"]

    assert [line["status"] for line in unread] == [400]
    assert re.fullmatch(r"[0-9a-f]{32}", unread[0]["request_id"])
