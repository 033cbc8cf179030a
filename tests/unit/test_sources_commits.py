"""What a source sends before its commits are confirmed: no more than a saga knows again; where they are, all it can."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from orchestrator.log.base import Happening
from orchestrator.log.memory_link import Sent
from orchestrator.model.messages import KEPT_MESSAGES
from orchestrator.model.rule import Kind
from orchestrator.runtime import materialize
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.sources import FromTopic, engine
from orchestrator.sources.engine import MAX_UNCONFIRMED
from orchestrator.wire.journal import read_decision, read_envelope
from tests.shop_world import SAGAS, send_starts
from tests.unit.participant.world import HoldingLink
from tests.unit.test_sources import TOPIC, Event, Shop

PARTITIONS = 3
BOUND, KEPT = 20, 100


class Meter(Saga[int, int]):
    """One saga that a whole topic is for."""

    read = signal(int)
    checked = signal(int)

    async def run(self, total: int) -> int:
        while total < 1_000_000:
            total += await self.receive(Meter.read)
            if self.suggests_continue_as_new:
                self.continue_as_new(total)
        return total


def readings(*, checked: bool = False) -> FromTopic[Event]:
    source = FromTopic(TOPIC, Event)
    source.signals(Meter.read, id=lambda r: "meter", value=lambda r: 1, where=lambda r: r.value.kind == "read")
    if checked:
        source.signals(Meter.checked, id=lambda r: "meter", value=lambda r: 1)
    return source


class Reading(Shop):
    """Its members' commits are answered when the test wants it."""

    def __init__(self) -> None:
        super().__init__(PARTITIONS, sagas=(*SAGAS, Meter))
        self.link = HoldingLink()
        self.link.holds_request = lambda kind: kind == "commit"
        send_starts(self, "meter", saga_type="Meter", value=b"0")
        self.run()

    def read(self, count: int, kind: str = "read") -> None:
        for number in range(count):
            self.say(Event(kind=kind, number=str(number)), partition=number % PARTITIONS)

    def sent(self) -> list[str]:
        """The message ids of what the sources have sent."""
        given = [dict(record.headers).get("message-id", b"").decode() for record in self.records(self.topics.inbox)]
        return [message_id for message_id in given if message_id.startswith(TOPIC)]

    def answer(self, failure: Any = None) -> None:
        """The commits that wait are answered."""
        held, self.link.requests = self.link.requests, []
        for _, perform, fail in held:
            perform() if failure is None else fail(failure)

    def taken(self) -> Counter[str]:
        """How often the meter took each."""
        found: Counter[str] = Counter()
        for record in self.records(self.topics.journal):
            envelope = read_envelope(record.value)
            decision = read_decision(envelope) if envelope.kind == Kind.DECISION else None
            if decision is not None and decision.saga_id == "meter" and decision.message_id.startswith(TOPIC):
                found[decision.message_id] += 1
        return found

    def make_topic_anew(self) -> None:
        """It is empty, and its members' positions are beyond its end."""
        for number in range(PARTITIONS):
            partition = self.log.partitions[TOPIC, number]
            partition.records.clear()
            partition.stir()

    def committed_records(self) -> int:
        return sum(self.committed(partition=number) or 0 for number in range(PARTITIONS))


class Fetched:
    """A reader that has fetched all there is before it can be paused, as librdkafka may."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def poll(self, limit: int) -> list[Happening]:
        happened: list[Happening] = self._reader.poll(100_000)
        return happened

    def pause(self, topic: str, partition: int) -> None:
        """Too late."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def fetch_all(member: engine.SourceEngine) -> None:
    member._reader = Fetched(member._reader)  # type: ignore[assignment]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialize, "KEPT_MESSAGES", KEPT)
    monkeypatch.setattr(materialize, "COUNTED_EVERY", 1)
    monkeypatch.setattr(engine, "MAX_UNCONFIRMED", BOUND)


def test_several_members_at_their_bound_have_less_than_a_saga_knows() -> None:
    assert 3 * MAX_UNCONFIRMED < KEPT_MESSAGES


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("fetched", [False, True])
def test_what_comes_again_while_commits_were_not_answered_acts_once(fetched: bool) -> None:
    shop = Reading()
    member = shop.member(readings(), link=shop.link)
    if fetched:
        fetch_all(member)
    shop.read(3 * KEPT)
    for _ in range(10):
        shop.advance(5_000)
    assert shop.committed_records() == 0
    assert len(shop.sent()) == BOUND
    shop.kill()
    shop.member(readings())
    shop.run()
    assert len(shop.sent()) == BOUND + 3 * KEPT
    assert shop.taken() == dict.fromkeys(set(shop.sent()), 1)
    assert len(shop.taken()) == shop.committed_records() == 3 * KEPT


