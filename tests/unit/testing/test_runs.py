"""A saga of several runs: saved, replayed and proved like any other."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from orchestrator import Saga
from orchestrator.testing import SagaTest, check_histories, prove
from orchestrator.testing.histories import state_of
from orchestrator.wire.history import read_history, write_history
from tests.unit.testing.trips import Cars, Hotels, Mails, Ticket


class Night(BaseModel):
    number: int


class Tour(Saga[Night, str]):
    """A hotel a night, each in a run of its own."""

    async def run(self, night: Night) -> str:
        hotel = await self.step(Hotels.book(who=f"guest {night.number}"), undo=Hotels.free)
        await self.step(Mails.send(who=hotel.number), pivot=True)
        if night.number == 3:
            return "home"
        return self.continue_as_new(Night(number=night.number + 1))


class OtherTour(Saga[Night, str], name="Tour"):
    """From the second night on it is another one."""

    async def run(self, night: Night) -> str:
        if night.number > 1:
            await self.step(Cars.book(who="guest"))
        await self.step(Hotels.book(who="guest"), undo=Hotels.free)
        await self.step(Mails.send(who="guest"), pivot=True)
        return "home" if night.number == 3 else self.continue_as_new(Night(number=night.number + 1))


def tour() -> SagaTest[Night, str]:
    return SagaTest(Tour).answer(Hotels.book, Ticket(number="h")).answer(Mails.send, None)


def test_all_runs_are_in_one_history(tmp_path: Path) -> None:
    end = tour().run(Night(number=1)).assert_completed("home")
    assert len({decision.run for decision in end.decisions}) == 3
    assert read_history(write_history(end.decisions)) == end.decisions
    assert state_of(end.decisions).status == "COMPLETED"
    end.save(tmp_path / "tour.json")
    assert check_histories(tmp_path, Tour) == 1
    with pytest.raises(AssertionError, match=r"run 1-\d+-0: step 1: the history has hotels\.book, the code asks"):
        check_histories(tmp_path, OtherTour)


def test_each_run_is_judged_by_itself() -> None:
    proof = prove(tour(), Night(number=1))
    assert set(proof.statuses) == {"COMPLETED", "CANCELED", "COMPENSATED", "FAILED"}
