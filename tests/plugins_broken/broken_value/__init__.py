"""Refused by its manifest: importing it is the fault this package is there to find."""

raise AssertionError("code of a refused plugin ran")
