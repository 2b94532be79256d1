"""A mail server: aiosmtpd, with what real ones do on bad days. It keeps what it took, and what it was asked."""

from __future__ import annotations

import asyncio
import email
import email.policy
import logging
import ssl
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Self, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

# It writes down every line that is said to it.
logging.getLogger("mail.log").setLevel(logging.CRITICAL)

USER, PASSWORD = "faxbot-user", "a long mail password"


@dataclass(frozen=True)
class Mail:
    """One message that it took, or was handed."""

    sender: str
    recipients: list[str]
    raw: bytes
    secure: bool
    """Whether it came over TLS."""
    message: EmailMessage = field(repr=False)

    @property
    def text(self) -> str:
        return str(self.message.get_content())

    @property
    def id(self) -> str:
        return str(self.message["Message-ID"])

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])


class MailServer:
    """Listens on loopback until it is closed.

    `certificate`: what it shows (STARTTLS, or `implicit` TLS from the first byte); `login`: it takes mail only of who
    has said USER and PASSWORD. Its days: `greets`, `sender`, `recipient` and `data` are asked for what to answer.
    """

    def __init__(
        self,
        *,
        certificate: ssl.SSLContext | None = None,
        implicit: bool = False,
        login: bool = False,
    ) -> None:
        self.taken: list[Mail] = []
        self.handed: list[Mail] = []
        """Also those that it did not take in the end."""
        self.visits = 0
        self.recipient: Callable[[str], str] = lambda _address: "250 OK"
        self.sender: Callable[[str], str] = lambda _address: "250 OK"
        self.data: Callable[[Mail], str] = lambda _mail: "250 OK"
        """What it says to a message; DROP: nothing, and hangs up; HANG: nothing; KEEP_AND_DROP: it has it, and hangs
        up; KEEP_AND_HANG."""
        self.silent = self.drips = False
        """It takes connections and says nothing; or a byte now and then, of a greeting without an end."""
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._transports: list[asyncio.Transport] = []
        self._server: asyncio.Server | None = None
        self._certificate, self._implicit, self._login = certificate, implicit, login
        self._port = 0
        begun = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(begun,), name="mail server")
        self._thread.start()
        assert begun.wait(10)
        self.port: int = self._port

    def _run(self, begun: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.create_server(
            self._protocol,
            "127.0.0.1",
            0,
            ssl=self._certificate if self._implicit else None,
        )
        self._server = self._loop.run_until_complete(server)
        self._port = self._server.sockets[0].getsockname()[1]
        begun.set()
        self._loop.run_forever()
        for transport in self._transports:
            with suppress(AttributeError):  # Python 3.11.2: of TLS that is over already
                transport.abort()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    def _protocol(self) -> asyncio.Protocol:
        if self.silent or self.drips:
            return _Silent(self)
        proves = {"authenticator": self._knows, "auth_required": True} if self._login else {}
        smtp = _Smtp(
            self,
            _Days(self),
            hostname="mail.example.org",
            ident="test",
            loop=self._loop,
            tls_context=None if self._implicit else self._certificate,
            **proves,
        )
        # It knows TLS from STARTTLS only, and else lets nobody log in.
        smtp._auth_require_tls = not self._implicit
        return smtp

    def _knows(self, *said: Any) -> AuthResult:
        login = cast(LoginPassword, said[-1])
        good = (login.login, login.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=False)

    def visited(self, transport: asyncio.BaseTransport) -> None:
        self.visits += 1
        self._transports.append(cast(asyncio.Transport, transport))

    @property
    def settings(self) -> dict[str, Any]:
        """Of the plugin, without a word about TLS."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "security": "none",
            "from": "fax@practice.example",
            "to": "desk@practice.example",
            "events": "delivered,failed,received,receive_failed,held",
            "seconds": 3,
        }

    @property
    def environ(self) -> dict[str, str]:
        """The same as variables, with the plugin switched on."""
        names = {"linkUrl": "EMAIL_LINK_URL"}
        variables = {
            names.get(key, f"EMAIL_{key.upper()}"): str(value)
            for key, value in self.settings.items()
        }
        return {**variables, "FAXBOT_NOTIFICATIONS": "email"}

    def wait_until_over(self) -> Awaitable[Any]:
        return self._over.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        def stop() -> None:
            self._over.set()
            if self._server is not None:
                self._server.close()
            self._loop.stop()

        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(stop)
            self._thread.join(10)


DROP, HANG, KEEP_AND_DROP, KEEP_AND_HANG = "drop", "hang", "keep and drop", "keep and hang"


class _Silent(asyncio.Protocol):
    def __init__(self, server: MailServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.visited(transport)
        if self._server.drips:
            self._drip(cast(asyncio.Transport, transport))

    def _drip(self, transport: asyncio.Transport) -> None:
        if not transport.is_closing():
            transport.write(b"220-x\r\n")
            asyncio.get_running_loop().call_later(0.1, self._drip, transport)


class _Smtp(SMTP):
    def __init__(self, server: MailServer, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._mail_server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._mail_server.visited(transport)
        super().connection_made(transport)


class _Days:
    """What aiosmtpd asks."""

    def __init__(self, server: MailServer) -> None:
        self._server = server

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        answer = self._server.sender(address)
        if answer.startswith("250"):
            envelope.mail_from = address
        return answer

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        answer = self._server.recipient(address)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        raw = cast(bytes, envelope.content)
        message = email.message_from_bytes(raw, policy=email.policy.default)
        secure = session.ssl is not None or self._server._implicit
        mail = Mail(str(envelope.mail_from), list(envelope.rcpt_tos), raw, secure, message)
        self._server.handed.append(mail)
        answer = self._server.data(mail)
        if answer in (KEEP_AND_DROP, KEEP_AND_HANG) or answer.startswith("250"):
            self._server.taken.append(mail)
        if answer in (DROP, KEEP_AND_DROP):
            cast(asyncio.Transport, server.transport).abort()
            return "250 nobody hears this"
        if answer in (HANG, KEEP_AND_HANG):
            await self._server.wait_until_over()
            return "421 over"
        return answer
