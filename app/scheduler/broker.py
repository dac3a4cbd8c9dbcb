"""The broker of a Celery app, as the transport's own tools are told of it."""

from __future__ import annotations

from celery import Celery

from kombu_kafka.options import Options

__all__ = ["broker_options"]


def broker_options(app: Celery) -> Options:
    """Return what the transport is told by an app's settings.

    Of several broker URLs (a list, or with `;` between them) the first counts: they lead to the same
    brokers, or to brokers that take over from those.

    Raises:
        ConfigurationError: The URL or a transport option is wrong.
    """
    url = app.conf.broker_url
    first = url.split(";")[0] if isinstance(url, str) else url[0]
    return Options.of(first, app.conf.broker_transport_options, app.conf.broker_use_ssl)
