"""Lacks the class that its entry point names."""

from __future__ import annotations

VALUE = 1
