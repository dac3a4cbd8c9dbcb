"""Tasks to learn from: an order's life, a report, a call that fails now and then.

A team's own tasks live in its own package, named by CELERY_APP_MODULE; these are the default.
"""

from scheduler.examples import flaky, orders, reports

__all__ = ["flaky", "orders", "reports"]
