"""The app's configuration, and a team's own app under it."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import pytest
from celery import Celery, signals

from scheduler.factory import configure, create_app
from scheduler.settings import Settings, SettingsError
from scheduler.task import DeadLetterTask

URL = "kafka://kafka1:9092,kafka2:9092//jobs"


def test_configuration() -> None:
    app = create_app(
        Settings(broker_url=URL, topic="jobs", partitions=(0, 4), ordering="key", group_id="g")
    )
    assert app.conf.task_serializer == app.conf.result_serializer == "json"
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_default_queue == "jobs"
    assert app.conf.task_acks_late
    assert app.conf.worker_prefetch_multiplier == 0
    options = app.conf.broker_transport_options
    assert options["partitions"] == [0, 4]
    assert options["ordering"] == "key"
    assert options["group_id"] == "g"
    app.close()


def test_a_teams_own_app(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("shop_of_the_test")
    own = Celery("shop")

    @own.task(name="shop.sell", shared=False)
    def sell() -> str:
        return "sold"

    module.app = own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    app = create_app(Settings(broker_url=URL, app_modules=("shop_of_the_test:app",)))
    assert app.main == "shop"
    assert isinstance(app.tasks["shop.sell"], DeadLetterTask)
    assert app.tasks["shop.sell"].acks_late
    app.close()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:app", "can't be imported"),
        ("scheduler.settings:nothing", "can't be imported"),
        ("scheduler.settings:ORDERINGS", "is no Celery app"),
    ],
)
def test_a_bad_app_is_one_sentence(name: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        create_app(Settings(broker_url=URL, app_modules=(name,)))
    assert "\n" not in str(raised.value)


def test_a_signal_that_comes_while_another_is_handled_does_not_stop_the_stop() -> None:
    """The second runs the handler again in the midst of the first, in the same thread."""
    configure(Celery("hasty"), Settings.from_environ({"CELERY_BROKER_URL": "kafka://k:1//t"}))

    def handler() -> None:
        with signals.worker_shutting_down.lock:  # which the first is in
            signals.worker_shutting_down.send(
                sender="one@host", sig="SIGTERM", how="Warm", exitcode=0
            )

    thread = threading.Thread(target=handler, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
