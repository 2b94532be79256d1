"""A stand-in carrier as a real process for tests: started on a free port, killed, started again on
the same ledger."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.ground import BUSY

_PROGRAM = """
import json, sys
from importlib import import_module
from pathlib import Path
from faxbot.lifeline import die_with_parent
name, parent, ledger, options = json.loads(sys.argv[1])
die_with_parent(parent)
import_module(f"faxbot.carriers.{name}").serve(ledger_path=Path(ledger), **options)
"""


class CarrierProcess:
    """`faxbot carrier <name>`, as a context manager; its ledger lies in `folder`, `options` are
    those of its serve()."""

    def __init__(self, name: str, folder: Path, options: Mapping[str, Any]) -> None:
        self.ledger_path = folder / f"{name}.db"
        self._name = name
        self._options = dict(options)
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.end(signal.SIGTERM)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the port it had before if it had one; returns when it listens."""
        options = {**self._options, "host": "127.0.0.1", "port": self._port}
        words = json.dumps([self._name, os.getpid(), str(self.ledger_path), options])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, words], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(20 * BUSY):
                self.end(signal.SIGKILL)
                raise TimeoutError("the carrier did not start")
        line = self._process.stdout.readline()
        if "listening on" not in line:
            raise RuntimeError(f"the carrier ended with {self.end(signal.SIGKILL)}")
        self._port = int(line.rsplit(":", 1)[1])

    def end(self, number: signal.Signals) -> int:
        """Send it a signal and wait; gives its exit status."""
        process, self._process = self._process, None
        assert process is not None
        assert process.stdout is not None
        process.send_signal(number)
        try:
            return process.wait(10 * BUSY)
        finally:
            process.kill()
            process.stdout.close()


class SimulatorProcess(CarrierProcess):
    """`faxbot carrier simulator`.

    Times are as short as they can be unless given: `page_seconds=0` ends a call at once, without
    progress.
    """

    def __init__(self, folder: Path, *, secret: str = "test-secret", **options: float) -> None:
        self.secret = secret
        times = {"page_seconds": 0, "late_seconds": 0.5, **options}
        super().__init__("simulator", folder, {"secret": secret, **times})

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead the provider to this carrier."""
        return {"SIMULATOR_BASE_URL": self.url, "SIMULATOR_SECRET": self.secret}

    def get(self, path: str) -> Any:
        """What it answers to GET, as JSON; raises urllib.error.HTTPError for anything but 2xx."""
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"Bearer {self.secret}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def has_document(self, fax_id: str) -> bool:
        """Whether it still has the document of a fax that came in; raises urllib.error.HTTPError."""
        request = urllib.request.Request(
            f"{self.url}/v1/faxes/{fax_id}/file", headers={"Authorization": f"Bearer {self.secret}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10):
                return True
        except urllib.error.HTTPError as error:
            if error.code != 410:
                raise
            error.close()
            return False

    def receive(self, caller: str, told_at: str, **wish: Any) -> dict[str, Any]:
        """Have a fax come in from a number with this ending, and the address `told_at` be told:
        its `id` and `sha256`. `to`, `pages`, `file` (base64) or `bytes` if wished; raises
        urllib.error.HTTPError."""
        asked = {"from": f"+1555010{caller}", "to": "+15550109876", "callback_url": told_at}
        request = urllib.request.Request(
            f"{self.url}/control/receive",
            json.dumps({**asked, **wish}).encode(),
            {"Authorization": f"Bearer {self.secret}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: dict[str, Any] = json.loads(answer.read())
        return content

    def faxes(self, tag: str | None = None) -> list[dict[str, Any]]:
        """The ledger's entries, oldest first."""
        entries: list[dict[str, Any]] = self.get("/v1/ledger" + (f"?tag={tag}" if tag else ""))[
            "faxes"
        ]
        return entries

    def counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = self.get("/v1/ledger")["counts"]
        return counts
