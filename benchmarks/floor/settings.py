"""What one floor is told by its starter, as a JSON file whose path is its only argument."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

SHARED_WITH_CARRIER = "shared with the carrier"
"""What faxbot, the floor and their carriers sign with; all ends are ours."""


@dataclass(frozen=True)
class Settings:
    """One floor; `publish` is `lpush` (one bare LPUSH) or `celery` (a task for the floor's worker)."""

    database: str
    """postgresql://... or the path of an SQLite file."""
    redis: str
    files: str
    """Folder of the documents."""
    publish: str = "lpush"
    api_url: str = ""
    carrier_url: str = ""
    api_key: str = "fbk_live_floor_0123456789abcdef0123456789abcdef"
    hash_key: str = "hashes API keys"
    carrier_secret: str = SHARED_WITH_CARRIER
    processes: int = 2
    """Web processes, and sending processes of the worker."""
    threads: int = 4

    def save(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: str) -> Settings:
        return cls(**json.loads(Path(path).read_text()))
