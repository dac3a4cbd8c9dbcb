"""A call to somebody else's service: errors that pass are retried, those that stay are not."""

from __future__ import annotations

import random

from celery import Task, shared_task

__all__ = ["ServiceBusyError", "fetch_rate"]

#: A pretended exchange rate service.
RATES = {"EUR": "1.0000", "USD": "1.0842", "CHF": "0.9391"}


class ServiceBusyError(Exception):
    """The service asks us to come again later."""


@shared_task(
    bind=True,
    name="flaky.fetch_rate",
    autoretry_for=(ServiceBusyError, TimeoutError),
    retry_backoff=1,
    retry_backoff_max=30,
    retry_jitter=True,
    max_retries=5,
)
def fetch_rate(self: Task, currency: str, busy: int = 1) -> str:
    """Return a rate; the service is busy the first `busy` times.

    An unknown currency is an error that no retry mends: it goes straight to the dead letter topic.
    """
    if currency not in RATES:
        raise KeyError(f"There is no rate for {currency!r}.")
    if self.request.retries < busy:
        raise ServiceBusyError(f"busy, queue position {random.randint(1, 9)}")  # noqa: S311
    return RATES[currency]
