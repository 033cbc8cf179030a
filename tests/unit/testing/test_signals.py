"""Signals in a test: recorded like answers, at a time, when the saga waits, and by hand."""

from datetime import timedelta

import pytest

from orchestrator import Saga, Status, signal
from orchestrator.testing import SagaTest, prove
from tests.unit.testing.trips import Approval, Cards, Decision, Ticket, Trip

ANN = Trip(who="ann")


def approval() -> SagaTest[Trip, str]:
    return SagaTest(Approval).answer(Cards.charge, Ticket(number="c"))


def test_signals_come_when_the_saga_waits_for_them_each_once_in_order() -> None:
    test = approval().signal(Approval.decided, Decision(by="ann", ok=True)).signal(Approval.pressed, after=60)
    end = test.signal(Approval.decided, Decision(by="bob", ok=True), after=timedelta(days=2)).run(ANN)
    end.assert_completed("ann and bob")
    assert end.elapsed == 2 * 24 * 3600 + 60


def test_time_is_up_when_nobody_signals() -> None:
    end = approval().signal(Approval.decided, Decision(by="ann", ok=True)).run(ANN)
    end.assert_completed("nobody cares")
    assert end.elapsed == 3 * 24 * 3600


def test_a_signal_at_a_time_is_kept_until_it_is_asked_for() -> None:
    early = approval().at(0).signal(Approval.pressed).at(5).signal(Approval.decided, Decision(by="ann", ok=True))
    end = early.at(7).signal(Approval.decided, Decision(by="bob", ok=True)).run(ANN)
    end.assert_completed("ann and bob")
    assert end.elapsed == 7


def test_by_hand() -> None:
    saga = approval().start(ANN).until(Approval.decided)
    assert saga.waiting_for == ["signal decided"]
    saga.signal(Approval.decided, Decision(by="ann", ok=True)).advance(3600)
    saga.signal(Approval.decided, Decision(by="bob", ok=True)).until(Approval.pressed)
    assert saga.status is Status.RUNNING
    saga.signal(Approval.pressed).finish().assert_completed("ann and bob")


def test_a_cancel_while_the_saga_waits_for_a_signal() -> None:
    test = approval().signal(Approval.decided, Decision(by="ann", ok=True))
    end = test.signal(Approval.decided, Decision(by="bob", ok=True)).when(Approval.pressed).cancel().run(ANN)
    assert end.status is Status.CANCELED


def test_what_it_says_when_a_signal_is_missing_or_never_waited_for() -> None:
    test = approval().at(1).signal(Approval.decided, Decision(by="ann", ok=True))
    test.at(2).signal(Approval.decided, Decision(by="bob", ok=True))
    with pytest.raises(AssertionError, match=r"waits for ever, for signal pressed: tell it by \.signal\(\.\.\.\)"):
        test.run(ANN)
    with pytest.raises(AssertionError, match=r"\.signal\(pressed\) had no occasion: signal pressed was never waited"):
        approval().signal(Approval.pressed).run(ANN)
    with pytest.raises(AssertionError, match=r"signal pressed was never waited for: <COMPLETED"):
        approval().start(ANN).until(Approval.pressed)


class Other(Saga[Trip, str]):
    pressed_hard = signal()

    async def run(self, trip: Trip) -> str:
        return trip.who


def test_a_signal_that_the_saga_does_not_have_is_refused() -> None:
    saga = approval().start(ANN)
    with pytest.raises(AssertionError, match=r"Approval has no signal 'pressed_hard'; its signals: decided, pressed"):
        saga.signal(Other.pressed_hard)


class Selfish(Saga[Trip, str]):
    told = signal(str)

    async def run(self, trip: Trip) -> str:
        self.signal(self.id, Selfish.told, "one")
        self.signal(self.id, Selfish.told, "two")
        heard = [await self.receive(Selfish.told) for _ in range(2)]
        if trip.who == "bob":
            self.signal(self.id, Selfish.told, "three")  # which nobody hears
        return " ".join(heard)


def test_what_a_saga_tells_itself_arrives_once_and_in_order() -> None:
    assert SagaTest(Selfish).run(ANN).assert_completed("one two").elapsed == 0
    SagaTest(Selfish).run(Trip(who="bob")).assert_completed("one two")
    prove(SagaTest(Selfish), ANN, check=lambda end: end.status is not Status.COMPLETED or end.result == "one two")
