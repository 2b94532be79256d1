"""The schema's history; installed as faxbot.migrations and run by `faxbot db upgrade`."""
