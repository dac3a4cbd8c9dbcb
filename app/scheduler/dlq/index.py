"""The letters there are, without their bodies, each with what was done with it; kept up to date."""

from __future__ import annotations

from dataclasses import dataclass

from kafka.structs import TopicPartition

from kombu_kafka.options import Options
from scheduler.dlq.history import Act, History
from scheduler.dlq.letters import Letter, LetterId, from_record
from scheduler.dlq.reader import Reader

__all__ = ["Entry", "Index", "News"]

#: Seconds that a letter's failure may lie before the time Kafka has for it.
SLACK = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter and what was done with it.

    Attributes:
        letter: Without value, headers and traceback.
        acts: Oldest first.
        state: `new`, `replayed` or `skipped`.
    """

    letter: Letter
    acts: tuple[Act, ...] = ()
    state: str = "new"


@dataclass(frozen=True)
class News:
    """What a refresh found that was not there before."""

    letters: tuple[Letter, ...] = ()
    acts: tuple[tuple[LetterId, Act], ...] = ()


class Index:
    """All letters of a dead letter topic.

    Args:
        options: Brokers and the topic.
        reader: Reads it.

    Attributes:
        history: What was done with them.
    """

    def __init__(self, options: Options, reader: Reader) -> None:
        self.topic = options.dead_letter_topic
        self._options = options
        self._reader = reader
        self._topic_id: str | None = None
        self._is_there = False
        self._letters: dict[LetterId, Letter] = {}
        self._positions: dict[TopicPartition, int] = {}
        #: Read, and not told yet: the brokers were lost in between.
        self._untold: tuple[Letter, ...] = ()
        self.history = History(options, "")

    def refresh(self, since: float | None = None, *, letters: bool = True) -> News:
        """Read what is new, forget what the topic's retention deleted.

        Args:
            since: Letters that failed earlier are not asked for, in seconds since the epoch.
            letters: Read letters too, not the history alone.

        Raises:
            BrokerUnavailableError: The brokers don't answer.
        """
        topic_id = self._reader.topic_id(self.topic)
        self._is_there = topic_id is not None
        if topic_id is None:
            return News()  # a broker that is just starting may not know it yet
        if topic_id != self._topic_id:
            self._topic_id, self._letters, self._positions = topic_id, {}, {}
            self._untold = ()
            self.history = History(self._options, topic_id)
        if letters:
            self._untold += self._read(since)
        acts = tuple(self.history.refresh(self._reader))
        found, self._untold = self._untold, ()
        return News(found, acts)

    def _read(self, since: float | None) -> tuple[Letter, ...]:
        bounds = self._reader.bounds(self.topic)
        starts = {} if since is None else self._reader.offsets_at(self.topic, since - SLACK)
        rest = {}
        for one, (first, end) in bounds.items():
            start = max(first, self._positions.get(one, 0))
            if since is not None:
                start = max(start, starts.get(one, end))
            rest[one] = (start, end)
        # Taken in whole or not at all: what was read before the brokers were lost comes again.
        letters = tuple(
            from_record(record).light() for record in self._reader.read(rest, self._positions)
        )
        self._letters.update({letter.id: letter for letter in letters})
        self._forget({one.partition: first for one, (first, _) in bounds.items()})
        return letters

    def entries(self) -> list[Entry]:
        """Return every letter with its acts, in the order of their ids."""
        if not self._is_there:
            return []
        return [self._entry(letter) for _, letter in sorted(self._letters.items())]

    def find(self, letter_id: LetterId) -> Entry | None:
        """Return one letter; None if it is not there (any more)."""
        letter = self._letters.get(letter_id) if self._is_there else None
        return None if letter is None else self._entry(letter)

    def whole(self, letter_id: LetterId) -> Letter | None:
        """Return one letter with its value, headers and traceback."""
        return next(self._reader.letters(self.topic, [letter_id]), None)

    def _entry(self, letter: Letter) -> Entry:
        return Entry(letter, self.history.of(letter.id), self.history.state(letter.id))

    def _forget(self, firsts: dict[int, int]) -> None:
        gone = [one for one in self._letters if one.offset < firsts.get(one.partition, 0)]
        for one in gone:
            del self._letters[one]
