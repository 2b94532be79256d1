"""Plugins that keep documents."""
