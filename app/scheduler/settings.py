"""What the environment says about this process, checked: one clear sentence for each fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kombu_kafka.errors import ConfigurationError
from kombu_kafka.options import Options
from kombu_kafka.url import parse

__all__ = ["ORDERINGS", "Settings", "SettingsError"]

#: What may be kept in order: a whole partition, the tasks of one key, nothing.
ORDERINGS = ("partition", "key", "none")

#: The topic tasks go to where the broker URL names none.
DEFAULT_TOPIC = "tasks"


#: Variables that say how the brokers are reached and as whom, and the transport's option of each.
#: No password: the environment is for the eyes of its user alone, but it is handed on to children.
BROKER_SECURITY = {
    "CELERY_BROKER_SECURITY_PROTOCOL": "security_protocol",
    "CELERY_BROKER_SASL_MECHANISM": "sasl_mechanism",
    "CELERY_BROKER_USERNAME": "sasl_username",
    "CELERY_BROKER_PASSWORD_FILE": "sasl_password_file",
    "CELERY_BROKER_CA_FILE": "ssl_cafile",
    "CELERY_BROKER_CERT_FILE": "ssl_certfile",
    "CELERY_BROKER_KEY_FILE": "ssl_keyfile",
    "CELERY_BROKER_KEY_PASSWORD_FILE": "ssl_key_password_file",
}

#: Variables that have tasks signed, and Celery's setting of each; all of them or none.
SIGNING = {
    "CELERY_SIGNING_KEY_FILE": "security_key",
    "CELERY_SIGNING_CERT_FILE": "security_certificate",
    "CELERY_SIGNING_CERT_STORE": "security_cert_store",
}


class SettingsError(Exception):
    """A variable of the environment can't be used; the message says which, why, and what would do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one process, worker or producer.

    Attributes:
        broker_url: `kafka://host:port,host:port//topic`.
        topic: The topic the URL names: Celery's default queue.
        result_backend: Where results go; None keeps no results.
        partitions: The partitions bound to this worker; None where the group's workers share them.
        ordering: One of `ORDERINGS`.
        app_modules: Modules that hold tasks, or one `module:attribute` that is a Celery app.
        group_id: The consumer group whose offsets say what is done.
        dead_letter_topic: Where failed tasks go.
        delay_topic: Where tasks with an ETA wait.
        connect_timeout: Seconds after which brokers that don't answer count as unreachable.
        session_timeout: Seconds without a sign of life after which a worker's partitions may go
            to others.
        state_directory: Where the transport keeps its journal; None: the worker finds a place.
        unit: The systemd unit this process is, if it is one.
        broker_security: The transport's options of TLS and SASL (`BROKER_SECURITY`).
        signing: Celery's settings of message signing (`SIGNING`); empty where tasks are not signed.
    """

    broker_url: str = field(repr=False)  # it may hold a password
    topic: str = DEFAULT_TOPIC
    result_backend: str | None = None
    partitions: tuple[int, ...] | None = None
    ordering: str = "none"
    app_modules: tuple[str, ...] = ("scheduler.examples",)
    group_id: str = "celery-group"
    dead_letter_topic: str = "celery_tasks_dlq"
    delay_topic: str = "celery_delay"
    connect_timeout: float = 30.0
    session_timeout: float = 30.0
    state_directory: str | None = None
    unit: str | None = None
    broker_security: Mapping[str, str] = field(default_factory=dict)
    signing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; raise `SettingsError` at the first that is wrong. Empty means unset."""
        given = {name: value.strip() for name, value in environ.items() if value.strip()}
        url = given.get("CELERY_BROKER_URL")
        if url is None:
            raise SettingsError(
                "CELERY_BROKER_URL is not set: name the brokers,"
                " for example kafka://kafka1:9092,kafka2:9092//tasks."
            )
        try:
            topic = parse(url).topic or DEFAULT_TOPIC
        except ConfigurationError as exc:
            raise SettingsError(f"CELERY_BROKER_URL can't be used: {exc}") from exc
        partitions = _partitions(given.get("CUSTOM_PARTITION"))
        return cls(
            broker_url=url,
            topic=topic,
            result_backend=given.get("CELERY_RESULT_BACKEND"),
            partitions=partitions,
            ordering=_ordering(given.get("CELERY_ORDERING"), bound=partitions is not None),
            app_modules=_modules(given.get("CELERY_APP_MODULE", "scheduler.examples")),
            group_id=given.get("CELERY_GROUP_ID", "celery-group"),
            dead_letter_topic=given.get("CELERY_DEAD_LETTER_TOPIC", "celery_tasks_dlq"),
            delay_topic=given.get("CELERY_DELAY_TOPIC", "celery_delay"),
            connect_timeout=_seconds(given, "CELERY_CONNECT_TIMEOUT", "30"),
            session_timeout=_seconds(given, "CELERY_SESSION_TIMEOUT", "30"),
            state_directory=given.get("STATE_DIRECTORY"),
            unit=given.get("CELERY_UNIT"),
            broker_security=_security(url, given),
            signing=_signing(given),
        )


def _security(url: str, given: Mapping[str, str]) -> dict[str, str]:
    options = {option: given[name] for name, option in BROKER_SECURITY.items() if name in given}
    try:
        Options.of(url.split(";")[0], options)
    except ConfigurationError as exc:
        names = {option: name for name, option in BROKER_SECURITY.items()}
        sentence = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), str(exc))
        raise SettingsError(f"The brokers' security is set wrong: {sentence}") from exc
    return options


def _signing(given: Mapping[str, str]) -> dict[str, str]:
    settings = {setting: given[name] for name, setting in SIGNING.items() if name in given}
    if settings and len(settings) != len(SIGNING):
        missing = ", ".join(name for name in SIGNING if name not in given)
        raise SettingsError(f"Tasks can't be signed without {missing}: set all of them, or none.")
    return settings


def _partitions(value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    # isdecimal alone would let other scripts' digits pass.
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise SettingsError(
            f"CUSTOM_PARTITION={value} is no list of partitions:"
            " write one number (0) or several with commas between them (0,4)."
        )
    numbers = tuple(int(part) for part in parts)
    if len(set(numbers)) != len(numbers):
        raise SettingsError(f"CUSTOM_PARTITION={value} names a partition twice: name each once.")
    return numbers


def _ordering(value: str | None, *, bound: bool) -> str:
    if value is None:
        return "partition" if bound else "none"
    if value not in ORDERINGS:
        raise SettingsError(
            f"CELERY_ORDERING={value} is unknown: it must be one of {', '.join(ORDERINGS)}."
        )
    return value


def _modules(value: str) -> tuple[str, ...]:
    modules = tuple(part.strip() for part in value.split(",") if part.strip())
    if not modules:
        raise SettingsError(
            f"CELERY_APP_MODULE={value} names no module: write for example shop.tasks,shop.mail."
        )
    if len(modules) > 1 and any(":" in module for module in modules):
        raise SettingsError(
            f"CELERY_APP_MODULE={value} mixes a Celery app (module:attribute) with other modules:"
            " name the app alone."
        )
    return modules


def _seconds(given: Mapping[str, str], name: str, default: str) -> float:
    value = given.get(name, default)
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise SettingsError(f"{name}={value} is no number of seconds: write for example 30.")
    return seconds
