"""Raises what is no Exception, as code of asyncio does that is cancelled."""

from __future__ import annotations

import asyncio

raise asyncio.CancelledError("a plugin has no say in this")
