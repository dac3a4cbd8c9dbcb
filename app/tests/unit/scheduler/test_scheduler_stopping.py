"""Being told to stop."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from scheduler.stopping import stoppable


def test_the_first_signal_asks_the_second_ends() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stoppable() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
        assert stop.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_comes_to_another_thread_wakes_the_waiting_one() -> None:
    """A process's signal may be any thread's; one that sleeps on a lock sleeps on."""
    ended = threading.Event()

    def other() -> None:
        time.sleep(0.2)  # the main thread waits by then, as a rule
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        ended.wait(120)

    thread = threading.Thread(target=other)
    with stoppable() as stop:
        thread.start()
        began = time.monotonic()
        assert stop.wait(60)
        assert time.monotonic() - began < 30
        assert stop.number == signal.SIGTERM
    ended.set()
    thread.join()


def test_a_wait_ends_in_time_and_other_signals_do_not_end_it() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with stoppable() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            began = time.monotonic()
            assert not stop.wait(0.2)
            assert time.monotonic() - began >= 0.2
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert signal.set_wakeup_fd(-1) == -1
