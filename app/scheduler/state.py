"""Where a worker keeps what must outlive it: its journal, and what it is working on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from celery.utils.log import get_logger

from scheduler.settings import Settings

__all__ = ["own_state_directory"]

logger = get_logger(__name__)


def own_state_directory(
    settings: Settings, worker: str, environ: Mapping[str, str] = os.environ
) -> str | None:
    """Return a directory for a worker that was given none: its group's, brokers', name's and partitions'.

    A worker's next life finds it there, so that what it did is not done again, and what takes it
    down is counted. systemd gives a unit its own (STATE_DIRECTORY).

    Args:
        settings: What it consumes.
        worker: Its name; no two workers of a group and of the same partitions have the same.
        environ: Its environment.

    Returns:
        None, with a warning, where none can be made.
    """
    home = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or "~", ".local", "state")
    brokers = crc32(settings.broker_url.rpartition("@")[2].encode())
    # Workers that are bound to partitions may all have Celery's default name.
    bound = "" if settings.partitions is None else "-" + ",".join(map(str, settings.partitions))
    names = (f"{settings.group_id}-{brokers:08x}", worker + bound)
    path = Path(home, "kombu-kafka", *(re.sub(r"[^A-Za-z0-9.,_@-]", "-", name) for name in names))
    try:
        path.expanduser().mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as exc:  # it has no home, or not one that it may write to
        logger.warning(
            "This worker has no state directory (%s): if it is killed, what it did since the last "
            "commit runs again, and a task that takes it down each time is not given up; set "
            "STATE_DIRECTORY to a directory of its own.", exc,
        )  # fmt: skip
        return None
    return str(path.expanduser())
