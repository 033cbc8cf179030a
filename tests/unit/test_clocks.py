"""Clocks that are off: a partition's time is that of its last append, and what its owner saw pass since."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from tests.shop_world import PARTITIONS, World, send_starts

ID = "greeting-1"
HOME = partition_of(ID, PARTITIONS)
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
OTHERS = [f"o-{number}" for number in range(2_000) if partition_of(f"o-{number}", PARTITIONS) == HOME]


class Off(World):
    """A world with a saga that sleeps for an hour, after whose start the brokers' clock is `off`."""

    def __init__(self, off: Callable[[int], int]) -> None:
        super().__init__()
        send_starts(self, ID, saga_type="Greeting", value=b'"you"')
        self.settle()
        self.began_ms = self.now_ms
        self.log.clock = lambda: self.began_ms + off(self.now_ms - self.began_ms)
        self.others = iter(OTHERS)

    def busy(self, for_ms: int) -> None:
        """So long, or until it has ended, with another saga each minute."""
        end_ms = self.now_ms + for_ms
        while self.now_ms < end_ms and self.status(ID) is Status.RUNNING:
            send_starts(self, next(self.others))
            self.settle()
            self.rest(MINUTE)

    def rest(self, for_ms: int) -> None:
        """So long, or until it has ended, with nothing else to do."""
        end_ms = self.now_ms + for_ms
        while self.now_ms < end_ms and self.status(ID) is Status.RUNNING:
            self.advance(SECOND)

    def slept_ms(self) -> int:
        """How long the saga has slept now that it has ended, by the brokers' clock."""
        assert self.status(ID) is Status.COMPLETED
        return self.log.clock() - self.began_ms

    def unharmed(self) -> bool:
        return self.engine.epochs_lost == 0


def test_where_a_brokers_clock_jumps_ahead_what_is_due_by_it_rings_with_the_next_append() -> None:
    world = Off(lambda passed: passed + HOUR)
    world.rest(5 * SECOND)
    assert world.status(ID) is Status.COMPLETED
    assert world.unharmed()


def test_where_a_brokers_clock_falls_back_timers_wait_for_it_as_long_as_there_are_appends() -> None:
    world = Off(lambda passed: passed - HOUR)
    world.busy(2 * HOUR - 5 * MINUTE)
    assert world.status(ID) is Status.RUNNING
    world.busy(10 * MINUTE)
    assert world.status(ID) is Status.COMPLETED
    assert world.unharmed()


def test_where_a_brokers_clock_falls_back_a_partition_at_rest_goes_on_by_its_owners() -> None:
    world = Off(lambda passed: passed - HOUR)
    world.rest(HOUR + SECOND)
    assert world.status(ID) is Status.COMPLETED
    assert world.unharmed()


@pytest.mark.parametrize("percent", [90, 110])
def test_an_owner_whose_clock_drifts_rings_wrong_by_that_from_the_last_append_on(percent: int) -> None:
    world = Off(lambda passed: passed * 100 // percent)
    world.rest(2 * HOUR)
    assert abs(world.slept_ms() - HOUR * 100 // percent) < 5 * SECOND
    assert world.unharmed()


@pytest.mark.parametrize("percent", [90, 110])
def test_with_an_append_each_minute_a_drift_is_no_more_than_that_of_a_minute(percent: int) -> None:
    world = Off(lambda passed: passed * 100 // percent)
    world.busy(2 * HOUR)
    assert abs(world.slept_ms() - HOUR) < 10 * SECOND
    assert world.unharmed()
