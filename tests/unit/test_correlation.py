"""Signals by a business key: to whoever listens, kept for a while where nobody does, each once, whatever crashes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel, ValidationError

from orchestrator import correlator as correlator_module
from orchestrator import saga as saga_module
from orchestrator.client import Client
from orchestrator.client.requests import Requests
from orchestrator.correlation import CORRELATOR, id_of, keeper_of, publish
from orchestrator.correlator import Correlator
from orchestrator.errors import Abort, DefinitionError, InvalidRequest
from orchestrator.migrations import PastRun
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_EFFECTS
from orchestrator.model.events import Status
from orchestrator.model.versions import by_type
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.sources import FromTopic
from orchestrator.testing import Mapped, SagaTest, mapped
from orchestrator.topics import TopicNames
from tests.shop_world import PARTITIONS, World, drive
from tests.unit.model.family import Family
from tests.unit.model.shop import Shop

T = TypeVar("T")


class Payment(BaseModel):
    cents: int


class Invoicing(Saga[str, str]):
    """Waits for the payment of an invoice, whose number is all that the bank knows."""

    paid = signal(Payment)
    reminded = signal()

    async def run(self, invoice: str) -> str:
        first = await self.receive(Invoicing.paid, key=invoice)
        if invoice.startswith("bad"):
            raise Abort("Bad")
        second = await self.receive(Invoicing.paid, key=invoice, timeout=60)
        return f"{first.cents} {second.cents if second is not None else None}"


class Several(Saga[list[str], list[int]]):
    """One saga, several keys, each heard by itself."""

    paid = signal(Payment)

    async def run(self, invoices: list[str]) -> list[int]:
        return [(await self.receive(Several.paid, key=invoice)).cents for invoice in invoices]


class Shipping(Saga[str, int]):
    """Waits for two payments, with a step between."""

    paid = signal(Payment)

    async def run(self, invoice: str) -> int:
        first = await self.receive(Shipping.paid, key=invoice)
        await self.step(Shop.reserve())
        return first.cents + (await self.receive(Shipping.paid, key=invoice)).cents


class Gift(Saga[str, int]):
    """Waits for one payment, and has a step behind it."""

    paid = signal(Payment)

    async def run(self, invoice: str) -> int:
        paid = await self.receive(Gift.paid, key=invoice)
        await self.step(Shop.reserve())
        return paid.cents


class Buggy(Saga[str, None]):
    """Hears one payment, and cannot bear it."""

    paid = signal(Payment)

    async def run(self, invoice: str) -> None:
        raise KeyError(str(await self.receive(Buggy.paid, key=invoice)))


class Monthly(Saga[int, list[int]]):
    """Another run, with another key, for each month; what comes late for the first is heard in the last."""

    paid = signal(Payment)

    async def run(self, month: int) -> list[int]:
        first = await self.receive(Monthly.paid, key=f"m-{month}")
        if month < 3:
            self.continue_as_new(month + 1)
        return [first.cents, (await self.receive(Monthly.paid, key="m-1")).cents]


class Crowd(Saga[int, None]):
    """So many keys at a time."""

    paid = signal(Payment)

    async def run(self, keys: int) -> None:
        await self.gather(*(self.receive(Crowd.paid, key=f"c-{number}") for number in range(keys)))


class Older(Saga[str, None], name="Moved"):
    paid = signal(Payment)

    async def run(self, invoice: str) -> None:
        await self.receive(Older.paid, key=invoice)


class Newer(Saga[str, None], name="Moved", version=2):
    """Takes over what the older one did, and has no more use for the key."""

    done = signal()

    async def run(self, invoice: str) -> None:
        await self.receive(Newer.done)

    @classmethod
    def migrate(cls, past: PastRun) -> str:
        return ""


class Bank(Saga[str, None]):
    async def run(self, invoice: str) -> None:
        self.signal_by_key(Invoicing.paid, invoice, Payment(cents=3), ttl=60)
        self.signal_by_key(Invoicing.reminded, invoice)


KEEPER = id_of("Invoicing.paid", "i-1")


class Keys(Family):
    """Sagas, and the keepers of their keys."""

    def __init__(self, *, cold: bool) -> None:
        sagas = Invoicing, Several, Shipping, Gift, Buggy, Monthly, Crowd, Older, Bank, Correlator
        super().__init__(*sagas, cold=cold)
        self.told = 0

    def publish(self, cents: int, key: str = "i-1", ttl_ms: int = 1_000, address: str = "Invoicing.paid") -> None:
        """As a client does, or any producer."""
        self.told += 1
        payload = publish(b'{"cents":%d}' % cents, ttl_ms)
        keeper = id_of(address, key)
        reuse = msg.Reuse.ALLOW_DUPLICATE
        self.take(msg.Start(keeper, f"p-{self.told}", CORRELATOR, b"{}", None, None, "told", payload, reuse))
        self.deliver()

    def pass_time(self, by_ms: int = 0) -> None:
        """Lets time pass, and fires every timer on the way."""
        until_ms = self.now_ms + by_ms
        while due := [
            (step.due_ms, saga_id, sequence)
            for saga_id, execution in self.runs.items()
            for sequence in execution.state.open
            if (step := execution.state.steps[sequence]).due_ms is not None and step.due_ms <= until_ms
        ]:
            due_ms, saga_id, sequence = min(due)
            self.now_ms = max(self.now_ms, due_ms)
            self.take(msg.TimerDue(saga_id, self.state(saga_id).run, sequence, due_ms))
            self.deliver()
        self.now_ms = until_ms

    def heard(self, saga_id: str) -> list[bytes]:
        return [event.payload for event in self.journal[saga_id] if isinstance(event, ev.SignalReceived)]


@pytest.fixture(params=[True, False], ids=["cold", "warm"])
def keys(request: pytest.FixtureRequest) -> Iterator[Keys]:
    made = Keys(cold=request.param)
    yield made
    made.close()


def test_who_listens_hears_what_is_sent_by_the_key(keys: Keys) -> None:
    keys.start(Invoicing, "order-7", "i-1")
    assert keys.status(KEEPER) == "RUNNING"
    keys.publish(5, key="i-2")
    keys.publish(7)
    keys.publish(8)
    assert keys.state("order-7").result == b'"7 8"'
    keys.pass_time()
    assert keys.status(KEEPER) == "COMPLETED"  # nobody listens, nothing is kept


def test_what_is_sent_before_somebody_listens_is_kept_for_the_first(keys: Keys) -> None:
    keys.publish(7)
    keys.pass_time(900)
    keys.publish(8)
    keys.start(Invoicing, "order-7", "i-1")
    assert keys.state("order-7").result == b'"7 8"'
    keys.start(Invoicing, "order-8", "i-1")
    assert keys.status("order-8") == "RUNNING"


def test_what_nobody_hears_in_its_time_is_dropped(keys: Keys) -> None:
    keys.publish(7)
    keys.publish(8, ttl_ms=2_000)
    keys.publish(9, ttl_ms=0)
    keys.pass_time(1_000)
    keys.start(Invoicing, "order-7", "i-1")
    assert keys.heard("order-7") == [b'{"cents":8}']
    keys.pass_time(60_000)
    assert keys.state("order-7").result == b'"8 None"'
    keys.pass_time()
    assert keys.status(KEEPER) == "COMPLETED"


def test_all_who_listen_hear_it(keys: Keys) -> None:
    keys.start(Invoicing, "order-7", "i-1")
    keys.start(Invoicing, "order-8", "i-1")
    keys.publish(7)
    assert keys.heard("order-7") == keys.heard("order-8") == [b'{"cents":7}']


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_who_has_ended_hears_nothing_more(keys: Keys, how: str) -> None:
    key = "bad-1"
    keys.start(Invoicing, "order-7", key)
    if how == "fails":
        keys.publish(7, key=key)
    else:
        keys.cancel("order-7")
    assert keys.state("order-7").ended
    keys.pass_time()
    assert keys.status(id_of("Invoicing.paid", key)) == "COMPLETED"
    keys.publish(8, key=key)
    keys.start(Invoicing, "order-8", key)
    assert keys.heard("order-8") == [b'{"cents":8}']


def left(keys: Keys, address: str, key: str = "i-1") -> bool:
    """Whether nobody listens for it any more: then its keeper ends."""
    keys.pass_time()
    return keys.status(id_of(address, key)) == "COMPLETED"


def test_who_is_undone_by_a_person_hears_nothing_more(keys: Keys) -> None:
    keys.start(Invoicing, "order-7", "i-1")
    keys.take(msg.Compensate("order-7", "undo it"))
    keys.deliver()
    assert keys.status("order-7") == "FAILED"
    assert left(keys, "Invoicing.paid")


def test_who_is_cancelled_while_it_is_parked_for_a_bug_hears_nothing_more(keys: Keys) -> None:
    keys.start(Buggy, "b-1", "i-1")
    keys.publish(1, address="Buggy.paid")
    assert keys.status("b-1") == "PARKED"
    assert not left(keys, "Buggy.paid")
    keys.cancel("b-1")
    assert left(keys, "Buggy.paid")


def test_who_is_terminated_hears_nothing_more(keys: Keys) -> None:
    keys.start(Invoicing, "order-7", "i-1")
    keys.terminate("order-7")
    assert left(keys, "Invoicing.paid")


def test_who_goes_on_in_another_run_listens_on_and_leaves_all_keys_at_the_end(keys: Keys) -> None:
    keys.start(Monthly, "m", 1)
    for month in (1, 2):
        keys.publish(month, key=f"m-{month}", address="Monthly.paid")
    keys.publish(10, key="m-1", address="Monthly.paid")  # between its third run's first and second wait
    assert not left(keys, "Monthly.paid", "m-1")
    keys.publish(3, key="m-3", address="Monthly.paid")
    assert keys.state("m").result == b"[3,10]"
    assert all(left(keys, "Monthly.paid", f"m-{month}") for month in (1, 2, 3))


def test_code_that_takes_over_a_run_leaves_its_keys_at_the_end(keys: Keys) -> None:
    keys.start(Older, "o-1", "i-1")
    first = keys.state("o-1").run
    keys.definitions["Moved"] = by_type([Older.definition, Newer.definition])["Moved"]
    keys.take(msg.MoveVersion("o-1", "move", 2))
    keys.deliver()
    assert keys.state("o-1").run != first
    assert not left(keys, "Moved.paid")
    keys.take(msg.Signal("o-1", "done", "done"))
    keys.deliver()
    assert keys.status("o-1") == "COMPLETED"
    assert left(keys, "Moved.paid")


def test_more_keys_than_one_decision_bears_are_left(keys: Keys) -> None:
    many = MAX_EFFECTS + 50
    keys.start(Crowd, "c", many)
    keys.take(msg.Terminate("c", "enough"))
    sizes = [sum(isinstance(event, ev.InputSent) for event in decision.events) for decision in keys.decisions]
    assert max(sizes) <= MAX_EFFECTS
    keys.deliver()
    assert all(left(keys, "Crowd.paid", f"c-{number}") for number in range(many))


def test_a_redrive_goes_on_waiting_where_it_was_cancelled(keys: Keys) -> None:
    keys.start(Invoicing, "order-7", "i-1")
    keys.cancel("order-7")
    assert left(keys, "Invoicing.paid")
    keys.take(msg.Redrive("order-7", "go on"))
    keys.deliver()
    run = keys.state("order-7").run
    told = [event.input for event in keys.journal["order-7"] if isinstance(event, ev.InputSent)]
    assert told[-1].message_id == f"order-7/{run}/1"  # not under that of the first run, whose is known
    keys.publish(7)
    keys.publish(8)
    assert keys.state("order-7").result == b'"7 8"'
    assert left(keys, "Invoicing.paid")


@pytest.mark.parametrize("ended", [True, False])
def test_a_reset_to_the_wait_listens_again(keys: Keys, ended: bool) -> None:
    keys.start(Invoicing, "order-7", "i-1")
    if ended:
        keys.terminate("order-7")
    keys.take(msg.Reset("order-7", "again", 2))
    keys.deliver()
    keys.publish(7)
    keys.publish(8)
    assert keys.state("order-7").result == b'"7 8"'
    assert left(keys, "Invoicing.paid")


def test_a_fork_listens_under_its_own_id(keys: Keys) -> None:
    keys.start(Invoicing, "order-7", "i-1")
    keys.take(msg.Fork("order-7", "fork it", 2, "order-8"))
    keys.deliver()
    keys.publish(7)
    keys.publish(8)
    assert keys.state("order-7").result == keys.state("order-8").result == b'"7 8"'
    assert left(keys, "Invoicing.paid")


def test_who_is_redriven_behind_its_wait_leaves_to_the_next_what_is_kept(keys: Keys) -> None:
    keys.start(Gift, "g-1", "i-1")
    keys.publish(1, address="Gift.paid")
    keys.refuse("g-1", 3)
    keys.publish(2, address="Gift.paid")  # after its end: it is kept
    keys.take(msg.Redrive("g-1", "go on"))
    keys.deliver()
    keys.start(Gift, "g-2", "i-1")
    assert keys.heard("g-1") == [b'{"cents":1}']
    assert keys.heard("g-2") == [b'{"cents":2}']
    keys.reply("g-1", 3, "A")
    assert keys.status("g-1") == "COMPLETED"
    keys.reply("g-2", 3, "A")
    assert left(keys, "Gift.paid")


def test_who_is_set_back_to_its_wait_and_has_the_value_leaves_what_is_kept(keys: Keys) -> None:
    keys.start(Gift, "g-1", "i-1")
    keys.publish(1, address="Gift.paid")
    keys.refuse("g-1", 3)
    keys.publish(2, address="Gift.paid")
    keys.take(msg.Reset("g-1", "again", 2))
    keys.deliver()
    assert keys.heard("g-1") == [b'{"cents":1}'] * 2
    keys.start(Gift, "g-2", "i-1")
    assert keys.heard("g-2") == [b'{"cents":2}']


def test_a_fork_behind_the_wait_leaves_what_is_kept(keys: Keys) -> None:
    keys.start(Gift, "g-1", "i-1")
    keys.publish(1, address="Gift.paid")
    keys.refuse("g-1", 3)
    keys.publish(2, address="Gift.paid")
    keys.take(msg.Fork("g-1", "fork it", 3, "g-2"))
    keys.deliver()
    keys.start(Gift, "g-3", "i-1")
    assert (keys.heard("g-2"), keys.heard("g-3")) == ([], [b'{"cents":2}'])


def test_a_key_is_listened_for_once_however_often_it_was_waited_for(keys: Keys) -> None:
    keys.start(Several, "s-1", ["i-1"] * 5)
    for _ in range(4):
        keys.publish(1, address="Several.paid")
    keys.cancel("s-1")
    sent = len(keys.decisions)
    keys.take(msg.Redrive("s-1", "go on"))
    events = [event for decision in keys.decisions[sent:] for event in decision.events]
    assert sum(isinstance(event, ev.InputSent) for event in events) == 1


def test_a_new_start_of_the_id_leaves_the_keys_of_the_run_that_it_ends(keys: Keys) -> None:
    keys.start(Invoicing, "order-7", "i-1")
    keys.take(msg.Start("order-7", "anew", "Invoicing", b'"i-2"', conflict=msg.Conflict.TERMINATE_EXISTING))
    keys.deliver()
    assert left(keys, "Invoicing.paid")
    assert not left(keys, "Invoicing.paid", "i-2")


def test_a_keeper_that_ends_at_the_same_moment_is_started_again(keys: Keys) -> None:
    keys.publish(7, ttl_ms=0)
    keys.start(Invoicing, "order-7", "i-1")  # before its timer, and it goes on
    keys.publish(1)
    keys.publish(2)
    assert keys.state("order-7").result == b'"1 2"'
    keys.pass_time()
    first = keys.state(KEEPER).run
    keys.start(Invoicing, "order-8", "i-1")  # behind its end, in its next run
    assert keys.state(KEEPER).run != first
    keys.publish(3)
    assert keys.heard("order-8") == [b'{"cents":3}']


def test_each_key_is_heard_by_itself(keys: Keys) -> None:
    keys.start(Several, "s-1", ["a", "b", "a"])
    keys.publish(2, key="b", address="Several.paid")
    keys.publish(1, key="a", address="Several.paid")
    keys.publish(3, key="a", address="Several.paid")
    assert keys.state("s-1").result == b"[1,2,3]"
    told = [event.input for event in keys.journal["s-1"] if isinstance(event, ev.InputSent)]
    assert [type(each) for each in told] == [msg.Start] * 3 + [msg.Signal] * 2  # it listens thrice and leaves both keys


def test_a_run_that_is_set_back_listens_again(keys: Keys) -> None:
    keys.start(Shipping, "s-1", "i-1")
    keys.publish(1, address="Shipping.paid")
    keys.refuse("s-1", 3)
    assert keys.status("s-1") == "FAILED"
    keys.pass_time()
    assert keys.status(id_of("Shipping.paid", "i-1")) == "COMPLETED"
    keys.take(msg.Reset("s-1", "again", 3))
    keys.deliver()
    keys.reply("s-1", 3, "A")
    keys.publish(2, address="Shipping.paid")
    assert keys.state("s-1").result == b"3"


def test_a_saga_sends_by_the_key_as_well(keys: Keys) -> None:
    keys.start(Bank, "bank-1", "i-1")
    keys.start(Invoicing, "order-7", "i-1")
    keys.start(Bank, "bank-2", "i-1")
    assert keys.state("order-7").result == b'"3 3"'
    assert keys.status(id_of("Invoicing.reminded", "i-1")) == "RUNNING"  # kept for a day
    keys.pass_time(86_400_000)
    assert keys.status(id_of("Invoicing.reminded", "i-1")) == "COMPLETED"


def test_a_long_life_is_cut_into_runs_and_loses_nothing(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saga_module, "SUGGEST_AFTER_OUTCOMES", 3)
    for number in range(10):
        keys.publish(number, ttl_ms=10_000, address="Several.paid")
    keys.start(Several, "s-1", ["i-1"] * 14)
    for number in range(10, 14):
        keys.publish(number, address="Several.paid")
    keeper = keys.journal[id_of("Several.paid", "i-1")]
    assert len([event for event in keeper if isinstance(event, ev.SagaStarted)]) > 3
    assert keys.state("s-1").result == b"[%s]" % b",".join(b"%d" % number for number in range(14))


def test_what_is_kept_has_a_bound(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlator_module, "MAX_KEPT", 2)
    for number in range(4):
        keys.publish(number, ttl_ms=10_000)
    keys.start(Invoicing, "order-7", "i-1")
    assert keys.heard("order-7") == [b'{"cents":0}', b'{"cents":1}']
    notes = [event.payload for event in keys.journal[KEEPER] if isinstance(event, ev.Recorded) and event.kind == "note"]
    assert b"2 values were dropped: 2 wait already" in notes[-1]


def test_who_could_not_be_told_is_not_put_on_the_list() -> None:
    with pytest.raises(ValidationError):
        Correlator.told.decode(b'{"hear": "a\\u0000b"}')


# -- what a client and others send


def using(world: World, work: Callable[[Client], Awaitable[T]]) -> T:
    async def main() -> T:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            return await work(client)

    return drive(world, main())


@pytest.fixture
def world() -> World:
    return World(sagas=(Invoicing, Several, Correlator))


def test_a_client_sends_by_the_key_alone(world: World) -> None:
    async def work(client: Client) -> list[str]:
        handles = [await client.start(Invoicing, f"i-{number}", id=f"order-{number}") for number in range(8)]
        for number in range(8):
            for cents in (1, 2):
                await client.signal_by_key(Invoicing.paid, f"i-{number}", Payment(cents=10 * number + cents))
        return [await handle.result() for handle in handles]

    assert using(world, work) == [f"{10 * number + 1} {10 * number + 2}" for number in range(8)]


def test_a_client_that_sends_twice_under_one_message_id_sends_once_and_crashes_change_nothing(world: World) -> None:
    async def work(client: Client) -> str:
        for _ in range(2):
            await client.signal_by_key(Invoicing.paid, "i-1", Payment(cents=1), message_id="bank-1")
        world.crash()
        handle = await client.start(Invoicing, "i-1", id="order-7")
        world.crash()
        await client.signal_by_key(Invoicing.paid, "i-1", Payment(cents=1), message_id="bank-1")
        await client.signal_by_key(Invoicing.paid, "i-1", Payment(cents=2), ttl=5)
        world.crash()
        return await handle.result()

    assert using(world, work) == "1 2"


def test_a_value_that_does_not_fit_is_a_dead_letter_at_the_saga(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Invoicing, "i-1", id="order-7")
        await client.signal_by_key_raw("Invoicing.paid", "i-1", b'"much"')
        await client.signal_by_key(Invoicing.paid, "i-1", Payment(cents=1))
        await client.signal_by_key(Invoicing.paid, "i-1", Payment(cents=2))
        return await handle.result()

    assert using(world, work) == "1 2"
    letters = [dict(record.headers) for record in world.records(world.topics.dead_letters)]
    assert [b"the signal paid/i-1 does not fit" in each["__connect.errors.exception.message"] for each in letters] == [
        True
    ]


REFUSED: list[Callable[[Requests], object]] = [
    lambda requests: requests.signal_by_key("Invoicing.paid", "", "m", b"1", 1),
    lambda requests: requests.signal_by_key("Invoicing.paid", "x" * 600, "m", b"1", 1),
    lambda requests: requests.signal_by_key("Invoicing.paid", "x", "m", b'"' + b"x" * 9_000 + b'"', 1),
    lambda requests: requests.signal_by_key("Invoicing.paid", "x", "m", b"1", -1),
]


@pytest.mark.parametrize("ask", REFUSED)
def test_what_no_keeper_could_take_is_not_sent(ask: Callable[[Requests], object]) -> None:
    with pytest.raises(InvalidRequest):
        ask(Requests(TopicNames(), 4))


def test_a_business_topic_may_know_the_key_alone() -> None:
    source = FromTopic("bank.payments", Payment)
    source.signals(Invoicing.paid, key=lambda r: r.key, value=lambda r: r.value, ttl=60)
    (found,) = mapped(source, Payment(cents=7), key="i-1")
    assert (found.what, found.saga_id) == ("signal paid", KEEPER)
    with pytest.raises(DefinitionError, match="by its id, or by a key"):
        source.signals(Invoicing.paid, value=lambda r: r.value)  # type: ignore[call-overload]
    assert isinstance(found, Mapped)


# -- what a saga's own code and tests say


def test_the_test_kit_tells_by_key() -> None:
    test = SagaTest(Invoicing).signal(Invoicing.paid, Payment(cents=1), key="i-1")
    end = test.signal(Invoicing.paid, Payment(cents=2), key="i-1", after=5).run("i-1")
    end.assert_completed("1 2")
    running = SagaTest(Invoicing).start("i-1").signal(Invoicing.paid, Payment(cents=3), key="i-1")
    assert running.advance(60).finish().result == "3 None"
    other = SagaTest(Invoicing).start("i-1").signal(Invoicing.paid, Payment(cents=3))
    assert other.status is Status.RUNNING  # by its id it is another signal


class Loose:
    lost = signal(int)


def test_a_signal_of_no_saga_has_no_keys() -> None:
    with pytest.raises(DefinitionError, match="belongs to no saga"):
        keeper_of(Loose.lost, "x")


class Wrong(Saga[str, None]):
    heard = signal(int)

    async def run(self, key: str) -> None:
        await self.receive(Wrong.heard, key=key)


@pytest.mark.parametrize("key", ["", "a\0b", "x" * 600])
def test_a_key_that_cannot_be_is_a_mistake_in_the_code(key: str) -> None:
    end: Any = SagaTest(Wrong).run(key)
    assert end.status is Status.PARKED
