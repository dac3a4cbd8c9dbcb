"""`scheduler dlq` with all its commands."""

from __future__ import annotations

from scheduler.dlq.cli import dlq
from scheduler.dlq.cli_acts import COMMANDS

__all__ = ["dlq"]

for command in COMMANDS:
    dlq.add_command(command)
