"""Settings: what is read, and one sentence for each fault."""

from __future__ import annotations

import pytest

from scheduler.settings import Settings, SettingsError

URL = "kafka://kafka1:9092,kafka2:9092,kafka3:9092//tasks"


def _settings(**environ: str) -> Settings:
    return Settings.from_environ({"CELERY_BROKER_URL": URL, **environ})


def test_defaults_are_a_producer() -> None:
    settings = _settings()
    assert settings.topic == "tasks"
    assert settings.partitions is None
    assert settings.ordering == "none"
    assert settings.app_modules == ("scheduler.examples",)
    assert settings.group_id == "celery-group"
    assert settings.dead_letter_topic == "celery_tasks_dlq"
    assert settings.connect_timeout == 30


def test_a_worker() -> None:
    settings = _settings(
        CUSTOM_PARTITION="0, 4",
        CELERY_APP_MODULE="shop.tasks, shop.mail",
        CELERY_GROUP_ID="shop",
        CELERY_DEAD_LETTER_TOPIC="shop_dlq",
        CELERY_CONNECT_TIMEOUT="2.5",
        STATE_DIRECTORY="/var/lib/celery-worker/0",
        CELERY_UNIT="celery-worker@0.service",
        CELERY_RESULT_BACKEND="redis://cache/1",
    )
    assert settings.partitions == (0, 4)
    assert settings.ordering == "partition"
    assert settings.app_modules == ("shop.tasks", "shop.mail")
    assert settings.group_id == "shop"
    assert settings.dead_letter_topic == "shop_dlq"
    assert settings.connect_timeout == 2.5
    assert settings.state_directory == "/var/lib/celery-worker/0"
    assert settings.unit == "celery-worker@0.service"
    assert settings.result_backend == "redis://cache/1"


def test_empty_is_unset() -> None:
    settings = _settings(CUSTOM_PARTITION="", CELERY_ORDERING=" ", CELERY_RESULT_BACKEND="")
    assert settings.partitions is None
    assert settings.ordering == "none"
    assert settings.result_backend is None


def test_a_url_without_a_topic_means_tasks() -> None:
    assert Settings.from_environ({"CELERY_BROKER_URL": "kafka://kafka1:9092"}).topic == "tasks"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"CELERY_BROKER_URL": ""}, "CELERY_BROKER_URL is not set"),
        ({"CELERY_BROKER_URL": "redis://cache"}, "CELERY_BROKER_URL can't be used"),
        ({"CUSTOM_PARTITION": "x"}, "CUSTOM_PARTITION=x is no list of partitions"),
        ({"CUSTOM_PARTITION": "-1"}, "is no list of partitions"),
        ({"CUSTOM_PARTITION": "0,,1"}, "is no list of partitions"),
        ({"CUSTOM_PARTITION": "٣"}, "is no list of partitions"),
        ({"CUSTOM_PARTITION": "1,1"}, "names a partition twice"),
        ({"CELERY_ORDERING": "strict"}, "must be one of partition, key, none"),
        ({"CELERY_APP_MODULE": ","}, "names no module"),
        ({"CELERY_APP_MODULE": "shop:app,shop.mail"}, "mixes a Celery app"),
        ({"CELERY_CONNECT_TIMEOUT": "soon"}, "is no number of seconds"),
        ({"CELERY_CONNECT_TIMEOUT": "0"}, "is no number of seconds"),
        ({"CELERY_CONNECT_TIMEOUT": "nan"}, "is no number of seconds"),
    ],
)
def test_faults_are_one_sentence(environ: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        _settings(**environ)
    sentence = str(raised.value)
    assert says in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_how_the_brokers_are_reached() -> None:
    settings = _settings(
        CELERY_BROKER_USERNAME="worker",
        CELERY_BROKER_PASSWORD_FILE="/etc/celery/password",
        CELERY_BROKER_CA_FILE="/etc/celery/ca.pem",
    )
    assert settings.broker_security == {
        "sasl_username": "worker",
        "sasl_password_file": "/etc/celery/password",
        "ssl_cafile": "/etc/celery/ca.pem",
    }


def test_a_user_without_a_password() -> None:
    with pytest.raises(
        SettingsError, match="set CELERY_BROKER_USERNAME and CELERY_BROKER_PASSWORD"
    ):
        _settings(CELERY_BROKER_USERNAME="worker")


def test_the_password_of_the_url_is_not_shown() -> None:
    settings = Settings.from_environ({"CELERY_BROKER_URL": "kafka://me:s3cret@a:1//t"})
    assert "s3cret" not in repr(settings)


def test_signing_takes_all_of_its_variables() -> None:
    with pytest.raises(
        SettingsError, match="without CELERY_SIGNING_CERT_FILE, CELERY_SIGNING_CERT"
    ):
        _settings(CELERY_SIGNING_KEY_FILE="/etc/celery/key.pem")
