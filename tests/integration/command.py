"""The `faxbot` command, run by a test in an installation: in this process or as one of its own."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faxbot import cli
from tests.ground import ENVIRONMENT
from tests.installation import FAXBOT, Installation

ID = "0" * 31 + "1"
UNFORESEEN = "a fault of its own"
"""What a command says of an exception that it does not know."""
_PASTED = shlex.quote(str(FAXBOT))
CALLED = "/quoted/faxbot" if str(FAXBOT) != _PASTED else _PASTED
"""How hints call the command; in the place of a path that a shell takes in quotes only."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(installation: Installation, changes: dict[str, str]) -> dict[str, str]:
    return {**installation.env, **changes}


class Heard(io.StringIO):
    """An output that hands on what is written, as it is written."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__()
        self._hear = hear

    def write(self, text: str) -> int:
        self._hear(text)
        return super().write(text)


def run(installation: Installation, *words: str | Path, **changes: str) -> Ended:
    """`faxbot words...` in the installation, with `changes` to its environment; in this process, which saves half a
    second of imports each time."""
    return run_heard(installation, lambda _: None, *words, **changes)


def run_heard(
    installation: Installation, hear: Callable[[str], None], *words: str | Path, **changes: str
) -> Ended:
    """The same; `hear` is given its errors as they come."""
    env = environment(installation, changes)
    out, err = io.StringIO(), Heard(hear)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name in set(ENVIRONMENT) - set(env):
            patch.delenv(name)
        for name, value in env.items():
            patch.setenv(name, value)
        patch.chdir(installation.folder)
        code = cli.run([str(word) for word in words])
    return Ended(code, *(text.getvalue().replace(_PASTED, CALLED) for text in (out, err)))


def run_process(installation: Installation, *words: str, **changes: str) -> Ended:
    """The same as a process of its own."""
    done = subprocess.run(
        [FAXBOT, *words],
        env=environment(installation, changes),
        cwd=installation.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def one_line(error: str) -> str:
    """The line an error consists of; fails on a second line, on a traceback and on what nobody foresaw."""
    assert "Traceback" not in error, error
    assert UNFORESEEN not in error, error
    (line,) = error.splitlines()
    return line


def first_key(installation: Installation) -> Path:
    return installation.data_dir / "first-api-key"
