"""The chaos run (`make chaos`) in short: every kind of fault once, a fixed seed, two queues at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.load import Plan
from tests.chaos.run import Chaos
from tests.chaos.schedule import KINDS

#: All but what takes long; a worker killed in a rebalance has a test of its own.
FAULTS = KINDS.keys() - {"kill-at-join"}
SEED = 11
#: Seconds, longer than in `make chaos`: other tests run beside this one, and processes may stand still for some
#: without being frozen.
SESSION, SETTLE = 15.0, 10.0
#: Tasks of each queue, at the least.
TASKS = 100


@pytest.mark.slow
def test_short_chaos(tmp_path: Path) -> None:
    """Bound partitions in order, a group in the order of keys: nothing is lost, order is kept."""
    said: list[str] = []
    with Chaos(tmp_path, SEED, said.append, session_timeout=SESSION, settle=SETTLE) as chaos:
        plans = [Plan("partition", "static"), Plan("key", "group")]
        verdicts = chaos.round(plans, 0, rate=15, least=TASKS, kinds=FAULTS)
    for queue, verdict in verdicts.items():
        assert verdict.ok, (queue, verdict, said)
        assert verdict.confirmed >= TASKS, (queue, verdict)
    assert {kind for kind in KINDS if chaos.counts[kind]} >= FAULTS - {"kill-dispatcher"}, said
