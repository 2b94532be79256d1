"""The page docs/providers/asterisk.md, done step by step by a stranger who has Debian's own Asterisk: its commands are
run and its lines are written as they stand there, until a fax arrives by a trunk with account and password."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from faxbot.plugins.base import State
from faxbot.providers.asterisk import Asterisk
from tests.ground import Ground, eventually
from tests.providers.asterisk.caller import T38, FaxMachine
from tests.providers.asterisk.ear import Ear, fax, provider
from tests.providers.asterisk.packages import Tree
from tests.providers.asterisk.pages import assert_readable, make_tiff
from tests.providers.asterisk.server import (
    ACCOUNT,
    DEPLOY,
    AsteriskServer,
    FarEnd,
    a_stranger_s_address,
)

SECRET = "what openssl rand -hex 24 says"
ROOT = DEPLOY.parents[1]
PAGE = (ROOT / "docs/providers/asterisk.md").read_text(encoding="utf-8")


def steps() -> dict[int, str]:
    """The page's numbered steps, by number."""
    section = PAGE.partition("## From a bare Asterisk")[2].partition("\n## ")[0]
    parts = re.split(r"^([0-9]+)\. ", section, flags=re.MULTILINE)[1:]
    return dict(zip(map(int, parts[::2]), parts[1::2], strict=True))


def commands(step: str) -> list[str]:
    """The lines of its blocks of commands."""
    return "".join(_blocks(step, "sh")).splitlines()


def additions(step: str) -> list[tuple[str, str]]:
    """Its other blocks: the file to whose end each belongs, and its lines."""
    found = []
    for block in _blocks(step, ""):
        where, lines = block.split("\n", 1)
        assert where.startswith("; at the end of /etc/asterisk/"), where
        found.append((where.split()[-1], f"\n{lines}"))
    return found


def _blocks(step: str, kind: str) -> list[str]:
    found = re.findall(r"^ +```(\w*)\n(.*?)^ +```$", step, re.MULTILINE | re.DOTALL)
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for of, block in found if of == kind]


class DebiansAsterisk(AsteriskServer):
    """With Debian's own /etc/asterisk, in folders, on ports and on a loopback address of its own."""

    def __init__(self, ground: Ground, tree: Tree, far: AsteriskServer) -> None:
        self.address = a_stranger_s_address()
        super().__init__(ground, tree, far=far)

    def path(self, name: str) -> Path:
        """Where that is here which Debian has under this path."""
        return self.folder / name.lstrip("/")

    def change(self, name: str, *changes: tuple[str, str]) -> None:
        """Replace text in a file; AssertionError where it is not there."""
        file = self.path(name)
        text = file.read_text()
        for old, new in changes:
            assert re.search(old, text), f"{name} has no {old}"
            text = re.sub(old, new, text)
        file.write_text(text)

    def append(self, name: str, text: str) -> None:
        with self.path(name).open("a") as file:
            file.write(text)

    def do(self, line: str) -> str:
        """Run a line of the page's; its output, and AssertionError where it fails."""
        if line == "systemctl restart asterisk":
            self.restart()
            return ""
        for name in ("/etc/asterisk", "/var/spool"):
            line = line.replace(f" {name}/", f" {self.path(name)}/")
        line = line.replace("-o faxbot", f"-o {os.getuid()}")
        line = line.replace("-g asterisk", f"-g {os.getgid()}")
        environment = {**self._environment, "PATH": f"{self.path('/bin')}:/usr/bin:/bin"}
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def put_carrier(self) -> None:
        """The carrier's values into the trunk's file, and what keeps its calls on this machine."""
        media = (
            f"media_address = {self.address}\nbind_rtp_to_media_address = yes\n"
            "t38_bind_udptl_to_media_address = yes\n"
        )
        self.change(
            "/etc/asterisk/pjsip_trunk.conf",
            (r"(?<=[@:])sip\.carrier\.example(:5060)?", f"127.0.0.1:{self._far.sip_port}"),
            (r"match = sip\.carrier\.example", "match = 127.0.0.1"),
            ("your-account", ACCOUNT),
            ("your-password", self._far.password),
            (r"bind = 0\.0\.0\.0", f"bind = {self.address}"),
            (r"(?<=aors = trunk\n)", media),
            (r";(?=context = faxbot-receive)", ""),  # step 10
        )
        left = re.findall(r"example|your-", self.path("/etc/asterisk/pjsip_trunk.conf").read_text())
        assert not left, "the page says that there are no more"

    def _configure(self, rtp_timeout: int | None) -> None:
        assert rtp_timeout is None, "it is what the page says"
        shutil.copytree(self.tree.root / "etc/asterisk", self.path("/etc/asterisk"))
        shutil.copytree(self.tree.root / "var", self.path("/var"), symlinks=True)
        for name in ("/var/run/asterisk", "/var/cache"):
            self.path(name).mkdir(parents=True, exist_ok=True)
        self.change(
            "/etc/asterisk/asterisk.conf",
            (r"\[directories\]\(!\)", "[directories]"),
            # Debian's own paths before ours stand there: the packages may lie below /tmp or /var.
            (r"=> /tmp|=> /var/cache", f"=> {self.path('/var/cache')}"),
            (r"=> /(?=(etc|var)/asterisk|var/)", f"=> {self.folder}/"),
            (r"=> /usr/lib\S*", f"=> {self.tree.modules}"),
            (r"=> /usr/share/asterisk", f"=> {self.tree.data}"),
        )
        self.change("/etc/asterisk/manager.conf", ("port = 5038", f"port = {self.port}"))
        # It listens beyond this machine.
        self.append("/etc/asterisk/modules.conf", "noload = chan_iax2.so\n")
        console = self.path("/bin/asterisk")
        console.parent.mkdir()
        console.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, self._command))} "$@"\n')
        console.chmod(0o700)

    @property
    def _command(self) -> list[str | Path]:
        return [*self.tree.command, "-C", self.path("/etc/asterisk/asterisk.conf")]


