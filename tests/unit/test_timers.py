"""Timers fire when they are due, once what was there before them is consumed, and only while they hold."""

from collections.abc import Callable

from orchestrator.runtime.timers import Timer, Timers
from orchestrator.wire.inputs import INBOX, INTERNAL, OPERATIONS, REPLIES


def upto(offset: int) -> Callable[[str], int]:
    return lambda role: offset


class Kept:
    """Timers of which some no longer hold."""

    def __init__(self, *timers: Timer) -> None:
        self.stale: set[Timer] = set()
        self.timers = Timers(timers, lambda timer: timer not in self.stale)

    def due(self, now_ms: int, limit: int = 10) -> list[Timer]:
        """As a partition asks that has consumed everything."""
        assert self.timers.due(now_ms, upto(5), limit) == []
        if self.timers.asks_ends:
            self.timers.asks_ends = False
            self.timers.ends({REPLIES: 5, INTERNAL: 5, OPERATIONS: 5, INBOX: 9})
        return self.timers.due(now_ms, upto(5), limit)


def test_the_earliest_fires_first_and_none_before_its_time() -> None:
    kept = Kept((30, "c", 1), (10, "a", 1), (20, "b", 0))
    assert kept.timers.next_due_ms() == 10
    assert kept.due(9) == []
    assert not kept.timers.asks_ends
    assert kept.due(20) == [(10, "a", 1), (20, "b", 0)]
    kept.timers.add((25, "d", 2))
    assert kept.due(40) == [(25, "d", 2), (30, "c", 1)]
    assert kept.timers.next_due_ms() is None


def test_one_that_was_cleared_asks_nobody_and_never_fires() -> None:
    kept = Kept((10, "a", 1), (11, "b", 1))
    kept.stale = {(10, "a", 1)}
    assert kept.due(10) == []
    assert not kept.timers.asks_ends
    assert kept.timers.next_due_ms() == 11


def test_one_that_is_cleared_while_replies_are_consumed_does_not_fire() -> None:
    kept = Kept((10, "a", 1))
    kept.timers.due(10, upto(5), 10)
    assert kept.timers.asks_ends
    kept.stale = {(10, "a", 1)}
    kept.timers.ends({REPLIES: 5, INTERNAL: 5, OPERATIONS: 5})
    assert kept.timers.due(10, upto(5), 10) == []


def test_they_wait_for_each_of_the_three_topics_but_not_for_the_inbox() -> None:
    for late in (REPLIES, INTERNAL, OPERATIONS):
        kept = Kept((10, "a", 1))
        kept.timers.due(10, upto(5), 10)
        kept.timers.ends({REPLIES: 5, INTERNAL: 5, OPERATIONS: 5, INBOX: 99, late: 6})
        assert kept.timers.due(10, upto(5), 10) == []
        assert kept.timers.due(10, upto(6), 10) == [(10, "a", 1)]


def test_what_becomes_due_after_the_question_waits_for_the_next_one() -> None:
    kept = Kept((10, "a", 1), (20, "b", 1))
    kept.timers.due(10, upto(5), 10)
    kept.timers.ends({REPLIES: 5, INTERNAL: 5, OPERATIONS: 5})
    assert kept.timers.due(20, upto(5), 10) == [(10, "a", 1)]
    assert kept.due(20) == [(20, "b", 1)]


def test_a_question_that_failed_is_asked_again() -> None:
    kept = Kept((10, "a", 1))
    kept.timers.due(10, upto(5), 10)
    kept.timers.asks_ends = False
    kept.timers.ends(None)
    assert kept.timers.due(10, upto(5), 10) == []
    assert kept.timers.asks_ends


def test_an_answer_that_comes_too_late_is_nobody_s() -> None:
    kept = Kept((10, "a", 1))
    kept.timers.ends({REPLIES: 0, INTERNAL: 0, OPERATIONS: 0})
    assert kept.timers.due(10, upto(5), 10) == []
    assert kept.timers.due(10, upto(5), 10) == []


def test_at_most_so_many_at_once() -> None:
    kept = Kept(*[(1, f"s{number}", 1) for number in range(5)])
    assert len(kept.due(1, limit=3)) == 3
    assert len(kept.due(1, limit=3)) == 2


def test_what_was_due_when_it_was_made_is_taken_out_first() -> None:
    kept = Kept((0, "a", 0), (10, "b", 1))
    assert kept.timers.pop_due_at_once() == (0, "a", 0)
    assert kept.timers.pop_due_at_once() is None
