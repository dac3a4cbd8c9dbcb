"""A chaos run: a cluster behind proxies, queues under load, faults, and the verdict."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from kafka.errors import KafkaError

from scheduler import processes
from scheduler.local_broker import LocalKafka, Node
from scheduler.local_worker import LocalWorker, LocalWorkerError
from scheduler.preflight import EX_CONFIG
from tests.chaos.history import History
from tests.chaos.load import Load, Plan
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import KINDS, Fault, draw
from tests.chaos.verdict import SETTLE, Verdict

__all__ = ["SESSION_TIMEOUT", "Chaos", "ChaosError", "children"]

#: Seconds without a sign of life after which a worker's partitions go to others.
SESSION_TIMEOUT = 6.0
#: Seconds for everything to be done when the faults are over.
RECOVERY = 300.0
#: Seconds for a worker to be ready, so that it can be hit.
READY = 60.0
#: The group of the dispatchers of `celery_delay`; who is in it is at work.
DISPATCHERS = "celery_delay.dispatcher"


class ChaosError(Exception):
    """The system did not recover; the message shows what is missing."""


class Chaos:
    """A cluster of three brokers behind proxies; a context manager.

    Args:
        directory: Where the history and all logs lie.
        seed: What faults and tasks follow from.
        say: Called with a line for every fault.
        session_timeout: Seconds without a sign of life after which a worker's partitions go to others.
        settle: Seconds from a task's end until Kafka must know it.
    """

    def __init__(
        self,
        directory: Path,
        seed: int,
        say: Callable[[str], object],
        *,
        session_timeout: float = SESSION_TIMEOUT,
        settle: float = SETTLE,
    ) -> None:
        self.directory, self.seed, self._say = directory, seed, say
        self._session_timeout, self._settle = session_timeout, settle
        directory.mkdir(parents=True, exist_ok=True)
        self.history = History(directory / "history.jsonl")
        self.counts: Counter[str] = Counter()
        self.kafka = LocalKafka(
            3, directory=directory / "kafka", listeners={"PROXIED": "PLAINTEXT"}
        )
        self.proxies = [Proxy(node.ports["PROXIED"]) for node in self.kafka.nodes]
        for node, proxy in zip(self.kafka.nodes, self.proxies, strict=True):
            node.advertised["PROXIED"] = f"127.0.0.1:{proxy.port}"
        self._loads: list[Load] = []
        self._ended: list[str] = []
        self._rounds = 0
        #: Workers that are to stay down for a while.
        self._down: set[LocalWorker] = set()

    def __enter__(self) -> Chaos:
        for proxy in self.proxies:
            proxy.start()
        self.kafka.start()
        return self

    def __exit__(self, *_: object) -> None:
        for load in self._loads:
            for worker in load.workers:
                with suppress(ProcessLookupError, LocalWorkerError):
                    os.killpg(worker.pid, signal.SIGCONT)
                worker.kill()
                worker.stop()
        for node in self.kafka.nodes:
            node.kill()
        for proxy in self.proxies:
            proxy.stop()

    def round(
        self,
        plans: Sequence[Plan],
        seconds: float,
        rate: float,
        least: int = 0,
        kinds: Collection[str] = tuple(KINDS),
    ) -> dict[str, Verdict]:
        """Put queues under load and faults, wait until all is done, and judge.

        Args:
            plans: The queues.
            seconds: How long faults come.
            rate: Tasks a second, for each queue.
            least: Tasks that each queue is sent at the least, should publishing be held up.
            kinds: Which faults.

        Returns:
            The verdict on each queue.
        """
        addresses = [f"127.0.0.1:{proxy.port}" for proxy in self.proxies]
        self._rounds += 1
        seed = self.seed * 1000 + self._rounds
        self._loads = [
            Load(
                self.kafka, addresses, plan, self.history, self.directory,
                seed=seed, session_timeout=self._session_timeout, settle=self._settle,
            )
            for plan in plans
        ]  # fmt: skip
        for worker in self._workers():
            worker.start()
        for worker in self._workers():
            worker.wait_ready()
        for load in self._loads:
            load.publish(rate)
        for fault in draw(seed, seconds, self._session_timeout, kinds):
            self._pause(fault.pause)
            self._strike(fault)
        self._pause(RECOVERY, until=lambda: all(load.sent >= least for load in self._loads))
        for load in self._loads:
            load.stop_publishing()
        self._recover()
        verdicts = {load.plan.queue: load.verdict() for load in self._loads}
        for name in self._ended:
            verdicts[name.rpartition("-")[0]].faults.append(f"{name} ended for good")
        self._ended.clear()
        for load in self._loads:
            for worker in load.workers:
                worker.terminate()
            for worker in load.workers:
                worker.stop()
            load.close()
        self._loads = []
        return verdicts

    def _workers(self) -> list[LocalWorker]:
        return [worker for load in self._loads for worker in load.workers]

    def _pause(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Wait, and start again what ended, as systemd does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            for worker in self._workers():
                if worker in self._down:
                    continue
                if not worker.running:
                    code = worker.wait(0)
                    began = time.monotonic()
                    worker.stop()  # whatever is left of it
                    self.counts[f"ended with code {code}"] += 1
                    self._hit("kill-worker", worker, began, code=code)
                    if code == EX_CONFIG:
                        self._ended.append(worker.name)
                    worker.start()
                with suppress(LocalWorkerError):
                    worker.look()
            time.sleep(0.05)

    def _note(self, kind: str, **facts: object) -> None:
        self.history.note("hit", kind=kind, **facts)

    def _hit(self, kind: str, worker: LocalWorker, began: float, **facts: object) -> None:
        """Note what was done to a worker since `began`, once no process that it was done to notes any more."""
        pid = facts.get("pid")
        deadline = time.monotonic() + READY
        while any(
            state not in processes.STILL
            for one, state in processes.states(worker.pid)
            if pid is None or one == pid
        ):
            if time.monotonic() > deadline:
                raise ChaosError(f"{worker.name} goes on after {kind}.")
            time.sleep(0.005)
        self._note(kind, worker=worker.name, began=round(began, 4), **facts)

    def _strike(self, fault: Fault) -> None:
        number = fault.target % 3
        if fault.kind in ("kill-broker", "cut", "slow"):
            self._say(f"{fault.kind} {number + 1}")
            since = time.monotonic()
            if fault.kind == "kill-broker":
                self._kill_broker(number, fault.seconds)
            elif fault.kind == "cut":
                self.proxies[number].cut()
            else:
                self.proxies[number].delay = fault.strength
                self._pause(fault.seconds)
                self.proxies[number].delay = 0.0
            self._note(fault.kind, since=since)
        else:
            worker = self._pick(fault)
            if worker is None:
                return
            self._say(f"{fault.kind} {worker.name}")
            {
                "kill-worker": self._kill_worker,
                "kill-dispatcher": self._kill_worker,
                "kill-at-join": self._kill_at_join,
                "kill-child": self._kill_child,
                "freeze": self._freeze,
            }[fault.kind](worker, fault)
        self.counts[fault.kind] += 1

    def _pick(self, fault: Fault) -> LocalWorker | None:
        """Choose a worker that is ready: one that starts has nothing in flight."""

        def able() -> list[LocalWorker]:
            return [worker for worker in self._workers() if worker.ready and worker.running]

        self._pause(READY, until=lambda: bool(able()))
        ready = able()
        if fault.kind == "kill-dispatcher":
            names = self._dispatchers()
            ready = [worker for worker in ready if worker.name in names]
        return ready[fault.target % len(ready)] if ready else None

    def _dispatchers(self) -> set[str]:
        admin = self.kafka.admin()
        try:
            group = admin.describe_groups([DISPATCHERS])[DISPATCHERS]
            return {
                member["client_id"] for member in group["members"] if member["member_assignment"]
            }
        except (KafkaError, KeyError):
            return set()
        finally:
            admin.close()

    def _kill_worker(self, worker: LocalWorker, fault: Fault) -> None:
        began = time.monotonic()
        worker.kill()
        self._hit(fault.kind, worker, began)
        worker.start()

    def _kill_at_join(self, worker: LocalWorker, fault: Fault) -> None:
        """Have a worker's partitions go to its neighbour, and kill that when it is to give them back.

        A group's member then is between giving up and joining again.
        """
        neighbour = next(
            other
            for load in self._loads
            if worker in load.workers
            for other in load.workers
            if other is not worker
        )
        self._down.add(worker)
        began = time.monotonic()
        worker.kill()
        self._hit(fault.kind, worker, began)
        self._pause(self._session_timeout + 2)
        self._down.discard(worker)
        worker.start()
        self._pause(60, until=lambda: worker.ready)
        self._pause(fault.seconds)
        began = time.monotonic()
        neighbour.kill()
        self._hit(fault.kind, neighbour, began)
        neighbour.start()

    def _kill_child(self, worker: LocalWorker, fault: Fault) -> None:
        pids = children(worker.pid)
        if not pids:
            return
        pid = pids[fault.target % len(pids)]
        began = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._hit(fault.kind, worker, began, pid=pid)

    def _freeze(self, worker: LocalWorker, fault: Fault) -> None:
        began = time.monotonic()
        os.killpg(worker.pid, signal.SIGSTOP)
        self._hit(fault.kind, worker, began, seconds=round(fault.seconds, 1))
        self._pause(fault.seconds)
        os.killpg(worker.pid, signal.SIGCONT)
        self.history.note("thaw", worker=worker.name)

    def _kill_broker(self, number: int, seconds: float) -> None:
        node = self.kafka.nodes[number]
        node.kill()
        self._pause(seconds)
        node.start()
        # Another may only be killed when this one is back: two of three are too many.
        self._pause(60, until=lambda: self._in_sync(node))

    def _in_sync(self, node: Node) -> bool:
        """Say whether a node that was started again has caught up with all it has a copy of."""
        node_id = node.id
        if not processes.listens(node.port):
            return False
        admin = self.kafka.admin()
        try:
            node.sees()  # until it answers itself, the others may count it in as before
            topics = admin.describe_topics()
            return all(
                node_id in partition["isr_nodes"] or node_id not in partition["replica_nodes"]
                for topic in topics
                for partition in topic["partitions"]
            )
        except KafkaError:
            return False
        finally:
            admin.close()

    def _recover(self) -> None:
        deadline = time.monotonic() + RECOVERY
        while any(load.missing() for load in self._loads):
            if time.monotonic() > deadline:
                break  # the verdict says what is lost
            self._pause(0.2)
        self._pause(1)  # what runs twice may still be running


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found: Iterable[Path] = Path(f"/proc/{pid}/task").glob("*/children")
    with suppress(OSError):
        return [int(child) for path in found for child in path.read_text().split()]
    return []
