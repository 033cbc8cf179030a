"""What a saga's code awaits besides its steps: signals, conditions; and what it records."""

from __future__ import annotations

import pytest

from model.play import Play
from model.shop import Shop
from model.shopping import started
from orchestrator.errors import DefinitionError
from orchestrator.model import checks
from orchestrator.model import events as ev
from orchestrator.model.definition import Context, Definition, StepRequest
from orchestrator.model.driver import Asked, Until
from orchestrator.model.events import Status, StepKind
from orchestrator.model.groups import Together
from orchestrator.saga import Saga
from orchestrator.signals import signal


class Approval(Saga[None, str]):
    decided = signal(str)
    nudged = signal()

    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(), undo=Shop.release)
        decision = await self.receive(Approval.decided, timeout=60)
        if decision is None:
            return "late"
        return f"{decision}, {await self.receive(Approval.decided)}"


# -- signals


def test_a_signal_ends_the_wait_for_it() -> None:
    play = started(Approval)
    play.do(1, "x")
    play.signal("decided", "yes")
    play.signal("decided", "sure")
    assert play.ending.payload == b'"yes, sure"'
    assert play.names.count("SignalReceived") == play.names.count("SignalTaken") == 2


def test_signals_that_come_before_the_wait_are_kept_in_their_order() -> None:
    play = started(Approval)
    play.signal("decided", "first")
    play.signal("nudged")
    play.signal("decided", "second")
    assert play.state.signals == [("decided", b'"first"'), ("nudged", b"null"), ("decided", b'"second"')]
    play.do(1, "x")
    assert play.ending.payload == b'"first, second"'


def test_a_payload_is_journaled_once() -> None:
    play = started(Approval)
    play.do(1, "x")
    (received, taken, _) = play.signal("decided", "yes")
    assert received == ev.SignalReceived("decided", b'"yes"', "ann")
    assert taken == ev.SignalTaken(2)


def test_a_wait_whose_time_is_up_gives_none_and_takes_no_signal_any_more() -> None:
    play = started(Approval)
    play.do(1, "x")
    play.fire(2)
    assert play.ending.payload == b'"late"'


def test_a_cancellation_ends_a_wait_and_a_signal_after_it_changes_nothing() -> None:
    play = started(Approval)
    play.do(1, "x")
    play.cancel()
    assert "WaitCanceled" in play.names
    (event,) = play.signal("decided", "yes")
    assert isinstance(event, ev.InputAbsorbed)
    assert play.status is Status.COMPENSATING
    play.undo(1)
    assert isinstance(play.signal("decided", "yes")[0], ev.InputAbsorbed)


def test_what_no_code_can_take_is_rejected_and_changes_nothing() -> None:
    play = started(Approval)
    assert "no signal 'dance'; its signals: decided, nudged" in play.rejected(lambda: play.signal("dance"))
    assert "the signal decided does not fit" in play.rejected(lambda: play.signal("decided", 3))
    large = play.rejected(lambda: play.signal("decided", "x" * 300_000))
    assert "pass a reference" in large


def test_signals_that_nobody_asks_for_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_SIGNALS", 2)
    play = started(Approval)
    play.signal("nudged")
    play.signal("nudged")
    assert "2 signals are kept" in play.rejected(lambda: play.signal("nudged"))
    play.do(1, "x")
    play.terminate()
    assert play.state.signals == []


def test_a_signal_for_a_saga_without_its_code_is_held_and_taken_later() -> None:
    play = started(Approval)
    play.do(1, "x")
    play.lose_code()
    play.signal("decided", "yes")
    assert play.names[-2:] == ["CodeMissing", "InputHeld"]
    play.find_code()
    play.signal("decided", "sure")
    assert play.ending.payload == b'"yes, sure"'


def test_a_signal_for_a_parked_saga_is_kept_until_it_goes_on() -> None:
    class Bug(Approval, name="Approval"):
        async def run(self, _: None) -> str:
            await self.step(Shop.reserve(), undo=Shop.release)
            raise ValueError("a bug")

    play = started(Bug)
    play.do(1, "x")
    play.signal("decided", "yes")
    play.signal("decided", "sure")
    assert play.status is Status.PARKED
    play.definition = Approval.definition
    play.retry()
    assert play.ending.payload == b'"yes, sure"'


