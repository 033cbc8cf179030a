"""Records that are gathered leave in their order, once, and only when they are sent."""

from collections import deque

import pytest

from orchestrator.log.base import LogFull, TopicSpec
from orchestrator.log.gathered import GatheredAppender
from orchestrator.log.memory import MemoryLog
from orchestrator.log.memory_link import Link, Sent


def a_log() -> MemoryLog:
    log = MemoryLog(lambda: 0)
    log.create(TopicSpec("t", 1, 1, {}))
    return log


def values(log: MemoryLog) -> list[bytes | None]:
    return [record.value for record in log.records("t", 0)]


def test_nothing_leaves_before_it_is_sent_and_then_all_of_it_in_order() -> None:
    log = a_log()
    appender = GatheredAppender(log.appender())
    for number in range(3):
        appender.append("t", 0, b"%d" % number, token=number, key=b"k", headers=[("h", b"v")])
    assert (values(log), appender.poll(), appender.pending) == ([], [], 3)
    appender.send()
    assert values(log) == [b"0", b"1", b"2"]
    assert (log.records("t", 0)[0].key, log.records("t", 0)[0].headers) == (b"k", (("h", b"v"),))
    assert [delivery.token for delivery in appender.poll()] == [0, 1, 2]
    assert appender.pending == 0
    appender.send()
    assert len(values(log)) == 3


def test_what_finds_no_room_is_sent_later_in_its_place() -> None:
    log = a_log()
    appender = GatheredAppender(log.appender(bound=2))
    for number in range(3):
        appender.append("t", 0, b"%d" % number, token=number)
    appender.send()
    appender.append("t", 0, b"3", token=3)
    appender.send()
    assert values(log) == [b"0", b"1"]
    assert len(appender.poll()) == 2
    appender.send()
    assert values(log) == [b"0", b"1", b"2", b"3"]


def test_it_is_full_when_too_much_waits() -> None:
    appender = GatheredAppender(a_log().appender(), 1)
    appender.append("t", 0, b"0", token=0)
    with pytest.raises(LogFull, match="1 records wait"):
        appender.append("t", 0, b"1", token=1)
    appender.send()
    appender.append("t", 0, b"1", token=1)


def test_records_of_both_kinds_keep_their_order_and_find_no_room_in_it() -> None:
    log = a_log()
    appender = GatheredAppender(log.appender(bound=3))
    for number in range(6):
        key = b"k" if number in (2, 4) else None
        appender.append("t", 0, b"%d" % number, token=number, key=key)
    assert not appender.send()
    assert (values(log), appender.waiting, appender.pending) == ([b"0", b"1", b"2"], 3, 6)
    assert [delivery.token for delivery in appender.poll()] == [0, 1, 2]
    assert appender.send()
    assert [delivery.token for delivery in appender.poll()] == [3, 4, 5]
    assert values(log) == [b"0", b"1", b"2", b"3", b"4", b"5"]


class Held(Link):
    """Keeps what is appended until it is told to let some of it land."""

    def __init__(self) -> None:
        self.sent: deque[Sent] = deque()

    def append(self, sent: Sent) -> None:
        self.sent.append(sent)

    def land(self, count: int) -> None:
        for _ in range(count):
            sent = self.sent.popleft()
            sent.land()
            sent.report()


def test_a_partition_with_enough_under_way_waits_and_then_sends_all_that_has_gathered() -> None:
    link = Held()
    log = a_log()
    log.create(TopicSpec("u", 1, 1, {}))
    appender = GatheredAppender(log.appender(link=link))

    def send(topic: str, count: int) -> list[int]:
        for _ in range(count):
            appender.append(topic, 0, b"", token=0)
        appender.send()
        return [len(link.sent), appender.waiting]

    assert send("t", 3) == [3, 0]
    assert send("t", 3) == [6, 0], "with four or less under way the producer still sends more"
    assert send("t", 7) == [6, 7]
    assert send("t", 1) == [6, 8]
    assert send("u", 2) == [8, 8], "another partition does not wait"
    link.land(1)
    assert (len(appender.poll()), send("t", 0)) == (1, [7, 8])
    link.land(1)
    assert (len(appender.poll()), send("t", 0)) == (1, [14, 0])
    link.land(14)
    assert (len(appender.poll()), appender.pending) == (14, 0)
