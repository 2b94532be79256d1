"""A simulator carrier as a real process for tests: started on a free port, killed, started again on
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
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_PROGRAM = """
import json, sys
from pathlib import Path
from faxbot.carriers.simulator import serve
from faxbot.lifeline import die_with_parent
options = json.loads(sys.argv[1])
die_with_parent(options.pop("parent"))
host, port, ledger, secret = (options.pop(name) for name in ("host", "port", "ledger", "secret"))
serve(host, port, Path(ledger), secret, **options)
"""


class SimulatorProcess:
    """`faxbot carrier simulator`, as a context manager; its ledger lies in `folder`.

    Times are as short as they can be unless given: `page_seconds=0` ends a call at once, without
    progress.
    """

    def __init__(self, folder: Path, *, secret: str = "test-secret", **options: float) -> None:
        self.secret = secret
        self.ledger_path = folder / "simulator.db"
        self._options = {"page_seconds": 0, "late_seconds": 0.5, **options}
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

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead the provider to this carrier."""
        return {"SIMULATOR_BASE_URL": self.url, "SIMULATOR_SECRET": self.secret}

    def start(self) -> None:
        """Start it, on the port it had before if it had one; returns when it listens."""
        options = {
            "host": "127.0.0.1",
            "port": self._port,
            "ledger": str(self.ledger_path),
            "secret": self.secret,
            "parent": os.getpid(),
            **self._options,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(options)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(20):
                self.end(signal.SIGKILL)
                raise TimeoutError("the carrier did not start within 20 s")
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
            return process.wait(10)
        finally:
            process.kill()
            process.stdout.close()

    def get(self, path: str) -> Any:
        """What it answers to GET, as JSON; raises urllib.error.HTTPError for anything but 2xx."""
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"Bearer {self.secret}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def faxes(self, tag: str | None = None) -> list[dict[str, Any]]:
        """The ledger's entries, oldest first."""
        entries: list[dict[str, Any]] = self.get("/v1/ledger" + (f"?tag={tag}" if tag else ""))[
            "faxes"
        ]
        return entries

    def counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = self.get("/v1/ledger")["counts"]
        return counts
