"""Needs a package that nobody has."""

from __future__ import annotations

import a_package_that_nobody_has  # type: ignore[import-not-found]

Plugin = a_package_that_nobody_has.Plugin
