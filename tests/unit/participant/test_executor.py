"""Handlers on real threads, and the runner around all of it, over a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from threading import Event, current_thread
from time import monotonic
from typing import Any

import pytest

from orchestrator.errors import ConfigurationError, DefinitionError
from orchestrator.log.memory import MemoryLog
from orchestrator.model.messages import Outcome
from orchestrator.participant import HandlerContext, Participant, ParticipantSettings, executor
from orchestrator.participant.executor import ThreadedExecutor
from orchestrator.participant.rules import IGNORE, Answer, Ignore, Reject
from orchestrator.participant.runner import EXIT_OVERDUE, Runner, load_participant, wall_ms
from orchestrator.participant.work import Finished
from orchestrator.wire.commands import CommandMessage, Ending, ReplyMessage

from .test_handlers import Charge, Payments, Receipt, work
from .world import SUCCESS, World

RECEIPT = ReplyMessage(Outcome.SUCCESS, b'{"payment_id":"p-1"}')


class Bench:
    """An executor, and the wait for what it has finished."""

    def __init__(self, participant: Participant, limit_ms: int = 30_000) -> None:
        self.wake = Event()
        self.now_ms = 0
        self.executor = ThreadedExecutor(participant, 4, limit_ms, lambda: self.now_ms, self.wake)

    def take(self, count: int) -> list[Finished]:
        """The next that end, polling when the executor asks for it."""
        found: list[Finished] = []
        deadline = monotonic() + 10
        while len(found) < count:
            assert monotonic() < deadline
            self.wake.wait(self.executor.due_s or 10)
            self.wake.clear()
            found += self.executor.poll()
        return found


@pytest.fixture
def participant() -> Participant:
    return Participant(Payments)


@pytest.fixture
def bench(participant: Participant) -> Iterator[Bench]:
    made = Bench(participant, 100)
    yield made
    made.executor.close()


def test_plain_handlers_run_side_by_side_and_a_hanging_one_stops_nobody(participant: Participant, bench: Bench) -> None:
    let_go = Event()

    @participant.handles(Payments.charge)
    def charge(request: Charge) -> Receipt:
        if request.cents == 0:
            assert let_go.wait(10)
        return Receipt(payment_id="p-1")

    hanging = work(b'{"cents":0}')
    bench.executor.start(hanging)
    for _ in range(20):
        bench.executor.start(work())
    done = bench.take(20)
    assert hanging not in [finished.work for finished in done]
    let_go.set()
    assert bench.take(1) == [Finished(hanging, RECEIPT, True)]


def quicken(bench: Bench) -> None:
    """Lets the executor find out that `charge` is quick; a busy machine may make the first ones slow."""
    while "charge" not in bench.executor._quick:
        bench.executor.start(work())
        bench.take(1)
    deadline = monotonic() + 10
    while bench.executor._awake:
        assert monotonic() < deadline


def test_quick_handlers_share_a_thread_until_one_keeps_it(participant: Participant, bench: Bench) -> None:
    begun, let_go = Event(), Event()

    @participant.handles(Payments.charge)
    def charge(request: Charge) -> Receipt:
        if request.cents == 0:
            begun.set()
            assert let_go.wait(10)
        return Receipt(payment_id="p-1")

    quicken(bench)
    hanging = work(b'{"cents":0}')
    bench.executor.start(hanging)
    assert begun.wait(10)
    for _ in range(10):
        bench.executor.start(work())
    assert bench.executor._awake == 1
    assert bench.executor.due_s is not None
    # Who polls when it is asked to finds that they wait, and wakes another.
    assert hanging not in [finished.work for finished in bench.take(10)]
    let_go.set()
    assert [finished.work for finished in bench.take(1)] == [hanging]
    # It was slow: the next one gets a thread to itself.
    begun.clear()
    let_go.clear()
    bench.executor.start(hanging)
    assert begun.wait(10)
    other = work()
    bench.executor.start(other)
    assert bench.wake.wait(10)
    let_go.set()
    assert {finished.work for finished in bench.take(2)} == {hanging, other}


def test_async_handlers_share_one_loop_and_one_that_blocks_no_thread_of_it_is_cancelled(
    participant: Participant, bench: Bench
) -> None:
    threads = set()

    @participant.handles(Payments.charge)
    async def charge(request: Charge) -> Receipt:
        threads.add(current_thread().name)
        if request.cents == 0:
            await asyncio.Event().wait()
        return Receipt(payment_id="p-1")

    bench.executor.start(work(b'{"cents":0}'))
    for _ in range(20):
        bench.executor.start(work())
    done = bench.take(21)
    assert threads == {"handlers"}
    replies = [finished.reply for finished in done]
    assert replies.count(RECEIPT) == 20
    assert replies[-1] is not None
    assert replies[-1].error_type == "HandlerTimeout"


def test_what_comes_to_its_thread_after_the_lease_is_not_started(participant: Participant, bench: Bench) -> None:
    @participant.handles(Payments.charge)
    def charge(request: Charge) -> Receipt:
        raise AssertionError

    @participant.handles(Payments.refund)
    async def refund(request: Charge) -> None:
        raise AssertionError

    for name in ("charge", "refund"):
        late = work(name=name)
        late.start_by_ms = 0
        bench.executor.start(late)
        assert bench.take(1) == [Finished(late, None, True)]


def test_closing_with_a_task_under_way_leaves_nothing_behind(participant: Participant) -> None:
    begun = Event()

    @participant.handles(Payments.charge)
    async def charge(request: Charge) -> Receipt:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    bench = Bench(participant)
    bench.executor.start(work())
    assert begun.wait(10)
    bench.executor.close()


class Box:
    """An inbox that remembers in a dict; `breaks` raises, which no inbox may."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.known: dict[str, Ending] = {}
        self.breaks = breaks
        self.log: list[str] = []

    def prepare(self) -> None:
        self.log.append("prepare")

    def process(
        self, command: CommandMessage, appended_ms: int, perform: Callable[[Any, bool], Ending]
    ) -> tuple[Ending, bool]:
        if self.breaks:
            raise OSError("no database")
        if command.idempotency_key in self.known:
            return self.known[command.idempotency_key], False
        reply = self.known[command.idempotency_key] = perform("connection", False)
        return reply, True

    def complete(self, command: CommandMessage) -> Answer | Ignore | Reject:
        self.log.append("complete")
        if self.breaks:
            raise OSError("no database")
        return IGNORE

    def close(self) -> None:
        self.log.append("close")


