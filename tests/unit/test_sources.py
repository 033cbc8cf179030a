"""A business topic whose records start and tell sagas: each once, in order; what cannot be mapped is found again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.cli.application import load_source
from orchestrator.cli.dev import _processes
from orchestrator.client.requests import Requests
from orchestrator.config import load_settings
from orchestrator.errors import ConfigurationError, DefinitionError
from orchestrator.log.base import Failure, TopicSpec
from orchestrator.log.memory_link import Link
from orchestrator.model.events import Status
from orchestrator.participant.outbound import EngineFailed
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.signals import signal
from orchestrator.sources import FromTopic, SourceRecord
from orchestrator.sources.engine import SourceEngine
from orchestrator.sources.runner import SourceRunner
from orchestrator.telemetry import SourceMetrics, source_readiness
from tests.expense import Approval, Decision, Expense
from tests.shop_world import PARTITIONS, Order, OrderFulfilment, World
from tests.unit.participant.world import HoldingLink
from tests.unit.test_telemetry import scrape, value

TOPIC = "shop.events"


class Event(BaseModel):
    """What the shop has said for years."""

    kind: str = "placed"
    number: str
    cents: int = 900
    by: str = ""


def shop_events(**options: Any) -> FromTopic[Event]:
    source = FromTopic(TOPIC, Event, **options)
    source.starts(
        OrderFulfilment,
        id=lambda r: f"order-{r.value.number}",
        input=lambda r: Order(id=r.value.number, cents=100_00 // r.value.cents),
        where=lambda r: r.value.kind == "placed",
    )
    source.starts(Expense, id=lambda r: r.key, input=lambda r: r.value.cents, where=lambda r: r.value.kind == "expense")
    source.signals(
        Expense.decided,
        id=lambda r: r.key,
        value=lambda r: Decision(by=r.value.by),
        where=lambda r: r.value.kind == "decided",
    )
    return source


class Shop(World):
    """The world with a business topic, and members of the source's group."""

    def __init__(self, partitions: int = 1, **options: Any) -> None:
        self.members: list[SourceEngine] = []
        super().__init__(**options)
        self.log.create(TopicSpec(TOPIC, partitions, 1, {}))
        self.business = self.log.appender()

    def member(self, source: FromTopic[Any] | None = None, link: Link | None = None, **settings: Any) -> SourceEngine:
        source = source or shop_events()
        self.reader = self.log.reader(self.topics.source_group(source.name), [TOPIC], link=link)
        engine = SourceEngine(
            source,
            self.reader,
            self.log.appender(link=link),
            Requests(self.topics, PARTITIONS),
            lambda: self.now_ms,
            log_start=lambda topic, partition: self.log.partitions[topic, partition].start,
            settings=ParticipantSettings(dead_letter_partitions=PARTITIONS, **settings),
        )
        self.members.append(engine)
        return engine

    def say(self, event: Event | bytes | None, key: str = "k", partition: int = 0, **headers: str) -> None:
        content = event.model_dump_json().encode() if isinstance(event, Event) else event
        pairs = [(name, text.encode()) for name, text in headers.items()]
        self.business.append(TOPIC, partition, content, key=key.encode(), headers=pairs, token=None)

    def step(self) -> bool:
        busy = super().step()
        for member in self.members:
            busy = member.step() or busy
        return busy

    def committed(self, name: str = TOPIC, partition: int = 0) -> int | None:
        found = self.log.group(self.topics.source_group(name)).offsets.get((TOPIC, partition))
        return None if found is None else found[0]

    def run(self) -> None:
        """Until nothing happens, and what is committed now and then is committed."""
        for _ in range(3):
            self.advance(200)

    def kill(self) -> None:
        """kill -9 of all members, and the group notices."""
        self.members.clear()
        self.log.expire(self.reader)

    def letters(self) -> list[dict[str, str]]:
        records = self.records(self.topics.dead_letters)
        return [{name: text.decode(errors="replace") for name, text in record.headers} for record in records]

    def asked(self) -> list[tuple[str, str]]:
        """Saga id and message id of what the inbox got."""
        given = [dict(record.headers) for record in self.records(self.topics.inbox)]
        return [(headers["saga-id"].decode(), headers["message-id"].decode()) for headers in given]


def reasons(shop: Shop) -> list[str]:
    return [letter["__connect.errors.exception.message"] for letter in shop.letters()]


def told_of(shop: Shop, saga_id: str) -> list[bytes | None]:
    """The journal's records that tell of a saga."""
    return [record.value for record in shop.records(shop.topics.journal) if saga_id.encode() in (record.value or b"")]


