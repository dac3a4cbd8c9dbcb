"""Every error this transport raises.

.. code-block:: text

    KombuKafkaError
    ├── ConfigurationError          fatal: mend the settings
    │   ├── AuthenticationError     fatal: the brokers don't let this client in
    │   └── UnsupportedError        fatal: the transport does not do this (yet)
    ├── PartitionNotFoundError      fatal: the topic has no such partition
    ├── NotOwnerError               fatal: another process owns what this one would consume
    ├── ConsumerFailedError         fatal: this process must be started anew
    ├── PublishError                this message can't be stored as it is
    │   └── BulkPublishError        some of many messages were not confirmed (in batches.py)
    └── BrokerUnavailableError      recoverable: try again later

Each message is one sentence that says what is wrong, where, and what to do.
"""

from __future__ import annotations

from kafka.errors import (
    AuthorizationError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)
from kombu.exceptions import KombuError

__all__ = (
    "AuthenticationError",
    "BrokerUnavailableError",
    "ConfigurationError",
    "ConsumerFailedError",
    "KombuKafkaError",
    "NotOwnerError",
    "PartitionNotFoundError",
    "PublishError",
    "UnsupportedError",
    "publish_error",
)


class KombuKafkaError(KombuError):
    """Root of all errors of this transport."""


class ConfigurationError(KombuKafkaError):
    """A setting is wrong; trying again can't help."""


class AuthenticationError(ConfigurationError):
    """The brokers don't let this client in: its certificate, its user or what it speaks is wrong."""


class UnsupportedError(ConfigurationError):
    """Something was asked for that this transport does not do."""


class PartitionNotFoundError(KombuKafkaError):
    """A partition was named that the topic does not have."""


class NotOwnerError(KombuKafkaError):
    """Another process owns what this one would consume; starting again would start a duel."""


class ConsumerFailedError(KombuKafkaError):
    """Consuming ended in a way that only a new process is sure to mend."""


class PublishError(KombuKafkaError):
    """The broker refused a message for what it is; the same message will be refused again."""


class BrokerUnavailableError(KombuKafkaError):
    """No broker answered in time; nothing is known to be wrong with the request."""


def publish_error(exc: BaseException, topic: str, partition: int | None) -> KombuKafkaError:
    """Return the error to raise to a publisher for what Kafka's client reported.

    Arguments:
        exc: the client's error.
        topic: where the message was going.
        partition: the partition, or None where the key decides.
    """
    where = topic if partition is None else f"{topic}, partition {partition}"
    if isinstance(exc, MessageSizeTooLargeError | RecordListTooLargeError):
        return PublishError(
            f"The message for {where} is too large: store the data elsewhere and send where it is, "
            f"or raise the topic's max.message.bytes (1 MB by default) and the transport option "
            f"'max_message_bytes' ({exc})."
        )
    # A new producer's first question goes unanswered as a plain error that names the reason.
    if isinstance(exc, AuthorizationError) or "AuthorizationFailedError" in str(exc):
        return PublishError(
            f"This client may not write to {where} ({type(exc).__name__}): grant it the Write "
            f"operation on the topic with kafka-acls.sh."
        )
    if isinstance(exc, UnknownTopicOrPartitionError):
        return PublishError(
            f"The topic {topic} does not exist, and the brokers don't create it: create it with "
            f"kafka-topics.sh --create, or correct the queue's name."
        )
    if isinstance(exc, InvalidTopicError):
        return PublishError(
            f"{topic!r} can't be the name of a Kafka topic: use letters, digits, '.', '_' and '-', "
            f"at most 249 characters."
        )
    if isinstance(exc, NotEnoughReplicasError | NotEnoughReplicasAfterAppendError):
        return BrokerUnavailableError(
            f"Fewer in-sync replicas of {where} than min.insync.replicas asks for: bring the "
            f"missing brokers back (kafka-topics.sh --describe --under-min-isr-partitions)."
        )
    if isinstance(exc, KafkaError):
        return BrokerUnavailableError(
            f"The message for {where} was not confirmed ({exc}): it may or may not be stored; "
            f"check that the brokers are up and have room on their disks, and send it again."
        )
    return PublishError(f"The message for {where} can't be sent: {exc}.")