def test_an_inbox_answers_or_lends_its_transaction() -> None:
    participant = Participant(Payments, inbox=Box())
    seen: list[Any] = []

    @participant.handles(Payments.charge)
    def charge(request: Charge, context: HandlerContext) -> Receipt:
        seen.append(context.connection)
        return Receipt(payment_id="p-1")

    bench = Bench(participant)
    made = work()
    for ran in (True, False):
        made.record = type("R", (), {"timestamp_ms": 0})()
        bench.executor.start(made)
        assert bench.take(1) == [Finished(made, RECEIPT, ran)]
    bench.executor.close()
    assert seen == ["connection"]


def test_an_inbox_that_raises_loses_no_command() -> None:
    participant = Participant(Payments, inbox=Box(breaks=True))
    bench = Bench(participant)
    made = work()
    made.record = type("R", (), {"timestamp_ms": 0})()
    bench.executor.start(made)
    reply = bench.take(1)[0].reply
    bench.executor.close()
    assert reply is not None
    assert (reply.outcome, reply.error_type) == (Outcome.RETRY, "OSError")


def test_a_completion_is_the_inbox_s_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "COMPLETE_AGAIN_S", 0.0)
    for breaks, expected in ((False, IGNORE), (True, None)):
        box = Box(breaks=breaks)
        bench = Bench(Participant(Payments, inbox=box))
        made = work()
        made.command = made.command._replace(completion=RECEIPT)
        bench.executor.start(made)
        assert bench.take(1) == [Finished(made, expected, breaks)]
        bench.executor.close()
        assert box.log == ["complete"]


