"""What a mail says, how it goes to the server, and what is said of each thing that a server may do; what is set wrongly
is refused with the name of the setting."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from faxbot.db import new_id
from faxbot.errors import (
    AccountRefused,
    ConfigError,
    FaxbotError,
    OutcomeUnknown,
    PluginError,
    Refused,
    Throttled,
    Unreachable,
)
from faxbot.events import Notable
from faxbot.notifications.email import EmailNotifier
from faxbot.plugins import manifest
from faxbot.plugins.base import Happening, Notification
from faxbot.testing.ground import prepared
from faxbot.testing.notification import notification
from tests import certificates
from tests.ground import eventually
from tests.mailserver import (
    DROP,
    HANG,
    KEEP_AND_DROP,
    PASSWORD,
    USER,
    MailServer,
)
from tests.misbehaving import black_hole
from tests.servers import free_port

MANIFEST = manifest.read(
    Path(__file__).parents[2] / "faxbot" / "notifications" / "email" / "manifest.json"
)


@contextmanager
def begun(settings: Mapping[str, Any]) -> Iterator[EmailNotifier]:
    config, context = prepared(MANIFEST, settings)
    notifier = EmailNotifier()
    notifier.initialize(config, context)
    yield notifier
    context.http.close()


def told(mail: MailServer, this: Notification | None = None, /, **changes: Any) -> bool:
    with begun({**mail.settings, **changes}) as notifier:
        return notifier.notify(this or notification(Notable.FAILED))


AT = datetime(2026, 11, 20, 12, 30, 5, tzinfo=UTC)
ONE = Notification(
    "0193f2c4a1b27c3d8e4f5a6b7c8d9e0f",
    (Happening(Notable.FAILED, "0193aaaa", AT, "The line was busy."),),
    {Notable.FAILED: 1},
)


# What it says ---------------------------------------------------------------------------------------


def test_a_mail_says_what_happened_to_which_fax_and_why(mail: MailServer) -> None:
    assert told(mail, ONE, linkUrl="https://fax.practice.example/")

    (sent,) = mail.taken
    assert sent.text.replace("\r\n", "\n") == (
        "A fax was not delivered, and will not be tried again.\n\n"
        "Fax:  0193aaaa\n"
        "When: 2026-11-20 12:30:05 UTC\n"
        "Why:  The line was busy.\n"
        "See:  https://fax.practice.example/fax/0193aaaa\n"
    )
    heads = {name: str(value) for name, value in sent.message.items()}
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} \+0000", heads.pop("Date"))
    assert heads == {
        "From": "faxbot <fax@practice.example>",
        "To": "desk@practice.example",
        "Subject": "[faxbot] Fax not delivered",
        "Message-ID": "<0193f2c4a1b27c3d8e4f5a6b7c8d9e0f@practice.example>",
        "Auto-Submitted": "auto-generated",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": "7bit",
        "MIME-Version": "1.0",
    }
    assert (sent.sender, sent.recipients) == ("fax@practice.example", ["desk@practice.example"])


def test_a_received_fax_is_linked_where_received_ones_are_shown(mail: MailServer) -> None:
    this = Notification(
        "1" * 32, (Happening(Notable.RECEIVED, "0193bbbb", AT),), {Notable.RECEIVED: 1}
    )
    told(mail, this, linkUrl="https://fax.practice.example")
    assert "https://fax.practice.example/inbound/0193bbbb" in mail.taken[0].text
    assert "Why" not in mail.taken[0].text


def test_many_are_counted_and_listed_and_what_is_left_out_is_said(mail: MailServer) -> None:
    happenings = tuple(Happening(Notable.FAILED, f"0193{n:04}", AT) for n in range(100))
    this = Notification("2" * 32, happenings, {Notable.HELD: 2, Notable.FAILED: 2998})
    told(mail, this)

    (sent,) = mail.taken
    assert sent.subject == "[faxbot] 3000 faxes: 2998 not delivered, 2 waiting for a person"
    assert all(f"0193{n:04}" in sent.text for n in range(100))
    assert "... and 2900 more" in sent.text


def test_a_mail_goes_to_all_who_are_named_at_once(mail: MailServer) -> None:
    told(mail, to="desk@practice.example, nurse@practice.example,desk@practice.example")
    (sent,) = mail.taken
    assert sent.recipients == ["desk@practice.example", "nurse@practice.example"]


def test_a_line_that_begins_with_a_dot_arrives_with_one(mail: MailServer) -> None:
    this = Notification("3" * 32, (Happening(Notable.HELD, ".x\n.\nmore", AT),), {Notable.HELD: 1})
    told(mail, this)
    assert ".x\n.\nmore" in mail.taken[0].text.replace("\r\n", "\n")


# TLS and login --------------------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
def test_a_password_goes_over_tls_to_whom_the_certificate_names(
    certificate: Path, implicit: bool
) -> None:
    context = certificates.serving(certificate)
    with MailServer(certificate=context, implicit=implicit, login=True) as mail:
        proof = {"user": USER, "password": PASSWORD, "caFile": str(certificate)}
        assert told(mail, security="tls" if implicit else "starttls", **proof)
        assert mail.taken[0].secure


def test_a_server_that_nobody_vouches_for_is_told_nothing(
    certificate: Path, tmp_path: Path
) -> None:
    other = certificates.certificate(tmp_path / "other.pem", "mail.example.org")
    proof = {"user": USER, "password": PASSWORD, "security": "starttls"}
    for shown, trusted in ((certificate, ""), (other, str(other))):  # unknown; another's name
        with MailServer(certificate=certificates.serving(shown), login=True) as mail:
            ca = {"caFile": trusted} if trusted else {}
            with pytest.raises(AccountRefused, match="EMAIL_CA_FILE"):
                told(mail, **proof, **ca)
            assert mail.handed == []


def test_a_server_without_starttls_gets_no_mail_and_no_password(mail: MailServer) -> None:
    with pytest.raises(AccountRefused, match="STARTTLS"):
        told(mail, security="starttls", user=USER, password=PASSWORD)
    assert mail.handed == []


def test_a_wrong_password_is_said_by_the_names_of_the_settings(certificate: Path) -> None:
    with MailServer(certificate=certificates.serving(certificate), login=True) as mail:
        wrong = {"user": USER, "password": "another password", "caFile": str(certificate)}
        with pytest.raises(AccountRefused, match=r"\(535\).*EMAIL_PASSWORD") as raised:
            told(mail, security="starttls", **wrong)
        assert "another" not in str(raised.value)


# What a server may say ------------------------------------------------------------------------------

SAYS = "by the server of somebody@else.example, +1 415 837 0000"


@pytest.mark.parametrize(
    ("day", "kind", "sentence"),
    [
        ({"sender": "451 later"}, AccountRefused, r"EMAIL_FROM \(451\)"),
        ({"sender": "550 no"}, AccountRefused, r"EMAIL_FROM \(550\)"),
        ({"recipient": "450 greylisted"}, AccountRefused, r"EMAIL_TO \(450\)"),
        ({"recipient": "550 no such user"}, AccountRefused, r"EMAIL_TO \(550\)"),
        ({"data": "451 later"}, Unreachable, r"now \(451\)"),
        ({"data": "554 spam"}, Refused, r"for good \(554\)"),
    ],
)
def test_a_refusal_is_a_sentence_of_ours_and_no_mail(
    mail: MailServer, day: dict[str, str], kind: type[FaxbotError], sentence: str
) -> None:
    for step, answer in day.items():
        setattr(mail, step, lambda _asked, answer=answer: f"{answer} {SAYS}")
    with pytest.raises(kind, match=sentence) as raised:
        told(mail)
    assert "else" not in str(raised.value)
    assert mail.taken == []


def test_some_of_several_recipients_may_be_refused_and_that_is_said(mail: MailServer) -> None:
    mail.recipient = lambda address: "550 gone" if "gone" in address else "250 OK"
    assert told(mail, to="gone@practice.example,desk@practice.example") is False
    assert [each.recipients for each in mail.taken] == [["desk@practice.example"]]


FULL = "desk@practice.example,full@practice.example"


def puts_off(address: str) -> str:
    return f"452 mailbox full {SAYS}" if "full" in address else "250 OK"


def test_a_mail_waits_for_recipients_who_are_put_off_until_that_has_lasted(
    mail: MailServer,
) -> None:
    mail.recipient = puts_off
    with pytest.raises(Throttled, match=r"EMAIL_TO.*\(452\)") as raised:
        told(mail, ONE, to=FULL)
    assert "else" not in str(raised.value)
    assert mail.handed == []

    assert told(mail, replace(ONE, put_off_long=True), to=FULL) is False
    assert [each.recipients for each in mail.taken] == [["desk@practice.example"]]


def test_health_says_that_a_recipient_is_put_off(mail: MailServer) -> None:
    mail.recipient = puts_off
    with begun({**mail.settings, "to": FULL}) as notifier:
        health = notifier.health()
    assert (health.ok, "(452)" in health.detail) == (False, True)


@pytest.mark.parametrize("day", [DROP, KEEP_AND_DROP, HANG])
def test_a_server_that_is_lost_behind_the_message_may_have_it(mail: MailServer, day: str) -> None:
    mail.data = lambda _mail: day
    with pytest.raises(OutcomeUnknown):
        told(mail, seconds=5)


def test_a_server_that_is_lost_before_the_message_has_nothing(mail: MailServer) -> None:
    with pytest.raises(Unreachable, match="EMAIL_HOST"):
        told(mail, port=free_port())


def test_a_visit_ends_in_time_however_slowly_the_server_speaks() -> None:
    with ExitStack() as stack:
        dripping = stack.enter_context(MailServer())
        dripping.drips = True
        begun_at = time.monotonic()
        with pytest.raises(Unreachable):
            told(dripping, seconds=1)
        assert time.monotonic() - begun_at < 10


NAME = "mail.practice.example"
Leads = Callable[..., None]


@pytest.fixture
def leads(monkeypatch: pytest.MonkeyPatch) -> Leads:
    """leads(address, ...): where the name NAME leads from now on, as the DNS says."""
    usual = socket.getaddrinfo

    def lead(*addresses: str) -> None:
        def found(host: str, port: int, *more: Any, **options: Any) -> list[Any]:
            hosts = addresses if host == NAME else (host,)
            return [each for name in hosts for each in usual(name, port, *more, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", found)

    return lead


def test_a_mail_arrives_where_nothing_answers_at_the_first_addresses_of_the_name(
    mail: MailServer, leads: Leads
) -> None:
    leads("127.0.0.2", "127.0.0.3", "127.0.0.1")
    with black_hole("127.0.0.2", mail.port), black_hole("127.0.0.3", mail.port):
        assert told(mail, host=NAME, seconds=2)
    assert len(mail.taken) == 1


def test_a_visit_ends_in_time_however_many_addresses_do_not_answer(
    mail: MailServer, leads: Leads
) -> None:
    holes = [f"127.0.0.{number}" for number in range(2, 8)]
    leads(*holes)
    with ExitStack() as stack:
        for each in holes:
            stack.enter_context(black_hole(each, mail.port))
        begun_at = time.monotonic()
        with pytest.raises(Unreachable, match="no answer in time"):
            told(mail, host=NAME, seconds=1)
        assert time.monotonic() - begun_at < 4


def test_health_asks_up_to_the_recipients_and_sends_nothing(mail: MailServer) -> None:
    asked: list[str] = []

    def notes(address: str) -> str:
        asked.append(address)
        return "550 gone" if "gone" in address else "250 OK"

    mail.recipient = notes
    with begun({**mail.settings, "to": "desk@practice.example,gone@practice.example"}) as notifier:
        health = notifier.health()
    assert (health.ok, "EMAIL_TO" in health.detail) == (False, True)
    assert asked == ["desk@practice.example", "gone@practice.example"]
    assert mail.handed == []


# What is set wrongly --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"to": "desk@practice.example\r\nBcc: x@evil.example"}, "EMAIL_TO"),
        ({"to": "desk@practice.example\n"}, "EMAIL_TO"),
        ({"from": "fax@practice.example\r\nX: y"}, "EMAIL_FROM"),
        ({"host": "mail.example\r\nRSET"}, "EMAIL_HOST"),
        ({"linkUrl": "https://fax.example\r\n.\r\nMAIL FROM:<x@y>"}, "EMAIL_LINK_URL"),
        ({"to": "desk"}, "EMAIL_TO"),
        ({"to": "desk@practice.example,,nobody@"}, "EMAIL_TO"),
        ({"to": ",,,"}, "EMAIL_TO"),
        ({"to": ",".join(f"a{n}@b.example" for n in range(11))}, "EMAIL_TO"),
        ({"from": "a@b..example"}, "EMAIL_FROM"),
        ({"security": "ssl"}, "EMAIL_SECURITY"),
        ({"port": 0}, "EMAIL_PORT"),
        ({"seconds": 3600}, "EMAIL_SECONDS"),
        ({"events": "delivered,bounced"}, "EMAIL_EVENTS"),
        ({"events": ",,, ,"}, "EMAIL_EVENTS"),
        ({"user": USER}, "EMAIL_PASSWORD"),
        ({"user": USER, "password": PASSWORD}, "EMAIL_SECURITY=none"),
        ({"security": "tls", "caFile": "/nowhere/ca.pem"}, "EMAIL_CA_FILE"),
        ({"security": "tls", "caFile": __file__}, "EMAIL_CA_FILE"),
    ],
)
def test_what_is_set_wrongly_is_refused_by_the_name_of_the_setting(
    mail: MailServer, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises((ConfigError, PluginError), match=said), begun({**mail.settings, **changes}):
        raise AssertionError("it has begun")


def test_what_is_not_set_is_named(mail: MailServer) -> None:
    bare = {key: value for key, value in mail.settings.items() if key not in ("from", "to", "host")}
    with pytest.raises(ConfigError, match=r"EMAIL_HOST is not set.*EMAIL_FROM.*EMAIL_TO"):
        manifest.validated(MANIFEST, bare)


def test_the_port_is_the_usual_one_of_the_way_that_is_chosen(mail: MailServer) -> None:
    settings = {key: value for key, value in mail.settings.items() if key != "port"}
    ports = {}
    for security in ("starttls", "tls", "none"):
        with begun({**settings, "security": security}) as notifier:
            ports[security] = notifier._server.port
    assert ports == {"starttls": 587, "tls": 465, "none": 25}


def test_a_visit_leaves_no_thread_and_no_connection(mail: MailServer) -> None:
    before = threading.active_count()
    for _ in range(3):
        told(mail, Notification(new_id()))
    eventually(lambda: threading.active_count() <= before)
