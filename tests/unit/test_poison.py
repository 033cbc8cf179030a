"""An input that cannot be decided sets its saga aside, whatever kind of input it is; all others go on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from orchestrator.entities import Entity, entity_id, operation
from orchestrator.errors import StepFailed
from orchestrator.log.memory_link import Link, Sent
from orchestrator.model import messages as msg
from orchestrator.model.decide import decide
from orchestrator.model.definition import ChildRequest
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.runtime import journal_writer, partition
from orchestrator.runtime.tenure import Phase
from orchestrator.saga import Saga
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.shop_world import PARTITIONS, SAGAS, Greeting, Inventory, World, send_starts, succeed

BAD = "bad"
HOME = partition_of(BAD, PARTITIONS)
GOOD = next(f"good-{n}" for n in range(100) if partition_of(f"good-{n}", PARTITIONS) == HOME)


def failing(*kinds: type) -> Callable[..., Any]:
    """The engine with a bug: some kinds of input of one saga cannot be decided."""

    def broken(execution: Any, definition: Any, given: Any, moment: Any) -> Any:
        if isinstance(given, kinds) and given.saga_id == BAD:
            raise RuntimeError("a bug")
        return decide(execution, definition, given, moment)

    return broken


def work_on(world: World, times: int = 20) -> None:
    for _ in range(times):
        world.advance(2_000)


def calm(world: World) -> None:
    """The good saga on the same partition goes on, and no epoch is lost any more."""
    send_starts(world, GOOD)
    work_on(world)
    assert world.status(GOOD) is Status.COMPLETED
    epochs = world.engine.epochs_lost
    work_on(world)
    assert world.engine.epochs_lost == epochs


def settled(world: World) -> None:
    """The bad saga is set aside besides."""
    calm(world)
    assert world.status(BAD) is Status.PARKED


def test_a_record_that_cannot_be_decided_parks_its_saga(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(partition, "decide", failing(msg.Reply))
    send_starts(world, BAD)
    settled(world)


def test_a_timer_that_cannot_be_decided_parks_its_saga(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    send_starts(world, BAD, saga_type="Greeting", value=b'"you"')
    world.settle()
    monkeypatch.setattr(partition, "decide", failing(msg.TimerDue))
    world.advance(3_600_000)
    settled(world)


def test_a_refused_command_that_cannot_be_decided_parks_its_saga(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.log.delete(world.topics.commands("inventory"))
    monkeypatch.setattr(partition, "decide", failing(msg.SendFailed))
    send_starts(world, BAD)
    work_on(world)
    assert world.status(BAD) is Status.PARKED


def test_code_that_arrives_and_cannot_be_decided_parks_its_saga(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.crash()
    definitions = world.engine.config.definitions
    world.engine.config = replace(world.engine.config, definitions={})
    send_starts(world, BAD, saga_type="Greeting", value=b'"you"')
    work_on(world, 1)
    assert world.status(BAD) is Status.WAITING_FOR_CODE
    monkeypatch.setattr(partition, "decide", failing(msg.CodeArrived))
    world.crash()
    assert world.engine.config.definitions == definitions
    settled(world)


def test_a_decision_that_the_journal_would_not_take_parks_its_saga(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(journal_writer, "MAX_RECORD_BYTES", 4_000)

    def behave(message: CommandMessage) -> ReplyMessage | None:
        if message.saga_id == BAD:
            return ReplyMessage(Outcome.SUCCESS, b'{"warehouse":"' + b"x" * 4_000 + b'"}')
        return succeed(message)

    world.behave = behave
    send_starts(world, BAD)
    settled(world)


class Odd(Saga[str, str]):
    """Asks, past all checks, for something that no record of the journal can say."""

    async def run(self, name: str) -> str:
        self._context.begin(ChildRequest("Greeting", b'"you"', None, False, cast(Any, "later"), cast(Any, "x"), None))
        await self.sleep(1)
        return name


def test_what_could_not_be_read_back_is_never_written() -> None:
    world = World(sagas=(*SAGAS, Odd))
    send_starts(world, BAD, saga_type="Odd", value=b'"you"')
    send_starts(world, GOOD)
    work_on(world)
    world.crash()
    work_on(world)
    assert world.status(GOOD) is Status.COMPLETED
    assert all(tenure.phase is Phase.OWNING for tenure in world.engine.tenures.values())


class Spread(Saga[str, str]):
    """More steps at once than one decision holds."""

    async def run(self, name: str) -> str:
        await self.gather(*(self.step(Inventory.reserve(order_id=str(n))) for n in range(250)))
        return name


class Asking(Saga[str, str]):
    """A parent whose child cannot be started."""

    async def run(self, name: str) -> str:
        try:
            return await self.child(Greeting, name, id=BAD)
        except StepFailed as failed:
            return failed.error_type


def test_a_child_s_start_that_cannot_be_decided_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(sagas=(*SAGAS, Asking))
    monkeypatch.setattr(partition, "decide", failing(msg.Start))
    send_starts(world, "parent", saga_type="Asking", value=b'"you"')
    work_on(world)
    assert world.status("parent") is Status.COMPLETED
    send_starts(world, GOOD)
    work_on(world)
    assert world.status(GOOD) is Status.COMPLETED


class Account(Entity[int]):
    @operation
    async def deposit(self, cents: int) -> int:
        self.state += cents
        return self.state


class Depositing(Saga[int, str]):
    """Asks an entity for something, and can do without it."""

    async def run(self, cents: int) -> str:
        try:
            return str(await self.entity(Account, BAD).call(Account.deposit(cents)))
        except StepFailed as failed:
            return failed.error_type


def result_of(world: World, saga_id: str) -> bytes:
    partitions = [tenure.partition for tenure in world.engine.tenures.values()]
    found = [each.runs.find(saga_id) for each in partitions if each is not None]
    (result,) = [execution.state.result for execution in found if execution is not None]
    return result


def test_a_call_that_cannot_be_decided_is_refused_and_its_entity_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(sagas=(*SAGAS, Account, Depositing))
    saga_id = entity_id(Account, BAD)

    def broken(execution: Any, definition: Any, given: Any, moment: Any) -> Any:
        if isinstance(given, msg.Update) and given.payload == b'{"cents":13}':
            raise RuntimeError("a bug")
        return decide(execution, definition, given, moment)

    monkeypatch.setattr(partition, "decide", broken)
    given = [b"13", b"5", b"13", b"5"]
    for number, cents in enumerate(given):
        send_starts(world, f"s-{number}", saga_type="Depositing", value=cents)
        work_on(world, 5)
    results = [result_of(world, f"s-{number}") for number in range(len(given))]
    assert results == [b'"Rejected"', b'"5"', b'"Rejected"', b""]
    assert world.status(saga_id) is Status.PARKED
    assert world.status("s-3") is Status.RUNNING, "its call is held until a person has retried the entity"
    assert world.records(world.topics.dead_letters) == []


class Cut(Link):
    """Lets one record through; what follows is lost with the process."""

    def __init__(self) -> None:
        self.left = 1

    def append(self, sent: Sent) -> None:
        if self.left:
            self.left -= 1
            super().append(sent)


def test_a_continuation_that_cannot_be_decided_parks_its_saga(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    definitions = {**world.engine.config.definitions, "Spread": Spread.definition}

    def crash() -> None:
        world.crash()
        world.engine.config = replace(world.engine.config, definitions=definitions)
        world.settle()

    crash()
    owned = world.engine.tenures[partition_of(BAD, PARTITIONS)].partition
    assert owned is not None
    owned.writer._appender = world.log.appender(link=Cut())
    send_starts(world, BAD, saga_type="Spread", value=b'"you"')
    world.settle()
    monkeypatch.setattr(partition, "decide", failing(msg.Continue))
    crash()
    settled(world)


def test_a_bug_in_one_partition_s_beginning_is_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.crash()
    world.engine.config = replace(world.engine.config, definitions={})
    send_starts(world, BAD, saga_type="Greeting", value=b'"you"')
    work_on(world, 1)
    monkeypatch.setattr(partition, "decide", failing(msg.CodeArrived))
    world.crash()
    work_on(world, 1)
    others = [tenure for number, tenure in world.engine.tenures.items() if number != partition_of(BAD, PARTITIONS)]
    assert [tenure.phase for tenure in others] == [Phase.OWNING] * (PARTITIONS - 1)