@pytest.fixture
def debians(
    ground: Ground, asterisk_tree: Tree, asterisk: AsteriskServer
) -> Iterator[DebiansAsterisk]:
    server = DebiansAsterisk(ground, asterisk_tree, far=asterisk)
    yield server
    if server.process is not None:
        server.stop()


def before_the_steps(debians: DebiansAsterisk, page: dict[int, str]) -> None:
    """Debian's Asterisk as it was installed, and what the page says of its modules."""
    (without_sip,) = re.findall(r"`(noload = chan_sip\.so)`", page[2])
    if debians.path("/etc/asterisk/sip.conf").exists():
        debians.append("/etc/asterisk/modules.conf", f"{without_sip}\n")
    debians.start()
    (command,) = re.findall(r"`(asterisk -rx \"[^`]*\")`", page[2])
    listed = re.findall(r"res_fax\w*\.so", debians.do(command))
    assert sorted(listed) == sorted(re.findall(r"`(res_fax\w*\.so)`", page[2]))
    received = debians.path("/var/spool/faxbot-received")
    debians.append("/etc/asterisk/extensions.conf", f"\n[globals](+)\nFAXIN_FOLDER={received}\n")


def walk(debians: DebiansAsterisk, page: dict[int, str]) -> dict[str, str]:
    """All steps, and what each of their commands has said."""
    said = {}
    for step in page.values():
        for file, lines in additions(step):
            debians.append(file, lines.replace(SECRET, debians.password))
        for line in commands(step):
            said[line] = debians.do(line)
            if "pjsip_trunk" in line:
                debians.put_carrier()
    return said


@pytest.mark.waits
def test_the_page_leads_from_debian_s_asterisk_to_a_fax(debians: DebiansAsterisk) -> None:
    page = steps()
    before_the_steps(debians, page)
    said = walk(debians, page)

    assert "SendFAX" in said['asterisk -rx "dialplan show faxbot-send"']
    assert "originate" in said['asterisk -rx "manager show user faxbot"']
    for setting in (r"rtp_timeout +: 60", r"t38_udptl +: true", r"allow +: \(ulaw\|alaw\)"):
        assert re.search(setting, said['asterisk -rx "pjsip show endpoint trunk"'])
    folder = debians.path("/var/spool/faxbot")
    this = provider(
        port=debians.port, password=debians.password, folder=folder, stationId="+1 555 000 1111"
    )
    health = this.health()
    assert health.ok, health.detail
    assert health.detail == "Asterisk has all that a fax needs."
    eventually(
        lambda: "Registered" in debians.do('asterisk -rx "pjsip show registrations"'), 30, 0.5
    )
    sent = make_tiff(debians.documents / "to-us.tif")
    number = FarEnd.US.line(41)
    with Ear(this) as ear:
        FaxMachine(debians._far, number, sent, T38, caller="+15550001234", trunk="carrier")
        arrives(this, debians)
        arrival = ear.came(number)
    assert (arrival.cause, arrival.pages, arrival.sender.reveal()) == (None, 1, "+15550001234")
    with (debians.documents / "to-us-received.tif").open("wb") as file:
        this.document(arrival.external_id, file)
    assert_readable(sent, debians.documents / "to-us-received.tif")
    logs = [each for each in debians.path("/var/log/asterisk").rglob("*") if each.is_file()]
    assert "Master.csv" in [each.name for each in logs]
    for each in logs:
        text = each.read_bytes()
        for number in (FarEnd.FAX.line(40)[2:8], FarEnd.US.line(41)[2:8], "50001234"):
            assert number.encode() not in text, f"{each.name} has a number"


def arrives(this: Asterisk, debians: DebiansAsterisk) -> None:
    """A page by G.711, and one by T.38."""
    document = make_tiff(debians.documents / "page.tif")
    ways = {"audio": (FarEnd.FAX.line(40), 1), "T38": (FarEnd.FAX_T38.line(40), 0)}
    with Ear(this) as ear:
        faxes = {
            mode: fax(number, document, step=step, header="Acme")
            for mode, (number, step) in ways.items()
        }
        for each in faxes.values():
            this.send(each)
        for mode, each in faxes.items():
            end = ear.end(each.tag, 90)
            assert (end.state, end.pages_sent) == (State.DELIVERED, 1), end.cause
            received = debians.heard(each.to.reveal())
            assert received.mode == mode
            if mode == "T38":  # as sound, what a busy machine spoils of it is not said again
                assert received.station == "+1 555 000 1111"
            assert received.caller == "15555550100", "the trunk's from_user"
            assert_readable(document, received.path)