@pytest.mark.usefixtures("few")
def test_it_reads_no_further_meanwhile() -> None:
    shop = Reading()
    member = shop.member(readings(), link=shop.link)
    shop.read(2_700)
    shop.run()
    assert member.counters.commands == 500


@pytest.mark.usefixtures("few")
def test_all_that_a_record_is_for_counts() -> None:
    shop = Reading()
    shop.member(readings(checked=True), link=shop.link)
    shop.read(3 * KEPT)
    shop.run()
    assert len(shop.sent()) == BOUND


@pytest.mark.usefixtures("few")
def test_what_nothing_is_made_of_is_read_on_and_on() -> None:
    shop = Reading()
    member = shop.member(readings(), link=shop.link)
    shop.read(3 * KEPT, kind="other")
    shop.run()
    assert member.counters.passed_over == 3 * KEPT


@pytest.mark.usefixtures("few")
def test_it_goes_on_by_so_much_as_is_confirmed() -> None:
    shop = Reading()
    shop.member(readings(), link=shop.link)
    shop.read(3 * KEPT)
    shop.run()
    for round in range(1, 4):
        for _ in range(2):
            shop.advance(5_000)  # all that is through is committed, for what was before is not answered
        assert len(shop.sent()) == round * BOUND
        assert shop.committed_records() == (round - 1) * BOUND
        shop.answer()


class Stuck(HoldingLink):
    """Holds what is for one saga."""

    def append(self, sent: Sent) -> None:
        if sent.key == b"stuck":
            self.held.append(sent)
        else:
            super().append(sent)


@pytest.mark.usefixtures("few")
def test_one_record_that_stays_on_its_way_holds_all_that_would_come_behind_it() -> None:
    """For after a crash what lies behind it in its own partition comes again behind all the others."""
    shop = Reading()
    link = Stuck()
    source = readings().signals(
        Meter.read, id=lambda r: "stuck", value=lambda r: 1, where=lambda r: r.value.kind == "stuck"
    )
    shop.member(source, link=link)
    shop.say(Event(kind="stuck", number="0"), partition=0)
    for number in range(3 * KEPT):
        shop.say(Event(kind="read", number=str(number)), partition=1 + number % 2)
    shop.run()
    assert (len(link.held), len(shop.sent())) == (1, BOUND - 1)
    link.release()
    shop.run()
    assert len(shop.sent()) == shop.committed_records() == 3 * KEPT + 1


@pytest.mark.usefixtures("few")
def test_a_partition_that_goes_away_holds_nobody() -> None:
    """What is not confirmed of it is for its next owner, and what was only read of it is not sent here any more."""
    shop = Reading()
    first = shop.member(readings(), link=shop.link)
    fetch_all(first)
    shop.read(3 * KEPT)
    shop.run()
    second = shop.member(readings())
    shop.link.holds_request = lambda _: False
    shop.answer()
    shop.run()
    assert first.partitions
    assert second.partitions
    assert len(first.partitions) + len(second.partitions) == PARTITIONS
    assert shop.taken() == dict.fromkeys(set(shop.sent()), 1)
    assert len(shop.taken()) == shop.committed_records() == 3 * KEPT


@pytest.mark.usefixtures("few")
def test_a_topic_that_begins_anew_is_read_on() -> None:
    shop = Reading()
    member = shop.member(readings(), link=shop.link)
    fetch_all(member)
    shop.read(3 * KEPT)
    shop.run()
    shop.make_topic_anew()
    shop.link.holds_request = lambda _: False
    shop.link.requests.clear()
    shop.advance(5_000)
    assert member.counters.repositioned == PARTITIONS
    assert len(shop.sent()) == 3 * KEPT  # what had been read
    shop.read(BOUND + 10)
    shop.advance(5_000)
    shop.run()
    assert len(shop.sent()) == 3 * KEPT + BOUND + 10


@pytest.mark.usefixtures("few")
def test_what_was_committed_of_a_topic_says_nothing_of_the_one_that_is_made_anew() -> None:
    shop = Reading()
    shop.link.holds_request = lambda _: False
    shop.member(readings(), link=shop.link)
    shop.read(3 * KEPT)
    shop.run()
    assert shop.committed_records() == 3 * KEPT
    shop.link.holds_request = lambda kind: kind == "commit"
    shop.make_topic_anew()
    shop.advance(5_000)
    shop.read(KEPT)
    shop.advance(5_000)
    assert len(shop.sent()) == 3 * KEPT + BOUND


def test_a_fast_source_waits_for_no_interval() -> None:
    """It commits once half of what may be sent unconfirmed has been, without a pause."""
    shop = Reading()
    shop.link.holds_request = lambda _: False
    shop.member(readings(), link=shop.link, commit_interval_ms=3_600_000)
    shop.read(4 * MAX_UNCONFIRMED)
    shop.settle()
    assert len(shop.sent()) == 4 * MAX_UNCONFIRMED
