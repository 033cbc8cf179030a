"""Golden histories: recorded as files, and replayed with code that has changed."""

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator import Abort, Saga, StepFailed
from orchestrator.testing import End, SagaTest, check_histories, replay
from tests.unit.testing.trips import Booking, Cards, Cars, Hotels, Mails, Ticket, Trip

ANN = Trip(who="ann")


class Travel(Saga[Trip, str]):
    async def run(self, trip: Trip) -> str:
        hotel = await self.step(Hotels.book(who=trip.who), undo=Hotels.free)
        await self.sleep(60)
        await self.step(Mails.send(who=trip.who))
        return hotel.number


class Changed(Saga[Trip, str], name="Travel"):
    """The mail is sent to somebody else, the pause is longer and the result another: nothing that a replay minds."""

    async def run(self, trip: Trip) -> str:
        await self.step(Hotels.book(who=trip.who), undo=Hotels.free)
        await self.sleep(timedelta(days=1))
        await self.step(Mails.send(who="bob"))
        return "done"


class Diverging(Saga[Trip, str], name="Travel"):
    async def run(self, trip: Trip) -> str:
        hotel = await self.step(Hotels.book(who=trip.who), undo=Hotels.free)
        await self.step(Cars.book(who=trip.who))
        await self.step(Mails.send(who=trip.who))
        return hotel.number


class Longer(Travel, name="Travel"):
    async def run(self, trip: Trip) -> str:
        number = await super().run(trip)
        await self.step(Cars.book(who=trip.who))
        return number


class Careful(Travel, name="Travel"):
    async def run(self, trip: Trip) -> str:
        try:
            return await super().run(trip)
        except StepFailed:
            return "it does not matter"


class Careless(Travel, name="Travel"):
    async def run(self, trip: Trip) -> str:
        await super().run(trip)
        raise Abort("ChangedMyMind")


class Narrow(Saga[Ticket, str], name="Travel"):
    async def run(self, ticket: Ticket) -> str:
        return ticket.number


def done() -> End[str]:
    return SagaTest(Travel).answer(Hotels.book, Ticket(number="h")).answer(Mails.send, None).run(ANN)


def refused() -> End[str]:
    return SagaTest(Travel).answer(Hotels.book, Ticket(number="h")).fail(Mails.send, "NoAddress").run(ANN)


def test_a_saved_history_replays_with_the_same_and_with_compatible_code(tmp_path: Path) -> None:
    done().save(tmp_path / "new" / "done.json")
    refused().save(tmp_path / "refused.json")
    assert check_histories(tmp_path, Travel) == 2
    assert check_histories(tmp_path, Changed) == 2
    replay(Travel, done().decisions)


def test_every_history_that_diverges_is_named_with_its_difference(tmp_path: Path) -> None:
    done().save(tmp_path / "done.json")
    refused().save(tmp_path / "refused.json")
    with pytest.raises(AssertionError) as failed:
        check_histories(tmp_path, Diverging)
    text = str(failed.value)
    assert text.startswith("2 of 2 histories do not replay")
    for name in ("done", "refused"):
        assert f"{name}.json: step 2: the history has sleep, the code asks for cars.book" in text


@pytest.mark.parametrize(
    ("history", "saga", "problem"),
    [
        (done, Longer, "the saga completed, the code goes on"),
        (done, Careless, r"the saga completed, the code raises Abort\('ChangedMyMind'\)"),
        (refused, Careful, "the saga failed, the code completes"),
        (done, Narrow, "its input does not fit any more: number: Field required"),
    ],
)
def test_another_end_is_a_difference_too(
    history: "type[done]", saga: type[Saga[Trip, str]], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=rf"one\.json: {problem}"):
        replay(saga, history().save(tmp_path / "one.json"))


def test_a_history_that_was_cut_short_replays_so_far() -> None:
    decisions = done().decisions
    for length in range(1, len(decisions) + 1):
        replay(Travel, decisions[:length])
    replay(Diverging, decisions[:1])


class Other(Saga[Booking, None]):
    async def run(self, booking: Booking) -> None:
        await self.step(Cards.charge(who=booking.who))


def test_a_history_of_another_saga_or_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="there is no history in"):
        check_histories(tmp_path, Travel)
    done().save(tmp_path / "done.json")
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(AssertionError, match=r"(?s)it is of a Travel; given are Other.*notes\.json: 'form' is missing"):
        check_histories(tmp_path, Other)
    with pytest.raises(AssertionError, match="it is of a Travel, not of a Other"):
        replay(Other, tmp_path / "done.json")
