"""Queues as a whole: what is asked of them, and done to them."""
