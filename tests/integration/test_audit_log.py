"""The audit trail written on: every row that is chained gets to the file, the syslog or the worker's standard error
that was asked for, once where nothing breaks, again where something does, and never not at all."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import alarms, auditlog, auditors, chain, doctor, wiring
from faxbot.auditors import Filters
from faxbot.db import table, utcnow
from faxbot.errors import ConfigError
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import AuditSink
from faxbot.runtime import Runtime
from tests import certificates
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.clock import Clock
from tests.integration.syslogs import Syslog, datagrams, stream
from tests.integration.test_audit_chain import linked, write

ON = {"AUDIT_LOG_ENABLED": "true"}


@contextmanager
def opened(store: Installation, **environ: str) -> Iterator[tuple[Runtime, Clock]]:
    clock = Clock(utcnow())
    with closing(wiring.build(store.config(**ON, **environ))) as runtime:
        yield replace(runtime, now=clock), clock


def to_file(file: Path) -> dict[str, str]:
    return {"AUDIT_LOG_FILE": str(file)}


def to_syslog(address: str) -> dict[str, str]:
    return {"AUDIT_LOG_SYSLOG": "true", "AUDIT_LOG_SYSLOG_ADDRESS": address}


def positions(lines: list[str]) -> list[int]:
    return [json.loads(line)["position"] for line in lines]


def test_each_row_is_one_line_and_says_what_an_export_says(
    store: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "audit.log"
    with opened(store, **to_file(file)) as (runtime, _):
        linked(runtime, 3)
        write(runtime)  # has no link yet
        assert auditlog.write_on(runtime) == 3
        exported = list(auditors.rows(runtime, DEFAULT_ACCOUNT, Filters()))[:3]
        lines = file.read_text().splitlines()
        assert [json.loads(line) for line in lines] == [
            {"account_id": DEFAULT_ACCOUNT, **row} for row in exported
        ]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

        assert auditlog.write_on(runtime) == 0, "nothing is written twice"
        chain.link(runtime)
        assert auditlog.write_on(runtime) == 1
        assert positions(file.read_text().splitlines()) == [1, 2, 3, 4]


def test_what_happened_while_it_was_off_is_written_when_it_is_on(
    store: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "audit.log"
    with closing(wiring.build(store.config(**to_file(file)))) as runtime:
        linked(runtime, 2)
        auditlog.write_on(runtime)
        assert not file.exists()
    with opened(store, **to_file(file)) as (runtime, _):
        auditlog.write_on(runtime)
    assert positions(file.read_text().splitlines()) == [1, 2]


def test_as_text_a_row_is_a_line_of_words_however_odd_its_values_are(
    store: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "audit.log"
    with opened(store, **to_file(file), AUDIT_LOG_FORMAT="text") as (runtime, _):
        write(runtime, name='a "b"\nc=d', details={"names": ["x y", "é"]}, outcome="refused")
        chain.link(runtime)
        auditlog.write_on(runtime)
    (line,) = file.read_text().splitlines()
    assert line.startswith("account_id=default id=1 happened_at=20")
    assert " action=key.created object_kind=key " in line
    assert r' object_id="a \"b\"\nc=d" outcome=refused ' in line
    assert r' details="{\"names\": [\"x y\", \"\\u00e9\"]}" position=1 mac=' in line


def test_a_file_that_was_moved_away_begins_anew_and_one_that_ends_in_the_middle_of_a_line_goes_on_behind_it(
    store: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "audit.log"
    with opened(store, **to_file(file)) as (runtime, _):
        linked(runtime, 1)
        auditlog.write_on(runtime)
        file.rename(tmp_path / "audit.log.1")
        linked(runtime, 1)
        auditlog.write_on(runtime)
        assert positions(file.read_text().splitlines()) == [2]

        file.write_text('{"cut o')
        linked(runtime, 1)
        auditlog.write_on(runtime)
        cut, whole = file.read_text().splitlines()
        assert cut == '{"cut o'
        assert positions([whole]) == [3]


@pytest.fixture(params=["socket", "udp", "tcp", "tls"])
def syslog(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Syslog]:
    with ExitStack() as stack:
        if request.param == "socket":
            yield stack.enter_context(datagrams(tmp_path / "log"))
        elif request.param == "udp":
            yield stack.enter_context(datagrams())
        elif request.param == "tcp":
            yield stack.enter_context(stream())
        else:
            trusted = certificates.certificate(tmp_path / "syslog.pem", "localhost")
            context = certificates.serving(trusted)
            monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
            yield stack.enter_context(stream(context, "localhost"))


def test_a_syslog_gets_each_row_with_how_grave_it_is(store: Installation, syslog: Syslog) -> None:
    with opened(store, **to_syslog(syslog.address)) as (runtime, _):
        write(runtime)
        write(runtime, outcome="refused")
        chain.link(runtime)
        assert auditlog.write_on(runtime) == 2
        eventually(lambda: len(syslog.messages) == 2, 10)
        assert positions(syslog.texts()) == [1, 2]
        assert syslog.priorities() == [13 * 8 + 5, 13 * 8 + 4], "log audit: notice, warning"


def test_without_a_file_or_syslog_it_is_on_standard_error_whatever_is_logged(
    store: Installation, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.disable(logging.CRITICAL)
    try:
        with opened(store) as (runtime, _):
            linked(runtime, 2)
            capfd.readouterr()
            auditlog.write_on(runtime)
    finally:
        logging.disable(logging.NOTSET)
    assert positions(capfd.readouterr().err.splitlines()) == [1, 2]


def test_a_log_that_takes_nothing_is_said_left_alone_for_a_while_and_caught_up_with(
    store: Installation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "away" / "audit.log"
    with opened(store, **to_file(file)) as (runtime, clock):
        linked(runtime, 2)
        assert auditlog.write_on(runtime) == 0
        (said,) = [each for each in caplog.records if each.message == "audit log not written"]
        assert (said.log, said.error) == ("file", "ENOENT")  # type: ignore[attr-defined]
        assert str(file) not in caplog.text

        file.parent.mkdir()
        clock.pass_by(seconds=29)
        assert auditlog.write_on(runtime) == 0
        clock.pass_by(seconds=1)
        assert auditlog.write_on(runtime) == 2
    assert positions(file.read_text().splitlines()) == [1, 2]


def test_one_log_that_takes_nothing_does_not_keep_the_other_from_its_rows(
    store: Installation, tmp_path: Path
) -> None:
    with datagrams(tmp_path / "log") as syslog:
        places = {**to_file(tmp_path / "away" / "audit.log"), **to_syslog(syslog.address)}
        with opened(store, **places) as (runtime, _):
            linked(runtime, 1)
            assert auditlog.write_on(runtime) == 1
            eventually(lambda: len(syslog.messages) == 1, 10)


def broken_off(_syslog: Syslog, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def nobody() -> str:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


TROUBLE: dict[str, tuple[Callable[[Path], str], str]] = {
    "no socket": (lambda path: str(path / "none"), "ENOENT"),
    "a file for a socket": (lambda path: str(_made(path / "file")), "ECONNREFUSED"),
    "nobody at the port": (lambda _: f"tcp://{nobody()}", "ECONNREFUSED"),
    "nobody at the datagrams' port": (lambda _: f"udp://{nobody()}", "ECONNREFUSED"),
    "a name that none can have": (lambda _: f"tcp://{'x' * 64}.example:514", "UnicodeError"),
    "an unknown name": (lambda _: "tcp://nowhere.invalid:514", "gaierror"),
}


def _made(file: Path) -> Path:
    file.touch()
    return file


@pytest.mark.parametrize("kind", TROUBLE)
def test_a_syslog_that_is_not_there_is_named_by_its_kind_and_gets_everything_later(
    store: Installation, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    address, error = TROUBLE[kind]
    with opened(store, **to_syslog(address(tmp_path))) as (runtime, _):
        linked(runtime, 2)
        auditlog.write_on(runtime)
        (said,) = [each for each in caplog.records if each.message == "audit log not written"]
        assert said.error == error  # type: ignore[attr-defined]
    with stream() as syslog, opened(store, **to_syslog(syslog.address)) as (runtime, clock):
        clock.pass_by(minutes=1)
        assert auditlog.write_on(runtime) == 2
        eventually(lambda: positions(syslog.texts()) == [1, 2], 10)


def test_a_connection_that_breaks_off_at_the_end_has_the_rows_sent_again(
    store: Installation,
) -> None:
    with stream(heard=broken_off) as syslog, opened(store, **to_syslog(syslog.address)) as opening:
        runtime, clock = opening
        linked(runtime, 2)
        assert auditlog.write_on(runtime) == 0
        clock.pass_by(minutes=1)
        auditlog.write_on(runtime)
        eventually(lambda: positions(syslog.texts()) == [1, 2, 1, 2], 10)


def test_a_connection_that_was_ended_before_everything_was_sent_has_it_sent_again(
    store: Installation,
) -> None:
    """As of a proxy whose syslog is down: it takes bytes and nobody reads them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: listening.accept()[0].close(), daemon=True)
        thread.start()
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        with opened(store, **to_syslog(address)) as (runtime, _):
            linked(runtime, 1)
            assert auditlog.write_on(runtime) == 0
        thread.join(10)


