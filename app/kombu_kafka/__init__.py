"""Apache Kafka as a broker for kombu and Celery.

Importing this package makes ``kafka://`` URLs mean :class:`kombu_kafka.transport.Transport`, and has
Kafka's client log warnings and errors alone, unless the level of its logger, ``kafka``, is set.
"""

from __future__ import annotations

from kombu import transport as _kombu_transport

from .clients.logs import quieten as _quieten
from .failover import teach_kombu as _teach_kombu
from .publishing.batches import BulkPublishError, bulk

__all__ = ("TRANSPORT", "BulkPublishError", "bulk", "register")

#: The transport class, as kombu names it.
TRANSPORT = "kombu_kafka.transport:Transport"


def register() -> None:
    """Make ``kafka://`` mean this transport; kombu's own alias is its confluent-kafka one."""
    _kombu_transport.TRANSPORT_ALIASES["kafka"] = TRANSPORT
    _kombu_transport._transport_cache.pop("kafka", None)
    _teach_kombu()


register()
_quieten()
