"""One visit to a mail server: it ends in time whatever the server does, verifies who that is, and says in a sentence of
ours what went wrong. What a server writes is repeated nowhere: it may name other people.

smtplib, of Python itself, speaks the protocol: it is kept with Python, and knows STARTTLS and the ways to log in. What
it lacks is a limit for the whole visit.
"""

from __future__ import annotations

import errno
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from faxbot.errors import AccountRefused, OutcomeUnknown, Refused, Throttled, Unreachable

STARTTLS, TLS, NONE = "starttls", "tls", "none"
PORTS = {STARTTLS: 587, TLS: 465, NONE: 25}


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail goes out, and how."""

    host: str
    port: int
    security: str
    seconds: float
    """For one visit."""
    user: str = ""
    password: str = field(repr=False, default="")
    tls: ssl.SSLContext | None = None
    """None for NONE."""


class _Smtp(smtplib.SMTP):
    """smtplib's, with TLS from the first byte where that is wanted, and an end."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._handle: socket.socket | None = None
        self._late = threading.Event()
        self._alarm = threading.Timer(server.seconds, self._cut)
        self._alarm.daemon = True
        self._alarm.start()
        try:
            # With a name of ours it does not ask the DNS for one, which takes as long as it likes.
            super().__init__(server.host, server.port, "localhost", timeout=server.seconds)
        except BaseException:
            self.over()
            raise
        host = self.sock.getsockname()[0] if self.sock else "127.0.0.1"
        # A client without a name says its address (RFC 5321, 4.1.4).
        self.local_hostname = f"[IPv6:{host}]" if ":" in host else f"[{host}]"

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        sock = _connected(host, port, timeout)
        # TLS takes the socket over; the connection can still be cut by another handle of it.
        self._handle = sock.dup()
        if self._late.is_set():
            sock.close()
            raise TimeoutError
        if self._server.security == TLS and self._server.tls is not None:
            return self._server.tls.wrap_socket(sock, server_hostname=host)
        return sock

    def _cut(self) -> None:
        """Its time is over: every wait ends now."""
        self._late.set()
        if self._handle is not None:
            with suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)

    def over(self) -> None:
        """Let go of it."""
        self._alarm.cancel()
        self.close()
        if self._handle is not None:
            self._handle.close()


def _connected(host: str, port: int, seconds: float) -> socket.socket:
    """A connection with one of the addresses that this name has. Each has its part of the time, and so has what is said
    then: one at which nothing answers, such as that of an IPv6 that leads nowhere, leaves enough. Raises OSError."""
    until = time.monotonic() + seconds
    found = list(dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    last: OSError = TimeoutError()
    for count, (family, kind, protocol, _, address) in enumerate(found):
        left = until - time.monotonic()
        if left <= 0:  # looking for the name took it all
            break
        try:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(left / (len(found) - count + 1))
                sock.connect(address)
                sock.settimeout(max(until - time.monotonic(), 0.001))  # 0 would not wait at all
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            last = error
        else:
            return sock
    raise last


class Session:
    """A visit, from the login on."""

    def __init__(self, smtp: smtplib.SMTP, server: Server) -> None:
        self._smtp, self._server = smtp, server

    def address(self, sender: str, recipients: Sequence[str], *, or_some: bool = False) -> bool:
        """Say from whom and to whom; whether it takes all of them. Raises AccountRefused when it takes none; Throttled
        when it takes some and puts others off, unless these `or_some` are enough."""
        code, _ = self._smtp.mail(sender)
        if code != 250:
            raise AccountRefused(f"The mail server does not take mail from EMAIL_FROM ({code}).")
        codes = [self._smtp.rcpt(each)[0] for each in recipients]
        taken = [code for code in codes if code in (250, 251)]
        if not taken:
            raise AccountRefused(f"The mail server takes mail to nobody of EMAIL_TO ({codes[0]}).")
        later = [code for code in codes if 400 <= code < 500]
        if later and not or_some:
            raise Throttled(
                f"The mail server takes mail to some of EMAIL_TO, and not now to others ({later[0]})."
            )
        return len(taken) == len(codes)

    def send(self, message: bytes) -> None:
        """Hand the message over, once. Raises OutcomeUnknown where it may have it."""
        code, _ = self._smtp.docmd("DATA")
        if code != 354:
            raise Unreachable(f"The mail server takes no message now ({code}).")
        try:
            self._smtp.send(_DOTS.sub(b"..", message) + b".\r\n")
            code, _ = self._smtp.getreply()
        except (OSError, smtplib.SMTPException):
            raise OutcomeUnknown(
                "The mail server was lost while it took the message: it may have it."
            ) from None
        if code >= 500:
            raise Refused(f"The mail server refuses the message for good ({code}).")
        if code != 250:
            raise Unreachable(f"The mail server does not take the message now ({code}).")

    def forget(self) -> None:
        """Take back from whom and to whom."""
        self._smtp.rset()


_DOTS = re.compile(rb"(?m)^\.")


@contextmanager
def visit(server: Server) -> Iterator[Session]:
    """A session with the server, logged in where a user is set. Raises Unreachable and AccountRefused, in sentences
    that name the setting."""
    smtp: _Smtp | None = None
    try:
        smtp = _Smtp(server)
        _begin(smtp, server)
        yield Session(smtp, server)
        with suppress(OSError, smtplib.SMTPException):
            smtp.quit()
    except ssl.SSLCertVerificationError:
        raise AccountRefused(
            "The mail server's certificate is not for EMAIL_HOST, or nobody vouches for it (EMAIL_CA_FILE)."
        ) from None
    except smtplib.SMTPAuthenticationError as error:
        raise AccountRefused(
            f"The mail server does not let us in ({error.smtp_code}): EMAIL_USER, EMAIL_PASSWORD."
        ) from None
    except smtplib.SMTPNotSupportedError:
        raise AccountRefused(
            "The mail server offers no STARTTLS (EMAIL_SECURITY), or no way to log in (EMAIL_USER)."
        ) from None
    except smtplib.SMTPResponseException as error:
        raise Unreachable(f"The mail server does not want us now ({error.smtp_code}).") from None
    except (OSError, smtplib.SMTPException) as error:
        raise Unreachable(
            f"The mail server does not answer as it should ({_kind(error)}): EMAIL_HOST, EMAIL_PORT, EMAIL_SECURITY."
        ) from None
    finally:
        if smtp is not None:
            smtp.over()


def _begin(smtp: smtplib.SMTP, server: Server) -> None:
    smtp.ehlo_or_helo_if_needed()
    if server.security == STARTTLS and server.tls is not None:
        code, _ = smtp.starttls(context=server.tls)
        if code != 220:
            raise smtplib.SMTPNotSupportedError
        smtp.ehlo_or_helo_if_needed()
    if server.user:
        smtp.login(server.user, server.password)


def _kind(error: OSError | smtplib.SMTPException) -> str:
    """Its number's name, like ECONNREFUSED; its text may name anything."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    number = getattr(error, "errno", None)
    if isinstance(error, ssl.SSLError | socket.gaierror) or number is None:
        return type(error).__name__
    return errno.errorcode.get(number, type(error).__name__)
