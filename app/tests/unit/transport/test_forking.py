"""What a forked child leaves alone."""

from __future__ import annotations

import gc
import os

from kombu_kafka.forking import leave_garbage_to_the_parent


def test_garbage_is_collected_by_the_process_that_made_it() -> None:
    leave_garbage_to_the_parent()
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
