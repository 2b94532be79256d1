"""What others say in SIP: who calls this Asterisk from outside, and who is called and sends us elsewhere."""

from __future__ import annotations

import re
import socket
import threading
from types import TracebackType
from typing import Self

from faxbot.plugins.base import State
from tests.providers.asterisk.ear import Ear, fax, provider
from tests.providers.asterisk.manager import Manager, Message
from tests.providers.asterisk.pages import make_tiff
from tests.providers.asterisk.server import AsteriskServer, FarEnd

SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0\r\n"
)


def calls(server: AsteriskServer, number: str, caller: str) -> str:
    """Call this Asterisk as somebody whose number is `caller`; how it ended, in SIP's words."""
    with socket.socket(type=socket.SOCK_DGRAM) as line:
        line.bind(("127.0.0.1", 0))
        line.settimeout(30)
        us = f"127.0.0.1:{line.getsockname()[1]}"
        head = [
            f"INVITE sip:{number}@127.0.0.1:{server.sip_port} SIP/2.0",
            f"Via: SIP/2.0/UDP {us};branch=z9hG4bKstranger",
            f"From: <sip:{caller}@{us}>;tag=stranger",
            f"To: <sip:{number}@127.0.0.1>",
            f"Call-ID: stranger-{us}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:stranger@{us}>",
            "Content-Type: application/sdp",
            f"Content-Length: {len(SDP)}",
        ]
        message = "\r\n".join([*head, "", SDP]).encode()
        line.sendto(message, ("127.0.0.1", server.sip_port))
        while (said := line.recv(65536).decode().split("\r\n")[0]).startswith("SIP/2.0 1"):
            pass
        return said


class SendsElsewhere:
    """A trunk that answers every call with SIP 302 and an address."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.called = 0
        self._thread = threading.Thread(target=self._answer)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        while True:
            message, who = self._socket.recvfrom(65536)
            if not message:
                return
            if message.startswith(b"INVITE"):
                self.called += 1
                lines = message.decode().split("\r\n")
                kept = [each for each in lines if re.match("(Via|From|To|Call-ID|CSeq):", each)]
                kept = [f"{each};tag=far" if each.startswith("To:") else each for each in kept]
                contact = f"Contact: <{self._address}>"
                answer = ["SIP/2.0 302 Moved", *kept, contact, "Content-Length: 0", "", ""]
                self._socket.sendto("\r\n".join(answer).encode(), who)


def test_a_caller_s_number_is_no_event(asterisk: AsteriskServer) -> None:
    """Asterisk takes %0d%0a in it for line breaks, and writes them as they are into events of that call."""

    def is_forged(message: Message) -> bool:
        return message == {"Event": "Shutdown", "Forged": "yes"} | message

    with Manager(asterisk) as manager, Manager(asterisk, asterisk.observer) as observer:
        caller = "1%0d%0a%0d%0aEvent%3a%20Shutdown%0d%0aForged%3a%20yes%0d%0a"
        assert "486" in calls(asterisk, FarEnd.BUSY, caller)
        observer.wait(is_forged)
        manager.ask("Ping")
        manager.ask("Ping")
        assert not [each for each in manager.log if is_forged(each)]


def test_who_is_sent_elsewhere_calls_nobody_else(asterisk: AsteriskServer) -> None:
    document = make_tiff(asterisk.documents / "elsewhere.tif")
    elsewhere = FarEnd.FAX.line(51)
    address = f"sip:{elsewhere}@127.0.0.1:{asterisk.sip_port}"
    with SendsElsewhere(address) as far:
        this = provider(
            port=asterisk.port,
            password=asterisk.password,
            folder=asterisk.documents,
            dial=f"PJSIP/trunk/sip:{{number}}@127.0.0.1:{far.port}",
        )
        with Ear(this) as ear:
            for tried in range(1, 4):
                made = fax(FarEnd.FAX.line(50), document)
                this.send(made)
                end = ear.end(made.tag)
                assert (end.state, far.called) == (State.FAILED, tried)
                # On a busy machine Asterisk may lose the cause (seen once).
                if end.cause != "unreachable":
                    break
        assert end.cause == "no_route"
    assert asterisk.received(elsewhere) == []
    assert "" not in asterisk.stored()
