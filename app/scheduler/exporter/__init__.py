"""The exporter: Celery's events and the consumer groups' lag, for Prometheus.

Threads collect in the background (`collector`, `receiver`); a scrape is answered from memory.
"""
