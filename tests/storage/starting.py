"""The plugin as core starts it; apart, because processes that tests begin need nothing else."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faxbot.plugins import manifest
from faxbot.plugins.base import Context
from faxbot.providers.http import HttpClient
from faxbot.storage import s3

KEY = "2026/11/20/0190f3c2"
MANIFEST = manifest.read(Path(s3.__file__).with_name("manifest.json"))


def storage_with(settings: Mapping[str, Any]) -> s3.S3Storage:
    """One that is set so."""
    config = manifest.validated(MANIFEST, settings)
    context = Context(logging.getLogger("test"), lambda: datetime.now(UTC), HttpClient([]))
    storage = s3.S3Storage()
    storage.initialize(config, context)
    return storage