def test_a_wait_that_lost_a_group_takes_no_signal() -> None:
    class Either(Saga[None, str]):
        told = signal(str)

        async def run(self, _: None) -> str:
            try:
                await self.gather(self.receive(Either.told), self.step(Shop.reserve()))
            except Exception:
                return await self.receive(Either.told)
            return ""

    play = started(Either)
    play.refuse(2)
    assert play.names[-2:] == ["WaitScheduled", "WaitCanceled"]
    play.signal("told", "kept")
    assert play.ending.payload == b'"kept"'


def test_only_a_declared_signal_can_be_awaited() -> None:
    class Other(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.receive(Approval.decided)

    play = started(Other)
    assert "is no signal of Other" in play.state.parked[0]
    assert DefinitionError.__name__ in play.state.parked[0]


# -- conditions


class Counting(Saga[None, str]):
    more = signal(int)
    sum = 0

    async def run(self, _: None) -> str:
        _counted, enough = await self.gather(self.count(), self.wait_until(lambda: self.sum >= 5, timeout=60))
        return f"{self.sum} {enough}"

    async def count(self) -> None:
        while self.sum < 7:
            self.sum += await self.receive(Counting.more)


def test_a_condition_is_looked_at_after_everything_that_happens() -> None:
    play = started(Counting)
    play.signal("more", 2)
    assert "WaitCanceled" not in play.names
    play.signal("more", 3)
    assert "WaitCanceled" in play.names, "its time no longer matters"
    play.signal("more", 9)
    assert play.ending.payload == b'"14 True"'


def test_a_condition_whose_time_is_up_does_not_hold() -> None:
    play = started(Counting)
    play.fire(2)
    play.signal("more", 9)
    assert play.ending.payload == b'"9 False"'


def test_a_condition_that_holds_waits_for_nothing() -> None:
    class Holds(Saga[None, bool]):
        async def run(self, _: None) -> bool:
            return await self.wait_until(lambda: True, timeout=60)

    play = started(Holds)
    assert play.names == ["SagaStarted", "SagaEnded"]


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_cancellation_reaches_who_waits_for_a_condition(timeout: float | None) -> None:
    class Never(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), undo=Shop.release)
            await self.wait_until(lambda: False, timeout)

    play = started(Never)
    play.do(1, "x")
    play.cancel()
    play.undo(1)
    assert play.status is Status.CANCELED


def test_a_condition_that_raises_is_a_bug() -> None:
    class Bad(Saga[None, None]):
        told = signal()

        async def run(self, _: None) -> None:
            await self.gather(self.wait_until(lambda: self.missing > 1), self.receive(Bad.told))  # type: ignore[attr-defined]

    play = started(Bad)
    assert play.status is Status.PARKED
    assert "no attribute 'missing'" in play.state.parked[0]


# -- recorded values

NOTE = StepRequest("shop", "note", b"null")


def recording(values: list[bytes], name: str = "draw") -> Definition:
    """Records the next of `values` before and after a step; what it got is the result."""
    left = iter(values)

    async def body(context: Context, payload: bytes) -> bytes:
        one = context.record(StepKind.VALUE, name, lambda: next(left))
        await Asked(NOTE)
        return one + context.record(StepKind.VALUE, name, lambda: next(left))

    return Definition("Recording", body)


def test_a_recorded_value_is_made_once() -> None:
    play = Play(recording([b"1", b"2"]), cold=False)
    play.start()
    assert play.names == ["SagaStarted", "Recorded", "StepScheduled"]
    play.crash()
    play.do(2)
    assert play.ending.payload == b"12"


def test_another_name_than_the_recorded_one_is_a_divergence() -> None:
    play = Play(recording([b"1"]), cold=False)
    play.start()
    play.crash()
    play.definition = recording([b"1", b"2"], "toss")
    play.do(2)
    assert "the history has value draw, the code asks for value toss" in play.state.parked[0]


def test_nothing_is_recorded_outside_of_the_run() -> None:
    seen: list[str] = []

    async def body(context: Context, payload: bytes) -> bytes:
        def late() -> bool:
            try:
                context.record(StepKind.VALUE, "draw", lambda: b"1")
            except Exception as refused:
                seen.append(str(refused))
            return False

        await Together((Asked(NOTE), Until(late)))
        return b""

    play = Play(Definition("Late", body), cold=False)
    play.start()
    assert seen
    assert "outside of the saga's run" in seen[0]
