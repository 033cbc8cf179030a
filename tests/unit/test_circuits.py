"""A service that does not answer is not asked on and on: what waits, what is let through, and what ends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.model.rule import Kind
from orchestrator.model.state import Step, StepStatus
from orchestrator.runtime.circuits import Circuits
from orchestrator.runtime.engine import Engine
from orchestrator.saga import Saga
from orchestrator.telemetry.worker import WorkerMetrics
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from orchestrator.wire.headers import read_headers
from orchestrator.wire.journal import read_decision, read_envelope
from tests.shop_world import PARTITIONS, Order, Payments, World, refuse, send_starts, succeed

IDS = [f"o-{n}" for n in range(200) if partition_of(f"o-{n}", PARTITIONS) == 1]
DOWN = refuse("charge", "refund", outcome=Outcome.RETRY)
PROBE_MS = 5_000


class Careful(World):
    """Circuits open after three failures."""

    def new_engine(self) -> Engine:
        engine = super().new_engine()
        engine.config = replace(engine.config, circuit_failures=3, circuit_probe_ms=PROBE_MS)
        return engine

    def step_of(self, saga_id: str, sequence: int = 2) -> Step:
        for tenure in self.engine.tenures.values():
            if tenure.partition is not None and (execution := tenure.partition.runs.find(saga_id)) is not None:
                return execution.state.steps[sequence]
        raise KeyError(saga_id)

    def charges(self) -> list[tuple[str, str]]:
        """(saga id, attempt) of every charge that was sent."""
        found = [read_headers(record.headers) for record in self.records("payments.commands")]
        return [(each["saga-id"], each["attempt"]) for each in found if each["command-type"] == "charge"]

    def events(self) -> list[ev.Event]:
        journal = self.log.records(self.topics.journal, 1)
        envelopes = [read_envelope(record.value) for record in journal]
        decisions = [read_decision(envelope) for envelope in envelopes if envelope.kind == Kind.DECISION]
        return [event for decision in decisions if decision is not None for event in decision.events]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events() if isinstance(event, kind)]


def opened() -> Careful:
    """Three orders whose charge was asked for in vain, three that came behind them."""
    world = Careful()
    world.behave = DOWN
    send_starts(world, *IDS[:3])
    world.settle()
    assert world.of(ev.CircuitOpened) == [ev.CircuitOpened("payments", 3)]
    send_starts(world, *IDS[3:6])
    world.settle()
    return world


def test_a_step_for_a_service_that_fails_waits_and_burns_no_attempt() -> None:
    world = opened()
    assert len(world.charges()) == 3
    assert world.of(ev.StepHeld) == [ev.StepHeld(2)] * 3
    for saga_id in IDS[3:6]:
        step = world.step_of(saga_id)
        assert (step.status, step.attempt, step.held) == (StepStatus.BACKING_OFF, 0, True)
    assert world.status(IDS[3]) is Status.RUNNING


def test_other_services_are_asked_as_ever() -> None:
    world = opened()
    assert len(world.records("inventory.commands")) == 6


def test_one_attempt_at_a_time_asks_whether_the_service_is_back() -> None:
    world = opened()
    world.advance(1_500)  # the pause after the first attempts is over: they are held too
    assert len(world.charges()) == 3
    assert len(world.of(ev.StepHeld)) == 6
    for number in range(1, 4):
        world.advance(PROBE_MS)
        assert len(world.charges()) == 3 + number
    assert len(world.of(ev.CircuitOpened)) == 1
    assert world.of(ev.CircuitClosed) == []


def test_the_first_answer_closes_the_circuit_and_everything_goes_on() -> None:
    world = opened()
    world.advance(1_500)
    world.behave = succeed
    world.advance(PROBE_MS)
    assert world.of(ev.CircuitClosed) == [ev.CircuitClosed("payments")]
    for _ in range(3):
        world.advance(2_000)
    assert {world.status(saga_id) for saga_id in IDS[:6]} == {Status.COMPLETED}
    charges = world.charges()
    assert [attempt for saga_id, attempt in charges if saga_id in IDS[3:6]] == ["1", "1", "1"]
    assert [attempt for saga_id, attempt in charges if saga_id in IDS[:3]].count("2") == 3


def test_a_refusal_is_an_answer_too() -> None:
    world = opened()
    world.behave = refuse("charge")
    world.advance(PROBE_MS)
    assert world.of(ev.CircuitClosed) == [ev.CircuitClosed("payments")]


def test_an_undo_waits_as_well() -> None:
    world = Careful()
    world.behave = refuse("release", "charge", outcome=Outcome.RETRY)
    send_starts(world, *IDS[:6])
    world.settle()
    world.behave = refuse("charge", outcome=Outcome.RETRY)
    sagas = world.engine.tenures[1].partition
    assert sagas is not None
    client = world.log.appender()
    for saga_id in IDS[:6]:
        headers = [("input-type", b"cancel")]
        client.append(world.topics.inbox, 1, None, key=saga_id.encode(), headers=headers, token=None)
    world.settle()
    held = [saga_id for saga_id in IDS[:6] if world.step_of(saga_id).status is StepStatus.UNDO_BACKING_OFF]
    assert held
    assert world.step_of(held[0]).undo_attempt == 0
    assert world.of(ev.UndoHeld)
    for _ in range(4):
        world.advance(PROBE_MS)
    assert {world.status(saga_id) for saga_id in IDS[:6]} == {Status.CANCELED}


class Hurried(Saga[Order, str]):
    """A charge within three seconds."""

    async def run(self, order: Order) -> str:
        return await self.step(Payments.charge(order_id=order.id, cents=1), undo=Payments.refund, schedule_to_close=3)


class Waiting(Hurried):
    async def run(self, order: Order) -> str:
        receipt = await super().run(order)
        await self.sleep(3600)
        return receipt


@pytest.mark.parametrize("held", [True, False])
def test_what_waits_past_its_deadline_without_its_code_is_heard_of_once(held: bool) -> None:
    world = Careful(sagas=(Hurried,))
    world.behave = DOWN
    send_starts(world, *IDS[:4], saga_type="Hurried")
    world.settle()
    if held:
        world.advance(1_500)
    assert len(world.of(ev.StepHeld)) == 4 * held
    world.sagas = ()
    world.crash()
    for _ in range(300):
        world.step()
        world.now_ms += 50
    kept = world.of(ev.InputHeld)
    assert {given.input.saga_id for given in kept} == set(IDS[:4])
    assert len(kept) == 4
    world.sagas = (Hurried,)
    world.crash()
    world.settle()
    world.behave = succeed
    for _ in range(4):
        world.advance(PROBE_MS)
    ended = {world.status(saga_id) for saga_id in IDS[:4]}
    assert ended <= {Status.COMPLETED, Status.COMPENSATED}, "none waits for its code, or behind the circuit"


def test_an_undo_that_waits_does_not_mind_the_deadline_of_what_it_undoes() -> None:
    world = Careful(sagas=(Hurried, Waiting))
    send_starts(world, IDS[0], saga_type="Waiting")
    world.settle()
    world.behave = DOWN
    send_starts(world, *IDS[1:4], saga_type="Hurried")
    world.settle()
    assert world.of(ev.CircuitOpened)
    client = world.log.appender()
    headers = [("input-type", b"cancel")]
    client.append(world.topics.inbox, 1, None, key=IDS[0].encode(), headers=headers, token=None)
    world.settle()
    assert world.step_of(IDS[0], 1).held
    world.advance(3_500)
    assert world.step_of(IDS[0], 1).undo_attempt == 0
    for _ in range(4):
        world.advance(PROBE_MS)
    assert world.step_of(IDS[0], 1).undo_attempt > 0


def test_who_takes_over_goes_on_holding_back() -> None:
    world = opened()
    world.crash()
    for _ in range(4):
        world.advance(1_000)
    assert len(world.charges()) == 3
    send_starts(world, IDS[6])
    world.settle()
    assert world.step_of(IDS[6]).held
    world.behave = succeed
    for _ in range(4):
        world.advance(PROBE_MS)
    assert {world.status(saga_id) for saga_id in IDS[:7]} == {Status.COMPLETED}


def test_without_a_limit_no_circuit_opens() -> None:
    world = World()
    world.behave = DOWN
    send_starts(world, *IDS[:6])
    world.settle()
    partition = world.engine.tenures[1].partition
    assert partition is not None
    assert partition.circuits.open == frozenset()


def test_a_service_that_says_when_it_wants_to_be_asked_is_no_failure() -> None:
    def later(message: CommandMessage) -> ReplyMessage | None:
        return (
            ReplyMessage(Outcome.RETRY, b"", "Busy", "", 50) if message.command_type == "charge" else succeed(message)
        )

    world = Careful()
    world.behave = later
    send_starts(world, *IDS[:6])
    world.settle()
    assert world.of(ev.CircuitOpened) == []


def test_a_metric_tells_which_services_are_not_asked() -> None:
    world = opened()
    (metric,) = [each for each in WorkerMetrics(world.engine).collect() if each.name == "saga_circuits_open"]
    assert [(sample.labels, sample.value) for sample in metric.samples] == [({"service": "payments"}, 1.0)]


# -- alone


def test_successes_in_between_begin_the_count_anew() -> None:
    circuits = Circuits(2, 100, (), 0, lambda timer: True)
    assert circuits.note("payments", False, 0) == ()
    assert circuits.note("payments", True, 0) == ()
    assert circuits.note("payments", False, 0) == ()
    assert circuits.note("payments", False, 0) == (ev.CircuitOpened("payments", 2),)
    assert circuits.note("payments", False, 0) == ()
    assert circuits.note("payments", True, 0) == (ev.CircuitClosed("payments"),)
    assert circuits.next_due_ms() is None
