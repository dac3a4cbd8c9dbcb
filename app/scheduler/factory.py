"""Making a Celery app that runs on Kafka: ours with a team's modules, or a team's own."""

from __future__ import annotations

import socket
import threading
import traceback
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityError
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle
from kombu.utils.imports import symbol_by_name

import kombu_kafka
from scheduler.begun import note_what_runs
from scheduler.preflight import EX_CONFIG, end, is_celery_command, refuse_bad_start
from scheduler.readiness import say_stopping
from scheduler.revocation import remember_revoked
from scheduler.settings import Settings, SettingsError
from scheduler.state import own_state_directory

__all__ = ["configure", "create_app", "import_tasks"]

#: The base of all tasks; a name, so that it is imported when the first task is made.
TASK_BASE = "scheduler.task:DeadLetterTask"


def create_app(settings: Settings) -> Celery:
    """Return the app that `settings` ask for: ours with a team's modules, or the team's own."""
    if ":" in settings.app_modules[0]:
        return configure(_own_app(settings.app_modules[0]), settings)
    return configure(Celery("scheduler", include=list(settings.app_modules)), settings)


def configure(celery: Celery, settings: Settings) -> Celery:
    """Set a Celery app up for Kafka; its tasks must not have been made yet."""
    kombu_kafka.register()
    for step in (Mingle, Gossip):  # Celery lists the transports that it knows to be able to
        step.compatible_transports = step.compatible_transports | {"kafka"}
    celery.task_cls = TASK_BASE
    celery.conf.update(
        broker_url=settings.broker_url,
        broker_transport_options={
            "group_id": settings.group_id,
            "partitions": None if settings.partitions is None else list(settings.partitions),
            "ordering": settings.ordering,
            "dead_letter_topic": settings.dead_letter_topic,
            "delay_topic": settings.delay_topic,
            "state_directory": settings.state_directory,
            "connect_timeout": settings.connect_timeout,
            "session_timeout": settings.session_timeout,
            "client_id": settings.unit or f"celery-{socket.gethostname()}",
            **settings.broker_security,
        },
        # The preflight has just seen the brokers: from then on a lost broker is weather.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        result_backend=settings.result_backend,
        **_serializers(celery, settings),
        task_default_queue=settings.topic,
        # A record is done with when its task is: the order's gate and the offsets follow that.
        task_acks_late=True,
        # A child that died takes no task with it; the transport counts, scheduler.request stops.
        task_reject_on_worker_lost=True,
        # Failures and time limits do end a record: as dead letters, not as endless loops.
        task_acks_on_failure_or_timeout=True,
        # A partition has one owner: holding its records back from others helps nobody.
        worker_prefetch_multiplier=0,
        worker_enable_prefetch_count_reduction=False,
        # The transport hands a partition to the next connection only when what the last one had
        # in flight is settled: running tasks may finish.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_consumer="scheduler.consumer:Consumer",
        # What monitoring counts; nobody waits for an event to be stored.
        worker_send_task_events=True,
        task_send_sent_event=True,
        # A partition stands still until a dead child is noticed; its result is read before.
        worker_lost_wait=2.0,
        # Several workers start at once on small hosts: four seconds are too few then.
        worker_proc_alive_timeout=60.0,
    )
    if settings.signing:
        sign(celery)
    celery.conf.imports = (*celery.conf.imports, "scheduler.smoke_tasks")
    celery.steps["consumer"].add("scheduler.readiness:Readiness")
    remember_revoked()
    celery.steps["worker"].add("scheduler.worker_metrics:WorkerMetrics")

    def on_import(sender: Celery, **_: Any) -> None:
        if sender is celery:
            import_tasks(celery)

    def on_worker_init(sender: Any, **_: Any) -> None:
        if sender.app is celery:
            directory = settings.state_directory or own_state_directory(settings, sender.hostname)
            celery.conf.broker_transport_options |= {
                "worker_name": sender.hostname,
                "state_directory": directory,
            }
            if directory is not None:
                note_what_runs(celery, directory)
            refuse_bad_start(celery, settings)

    # Celery keeps these for ever, as it does the app.
    signals.import_modules.connect(on_import, weak=False)
    signals.worker_init.connect(on_worker_init, weak=False)
    _hear_of_stopping()
    return celery


def _hear_of_stopping() -> None:
    """Tell the service manager of a stop, however many signals ask for it at once.

    Celery 5.7 sends this signal of its own from the handler of the process's signals: one that comes meanwhile runs
    the handler again, in the same thread, and would wait for ever for the lock that the first holds.
    """
    signals.worker_shutting_down.lock = threading.RLock()
    signals.worker_shutting_down.connect(say_stopping, weak=False)


def _serializers(celery: Celery, settings: Settings) -> dict[str, Any]:
    """Nothing is auto-detected, and nothing but JSON is ever loaded, if need be within a signature."""
    signed = bool(settings.signing) or celery.conf.task_serializer == "auth"
    chosen = "auth" if signed else "json"
    return {
        "task_serializer": chosen,
        "accept_content": [chosen],
        "result_serializer": "json",
        "result_accept_content": ["json"],
        **settings.signing,
    }


def sign(celery: Celery) -> None:
    """Have an app sign what it sends and take only what is signed (`setup_security`).

    Raises:
        SettingsError: A key or a certificate can't be used.
    """
    try:
        celery.setup_security(allowed_serializers=["json"])
    except (OSError, SecurityError, ValueError) as exc:
        raise SettingsError(
            f"Tasks can't be signed with what CELERY_SIGNING_KEY_FILE, CELERY_SIGNING_CERT_FILE and"
            f" CELERY_SIGNING_CERT_STORE name: {exc}."
        ) from exc


def import_tasks(celery: Celery) -> None:
    """Import the modules that hold the app's tasks; in a worker a fault ends the process.

    Raises:
        SettingsError: One of them can't be imported.
    """
    for module in (*celery.conf.include, *celery.conf.imports):
        try:
            celery.loader.import_from_cwd(module)
        except Exception as exc:
            frame = traceback.extract_tb(exc.__traceback__)[-1]
            where = "" if "<" in frame.filename else f" ({frame.filename}, line {frame.lineno})"
            sentence = (
                f"The module {module} of CELERY_APP_MODULE can't be imported:"
                f" {type(exc).__name__}: {exc}{where}."
            )
            if is_celery_command():
                end(sentence, EX_CONFIG)
            raise SettingsError(sentence) from exc


def _own_app(name: str) -> Celery:
    try:
        found = symbol_by_name(name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise SettingsError(f"CELERY_APP_MODULE={name} can't be imported: {exc}.") from exc
    if not isinstance(found, Celery):
        raise SettingsError(f"CELERY_APP_MODULE={name} is no Celery app.")
    return found
