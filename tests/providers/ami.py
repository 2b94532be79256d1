"""A manager (AMI) written from transcripts of Asterisk 22: for what a real one cannot be made to do, or not so fast."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from tests.misbehaving import Behaviour, Server

GREETING = b"Asterisk Call Manager/11.0.0\r\n"
PASSWORD = "a-long:manager/password"
CHALLENGE = "840415273"
BOOTED = "Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 86400\r\nLastReload: 86400\r\nStatus: Fully Booted"
COMMANDS = (
    *(
        "Challenge",
        "CoreStatus",
        "DBGet",
        "DBGetTree",
        "FAXStats",
        "Getvar",
        "Hangup",
        "ListCommands",
        "Login",
    ),
    *("Originate", "Ping", "PJSIPQualify", "ShowDialPlan", "Status"),
)
DIALPLAN = {
    "faxbot-send": (
        ("send", "SendFAX", "${FAXJOB_FILE}"),
        ("h", "Set", "DB(faxbot/${FAXJOB_ID})=${FAXJOB_RESULT}"),
        ("failed", "UserEvent", "FaxbotResult"),
        ("cause", "UserEvent", "FaxbotCause,JobID: ${FAXJOB_ID}"),
    ),
    "faxbot-ack": (("ack", "Hangup", ""),),
}

Asked = Mapping[str, str]
"""Fields of an action; of a field that is repeated, all values, one a line."""
Answer = list[str] | bytes
Answers = Answer | Callable[[Asked], Answer | None]
HANGS_UP = b"\0"


def text(*fields: tuple[str, str]) -> str:
    return "\r\n".join(f"{name}: {value}" for name, value in fields)


def ok(*fields: tuple[str, str]) -> list[str]:
    return [text(("Response", "Success"), *fields)]


def error(words: str) -> list[str]:
    return [text(("Response", "Error"), ("Message", words))]


def listed(*events: tuple[tuple[str, str], ...]) -> list[str]:
    begin = text(("Response", "Success"), ("EventList", "start"), ("Message", "Result will follow"))
    end = text(("Event", "Complete"), ("EventList", "Complete"), ("ListItems", str(len(events))))
    return [begin, *(text(*each) for each in events), end]


class Manager:
    """Takes every call, and knows it from then on; `database` is AstDB's family, by key, and `received` the family of
    faxes that came in. `answers` replaces what is said to an action, once it was read: messages, or bytes as they are;
    HANGS_UP hangs up. One that is called may leave the answer as it is (None)."""

    def __init__(self, **answers: Answers) -> None:
        self.asked: list[Asked] = []
        self.database: dict[str, str] = {}
        self.received: dict[str, str] = {}
        self.calls: set[str] = set()
        self.answers = answers
        self.uptime = 86_400
        self._ears: list[socket.socket] = []
        self._lock = threading.Lock()
        self.server = Server(self._behave)

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return self.server.url

    def of(self, action: str) -> list[Asked]:
        return [each for each in self.asked if each["Action"] == action]

    def tell(self, *events: str) -> None:
        """To everybody who listens."""
        with self._lock:
            for ear in self._ears:
                with suppress(OSError):  # it has gone
                    ear.sendall("".join(f"{each}\r\n\r\n" for each in events).encode())

    def close(self) -> None:
        self.server.close()

    def _behave(self, connection: socket.socket, server: Server) -> None:
        connection.sendall(GREETING)
        while data := server.read(connection):
            asked = _fields(data)
            self.asked.append(asked)
            if asked["Action"] == "Logoff":
                return
            given = self.answers.get(asked["Action"])
            answer = (given(asked) if callable(given) else given) or self._answer(asked)
            if answer == HANGS_UP:
                return
            with self._lock:
                connection.sendall(_said(asked, answer))
                if asked["Action"] == "Login":
                    booted = BOOTED.replace("86400", str(self.uptime))
                    connection.sendall(f"{booted}\r\n\r\n".encode())
                    if asked["Events"] == "on":
                        self._ears.append(connection)

    def _answer(self, asked: Asked) -> list[str]:
        answers: dict[str, Callable[[Asked], list[str]]] = {
            "Challenge": lambda _: ok(("Challenge", CHALLENGE)),
            "Login": _login,
            "Ping": lambda _: ok(("Ping", "Pong"), ("Timestamp", "1795231968.453725")),
            "Originate": self._originate,
            "Status": self._status,
            "Hangup": self._hangup,
            "DBGet": self._get,
            "DBGetTree": self._tree,
            "ListCommands": lambda _: ok(*((name, "(Priv: all)") for name in COMMANDS)),
            "ShowDialPlan": _dialplan,
            "Getvar": lambda asked: ok(("Variable", asked["Variable"]), ("Value", "0")),
            "PJSIPQualify": lambda _: ok(("Message", "Endpoint found, will qualify")),
        }
        unknown: Callable[[Asked], list[str]] = lambda _: error("Invalid/unknown command")  # noqa: E731
        return answers.get(asked["Action"], unknown)(asked)

    def _originate(self, asked: Asked) -> list[str]:
        if asked["Channel"].startswith("Local/ack@"):
            tag = asked["Variable"].removeprefix("__FAXJOB_ID=")
            for key in (tag, f"{tag}/cause"):
                self.database.pop(key, None)
        elif asked["Channel"].startswith("Local/received@"):
            self.received.pop(asked["Variable"].removeprefix("__FAXIN_ID="), None)
        else:
            self.calls.add(asked["ChannelId"])
        return ok(("Message", "Originate successfully queued"))

    def _status(self, asked: Asked) -> list[str]:
        if asked["Channel"] not in self.calls:
            return error("No such channel")
        return listed((("Event", "Status"), ("ChannelStateDesc", "Ringing")))

    def _hangup(self, asked: Asked) -> list[str]:
        there = asked["Channel"] in self.calls
        return ok(("Message", "Channel Hungup")) if there else error("No such channel")

    def _get(self, asked: Asked) -> list[str]:
        value = self._family(asked).get(asked["Key"])
        if value is None:
            return error("Database entry not found")
        return listed((("Event", "DBGetResponse"), ("Key", asked["Key"]), ("Val", value)))

    def _tree(self, asked: Asked) -> list[str]:
        place = f"/{asked['Family']}"
        return listed(
            *(
                (("Event", "DBGetTreeResponse"), ("Key", f"{place}/{key}"), ("Val", value))
                for key, value in self._family(asked).items()
            )
        )

    def _family(self, asked: Asked) -> dict[str, str]:
        return {"faxbot": self.database, "faxbot-in": self.received}[asked["Family"]]


def greeting_then(*pieces: bytes) -> Behaviour:
    """Greets, and answers every action with the next of these, the last for ever."""

    def behave(connection: socket.socket, server: Server) -> None:
        connection.sendall(GREETING)
        turn = 0
        while server.read(connection):
            piece = pieces[min(turn, len(pieces) - 1)]
            if piece == HANGS_UP:
                return
            connection.sendall(piece)
            turn += 1

    return behave


def _said(asked: Asked, answer: Answer) -> bytes:
    if isinstance(answer, bytes):
        return answer
    mark = f"ActionID: {asked['ActionID']}\r\n"
    return "".join(f"{mark}{each}\r\n\r\n" for each in answer).encode()


def _login(asked: Asked) -> list[str]:
    key = hashlib.md5((CHALLENGE + PASSWORD).encode(), usedforsecurity=False).hexdigest()
    admitted = asked["Username"] == "faxbot" and asked["Key"] == key
    return (
        ok(("Message", "Authentication accepted")) if admitted else error("Authentication failed")
    )


def _dialplan(asked: Asked) -> list[str]:
    lines = DIALPLAN.get(asked["Context"])
    return error(f"Did not find context {asked['Context']}") if lines is None else dialplan(lines)


def dialplan(lines: Sequence[tuple[str, str, str]]) -> list[str]:
    """The answer to ShowDialPlan: extension, application and its arguments."""
    return listed(
        *(
            (
                ("Event", "ListDialplan"),
                ("Extension", name),
                ("Application", what),
                ("AppData", how),
            )
            for name, what, how in lines
        )
    )


def _fields(data: bytes) -> Asked:
    found: dict[str, str] = {}
    for line in data.decode().split("\r\n"):
        name, colon, value = line.partition(": ")
        if colon:
            found[name] = f"{found[name]}\n{value}" if name in found else value
    return found
