"""Records that are gathered leave in their order, once, and only when they are sent."""

import pytest

from orchestrator.log import gathered
from orchestrator.log.base import LogFull, TopicSpec
from orchestrator.log.gathered import GatheredAppender
from orchestrator.log.memory import MemoryLog


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


def test_it_is_full_when_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "BOUND", 1)
    appender = GatheredAppender(a_log().appender())
    appender.append("t", 0, b"0", token=0)
    with pytest.raises(LogFull, match="1 records wait"):
        appender.append("t", 0, b"1", token=1)
    appender.send()
    appender.append("t", 0, b"1", token=1)