def test_a_server_that_wants_a_certificate_of_ours_refuses_which_is_said(
    store: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trusted = certificates.certificate(tmp_path / "syslog.pem", "localhost")
    context = certificates.serving(trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(trusted)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with stream(context, "localhost") as syslog:
        with opened(store, **to_syslog(syslog.address)) as (runtime, _):
            linked(runtime, 1)
            assert auditlog.write_on(runtime) == 0
        assert syslog.messages == []
        assert [each for each in caplog.records if each.message == "audit log not written"]


def test_a_server_whose_certificate_is_not_trusted_gets_nothing(
    store: Installation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = certificates.serving(certificates.certificate(tmp_path / "syslog.pem", "localhost"))
    with stream(context, "localhost") as syslog:
        with opened(store, **to_syslog(syslog.address)) as (runtime, _):
            linked(runtime, 1)
            assert auditlog.write_on(runtime) == 0
        assert syslog.messages == []
        assert "SSLCertVerificationError" in [getattr(each, "error", "") for each in caplog.records]


KILLED = """
from faxbot import auditlog, wiring
from faxbot.config import Config
auditlog.write_on(wiring.build(Config.load()))
"""


def test_a_process_that_dies_between_sending_and_noting_has_the_rows_sent_again_by_the_next(
    store: Installation,
) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def kill(syslog: Syslog, _: socket.socket) -> None:
        """It waits for the end of the connection, and has noted nothing."""
        if len(syslog.messages) == 2:
            processes[0].send_signal(signal.SIGKILL)
            processes[0].wait(10)

    with stream(heard=kill) as syslog:
        with opened(store, **to_syslog(syslog.address)) as (runtime, _):
            linked(runtime, 2)
        environ = {**store.env, **ON, **to_syslog(syslog.address), "PYTHONPATH": str(Path.cwd())}
        processes.append(subprocess.Popen([sys.executable, "-c", KILLED], env=environ))
        assert processes[0].wait(30) == -signal.SIGKILL
        with opened(store, **to_syslog(syslog.address)) as (runtime, clock):
            assert auditlog.write_on(runtime) == 0, "the dead one's claim lasts for a minute"
            clock.pass_by(minutes=1)
            assert auditlog.write_on(runtime) == 2
        eventually(lambda: positions(syslog.texts()) == [1, 2, 1, 2], 10)


def test_while_one_process_writes_another_leaves_it_alone(store: Installation) -> None:
    others: list[int] = []

    def meanwhile(_syslog: Syslog, _connection: socket.socket) -> None:
        with closing(wiring.build(store.config(**ON, **to_syslog(_syslog.address)))) as other:
            others.append(auditlog.write_on(other))

    with stream(heard=meanwhile) as syslog, opened(store, **to_syslog(syslog.address)) as opening:
        linked(opening[0], 3)
        assert auditlog.write_on(opening[0]) == 3
        assert others == [0]
        assert positions(syslog.texts()) == [1, 2, 3]


def test_a_long_trail_is_written_in_parts_and_whole(
    store: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "audit.log"
    monkeypatch.setattr(auditlog, "MOST", auditlog.BATCH * 2)
    with opened(store, **to_file(file)) as (runtime, _):
        linked(runtime, auditlog.BATCH * 2 + 7)
        assert [auditlog.write_on(runtime) for _ in range(3)] == [auditlog.BATCH * 2, 7, 0]
    assert positions(file.read_text().splitlines()) == [*range(1, auditlog.BATCH * 2 + 8)]


def test_a_pipe_that_nobody_reads_holds_no_sweep(store: Installation, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with opened(store, **to_file(pipe)) as (runtime, _):
        linked(runtime, 1)
        assert auditlog.write_on(runtime) == 0


def test_rows_that_wait_too_long_raise_an_alarm_and_the_doctor_names_the_setting(
    store: Installation, tmp_path: Path
) -> None:
    with opened(store, **to_file(tmp_path / "away" / "audit.log")) as (runtime, clock):
        linked(runtime, 1)
        clock.pass_by(minutes=2)
        auditlog.write_on(runtime)
        assert not found(runtime).sentence.startswith("nothing")
        clock.pass_by(seconds=1)
        assert (found(runtime).ok, found(runtime).setting) == (False, "AUDIT_LOG_FILE")
        assert alarms.raised(runtime) == []
        clock.pass_by(hours=1)
        (alarm,) = alarms.raised(runtime)
        assert (alarm.code, alarm.count) == ("audit_log", 1)

        (tmp_path / "away").mkdir()
        auditlog.write_on(runtime)
        assert alarms.raised(runtime) == []
        assert found(runtime).ok


def found(runtime: Runtime) -> Any:
    (finding,) = [
        each for each in doctor.examine(runtime.config, runtime) if each.name == "audit log"
    ]
    return finding


def test_where_it_is_not_wanted_it_asks_the_database_nothing(store: Installation) -> None:
    with closing(wiring.build(store.config())) as runtime:
        linked(runtime, 1)
        assert auditlog.write_on(runtime) == 0
        assert alarms.raised(runtime) == []
        rows = runtime.database.rows(sa.select(table(AuditSink)), {})
        assert list(rows) == []


@pytest.mark.parametrize(
    "address",
    [
        "logs.example.org:514",
        "http://logs.example.org",
        "udp://",
        "tcp://h:99999",
        "tls://h/x",
        "/",
    ],
)
def test_an_address_that_is_none_is_refused_and_the_setting_named(
    embedded: Installation, address: str
) -> None:
    with pytest.raises(ConfigError, match="AUDIT_LOG_SYSLOG_ADDRESS must be") as refused:
        embedded.config(AUDIT_LOG_SYSLOG_ADDRESS=address)
    assert len(address) < 7 or address not in refused.value.detail
