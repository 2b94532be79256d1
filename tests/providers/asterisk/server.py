"""A running Asterisk with faxbot's dialplan and account as deploy/asterisk has them, and the far end that it calls."""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
import subprocess
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import parse_qsl

from tests.ground import BUSY, Ground, eventually
from tests.providers.asterisk.packages import Tree
from tests.servers import Server

DEPLOY = Path(__file__).parents[3] / "deploy" / "asterisk"
_CONF = Path(__file__).parent / "conf"
# What hostile far ends say, 20 characters at most: an event of their own for AMI; expressions for the dialplan.
HOSTILE_LINES = "\r\n\r\nEvent: Hangup"
HOSTILE_WORDS = "x)}${EPOCH}a&b=c,d:e"
HOSTILE_NAME = "Nobody at all"
ACCOUNT = "practice"
"""Of who calls from 127.64.0.0/10, with the server's password: as a carrier wants it."""


class FarEnd(StrEnum):
    """Numbers to dial, by what answers. `line(7)` is another number with the same answer: so a test knows its own
    faxes among those that the far end received."""

    FAX = "+15550100100"
    FAX_T38 = "+15550100101"
    """Asks for T.38 itself."""
    FAX_NO_ECM = "+15550100102"
    """9600 bit/s at most, too."""
    FAX_HOSTILE_LINES = "+15550100103"
    """Its station id is HOSTILE_LINES, and its caller id HOSTILE_NAME."""
    FAX_HOSTILE_WORDS = "+15550100104"
    BUSY = "+15550100110"
    NO_ANSWER = "+15550100111"
    UNALLOCATED = "+15550100112"
    CONGESTION = "+15550100113"
    REJECTED = "+15550100114"
    CHANGED = "+15550100115"
    OUT_OF_ORDER = "+15550100116"
    NETWORK_OUT_OF_ORDER = "+15550100117"
    INVALID = "+15550100118"
    BUSY_TONE = "+15550100119"
    """In the band: rings as far as SIP knows."""
    VOICE = "+15550100120"
    ANSWERS_AND_HANGS_UP = "+15550100121"
    """After two seconds."""
    SILENCE = "+15550100122"
    CANNOT_STORE = "+15550100123"
    US = "+15550100900"
    """Our own number: who calls it sends us a fax. It asks for T.38."""
    US_AUDIO = "+15550100901"
    US_NINE_SECONDS = "+15550100902"
    """The call ends after nine seconds."""

    def line(self, which: int) -> str:
        """0 to 9999; line(100) is the member itself."""
        return f"{self[:5]}{which:04}{self[-3:]}"


def hangs_up_after(seconds: int, *, t38: bool = False, line: int = 100) -> str:
    """The number of a fax machine that hangs up so many seconds (1 to 99) after it answered."""
    return f"+1555{line:04}{3 if t38 else 2}{seconds:02}"


@dataclass(frozen=True)
class Received:
    """A fax as the far end had it when its call ended; `path` may be missing where nothing came."""

    path: Path
    status: str
    text: str
    pages: int
    rate: int
    mode: str
    station: str
    caller: str


