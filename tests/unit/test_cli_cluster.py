"""Topics as a verb meets them, on the log in memory."""

from contextlib import closing
from threading import Event

import pytest

from orchestrator.cli.cluster import append_all, bounds_of, partitions_of, read_between
from orchestrator.errors import ConfigurationError
from orchestrator.log.base import Failure, TopicSpec
from orchestrator.log.memory import MemoryAppender, MemoryLog


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog(lambda: 0)
    with closing(made.admin()) as admin:
        admin.create([TopicSpec("t", 2, 1, {})])
    return made


def test_what_is_appended_is_read_between_two_offsets(log: MemoryLog) -> None:
    deliveries = append_all(log, [("t", 1, b"k", b"%d" % number, [("h", b"v")]) for number in range(5)])
    assert [delivery.offset for delivery in deliveries] == [0, 1, 2, 3, 4]
    assert bounds_of(log, "t", range(2)) == {0: (0, 0), 1: (0, 5)}
    found = read_between(log, "t", {0: (0, 0), 1: (1, 4)})
    assert [record.value for record in found] == [b"1", b"2", b"3"]
    assert found[0].headers == (("h", b"v"),)


def test_a_missing_topic_is_told_with_what_to_do(log: MemoryLog) -> None:
    assert partitions_of(log, "t") == 2
    with pytest.raises(ConfigurationError, match="saga topics apply"):
        partitions_of(log, "nothing")


def test_a_refused_append_is_in_its_delivery(log: MemoryLog) -> None:
    good, bad = append_all(log, [("t", 0, None, b"", []), ("nothing", 0, None, b"", [])])
    assert good.failure is None
    assert bad.failure is Failure.UNKNOWN_TOPIC


def test_more_than_the_appender_holds_is_appended_in_turns() -> None:
    class Narrow(MemoryLog):
        def appender(self, *, wake: Event | None = None, **options: object) -> MemoryAppender:
            return super().appender(wake=wake, bound=2)

    log = Narrow(lambda: 0)
    log.create(TopicSpec("t", 1, 1, {}))
    deliveries = append_all(log, [("t", 0, None, b"%d" % number, []) for number in range(5)])
    assert [delivery.offset for delivery in deliveries] == [0, 1, 2, 3, 4]
