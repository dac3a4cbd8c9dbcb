"""A dispatcher as a process of its own, to be killed: `python -m tests.dispatching URL JSON [MS]`.

It prints "active" when it is at work. Its session is short, so that a kill is noticed soon; a
broker must allow that (group.min.session.timeout.ms). MS is another session timeout.
"""

from __future__ import annotations

import json
import sys
import time

from kombu_kafka.delay import dispatcher
from kombu_kafka.delay import watch as delay_watch
from kombu_kafka.options import Options


def main() -> None:
    """Run until killed."""
    session = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    delay_watch.SESSION_MS, delay_watch.HEARTBEAT_MS = session, min(1000, session // 4)
    thread = dispatcher.Dispatcher(Options.of(sys.argv[1], json.loads(sys.argv[2])))
    thread.start()
    told = False
    while True:
        if thread.statistics.active and not told:
            print("active", flush=True)
            told = True
        time.sleep(0.02)


if __name__ == "__main__":
    main()
