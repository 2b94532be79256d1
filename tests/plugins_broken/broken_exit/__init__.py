"""Wants to end the process that imports it."""

from __future__ import annotations

import sys

sys.exit("a plugin has no say in this")
