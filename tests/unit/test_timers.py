"""Timers fire when they are due, once what was there before them is consumed, and only while they hold."""

from collections.abc import Callable

from orchestrator.runtime.timers import AHEAD_MS, PAGE, Timer, Timers
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStore, MemoryStores
from orchestrator.wire.inputs import INBOX, INTERNAL, OPERATIONS, REPLIES


def upto(offset: int) -> Callable[[str], int]:
    return lambda role: offset


class Kept:
    """Timers of a store, of which some no longer hold, and of runs that are ahead of it."""

    def __init__(self, *timers: Timer) -> None:
        self.stale: set[Timer] = set()
        self.ahead: list[Timer] = []
        self.asked: list[Timer] = []
        """Those of which it was asked whether they hold."""
        self.store: MemoryStore = MemoryStores().open(0)
        self.store.write([(keys.timer(*timer), b"") for timer in timers])
        self.timers = Timers(self.store, lambda: self.ahead, self._is_set)

    def _is_set(self, timer: Timer) -> bool:
        self.asked.append(timer)
        return timer not in self.stale

    def due(self, now_ms: int, limit: int = 10) -> list[Timer]:
        """As a partition asks that has consumed everything."""
        assert self.timers.due(now_ms, upto(5), limit) == []
        if self.timers.asks_ends:
            self.timers.asks_ends = False
            self.timers.ends({REPLIES: 5, INTERNAL: 5, OPERATIONS: 5, INBOX: 9})
        return self.timers.due(now_ms, upto(5), limit)


def test_the_earliest_fires_first_and_none_before_its_time() -> None:
    kept = Kept((30, "c", 1), (10, "a", 1), (20, "b", 0))
    assert kept.due(9) == []
    assert kept.timers.next_due_ms() == 10
    assert not kept.timers.asks_ends
    assert kept.due(20) == [(10, "a", 1), (20, "b", 0)]
    kept.timers.add((25, "d", 2))
    assert kept.due(40) == [(25, "d", 2), (30, "c", 1)]
    assert kept.timers.held == 0


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


# -- what is not due soon is in the store alone


def test_what_is_due_later_is_in_the_store_alone_and_fires_in_its_time() -> None:
    later = AHEAD_MS + 500
    kept = Kept((later, "a", 1), (later, "b", 1), (10, "c", 1))
    assert kept.due(10) == [(10, "c", 1)]
    assert kept.timers.held == 0
    kept.store.write([(keys.timer(later, "a", 1), None)])
    assert kept.timers.next_due_ms() == AHEAD_MS + 10
    assert kept.due(AHEAD_MS + 10) == []
    assert kept.timers.held == 1
    assert kept.timers.next_due_ms() == later
    assert kept.due(later) == [(later, "b", 1)]
    assert (later, "a", 1) not in kept.asked


def test_one_that_is_set_for_later_is_not_held_either() -> None:
    kept = Kept()
    assert kept.due(10) == []
    later = (AHEAD_MS * 3, "a", 1)
    kept.timers.add(later)
    assert kept.timers.held == 0
    kept.store.write([(keys.timer(*later), b"")])
    assert kept.due(AHEAD_MS * 3) == [later]


def test_one_that_is_not_stored_yet_when_its_time_comes_near_is_found_where_it_is() -> None:
    kept = Kept((AHEAD_MS * 3, "b", 1), (AHEAD_MS * 3 + 1, "c", 1))
    assert kept.due(10) == []
    for timer in ((AHEAD_MS * 3 - 1, "a", 1), (AHEAD_MS * 3 + 1, "c", 1), (AHEAD_MS * 9, "d", 1)):
        kept.timers.add(timer)
        kept.ahead.append(timer)
    assert kept.due(AHEAD_MS * 3) == [(AHEAD_MS * 3 - 1, "a", 1), (AHEAD_MS * 3, "b", 1)]
    assert kept.timers.held == 1
    assert kept.due(AHEAD_MS * 3 + 1) == [(AHEAD_MS * 3 + 1, "c", 1)]
    assert kept.timers.held == 0


def test_many_that_are_due_at_the_same_time_come_page_by_page_and_each_once() -> None:
    many = [(10, f"s{number:05d}", 1) for number in range(PAGE * 2 + 1)]
    kept = Kept(*many)
    kept.ahead = many[:: PAGE // 2]
    found: list[Timer] = []
    while due := kept.due(20, limit=PAGE // 3):
        assert kept.timers.held <= PAGE
        found += due
    assert found == many


def test_a_page_that_holds_no_more_is_passed_over_at_once() -> None:
    many = [(10, f"s{number:05d}", 1) for number in range(PAGE)]
    kept = Kept(*many, (11, "a", 1))
    kept.stale = set(many)
    assert kept.due(11) == [(11, "a", 1)]


def test_one_that_is_set_below_what_was_looked_at_is_held() -> None:
    kept = Kept()
    assert kept.due(10) == []
    kept.timers.add((AHEAD_MS + 9, "a", 1))
    assert kept.timers.held == 1
    assert kept.timers.next_due_ms() == AHEAD_MS + 9


def test_all_that_was_due_when_it_was_made_is_taken_out_first() -> None:
    at_once = [(0, f"s{number:05d}", 0) for number in range(PAGE + 1)]
    kept = Kept(*at_once, (10, "a", 1))
    found = []
    while (timer := kept.timers.pop_due_at_once()) is not None:
        found.append(timer)
    assert found == at_once
    assert kept.due(10) == [(10, "a", 1)]
