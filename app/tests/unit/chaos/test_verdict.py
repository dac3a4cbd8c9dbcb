"""The judge of chaos runs, on histories made up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.schedule import KINDS, draw
from tests.chaos.verdict import SETTLE, Verdict, judge

#: Seconds without a sign of life after which a worker's place goes to another.
SESSION = 6.0


class Story:
    """A history, told in seconds."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def sent(self, number: int, lane: str = "a") -> None:
        self.events.append({"e": "sent", "q": "q", "lane": lane, "n": number})

    def run(
        self, event: str, number: int, t: float, *, worker: str = "w", at: int | None = None,
        lane: str = "a", late: bool = False, partition: int = 0,
    ) -> None:  # fmt: skip
        offset = number if at is None else at
        self.events.append(
            {"e": event, "q": "q", "lane": lane, "n": number, "t": t, "worker": worker,
             "pid": f"{worker}-{lane}", "at": [partition, offset], "late": late}
        )  # fmt: skip

    def whole(self, number: int, t: float, **facts: Any) -> None:
        self.run("start", number, t, **facts)
        self.run("end", number, t + 0.1, **facts)

    def hit(self, kind: str, t: float, **facts: Any) -> None:
        self.events.append({"e": "hit", "kind": kind, "t": t, **facts})

    def thaw(self, t: float, worker: str = "w") -> None:
        self.events.append({"e": "thaw", "t": t, "worker": worker})

    def verdict(self, *, ordered: bool = True, rewinds: bool = False, **facts: Any) -> Verdict:
        return judge(self.events, "q", ordered=ordered, rewinds=rewinds, **facts)


def test_all_is_well() -> None:
    story = Story()
    for number in range(3):
        story.sent(number)
        story.whole(number, number)
    verdict = story.verdict()
    assert verdict.ok
    assert (verdict.confirmed, verdict.done) == (3, 3)


def test_lost() -> None:
    story = Story()
    story.sent(0)
    story.sent(1)
    story.run("start", 0, 1)
    assert story.verdict().lost == [("a", 0), ("a", 1)]
    assert story.verdict(dead=[("a", 0)]).lost == [("a", 1)]


def test_two_at_once() -> None:
    story = Story()
    story.run("start", 0, 1)
    story.run("start", 1, 2, worker="other")
    assert story.verdict().together == 1
    assert story.verdict(ordered=False).ok


def test_lanes_are_apart() -> None:
    story = Story()
    story.run("start", 5, 1)
    story.run("start", 0, 2, lane="b")
    assert story.verdict().ok


def test_out_of_order() -> None:
    story = Story()
    story.whole(1, 1)
    story.whole(0, 2)
    assert story.verdict().disordered == 1
    assert story.verdict(ordered=False).ok


def test_a_delayed_task_has_no_place() -> None:
    story = Story()
    story.whole(1, 1)
    story.whole(0, 2, late=True)
    assert story.verdict().ok


def test_what_ran_at_a_kill_may_run_again() -> None:
    story = Story()
    story.run("start", 0, 1)
    story.hit("kill-worker", 1.05, worker="w")
    story.whole(0, 2)
    verdict = story.verdict()
    assert verdict.ok
    assert verdict.repeats_running == 1


def test_another_workers_kill_explains_nothing() -> None:
    story = Story()
    story.whole(0, 1)
    story.hit("kill-worker", 1.2, worker="other")
    story.whole(0, 2)
    assert story.verdict().unexplained == 1


def test_only_what_was_not_committed_may_run_again() -> None:
    for kill, unsettled in ((1.2, 1), (1.2 + SETTLE, 0)):
        story = Story()
        story.whole(0, 1)
        story.hit("kill-worker", kill, worker="w")
        story.whole(0, 9, worker="other")
        verdict = story.verdict()
        assert (verdict.repeats_unsettled, verdict.unexplained) == (unsettled, 1 - unsettled)


def test_who_kills_may_note_it_late() -> None:
    """What ended in between had been hit, or not: neither is a broken promise."""
    for began, unsettled in ((1.2, 1), (1.2 + SETTLE, 0)):
        story = Story()
        story.whole(0, 1)
        story.hit("kill-worker", 8, worker="w", began=began)
        story.whole(0, 9, worker="other")
        verdict = story.verdict()
        assert (verdict.repeats_unsettled, verdict.unexplained) == (unsettled, 1 - unsettled)


def test_a_slow_machine_may_be_given_longer() -> None:
    story = Story()
    story.whole(0, 1)
    story.hit("kill-worker", 1.2 + SETTLE, worker="w")
    story.whole(0, 9, worker="other")
    assert story.verdict(settle=SETTLE + 1).repeats_unsettled == 1


def test_no_commit_while_a_broker_is_away() -> None:
    story = Story()
    story.whole(0, 1)
    story.hit("kill-broker", 8, since=1.5)
    story.hit("kill-worker", 8.5, worker="w")
    story.whole(0, 9, worker="other")
    assert story.verdict().repeats_unsettled == 1