def test_records_start_and_tell_sagas() -> None:
    shop = Shop()
    shop.say(Event(number="7"), traceparent="00-1-2-01")
    shop.say(Event(kind="expense", number="8", cents=50), key="e-1")
    shop.say(Event(kind="decided", number="9", by="ann"), key="e-1")
    shop.say(Event(kind="cancelled", number="7"))
    shop.say(None)  # a tombstone
    engine = shop.member()
    shop.run()
    assert shop.status("order-7") is Status.COMPLETED
    assert sorted(shop.asked()) == [
        ("e-1", f"{TOPIC}/0/1/start Expense"),
        ("e-1", f"{TOPIC}/0/2/signal decided"),
        ("order-7", f"{TOPIC}/0/0/start OrderFulfilment"),
    ]
    assert shop.committed() == 5
    assert (engine.counters.commands, engine.counters.sent, engine.counters.passed_over) == (5, 3, 2)
    (start,) = [dict(r.headers) for r in shop.records(shop.topics.inbox) if r.key == b"order-7"]
    assert start["traceparent"] == b"00-1-2-01"
    assert "reply-to" not in start
    assert not shop.letters()


def test_what_is_read_again_does_nothing_twice() -> None:
    shop = Shop()
    link = HoldingLink()
    link.holds_request = lambda kind: kind == "commit"
    shop.member(link=link)
    shop.say(Event(kind="expense", number="8"), key="e-1")
    shop.say(Event(kind="decided", number="9", by="ann"), key="e-1")
    shop.run()
    assert shop.committed() is None
    asked = shop.asked()
    told = told_of(shop, "e-1")
    assert shop.status("e-1") is Status.COMPLETED
    shop.kill()
    shop.member()
    shop.run()
    assert shop.asked() == [*asked, *asked]  # the same messages
    assert shop.committed() == 2
    assert told_of(shop, "e-1") == told  # of which the saga's history has nothing


def _raise(record: SourceRecord[Event]) -> str:
    raise KeyError(record.value.number)


