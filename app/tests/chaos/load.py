"""One queue under load: its publisher, its workers, and what became of its tasks."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kafka import KafkaConsumer
from kafka.structs import TopicPartition
from kombu.exceptions import OperationalError

from kombu_kafka.errors import KombuKafkaError
from scheduler.factory import create_app
from scheduler.local_broker import LocalKafka
from scheduler.local_worker import LocalWorker
from scheduler.settings import Settings
from tests.chaos.history import History
from tests.chaos.verdict import Verdict, judge

__all__ = ["PARTITIONS", "Load", "Plan"]

#: Partitions of a queue.
PARTITIONS = 4
#: Keys of a queue in the order `key`.
KEYS = 8
#: Seconds that a task runs: at the least, usually at most, and now and then.
SECONDS = 0.005, 0.12, 0.6


@dataclass(frozen=True)
class Plan:
    """What a queue promises.

    Attributes:
        order: `partition`, `key` or `none`.
        mode: `static`, workers with bound partitions, or `group`.
    """

    order: str
    mode: str

    @property
    def queue(self) -> str:
        return f"chaos-{self.order}-{self.mode}"


class Load:
    """A queue with its two workers and its publisher.

    Args:
        kafka: The cluster.
        addresses: Where clients find it: the proxies.
        plan: What the queue promises.
        history: Where everything is noted.
        directory: Where logs and journals lie.
        seed: What its tasks follow from.
        session_timeout: Seconds without a sign of life after which a worker's partitions go.
        settle: Seconds from a task's end until Kafka must know it.
    """

    def __init__(
        self,
        kafka: LocalKafka,
        addresses: Sequence[str],
        plan: Plan,
        history: History,
        directory: Path,
        *,
        seed: int,
        session_timeout: float,
        settle: float,
    ) -> None:
        self.plan, self._kafka, self._history = plan, kafka, history
        self._session_timeout, self._settle = session_timeout, settle
        self._letters = f"{plan.queue}-dlq"
        kafka.create_topic(plan.queue, PARTITIONS)
        kafka.create_topic(self._letters, 1)
        url = f"kafka://{','.join(addresses)}//{plan.queue}"
        self._app = create_app(
            Settings(
                broker_url=url,
                topic=plan.queue,
                group_id=plan.queue,
                app_modules=("tests.chaos.work",),
                dead_letter_topic=self._letters,
            )
        )
        self._app.loader.import_default_modules()
        self._chance = random.Random(f"{seed} {plan.queue}")
        #: Tasks whose publishing was confirmed.
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        bound: list[tuple[int, ...]] = [(0, 1), (2, 3)] if plan.mode == "static" else [(), ()]
        self.workers = [
            LocalWorker(
                url,
                *partitions,
                name=f"{plan.queue}-{number}",
                directory=directory,
                arguments=["-c", "2", "--without-mingle"],
                environ={
                    "CELERY_APP_MODULE": "tests.chaos.work",
                    "CELERY_GROUP_ID": plan.queue,
                    "CELERY_DEAD_LETTER_TOPIC": self._letters,
                    "CELERY_ORDERING": plan.order,
                    "CELERY_SESSION_TIMEOUT": str(session_timeout),
                    "CHAOS_HISTORY": str(history.path),
                },
            )
            for number, partitions in enumerate(bound)
        ]

    def publish(self, rate: float) -> None:
        """Begin to publish `rate` tasks a second."""
        self._rate = rate
        self._thread.start()

    def stop_publishing(self) -> None:
        self._stop.set()
        self._thread.join(300)

    def _publish(self) -> None:
        numbers: dict[str, int] = {}
        task = self._app.tasks["chaos.step"]
        while not self._stop.is_set():
            late = self._chance.random() < 0.1
            where: dict[str, object] = {}
            lane = "none"
            if self.plan.order == "partition":
                where["partition"] = self._chance.randrange(PARTITIONS)
                lane = f"partition {where['partition']}"
            elif self.plan.order == "key":
                where["partition_key"] = f"key-{self._chance.randrange(KEYS)}"
                lane = str(where["partition_key"])
            if late:
                where["countdown"] = self._chance.uniform(1.5, 8)
            low, usual, high = SECONDS
            seconds = self._chance.uniform(low, usual if self._chance.random() < 0.97 else high)
            number = numbers[lane] = numbers.get(lane, -1) + 1
            facts = {"q": self.plan.queue, "lane": lane, "n": number}
            try:
                # No retry: a message published twice would be a second record of the task.
                task.apply_async(
                    (self.plan.queue, lane, number, late, seconds), retry=False, **where
                )
            except (KombuKafkaError, OperationalError) as exc:
                self._history.note("unsure", **facts, why=str(exc))
                self._stop.wait(0.2)
            else:
                self._history.note("sent", **facts)
                self.sent += 1
            self._stop.wait(self._chance.expovariate(self._rate))

    def missing(self) -> int:
        """How many confirmed tasks have not ended."""
        sent: set[tuple[str, int]] = set()
        ended: set[tuple[str, int]] = set()
        for event in self._history.events():
            if event.get("q") == self.plan.queue and event["e"] in ("sent", "end"):
                (sent if event["e"] == "sent" else ended).add((event["lane"], event["n"]))
        return len(sent - ended)

    def verdict(self) -> Verdict:
        return judge(
            self._history.events(),
            self.plan.queue,
            ordered=self.plan.order != "none",
            rewinds=self.plan.mode == "group",
            session=self._session_timeout,
            settle=self._settle,
            dead=self._dead(),
        )

    def close(self) -> None:
        self._app.close()

    def _dead(self) -> list[tuple[str, int]]:
        consumer = KafkaConsumer(bootstrap_servers=self._kafka.bootstrap)
        try:
            partition = TopicPartition(self._letters, 0)
            consumer.assign([partition])
            consumer.seek_to_beginning()
            end = consumer.end_offsets([partition])[partition]
            tasks: list[tuple[str, int]] = []
            while consumer.position(partition) < end:
                for batch in consumer.poll(timeout_ms=500).values():
                    for record in batch:
                        (_, lane, number, *_), *_ = json.loads(record.value)
                        tasks.append((lane, number))
            return tasks
        finally:
            consumer.close()
