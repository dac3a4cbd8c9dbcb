"""Exchanges, bindings, and queues that live as long as their reader."""
