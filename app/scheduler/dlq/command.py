"""`scheduler dlq` with all its commands."""

from __future__ import annotations

from scheduler.dlq.cli import dlq
from scheduler.dlq.cli_acts import COMMANDS as ACTS
from scheduler.dlq.cli_web import COMMANDS as WEB

__all__ = ["dlq"]

for command in (*ACTS, *WEB):
    dlq.add_command(command)
