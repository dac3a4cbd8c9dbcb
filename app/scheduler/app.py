"""The Celery app of this process: `celery -A scheduler worker`, `scheduler.app:app`."""

from __future__ import annotations

import os

from celery import Celery

from scheduler.factory import create_app
from scheduler.preflight import EX_CONFIG, end, is_celery_command
from scheduler.settings import Settings, SettingsError

__all__ = ["app"]


def _from_environment() -> Celery:
    try:
        return create_app(Settings.from_environ(os.environ))
    except SettingsError as exc:
        if is_celery_command():
            end(str(exc), EX_CONFIG)
        raise


app = _from_environment()
