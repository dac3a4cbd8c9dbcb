"""The comparison's publisher, a process: `python -m tests.chaos.publishing TASKS KEYS`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.chaos.history import History
from tests.chaos.plain import app, step

#: Seconds between two tasks: enough for a broker to be killed meanwhile.
PAUSE = 0.01


def main() -> None:
    """Publish; note what was confirmed, and what failed (it is not tried again)."""
    history = History(Path(os.environ["CHAOS_HISTORY"]))
    keys = int(sys.argv[2])
    ours = str(app.conf.broker_url).startswith("kafka:")
    for number in range(int(sys.argv[1])):
        lane = f"key-{number % keys}"
        facts = {"q": "compare", "lane": lane, "n": number}
        where = {"partition_key": lane} if ours else {}
        try:
            step.apply_async((lane, number), retry=False, **where)
        except Exception as exc:  # noqa: BLE001 - each broker's client has errors of its own
            history.note("unsure", **facts, why=repr(exc))
            time.sleep(0.2)
        else:
            history.note("sent", **facts)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
