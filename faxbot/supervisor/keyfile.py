"""The file with the first API key, as the supervisor and the clients need it; cli/firstkey.py makes and removes it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from faxbot.config import Config


def path(config: Config) -> Path:
    """Where it lies."""
    return config.first_key_file


def read(config: Config) -> str | None:
    """The key that the first start made, while it is there; never in production."""
    if config.production:
        return None
    with suppress(FileNotFoundError):
        return path(config).read_text().strip() or None
    return None


def write_privately(file: Path, text: str) -> None:
    """Put `text` into a file that only its owner can read: whole or not at all, whatever happens meanwhile."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as draft_file:
            draft_file.write(text)
            draft_file.flush()
            os.fsync(draft_file.fileno())
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)
