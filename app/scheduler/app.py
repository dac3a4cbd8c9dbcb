"""The Celery app of this process: `celery -A scheduler worker`, `scheduler.app:app`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from celery import Celery

from scheduler.factory import create_app
from scheduler.preflight import EX_CONFIG
from scheduler.settings import Settings, SettingsError

__all__ = ["app"]


def _from_environment() -> Celery:
    try:
        return create_app(Settings.from_environ(os.environ))
    except SettingsError as exc:
        command = Path(sys.argv[0])
        if command.name == "celery" or command.parts[-2:] == ("celery", "__main__.py"):
            # Celery's command would print a traceback and call it a usage error.
            print(f"scheduler: {exc}", file=sys.stderr)
            raise SystemExit(EX_CONFIG) from None
        raise


app = _from_environment()
