"""Notification plugins: by which people are told what happened, each a package with its manifest."""