class AsteriskServer(Server):
    """Asterisk on free loopback ports; start(), stop(), kill9(), restart(), freeze(), thaw() as every Server.

    Several may run side by side. It is its own far end, or calls another one (`far`, which must have been made, not
    started, before); a frozen or killed far end is a silent one. It ends with the test process, however that ends.

        server = AsteriskServer(ground, tree)      # tree: fixture asterisk_tree; or the fixture asterisk, started
        server.start()                             # 0.4 s
        host, port = "127.0.0.1", server.port      # AMI
        server.username, server.password           # faxbot's account; `observer` has the same password and all rights
        server.dial("trunk")                       # "PJSIP/{number}@trunk"; also trunk-g711 (refuses T.38),
                                                   # deadtrunk (nobody answers), watchedtrunk (the same, and
                                                   # Asterisk knows it, qualified()) and deniedtrunk (SIP 401);
                                                   # to FarEnd.FAX.line(7), ...
        server.documents                           # a folder for TIFFs; Asterisk sees it under the same path
        server.arrived                             # the folder beside it, of faxes that came in
        server.heard(FarEnd.FAX.line(7))           # waits for the end of that call at the far end: Received
        server.cli("core show channels")
    """

    name = "asterisk"
    username = "faxbot"
    observer = "observer"

    def __init__(
        self,
        ground: Ground,
        tree: Tree,
        far: AsteriskServer | None = None,
        rtp_timeout: int | None = None,
    ) -> None:
        """rtp_timeout: seconds, instead of what deploy/asterisk/pjsip_faxbot.conf says."""
        super().__init__(ground)
        self.tree = tree
        self.password = secrets.token_hex(16)
        self.sip_port = _free_udp_port()
        self.documents = self._made("documents")
        self.arrived = self._made("documents-received")
        self._far = far or self
        self._received = self._made("received")
        self._configure(rtp_timeout)

    def dial(self, trunk: str = "trunk") -> str:
        return f"PJSIP/{{number}}@{trunk}"

    def cli(self, command: str, timeout: float = 10.0) -> str:
        """What the command line of Asterisk says; subprocess.TimeoutExpired while it is frozen."""
        done = subprocess.run(
            [*self._command, "-rx", command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=self._environment,
            check=False,
        )
        return done.stdout

    def qualified(self) -> None:
        """Wait until it knows that nobody answers behind watchedtrunk."""
        eventually(lambda: "Unavail" in self.cli("pjsip show contacts"), 15.0, every=0.2)

    def stored(self, family: str = "faxbot") -> dict[str, str]:
        """The entries of AstDB below a family, by key."""
        lines = self.cli(f"database show {family}").splitlines()
        pairs = [line.split(": ", 1) for line in lines if line.startswith(f"/{family}/")]
        return {key.strip().removeprefix(f"/{family}/"): value.strip() for key, value in pairs}

    def received(self, number: str) -> list[Received]:
        """The faxes that the far end had from calls to this number that have ended."""
        entries = self._far.stored("far").items()
        return [
            self._far._as_received(call, text)
            for call, text in entries
            if call.startswith(f"{number}-")
        ]

    def confirmed(self, tag: str) -> int:
        """Pages of this fax, which is being sent, that the far end has confirmed so far."""
        for session in re.findall(r"([0-9]+) +(?:G.711|T.38) +send", self.cli("fax show sessions")):
            told = self.cli(f"fax show session {session}")
            if f"{tag}.tif" in told and (pages := re.search(r"Tx Pages *: *([0-9]+)", told)):
                return int(pages[1])
        return 0

    def gone(self, timeout: float = 90.0) -> None:
        """Wait until it has ended by itself, as it was asked to; start() starts it again."""
        assert self.process is not None, "it is not running"
        self.process.wait(timeout * BUSY)
        self.process = None

    def heard(self, number: str, timeout: float = 120.0) -> Received:
        """The one fax to this number, as soon as its call has ended at the far end."""
        eventually(lambda: self.received(number), timeout, every=0.2)
        (only,) = self.received(number)
        return only

    def _as_received(self, call: str, text: str) -> Received:
        said = dict(parse_qsl(text, keep_blank_values=True))
        return Received(
            path=self._received / f"{call}.tif",
            status=said["status"],
            text=said["text"],
            pages=int(said["pages"] or 0),
            rate=int(said["rate"] or 0),
            mode=said["mode"],
            station=said["station"],
            caller=said["caller"],
        )

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _configure(self, rtp_timeout: int | None) -> None:
        for name in ("etc", "lib", "run", "log", "spool"):
            self._made(name)
        rtp, udptl = random.randrange(20_000, 25_800, 200), random.randrange(26_000, 31_800, 200)
        words = {
            "FOLDER": self.folder,
            "DEPLOY": DEPLOY,
            "ARRIVED": self.arrived,
            "MODULES": self.tree.modules,
            "DATA": self.tree.data,
            "NAME": self.folder.name,
            "AMI_PORT": self.port,
            "PASSWORD": self.password,
            "SIP_PORT": self.sip_port,
            "FAR_PORT": self._far.sip_port,
            "DEAD_PORT": _free_udp_port(),
            "RTP_TIMEOUT": rtp_timeout or 60,
            "RTP_START": rtp,
            "RTP_END": rtp + 199,
            "UDPTL_START": udptl,
            "UDPTL_END": udptl + 199,
            "HOSTILE_LINES": _percent(HOSTILE_LINES),
            "HOSTILE_WORDS": _percent(HOSTILE_WORDS),
            "HOSTILE_NAME": HOSTILE_NAME,
            "ACCOUNT": ACCOUNT,
            "STRANGER": a_stranger_s_address(),
        }
        for template in _CONF.glob("*.conf"):
            text = template.read_text()
            for word, value in words.items():
                text = text.replace(f"@{word}@", str(value))
            (self.folder / "etc" / template.name).write_text(text)

    @property
    def _command(self) -> list[str | Path]:
        return [*self.tree.command, "-C", self.folder / "etc" / "asterisk.conf"]

    @property
    def _environment(self) -> dict[str, str]:
        # Its command line keeps a history file in the home folder.
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)}

    def _start(self) -> subprocess.Popen[bytes]:
        """Ahead of all else on a busy machine, where we may: its modems send and hear sound in real time, and a page is
        lost for a fifth of a second without a processor."""
        process = self.ground.start(
            [*self._command, "-f"], self.folder, self._environment, self.log, cwd=self.folder
        )
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, process.pid, -15)  # its threads begin with this
        return process

    def _answers(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            return "fully booted" in self.cli("core waitfullybooted", timeout=5.0)
        return False


def _percent(text: str) -> str:
    """Every character as %XX, so that the dialplan's reader sees nothing else."""
    return "".join(f"%{ord(letter):02X}" for letter in text)


def a_stranger_s_address() -> str:
    """A loopback address of which the far end wants account and password."""
    return str(IPv4Address("127.64.0.1") + random.randrange(2**22 - 2))


def _free_udp_port() -> int:
    """Below the ranges for RTP and UDPTL of any Asterisk here."""
    while True:
        port = random.randrange(15_000, 20_000)
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
