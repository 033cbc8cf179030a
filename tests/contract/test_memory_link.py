"""The seam between the log in memory and its clients: what a simulator can do to them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

import pytest

from orchestrator.log.base import Committed, Delivery, Ends, Failure, Granted, Happening, Record, Revoked, TopicSpec
from orchestrator.log.memory import MemoryLog
from orchestrator.log.memory_link import Link, Sent


class Holding(Link):
    """Keeps everything until told."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.requests: list[tuple[str, Callable[[], None], Callable[[Failure], None]]] = []
        self.ends: dict[tuple[str, int], int] = {}

    def append(self, sent: Sent) -> None:
        self.sent.append(sent)

    def fetch(self, topic: str, partition: int, end: int) -> int:
        return self.ends.get((topic, partition), end)

    def request(self, kind: str, perform: Callable[[], None], fail: Callable[[Failure], None]) -> None:
        self.requests.append((kind, perform, fail))


@pytest.fixture
def now() -> list[int]:
    return [1_000]


@pytest.fixture
def log(now: list[int]) -> MemoryLog:
    log = MemoryLog(lambda: now[0])
    log.create(TopicSpec("t", 4, 1, {}))
    return log


def owned(happened: list[Happening]) -> list[tuple[str, int]]:
    return [key for granted in happened if isinstance(granted, Granted) for key in granted.partitions]


def test_perfect_link_is_like_none(log: MemoryLog) -> None:
    appender, reader = log.appender(link=Link()), log.reader(link=Link())
    appender.append("t", 0, b"x", token=1, headers=[("a", b"b")])
    assert appender.poll() == [Delivery(1, 0, 1_000)]
    reader.assign("t", 0, 0)
    assert reader.poll() == [Record("t", 0, 0, 1_000, None, b"x", (("a", b"b"),))]


def test_late_append_has_the_time_and_offset_of_its_landing(log: MemoryLog, now: list[int]) -> None:
    link = Holding()
    appender = log.appender(link=link)
    appender.append("t", 0, b"late", token="late")
    log.appender().append("t", 0, b"other", token=None)
    assert appender.poll() == []
    assert appender.pending == 1
    now[0] = 2_000
    link.sent[0].land()
    assert appender.poll() == []
    link.sent[0].report()
    assert appender.poll() == [Delivery("late", 1, 2_000)]
    assert appender.pending == 0


def test_repeated_landing_and_report_do_nothing(log: MemoryLog) -> None:
    link = Holding()
    appender = log.appender(link=link)
    appender.append("t", 0, b"x", token=None)
    for _ in range(2):
        link.sent[0].land()
        link.sent[0].report()
    link.sent[0].fail()
    assert len(log.records("t", 0)) == 1
    assert len(appender.poll()) == 1


def test_lost_ack_missing_offset_and_late_landing(log: MemoryLog) -> None:
    link = Holding()
    appender = log.appender(link=link)
    for token in ("ack lost", "no offset", "lost", "zombie"):
        appender.append("t", 0, token.encode(), token=token)
    lost_ack, no_offset, lost, zombie = link.sent
    lost_ack.land()
    lost_ack.fail(detail="timed out")
    no_offset.land()
    no_offset.report(with_offset=False)
    lost.fail()
    zombie.fail()
    told = appender.poll()
    assert [(one.token, one.offset, one.failure) for one in told] == [
        ("ack lost", None, Failure.UNKNOWN_OUTCOME),
        ("no offset", None, None),
        ("lost", None, Failure.UNKNOWN_OUTCOME),
        ("zombie", None, Failure.UNKNOWN_OUTCOME),
    ]
    zombie.land()
    assert [record.value for record in log.records("t", 0)] == [b"ack lost", b"no offset", b"zombie"]
    assert appender.poll() == []


def test_only_what_landed_can_be_acknowledged(log: MemoryLog) -> None:
    link = Holding()
    log.appender(link=link).append("t", 0, b"x", token=None)
    with pytest.raises(RuntimeError, match="landed"):
        link.sent[0].report()


def test_topic_deleted_under_way(log: MemoryLog) -> None:
    link = Holding()
    appender = log.appender(link=link)
    appender.append("t", 0, b"x", token=None)
    log.delete("t")
    link.sent[0].land()
    link.sent[0].report()
    assert appender.poll()[0].failure is Failure.UNKNOWN_TOPIC


def test_closed_appender_says_what_is_left_and_its_appends_may_land(log: MemoryLog) -> None:
    link = Holding()
    appender = log.appender(link=link)
    appender.append("t", 0, b"x", token=None)
    assert appender.close(1.0) == 1
    link.sent[0].land()
    assert len(log.records("t", 0)) == 1


def test_reader_may_see_an_old_end(log: MemoryLog) -> None:
    link = Holding()
    appender, reader = log.appender(), log.reader(link=link)
    for number in range(5):
        appender.append("t", 0, b"%d" % number, token=None)
    reader.assign("t", 0, 0)
    link.ends["t", 0] = 2
    assert [record.offset for record in reader.poll() if isinstance(record, Record)] == [0, 1]
    assert reader.poll() == []
    del link.ends["t", 0]
    assert [record.offset for record in reader.poll() if isinstance(record, Record)] == [2, 3, 4]


