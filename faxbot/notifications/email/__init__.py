"""Notices by e-mail, over SMTP: plain text that names a fax by its id, and nobody.

A message goes to all recipients in one transaction, which the server takes or does not: it waits for those who are put
off (greylisting, a full mailbox), for a quarter of an hour, and those behind it no more. Its Message-ID is made of the
notification's own id, so that a mail that is sent twice, because nobody knows whether it arrived, is known as one.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

from faxbot.errors import FaxbotError, PluginError
from faxbot.events import Notable
from faxbot.notifications.email.session import NONE, PORTS, Server, visit
from faxbot.plugins.base import Context, Health, Notification, NotificationPlugin

MOST_RECIPIENTS = 10
_ADDRESS = re.compile(r"[A-Za-z0-9._+'=-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])?")


class EmailNotifier(NotificationPlugin):
    """A mail server is told who sends to whom, and takes one message or does not."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        self._sender = _address(str(config["from"]), "EMAIL_FROM")
        self._recipients = _recipients(str(config["to"]))
        _check_events(str(config["events"]))
        self._link_url = str(config.get("linkUrl", ""))
        self._server = _server(config)

    def notify(self, notification: Notification) -> bool:
        message = self._message(notification)
        with visit(self._server) as session:
            all_taken = session.address(
                self._sender, self._recipients, or_some=notification.put_off_long
            )
            session.send(message)
        return all_taken

    def health(self) -> Health:
        """Whether the server lets us in, and would take mail from us to each of the recipients; nothing is sent."""
        try:
            with visit(self._server) as session:
                all_taken = session.address(self._sender, self._recipients)
                session.forget()
        except FaxbotError as error:
            return Health(False, error.detail)
        if not all_taken:
            return Health(
                False, "The mail server takes mail to some of EMAIL_TO, and refuses others."
            )
        return Health(True, "The mail server lets us in and takes mail to all recipients.")

    def _message(self, notification: Notification) -> bytes:
        message = EmailMessage(policy=SMTP)
        domain = self._sender.rpartition("@")[2]
        message["From"] = f"faxbot <{self._sender}>"
        message["To"] = ", ".join(self._recipients)
        message["Subject"] = f"[faxbot] {notification.title}"
        message["Date"] = format_datetime(self.context.now())
        message["Message-ID"] = f"<{notification.id}@{domain}>"
        # Machines do not answer this one: no notes of absence (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(notification.text(self._link_url))
        return message.as_bytes()


def _address(text: str, name: str) -> str:
    address = text.strip()
    if not _ADDRESS.fullmatch(address) or ".." in address:
        raise PluginError(f"{name} is no e-mail address: write it like fax@example.org")
    return address


def _recipients(text: str) -> tuple[str, ...]:
    parts = [part for part in text.split(",") if part.strip()]
    found = tuple(dict.fromkeys(_address(part, "a part of EMAIL_TO") for part in parts))
    if not 1 <= len(found) <= MOST_RECIPIENTS:
        raise PluginError(
            f"EMAIL_TO must name 1 to {MOST_RECIPIENTS} addresses, separated by commas"
        )
    return found


def _check_events(text: str) -> None:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not set(words) <= set(Notable):
        raise PluginError(f"EMAIL_EVENTS must name some of: {', '.join(Notable)}")


def _server(config: Mapping[str, Any]) -> Server:
    security = str(config["security"])
    user, password = str(config.get("user", "")), str(config.get("password", ""))
    if bool(user) != bool(password):
        raise PluginError("EMAIL_USER and EMAIL_PASSWORD go together: set both or none")
    if security == NONE and user:
        raise PluginError(
            "EMAIL_SECURITY=none would send EMAIL_PASSWORD in clear: use starttls or tls, or no password"
        )
    port = int(config.get("port", PORTS[security]))
    seconds = float(config["seconds"])
    tls = None if security == NONE else _tls(str(config.get("caFile", "")))
    return Server(str(config["host"]), port, security, seconds, user, password, tls)


def _tls(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError):
            raise PluginError("EMAIL_CA_FILE does not name a file of certificates (PEM)") from None
    return context