BAD: dict[str, tuple[FromTopic[Any], bytes, str]] = {
    "no JSON": (shop_events(), b"\xff{", "the value does not fit: "),
    "not of the type": (shop_events(), b'{"kind": "placed"}', "the value does not fit: number: Field required"),
    "the input raises": (
        shop_events(),
        b'{"number": "7", "cents": 0}',
        "start OrderFulfilment: ZeroDivisionError: ",
    ),
    "the id raises": (
        FromTopic(TOPIC, Event).starts(Expense, id=_raise, input=lambda r: 1),
        b'{"number": "7"}',
        "start Expense: KeyError: '7'",
    ),
    "no id": (
        FromTopic(TOPIC, Event).starts(Expense, id=lambda r: "", input=lambda r: 1),
        b'{"number": "7"}',
        "start Expense: a saga id has 1 to 512 bytes",
    ),
    "an input of another type": (
        FromTopic(TOPIC, Event).starts(Expense, id=lambda r: "e-1", input=lambda r: r.value),  # type: ignore[misc, arg-type, return-value]
        b'{"number": "7"}',
        "start Expense: ",
    ),
    "too large": (
        FromTopic(TOPIC, Event).signals(Expense.noted, id=lambda r: "e-1", value=lambda r: "x" * 300_000),
        b'{"number": "7"}',
        "signal noted: the signal for saga 'e-1' has 300002 bytes",
    ),
    "a filter raises": (
        FromTopic(TOPIC, Event, where=lambda r: r.headers["kind"] == "x").starts(
            Expense, id=lambda r: "e-1", input=lambda r: 1
        ),
        b'{"number": "7"}',
        "where: KeyError: 'kind'",
    ),
    "cannot be decoded": (
        FromTopic(TOPIC, Event, decode=lambda content: {"number": content.decode("ascii")}).starts(
            Expense, id=lambda r: "e-1", input=lambda r: 1
        ),
        b"\xff",
        "the value cannot be decoded: UnicodeDecodeError",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_mapped_is_a_dead_letter_and_stops_nobody(what: str) -> None:
    source, content, reason = BAD[what]
    shop = Shop()
    shop.member(source)
    shop.say(content, key="k-7")
    shop.run()
    (told,) = reasons(shop)
    assert told.startswith(reason)
    (letter,) = shop.records(shop.topics.dead_letters)
    assert (letter.key, letter.value) == (b"k-7", content)
    assert shop.letters()[0]["__connect.errors.topic"] == TOPIC
    assert not shop.asked()
    assert shop.committed() == 1
    shop.kill()
    shop.member()  # with the right mapping
    shop.say(Event(number="8"))
    shop.run()
    assert shop.asked()[-1][0] == "order-8"


def test_one_bad_rule_sends_nothing_of_a_record() -> None:
    source = FromTopic(TOPIC, Event).starts(Expense, id=lambda r: "e-1", input=lambda r: 1)
    source.signals(Expense.noted, id=_raise, value=lambda r: "x")
    shop = Shop()
    shop.member(source)
    shop.say(Event(number="7"))
    shop.run()
    assert reasons(shop) == ["signal noted: KeyError: '7'"]
    assert not shop.asked()


def test_what_failed_and_is_sent_again_overtakes_nothing_of_its_saga() -> None:
    shop = Shop()
    link = HoldingLink(lambda topic: topic == shop.topics.inbox)
    shop.member(link=link)
    for by in ("ann", "bob", "cid"):
        shop.say(Event(kind="decided", number="1", by=by), key="e-1")
    shop.say(Event(number="8"))
    shop.settle()
    assert [sent.value for sent in link.held if sent.key == b"e-1"] == [b'{"by":"ann","approved":true}']
    assert len(link.held) == 2  # another saga does not wait
    for sent in link.held:
        sent.fail()
    link.release()
    shop.run()
    told = [record.value for record in shop.records(shop.topics.inbox) if record.key == b"e-1"]
    assert [b"ann" in (text or b"") for text in told] in ([True, False, False], [True, True, False, False])
    assert [text for text in told if text and b"ann" not in text] == [
        b'{"by":"bob","approved":true}',
        b'{"by":"cid","approved":true}',
    ]
    assert shop.committed() == 4


def test_nothing_is_committed_before_the_inbox_has_it() -> None:
    shop = Shop()
    link = HoldingLink(lambda topic: topic == shop.topics.inbox)
    shop.member(link=link)
    shop.say(Event(kind="other", number="6"))
    shop.say(Event(number="7"))
    shop.say(Event(kind="other", number="8"))
    shop.run()
    assert shop.committed() == 1
    link.held[0].land()
    shop.run()
    assert shop.committed() == 1  # landed is not yet acknowledged
    link.held[0].report()
    shop.run()
    assert shop.committed() == 3


def test_a_partition_that_moves_is_the_next_members_affair() -> None:
    shop = Shop(partitions=2)
    link = HoldingLink(lambda topic: topic == shop.topics.inbox)
    first = shop.member(link=link)
    for by in ("ann", "bob"):
        shop.say(Event(kind="decided", number="1", by=by), key="e-1", partition=1)
    shop.settle()
    assert len(link.held) == 1
    shop.member()
    shop.settle()
    assert set(first.partitions) == {0}
    link.release()
    shop.run()
    assert shop.committed(partition=1) == 2
    told = [record.value for record in shop.records(shop.topics.inbox) if record.key == b"e-1"]
    # The first member sent the one that it had under way, and nothing after that.
    assert sorted(text[7:10] for text in told if text) == [b"ann", b"ann", b"bob"]


def test_what_was_deleted_before_it_was_read_is_told() -> None:
    shop = Shop()
    shop.member()
    shop.say(Event(number="1"))
    shop.run()
    shop.kill()
    for number in "234":
        shop.say(Event(number=number))
    shop.log.admin().trim({(TOPIC, 0): 3})
    engine = shop.member()
    shop.run()
    shop.advance(5_000)
    assert engine.counters.repositioned == 1
    assert [saga_id for saga_id, _ in shop.asked()].count("order-4") == 1
    assert shop.committed() == 4


def test_a_graceful_stop_commits_what_is_through_and_leaves_the_rest() -> None:
    shop = Shop()
    link = HoldingLink(lambda topic: topic == shop.topics.inbox)
    engine = shop.member(link=link, commit_interval_ms=60_000)
    for by in ("ann", "bob"):
        shop.say(Event(kind="decided", number="1", by=by), key="e-1")
    shop.settle()
    engine.stop()
    shop.settle()
    assert not engine.stopped
    link.release()
    shop.settle()
    assert engine.stopped
    assert shop.committed() == 1
    assert len(shop.asked()) == 1


@pytest.mark.parametrize("failure", [Failure.UNAUTHORIZED, Failure.UNKNOWN_TOPIC])
def test_an_inbox_that_refuses_ends_the_source(failure: Failure) -> None:
    shop = Shop()
    link = HoldingLink(lambda topic: topic == shop.topics.inbox)
    shop.member(link=link)
    shop.say(Event(number="1"))
    shop.settle()
    link.held[0].fail(failure, "User:source needs Write on topic saga.inbox")
    with pytest.raises(EngineFailed, match="needs Write on topic"):
        shop.run()
    assert shop.committed() in (None, 0)


def test_a_record_that_the_inbox_finds_too_large_is_a_dead_letter() -> None:
    shop = Shop()
    link = HoldingLink(lambda topic: topic == shop.topics.inbox)
    shop.member(link=link)
    shop.say(Event(number="1"))
    shop.settle()
    link.held[0].fail(Failure.TOO_LARGE, "at most 10 bytes")
    shop.run()
    assert reasons(shop) == ["saga.inbox does not take it: at most 10 bytes"]
    assert shop.committed() == 1


def test_the_window_is_bounded() -> None:
    shop = Shop()
    link = HoldingLink(lambda topic: topic == shop.topics.inbox)
    engine = shop.member(link=link, window=10)
    for number in range(2_000):
        shop.say(Event(number=str(number)))
    shop.settle()
    held = len(engine.partitions[0].window)
    assert held < 1_500
    link.release()
    shop.run()
    assert shop.committed() == 2_000


def test_a_topic_may_be_read_twice_under_two_names() -> None:
    shop = Shop()
    shop.member()
    shop.member(shop_events(name="again", where=lambda r: r.headers.get("kind") == "placed"))
    shop.say(Event(number="7"), kind="other")
    shop.run()
    assert shop.committed() == shop.committed("again") == 1
    assert len(shop.asked()) == 1


NOT_SO: list[Callable[[], object]] = [
    lambda: FromTopic("", Event),
    lambda: FromTopic(TOPIC, Event, name=""),
    lambda: SourceEngine(FromTopic(TOPIC, Event), None, None, None, lambda: 0, log_start=lambda *_: 0),  # type: ignore[arg-type]
    lambda: FromTopic(TOPIC, Event).signals(signal(int), id=lambda r: "x", value=lambda r: 1),
]


@pytest.mark.parametrize("declare", NOT_SO)
def test_what_makes_no_sense_is_refused_where_it_is_declared(declare: Callable[[], object]) -> None:
    with pytest.raises(DefinitionError):
        declare()


def test_a_promise_is_kept_by_a_record() -> None:
    shop = Shop()
    source = FromTopic(TOPIC, Event)
    source.completes(
        Approval.approved, id=lambda r: r.key, key=lambda r: r.value.kind, result=lambda r: Decision(by=r.value.by)
    )
    shop.member(source)
    shop.say(Event(kind="boss", number="1", by="ann"), key="p-1")
    shop.run()
    (record,) = shop.records(shop.topics.inbox)
    headers = dict(record.headers)
    assert (headers["input-type"], headers["promise"]) == (b"promise", b"approved/boss")
    assert record.value == b'{"by":"ann","approved":true}'


def test_a_topic_that_is_not_there_is_told() -> None:
    shop = Shop()
    with pytest.raises(ConfigurationError, match="there is no topic 'nothing' that"):
        SourceRunner(
            FromTopic("nothing", Event).signals(Expense.noted, id=lambda r: "x", value=lambda r: "y"),
            shop.log,
            "memory",
        )


def test_its_numbers_are_served() -> None:
    shop = Shop()
    engine = shop.member()
    assert source_readiness(engine, 0.0) == "the group has granted no partition yet"
    assert source_readiness(engine, 60.0) == ""
    shop.say(Event(number="1"))
    shop.say(b"?")
    shop.run()
    samples = scrape(SourceMetrics(engine, TOPIC))
    assert value(samples, "saga_source_records_total", source=TOPIC) == 2
    assert value(samples, "saga_source_sent_total", source=TOPIC) == 1
    assert value(samples, "saga_source_dead_letters_total", source=TOPIC) == 1
    assert value(samples, "saga_source_partitions", source=TOPIC) == 1
    assert source_readiness(engine, 0.0) == ""


EVENTS = shop_events()


def test_a_source_is_found_by_its_place() -> None:
    assert load_source(f"{__name__}:EVENTS") is EVENTS
    with pytest.raises(ConfigurationError, match=f"is no FromTopic; say module:object; there is {__name__}:EVENTS"):
        load_source(f"{__name__}:nothing")


def test_dev_runs_sources_too(tmp_path: Any) -> None:
    settings = load_settings({"development": True}, environ={})
    processes = _processes(settings, None, ["shop"], {}, tmp_path, {"source-shop.events": "shop:events"})
    assert [(each.name, each.arguments) for each in processes][1:] == [
        ("source-shop.events", ["source", "shop:events", "--child"])
    ]
