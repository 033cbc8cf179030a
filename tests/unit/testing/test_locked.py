"""Keys that somebody else holds, in the test kit."""

import pytest

from orchestrator import IfLocked, Saga, Service, Status, StepFailed, command
from orchestrator.testing import SagaTest, prove
from tests.unit.testing.trips import Trip

ANN = Trip(who="ann")


class Bank(Service):
    book = command(Trip, int)
    reverse = command(Trip)


class Owned(Saga[Trip, int], locks=lambda trip: [f"account/{trip.who}"]):
    async def run(self, trip: Trip) -> int:
        return await self.step(Bank.book(who=trip.who), undo=Bank.reverse)


class Patient(Saga[Trip, str]):
    """Waits a minute for two keys, then asks for one of them every half a minute."""

    async def run(self, trip: Trip) -> str:
        try:
            async with self.lock("account/ann", "account/bob", timeout=60):
                return "both"
        except StepFailed as failed:
            if failed.error_type != "LockTimeout":
                raise
        for attempt in range(1, 4):
            try:
                await self.lock("account/bob", if_locked=IfLocked.FAIL)
            except StepFailed as failed:
                if (failed.error_type, failed.message) != ("Locked", "somebody else holds it"):
                    raise
                await self.sleep(30)
            else:
                return f"attempt {attempt}"
        return "never"


def test_a_key_that_somebody_holds_for_a_while_is_waited_for() -> None:
    end = SagaTest(Owned).locked("account/ann", for_=90).answer(Bank.book, 5).run(ANN).assert_completed(5)
    assert end.elapsed == 90


def test_a_key_that_nobody_said_anything_about_is_free() -> None:
    test = SagaTest(Owned).locked("account/bob").answer(Bank.book, 5)
    assert test.run(ANN).assert_completed(5).elapsed == 0


def test_a_lock_times_out_and_one_that_does_not_wait_fails_until_the_key_is_free() -> None:
    assert SagaTest(Patient).run(ANN).result == "both"
    assert SagaTest(Patient).locked("account/ann", "account/bob", for_=59).run(ANN).result == "both"
    end = SagaTest(Patient).locked("account/bob", for_=75).run(ANN)
    assert (end.result, end.elapsed) == ("attempt 2", 90)
    assert SagaTest(Patient).locked("account/bob").run(ANN).result == "never"


def test_what_a_saga_no_longer_waits_for_does_not_come() -> None:
    end = SagaTest(Owned).locked("account/ann", for_=90).at(30).cancel().run(ANN)
    assert (end.status, end.elapsed, end.effects) == (Status.CANCELED, 30, [])


def test_a_key_that_is_held_for_ever_is_named_with_what_to_do() -> None:
    with pytest.raises(AssertionError, match=r"waits for ever, for lock account/ann: .locked\(..., for_=...\) says"):
        SagaTest(Owned).locked("account/ann").run(ANN)


def test_whatever_goes_wrong_while_a_key_is_waited_for() -> None:
    proof = prove(SagaTest(Owned).locked("account/ann", for_=90).answer(Bank.book, 5), ANN)
    assert "COMPLETED" in repr(proof)
    assert "CANCELED" in repr(proof)
