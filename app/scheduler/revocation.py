"""The remote control commands `revoke` and `terminate` also reach tasks that wait in Kafka."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery.utils.log import get_logger
from celery.worker.control import Panel
from kombu.utils.functional import maybe_list

from kombu_kafka.delay import revoked
from kombu_kafka.errors import KombuKafkaError

__all__ = ["remember_revoked"]

logger = get_logger(__name__)

#: The name of the ids in each command that revokes by id.
_COMMANDS = {"revoke": "task_id", "terminate": "task_id"}


def remember_revoked() -> None:
    """Have the worker's commands write the ids to Kafka, besides what Celery makes of them.

    Celery keeps them in memory: 50,000 for three hours, and none over a restart of all workers.
    """
    for name in _COMMANDS:
        command = Panel.data[name]
        if not getattr(command, "remembers", False):
            Panel.data[name] = _remembering(command)


def _remembering(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def revoke(state: Any, task_id: Any, *args: Any, **kwargs: Any) -> Any:
        reply = command(state, *args, task_id=task_id, **kwargs)
        fault = _remember(state, [str(one) for one in maybe_list(task_id) or ()])
        return {"error": fault} if fault else reply

    revoke.remembers = True  # type: ignore[attr-defined]
    return revoke


def _remember(state: Any, ids: list[str]) -> str | None:
    """Write ids; return what went wrong, if something did."""
    transport = state.consumer.connection.transport
    if transport.driver_type != "kafka" or transport.options.delay_topic is None:
        return None
    try:
        revoked.revoke(transport.options, ids)
    except KombuKafkaError as exc:
        fault = f"The tasks are revoked here, but not where they may wait in Kafka: {exc}"
        logger.error("%s", fault)
        return fault
    return None
