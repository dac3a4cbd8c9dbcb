"""What Kafka's client writes into its user's log: nothing that means nothing to him."""

from __future__ import annotations

import logging

__all__ = ("quieten", "told")

#: Topics that this process has said are missing: Kafka's client needn't say so again and again.
told: set[str] = set()


class _Told(logging.Filter):
    """Takes out what this process has said itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        named = record.args if isinstance(record.args, tuple) else ()
        return not (str(record.msg).startswith("Topic %s not found") and told.intersection(named))


class _SlowSteps(logging.Filter):
    """Takes out the warning that a step of the client's network thread took 0.1 seconds.

    A large answer takes so long to parse, and anything does on a machine that is busy: the
    client's limits are seconds, and there is nothing to be done about it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "blocking the event loop" not in str(record.msg)


class _Retries(logging.Filter):
    """Takes out the warning that messages are sent again, as to a topic that was just made.

    If that does not help, who published them and waits for the confirmation is told.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        return not ("Got error produce response" in message and ", retrying" in message)


_told, _slow_steps, _retries = _Told(), _SlowSteps(), _Retries()


def quieten() -> None:
    """Have Kafka's client tell warnings and errors alone, unless its level was set already.

    At INFO it tells of every connection and every look at its topics.
    """
    logger = logging.getLogger("kafka")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
    logging.getLogger("kafka.cluster").addFilter(_told)
    logging.getLogger("kafka.net.selector").addFilter(_slow_steps)
    logging.getLogger("kafka.producer.sender").addFilter(_retries)
