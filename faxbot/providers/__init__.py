"""Plugins that speak to carriers, and what they share: the way out over HTTP."""
