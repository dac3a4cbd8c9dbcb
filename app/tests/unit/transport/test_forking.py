"""What a forked child leaves alone, and what it can do whatever its parent's threads were at."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import signal
import termios
import threading
from array import array

import pytest

from kombu_kafka import forking
from kombu_kafka.forking import make_forks_safe
from tests.eventually import eventually


def test_garbage_is_collected_by_the_process_that_made_it() -> None:
    make_forks_safe()
    noted, note = os.pipe()

    class Garbage:
        """In a cycle, so that only the collector finds it."""

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            os.write(note, f"{os.getpid()} ".encode())

    def fork_and_collect() -> int:
        child = os.fork()
        if child == 0:  # pragma: no cover
            Garbage()
            gc.collect()
            os._exit(0)
        os.waitpid(child, 0)
        return child

    gc.disable()
    try:
        Garbage()
        children = [fork_and_collect(), fork_and_collect()]
        gc.collect(
            0
        )  # it is as young as before the forks: the parent finds it no later for having forked
        who = [int(pid) for pid in os.read(noted, 1000).split()]
        assert who == [*children, os.getpid()]
    finally:
        gc.enable()
        os.close(noted)
        os.close(note)


def _lies_in(pipe: int) -> int:
    count = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def test_a_child_can_log_whatever_was_being_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked while a thread is in the middle of a line, which the log is too full to take."""
    make_forks_safe()
    monkeypatch.setattr(forking, "WAIT_SECONDS", 60.0)  # the thread that reads may be late
    read, write = os.pipe()
    lines = logging.StreamHandler(os.fdopen(write, "w"))
    logger = logging.getLogger(f"{__name__}.full")
    logger.propagate = False
    logger.addHandler(lines)

    forked = threading.Event()

    def drain() -> None:
        eventually(lambda: forking._forking.locked() or forked.is_set())
        while os.read(read, 100_000):
            pass

    writer = threading.Thread(target=logger.error, args=["a line " * 50_000])
    writer.start()
    eventually(lambda: _lies_in(read) == fcntl.fcntl(write, fcntl.F_GETPIPE_SZ))
    reader = threading.Thread(target=drain)
    reader.start()
    child = os.fork()
    if child == 0:  # pragma: no cover
        logger.error("the child's")
        os._exit(0)
    forked.set()
    try:
        eventually(lambda: os.waitpid(child, os.WNOHANG)[0] == child, what="the child to end")
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        writer.join()
        logger.removeHandler(lines)
        lines.stream.close()
        reader.join()
        os.close(read)


def test_a_handler_that_waits_for_another_does_not_stop_a_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As MemoryHandler does: it holds its own lock, and wants that of its target."""
    make_forks_safe()
    monkeypatch.setattr(forking, "WAIT_SECONDS", 0.2)
    target, memory = logging.StreamHandler(), logging.Handler()
    holds, may_go = threading.Event(), threading.Event()

    def flush() -> None:
        memory.acquire()
        holds.set()
        may_go.wait()  # for good, as far as the fork is concerned
        target.acquire()
        target.release()
        memory.release()

    flushing = threading.Thread(target=flush)
    flushing.start()
    holds.wait()
    child = os.fork()
    if child == 0:  # pragma: no cover
        target.acquire()
        memory.acquire()
        os._exit(0)
    try:
        eventually(lambda: os.waitpid(child, os.WNOHANG)[0] == child, what="the child to end")
    finally:
        may_go.set()
        flushing.join()
    assert gc.isenabled()
    assert target.lock is not None
    assert target.lock.acquire(blocking=False), "what the fork took it gave back"
    target.release()
