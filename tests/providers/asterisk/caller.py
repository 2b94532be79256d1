"""Whoever calls us: fax machines that send, and a stranger who speaks SIP himself and says what he likes."""

from __future__ import annotations

import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, quote

from tests.ground import eventually
from tests.providers.asterisk.manager import Manager
from tests.providers.asterisk.server import AsteriskServer

STATION = "+1 555 000 1111"
NUMBER = "+15550001111"
AUDIO, T38 = "F", "f"


@dataclass(frozen=True)
class Sent:
    """How a call ended for who made it."""

    status: str
    pages: int
    mode: str
    station: str


class FaxMachine:
    """Sends one fax to a number of ours, at once; `seconds` after the answer it hangs up, unless it is done."""

    def __init__(
        self,
        server: AsteriskServer,
        number: str,
        document: Path,
        how: str = AUDIO,
        *,
        station: str = STATION,
        caller: str = NUMBER,
        seconds: int = 0,
        trunk: str = "trunk",
    ) -> None:
        self._server = server
        self._name = f"caller-{secrets.token_hex(8)}"
        variables = {
            "FAR_FILE": str(document),
            "FAR_OPTS": how,
            "FAR_STATION": quote(station, safe=""),
            "FAR_SECS": str(seconds or ""),
        }
        with Manager(server, server.observer) as manager:
            manager.ask(
                "Originate",
                ("Channel", f"PJSIP/{number}@{trunk}"),
                *(("Context", "far-sends"), ("Exten", "s"), ("Priority", "1")),
                *(("Timeout", "20000"), ("Async", "true"), ("ChannelId", self._name)),
                ("CallerID", f'"Somebody" <{caller}>'),
                *(("Variable", f"{name}={value}") for name, value in variables.items() if value),
            )

    def end(self, timeout: float = 120.0) -> Sent:
        said = dict(
            parse_qsl(
                eventually(lambda: self._server.stored("sent").get(self._name), timeout, every=0.2),
                keep_blank_values=True,
            )
        )
        return Sent(said["status"], int(said["pages"] or 0), said["mode"], said["station"])


class Stranger:
    """Calls as `caller` (percent-encoded as in a SIP address), is answered, and says no more until he hangs up."""

    def __init__(self, server: AsteriskServer, number: str, caller: str) -> None:
        self._far = ("127.0.0.1", server.sip_port)
        self._line = socket.socket(type=socket.SOCK_DGRAM)
        self._line.bind(("127.0.0.1", 0))
        self._line.settimeout(30)
        self._us = f"127.0.0.1:{self._line.getsockname()[1]}"
        self._to = f"To: <sip:{number}@127.0.0.1>"
        self._from = f"From: <sip:{caller}@{self._us}>;tag=stranger"
        self._call = f"Call-ID: {secrets.token_hex(8)}"
        self._number, self._contact = number, ""

    def __enter__(self) -> Self:
        address = f"sip:{self._number}@{self._far[0]}:{self._far[1]}"
        sdp = (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            "m=audio 40000 RTP/AVP 0\r\n"
        )
        self._say("INVITE", address, 1, sdp)
        while not (answer := self._line.recv(65536).decode()).startswith("SIP/2.0 200"):
            assert answer.startswith("SIP/2.0 1"), answer
        (self._contact,) = re.findall(r"^Contact: <(.*?)>", answer, re.MULTILINE)
        (self._to,) = re.findall(r"^(To:.*?)\r$", answer, re.MULTILINE)
        self._say("ACK", self._contact, 1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._say("BYE", self._contact, 2)
        self._line.close()

    def _say(self, method: str, address: str, turn: int, body: str = "") -> None:
        head = [
            f"{method} {address} SIP/2.0",
            f"Via: SIP/2.0/UDP {self._us};branch=z9hG4bK{secrets.token_hex(8)}",
            *("Max-Forwards: 70", self._from, self._to, self._call),
            f"CSeq: {turn} {method}",
            f"Contact: <sip:stranger@{self._us}>",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self._line.sendto("\r\n".join([*head, "", body]).encode(), self._far)