def complete(participant: Participant, stop: Callable[[], None], after: int) -> list[int]:
    """Registers handlers for both commands; stops after so many runs."""
    runs: list[int] = []

    def count(cents: int) -> None:
        runs.append(cents)
        if len(runs) == after:
            stop()

    @participant.handles(Payments.charge)
    async def charge(request: Charge) -> Receipt:
        count(request.cents)
        return Receipt(payment_id="p-1")

    @participant.handles(Payments.refund)
    def refund(request: Charge) -> None:
        count(request.cents)

    return runs


def real_time_world() -> World:
    world = World(partitions=2)
    world.now_ms = wall_ms()
    return world


@pytest.mark.parametrize("boxed", [False, True])
def test_a_runner_works_until_it_is_stopped_and_leaves_nothing_behind(boxed: bool) -> None:
    world = real_time_world()
    box = Box()
    participant = Participant(Payments, inbox=box if boxed else None)
    runner: list[Runner] = []
    stop = lambda: runner[0].stop()  # noqa: E731
    if boxed:

        @participant.handles(Payments.charge)
        def charge(request: Charge) -> Receipt:
            return Receipt(payment_id="p-1")

        @participant.handles(Payments.refund)
        def refund(request: Charge) -> None:
            stop()
    else:
        complete(participant, stop, 3)
    world.send("a", payload=b'{"cents":1}')
    world.send("b", payload=b'{"cents":1}', partition=1)
    world.send("b", "undo", payload=b'{"cents":1}', partition=1)
    log: MemoryLog = world.log
    runner.append(Runner(participant, log, settings=ParticipantSettings(commit_interval_ms=1)))
    runner[0].run()
    assert sorted(world.outcomes()) == [("do", 1, "success"), ("do", 1, "success"), ("undo", 1, "success")]
    assert (world.committed(0), world.committed(1)) == (1, 2)
    assert world.told("a")[0].payload == SUCCESS.payload
    if boxed:
        assert box.log == ["prepare", "close"]
        assert world.ledger_kinds() == []
    else:
        assert world.ledger_kinds(1)[-1] == "Release"
    # Its group is left: the partitions are the next one's at once.
    assert log.group("payments").owned(runner[0]._reader) is None  # type: ignore[arg-type]


def test_a_handler_beyond_its_limit_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    world = real_time_world()
    participant = Participant(Payments)
    let_go = Event()
    codes: list[int] = []

    @participant.handles(Payments.charge)
    def charge(request: Charge) -> Receipt:
        assert let_go.wait(20)
        return Receipt(payment_id="p-1")

    @participant.handles(Payments.refund)
    def refund(request: Charge) -> None:
        raise AssertionError

    def leave(code: int) -> None:
        codes.append(code)
        let_go.set()
        runner.stop()

    world.send("a", payload=b'{"cents":1}')
    runner = Runner(participant, world.log, settings=ParticipantSettings(handler_limit_ms=50), exit=leave)
    runner.run()
    assert codes == [EXIT_OVERDUE]
    assert "Thread" in capfd.readouterr().err


def test_a_participant_with_a_command_left_out_is_not_run() -> None:
    with pytest.raises(DefinitionError, match="charge, refund"):
        Runner(Participant(Payments), World().log)


def test_participants_are_found_by_their_place() -> None:
    with pytest.raises(ConfigurationError, match="module:object"):
        load_participant("shop")
    with pytest.raises(ConfigurationError, match="no module 'no_such_shop'"):
        load_participant("no_such_shop:payments")
    with pytest.raises(ConfigurationError, match="is no Participant but module"):
        load_participant("orchestrator.participant:runner")
