"""Celery's rooms: the app with its settings and beat table, and tasks whose bodies are one call
each."""
