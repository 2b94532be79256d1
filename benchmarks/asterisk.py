"""A line of one's own: thirty calls at once through a real Asterisk, what the listener costs meanwhile, and how long a
worker takes to start a call, beside a bare socket that logs in and asks for the same call.

Asterisk is the tests' own, and its own far end: all sixty legs are on this machine.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks import documents, product
from benchmarks.client import Pace, drive
from benchmarks.figures import Figures
from benchmarks.launch import Workshop, until
from benchmarks.processes import Peak, cpu_seconds, pss
from benchmarks.service import Service, Submissions, wait_until_final
from benchmarks.stages import Length, Progress
from faxbot import wiring
from faxbot.config import Config
from faxbot.hidden import Hidden
from faxbot.plugins.base import OutboundFax, TransportPlugin
from tests.debian import NoPackages
from tests.ground import Ground
from tests.providers.asterisk import packages
from tests.providers.asterisk.server import AsteriskServer, FarEnd

CALLS = 30
STARTED = 40
"""Calls that are started one after the other, of which the median counts; nobody has these numbers."""
WITHIN = 180.0


class Lines(Submissions):
    """To a fax machine of its own each."""

    def number(self, number: int) -> str:
        return FarEnd.FAX.line(number)


def measure(
    figures: Figures,
    workshop: Workshop,
    database: str,
    redis: str,
    length: Length,
    say: Progress,
) -> None:
    """Milliseconds to start a call; of thirty calls at once, the share of a core while any of them sends, and the
    memory of the listener."""
    with closing(Ground()) as ground:
        try:
            tree = packages.store().fetch()
        except NoPackages as error:
            say(f"no Asterisk: {error}")
            return
        server = AsteriskServer(ground, tree)
        server.start()
        settings = _settings(server)
        _start_calls(figures, workshop, server, settings, length, say)
        _thirty(figures, workshop, server, settings, (database, redis), say)
        server.stop()


def _settings(server: AsteriskServer) -> dict[str, str]:
    return {
        "FAX_BACKEND": "asterisk",
        "ASTERISK_AMI_PORT": str(server.port),
        "ASTERISK_AMI_PASSWORD": server.password,
        "ASTERISK_DIAL": server.dial("trunk-g711"),
        "ASTERISK_T38": "false",
        "ASTERISK_FOLDER": str(server.documents),
    }


# One call -------------------------------------------------------------------------------------------


def _start_calls(
    figures: Figures,
    workshop: Workshop,
    server: AsteriskServer,
    settings: dict[str, str],
    length: Length,
    say: Progress,
) -> None:
    page = workshop.folder / "page.tif"
    page.write_bytes(documents.fax_page().copy(0)[0])
    sides: list[tuple[str, Callable[[], object]]] = [
        ("floor", partial(_bare, server)),
        ("faxbot", _provider(settings, page)),
    ]
    for number in range(length.rounds):
        say(f"calls started at Asterisk, round {number + 1} of {length.rounds}")
        for side, call in sides if number % 2 else sides[::-1]:
            call()
            cpu = time.process_time()
            times = [_timed(call) for _ in range(STARTED)]
            figures.add("asterisk/cpu", side, 1000 * (time.process_time() - cpu) / STARTED)
            figures.add("asterisk/call", side, 1000 * statistics.median(times))


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _bare(server: AsteriskServer) -> None:
    """Log in by challenge and originate; what is said in between is read, and not looked at."""
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = line.makefile("rb")
        said.readline()

        def ask(*fields: str) -> bytes:
            line.sendall("\r\n".join([*fields, "", ""]).encode())
            answer = b"".join(iter(said.readline, b"\r\n"))
            assert b"Success" in answer, answer
            return answer

        challenge = ask("Action: Challenge", "AuthType: MD5").split(b"Challenge: ")[1].split()[0]
        proof = hashlib.md5(challenge + server.password.encode(), usedforsecurity=False)
        ask(
            *("Action: Login", "AuthType: MD5", f"Username: {server.username}"),
            *(f"Key: {proof.hexdigest()}", "Events: off"),
        )
        ask(
            *("Action: Originate", f"Channel: PJSIP/{FarEnd.UNALLOCATED}@trunk-g711"),
            *("Context: faxbot-send", "Exten: send", "Priority: 1", "Async: true"),
            f"ChannelId: floor-{secrets.token_hex(16)}",
        )


def _provider(settings: dict[str, str], page: Path) -> Callable[[], object]:
    """What a worker does: it checks the document and puts it into Asterisk's folder, too."""
    provider = wiring.plugins(Config.load(settings)).get("asterisk", TransportPlugin)
    return lambda: provider.send(
        OutboundFax(
            tag=secrets.token_hex(16),
            to=Hidden(FarEnd.UNALLOCATED),
            document=page,
            media_type="image/tiff",
            pages=1,
            resolution="fine",
            callback_url="",
        )
    )


# Thirty at once -------------------------------------------------------------------------------------


def _thirty(
    figures: Figures,
    workshop: Workshop,
    server: AsteriskServer,
    settings: dict[str, str],
    places: tuple[str, str],
    say: Progress,
) -> None:
    faxbot = product.install(workshop, "faxbot-asterisk", *places, **settings)
    faxbot.web()
    faxbot.start("worker")
    faxbot.start("beat")
    listener = faxbot.start("listen")
    until(lambda: "faxbot" in server.cli("manager show connected"), listener)
    say(f"{CALLS} calls at once")
    service = faxbot.service()
    submissions = Lines(service, documents.fax_page())
    before, up = cpu_seconds([listener.pid]), Up(server)
    with Peak(up) as calls:
        replies = drive(service.address, submissions.take(CALLS), Pace(8))
        fax_ids = [str(reply.json()["id"]) for reply in replies]
        wait_until_final(service, fax_ids, time.time() + WITHIN)
    listening = cpu_seconds([listener.pid]) - before
    starting = CALLS * (figures.median("asterisk/cpu", "faxbot") or 0.0) / 1000
    if up.seconds:
        figures.add("asterisk/share", "faxbot", 100 * (listening + starting) / up.seconds)
    figures.add("asterisk/at once", "faxbot", calls.value)
    figures.add("asterisk/failed", "faxbot", _not_delivered(service, fax_ids))
    figures.add("asterisk/memory", "faxbot", pss([listener.pid]))


class Up:
    """Called again and again: how many calls send at the moment; and for how many `seconds` any did."""

    def __init__(self, server: AsteriskServer) -> None:
        self._server = server
        self._asked_at = time.monotonic()
        self.seconds = 0.0

    def __call__(self) -> int:
        calls = self._server.cli("core show channels concise").count("SendFAX")
        asked_at, self._asked_at = self._asked_at, time.monotonic()
        self.seconds += self._asked_at - asked_at if calls else 0.0
        return calls


def _not_delivered(service: Service, fax_ids: list[str]) -> int:
    return sum(service.status(fax_id) != "delivered" for fax_id in fax_ids)
