"""What the plugins beside it wait for, and what is counted of them."""

from __future__ import annotations

import threading

gate = threading.Event()
begun: list[str] = []
stopped: list[str] = []