@pytest.mark.parametrize(
    ("kind", "until", "worker", "group", "excused"),
    [
        ("kill-broker", 1.5 + SESSION, "other", True, True),
        ("kill-broker", 1.7, "other", True, False),  # too short to lose a place
        ("kill-broker", 9, "w", True, False),  # its own journal knows
        ("kill-broker", 9, "other", False, False),  # bound partitions do not move
        ("slow", 9, "other", True, False),  # slow answers are answers
    ],
)
def test_a_coordinator_that_is_away_for_long_is_a_lost_place(
    kind: str, until: float, worker: str, group: bool, excused: bool
) -> None:
    story = Story()
    story.whole(0, 1)
    story.whole(0, 12, worker=worker)
    story.hit(kind, until, since=1.5)  # noted when it is over
    verdict = story.verdict(session=SESSION, rewinds=group)
    assert (verdict.repeats_unsettled, verdict.unexplained) == (excused, not excused)


@pytest.mark.parametrize(("on", "excused"), [(0, False), (1, True)])
def test_who_kept_its_place_while_a_broker_was_away_has_told_kafka(on: int, excused: bool) -> None:
    """It goes on with the partition afterwards: what it had done before is no other's to repeat."""
    story = Story()
    story.whole(0, 1)
    story.whole(1, 9 + SETTLE + 1, at=1, partition=on)
    story.whole(0, 20, worker="other")
    story.hit("kill-broker", 9, since=1.5)
    verdict = story.verdict(ordered=False, session=SESSION, rewinds=True)
    assert (verdict.repeats_unsettled, verdict.unexplained) == (excused, not excused)


def test_a_rewind_is_for_groups() -> None:
    story = Story()
    story.whole(0, 1)
    story.whole(1, 1.2)
    story.hit("kill-worker", 1.4, worker="w")
    story.whole(0, 2, worker="other")
    story.whole(1, 2.2, worker="other")
    assert story.verdict(rewinds=True).ok
    assert story.verdict(rewinds=False).disordered == 1


def test_a_run_begun_before_a_long_freeze_may_end_beside_another() -> None:
    story = Story()
    story.run("start", 0, 1)
    story.hit("freeze", 1.05, worker="w")
    story.whole(0, 9, worker="other")
    story.thaw(10)
    story.run("end", 0, 10.1)
    verdict = story.verdict(session=SESSION)
    assert verdict.ok
    assert (verdict.overlaps, verdict.repeats_running) == (1, 1)


def test_a_short_freeze_excuses_nothing() -> None:
    story = Story()
    story.run("start", 0, 1)
    story.hit("freeze", 1.05, worker="w")
    story.thaw(1.05 + SESSION / 3)
    story.whole(0, 9, worker="other")
    story.run("end", 0, 10)
    verdict = story.verdict(session=SESSION)
    assert (verdict.together, verdict.unexplained, verdict.overlaps) == (1, 1, 0)


def test_a_freeze_lasts_from_before_its_signal() -> None:
    """Who froze it may have stood still itself before it could say so."""
    story = Story()
    story.run("start", 0, 1)
    story.hit("freeze", 6, worker="w", began=1.05)
    story.thaw(6.1)
    story.whole(0, 9, worker="other")
    story.run("end", 0, 10)
    verdict = story.verdict(session=SESSION)
    assert verdict.ok
    assert (verdict.overlaps, verdict.repeats_running) == (1, 1)


def test_a_frozen_worker_keeps_its_lanes_apart_itself() -> None:
    story = Story()
    story.run("start", 0, 1)
    story.hit("freeze", 1.05, worker="w")
    story.thaw(9)
    story.run("start", 1, 9.1)
    assert story.verdict(session=SESSION).together == 1


def test_nothing_begins_on_a_worker_that_woke_to_find_its_place_taken() -> None:
    """What it had at hand but not begun is the other's."""
    story = Story()
    story.hit("freeze", 1, worker="w")
    story.whole(0, 8, worker="other")
    story.run("start", 1, 9, worker="other")
    story.thaw(9.05)
    story.run("start", 0, 9.1)
    verdict = story.verdict(session=SESSION, rewinds=True)
    assert (verdict.together, verdict.unexplained) == (1, 1)


def test_a_second_record_is_a_fault() -> None:
    story = Story()
    story.whole(0, 1)
    story.whole(0, 2, at=7)
    assert story.verdict().unexplained == 1


def test_the_same_seed_draws_the_same_faults() -> None:
    assert draw(7, 300, 6) == draw(7, 300, 6)
    assert draw(7, 300, 6) != draw(8, 300, 6)


def test_every_kind_comes_before_any_comes_again() -> None:
    faults = draw(7, 300, 6)
    assert {fault.kind for fault in faults[: len(KINDS)]} == KINDS.keys()


def test_every_kind_comes_however_short_the_time() -> None:
    assert sorted(fault.kind for fault in draw(7, 0, 6, {"cut", "freeze"})) == ["cut", "freeze"]