def test_answers_may_be_late_or_fail(log: MemoryLog) -> None:
    link = Holding()
    reader = log.reader("g", ["t"], link=link)
    link.requests.pop()[1]()
    assert len(owned(reader.poll())) == 4
    reader.ask_ends([("t", 0)], "ends")
    reader.commit({("t", 0): (1, "m")}, "commit")
    reader.commit({("t", 0): (2, "m")}, "failed")
    reader.ask_committed([("t", 0)], "committed")
    assert [kind for kind, _, _ in link.requests] == ["ends", "commit", "commit", "committed"]
    log.appender().append("t", 0, b"x", token=None)
    ends, commit, failed, committed = link.requests
    ends[1]()
    commit[1]()
    failed[2](Failure.UNKNOWN_OUTCOME)
    committed[1]()
    assert reader.poll() == [
        Ends("ends", {("t", 0): 1}),
        Committed("commit"),
        Committed("failed", Failure.UNKNOWN_OUTCOME),
        Ends("committed", {("t", 0): 1}, None, {("t", 0): "m"}),
    ]


def test_expired_member_loses_all_and_joins_again(log: MemoryLog) -> None:
    first, second = log.reader("g", ["t"]), log.reader("g", ["t"])
    first.poll()
    assert len(owned(second.poll())) == 2
    log.expire(first)
    assert first.poll() == [Revoked((("t", 0), ("t", 1)), lost=True)]
    assert sorted(owned(second.poll())) == [("t", 0), ("t", 1)]
    first.commit({("t", 0): (1, "")}, "late")
    joined = first.poll()
    assert Committed("late", Failure.NOT_OWNED, "not owned: [('t', 0)]") in joined
    assert len(owned(first.poll())) == 2


def test_member_cut_off_goes_on_reading_and_cannot_commit(log: MemoryLog) -> None:
    link = Holding()
    first = log.reader("g", ["t"], link=link)
    link.requests.pop()[1]()
    first.poll()
    first.assign("t", 0, 0)
    log.expire(first)
    second = log.reader("g", ["t"])
    assert len(owned(second.poll())) == 4
    log.appender().append("t", 0, b"x", token=None)
    assert len(first.poll()) == 1
    first.commit({("t", 0): (1, "")}, "commit")
    for _, perform, _ in link.requests:
        perform()
    happened = first.poll()
    assert [one.lost for one in happened if isinstance(one, Revoked)] == [True]
    assert [one.failure for one in happened if isinstance(one, Committed)] == [Failure.NOT_OWNED]
    log.appender().append("t", 0, b"x", token=None)
    assert not [one for one in first.poll() if isinstance(one, Record)]


def test_group_follows_topics_and_members(log: MemoryLog) -> None:
    readers = [log.reader("g", ["t", "u"]) for _ in range(3)]
    log.create(TopicSpec("u", 3, 1, {}))
    happened = [reader.poll() for reader in readers]
    assert [sum(topic == "u" for topic, _ in owned(one)) for one in happened] == [1, 1, 1]
    readers[0].close()
    assert {key for reader in readers[1:] for key in owned(reader.poll())} <= {("t", n) for n in range(4)} | {
        ("u", n) for n in range(3)
    }
    log.delete("u")
    assert all(any(isinstance(one, Revoked) for one in reader.poll()) for reader in readers[1:])


def test_what_was_not_seen_yet_rings_again(log: MemoryLog) -> None:
    link, wake = Holding(), Event()
    appender, reader = log.appender(), log.reader(link=link, wake=wake)
    link.ends["t", 0] = 0
    reader.assign("t", 0, 0)
    wake.clear()
    assert reader.poll() == []
    assert not wake.is_set()
    appender.append("t", 0, b"x", token=None)
    wake.clear()
    assert reader.poll() == []
    assert wake.is_set()


def test_reader_follows_a_topic_created_anew(log: MemoryLog) -> None:
    wake = Event()
    appender, reader = log.appender(), log.reader(wake=wake)
    reader.assign("t", 0, 0)
    assert reader.poll() == []
    log.delete("t")
    log.create(TopicSpec("t", 4, 1, {}))
    assert reader.poll() == []
    wake.clear()
    appender.append("t", 0, b"x", token=None)
    assert wake.is_set()
    assert [one.value for one in reader.poll() if isinstance(one, Record)] == [b"x"]


def test_what_a_pause_held_back_comes_after_it(log: MemoryLog) -> None:
    appender, reader = log.appender(), log.reader()
    reader.assign("t", 0, 0)
    reader.pause("t", 0)
    appender.append("t", 0, b"x", token=None)
    assert reader.poll() == []
    reader.resume("t", 0)
    assert len(reader.poll()) == 1
