"""How the `faxbot` command of this installation is called: by the supervisor, and by a person who pastes a hint."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def faxbot_command(*words: str) -> list[str]:
    """The command line of `faxbot words...` in this very installation; the folder we stand in is kept off its path."""
    return [sys.executable, "-P", "-m", "faxbot.cli", *words]


def program() -> str:
    """`faxbot` where the PATH leads to this installation, else the way to it from here: `.venv/bin/faxbot`."""
    ours = Path(sys.executable).with_name("faxbot")
    found = shutil.which("faxbot")
    if not ours.exists() or (found is not None and Path(found).resolve() == ours.resolve()):
        return "faxbot"
    return pasteable_path(ours)


def pasteable(text: str) -> str:
    """A sentence with the commands that it names as `faxbot ...` spelled as they are called from here."""
    return text.replace("`faxbot ", f"`{program()} ")


def pasteable_path(path: Path) -> str:
    """A path as a shell takes it: relative where it lies below the folder we stand in."""
    near = os.path.relpath(path)
    return shlex.quote(str(path.absolute()) if near.startswith("..") else near)


def with_our_folder(environ: dict[str, str]) -> dict[str, str]:
    """`environ` with the folder of this installation's programs first on the PATH."""
    folders = [str(Path(sys.executable).parent), environ.get("PATH") or os.defpath]
    return {**environ, "PATH": os.pathsep.join(folders)}
