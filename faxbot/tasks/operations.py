"""The Celery app for Celery's own tools, which look for one in a module: the health check of a worker.

    celery --app faxbot.tasks.operations inspect ping

The product makes its apps itself, with a configuration (tasks/app.py); nothing of it imports this module.
"""

from __future__ import annotations

from faxbot.config import Config
from faxbot.tasks.app import celery_app

app = celery_app(Config.load())
