"""Golden histories: recorded as files, and replayed with code that has changed."""

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator import Abort, PastRun, Saga, StepFailed
from orchestrator.errors import DefinitionError
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
    with pytest.raises(AssertionError, match="it is of a Travel; given are Other"):
        replay(Other, tmp_path / "done.json")


# -- versions


class PinnedFirst(Travel, name="Travel", pinned=True):
    pass


class Second(Saga[Trip, str], name="Travel", version=2):
    async def run(self, trip: Trip) -> str:
        await self.step(Cars.book(who=trip.who))
        hotel = await self.step(Hotels.book(who=trip.who), undo=Hotels.free)
        return hotel.number


class Half(Saga[Booking, str], name="Travel", version=3):
    """Takes over from any version."""

    async def run(self, booking: Booking) -> str:
        return booking.who

    @classmethod
    def migrate(cls, past: PastRun) -> Booking | None:
        return Booking(who=f"{past.input['who']} in {past.results(Hotels.book)[0].number}")


class Declining(Half, name="Travel", version=3):
    @classmethod
    def migrate(cls, past: PastRun) -> Booking | None:
        return None


class Raising(Half, name="Travel", version=3):
    @classmethod
    def migrate(cls, past: PastRun) -> Booking | None:
        raise KeyError("room")


def of_both_versions(folder: Path) -> None:
    first = SagaTest(PinnedFirst).answer(Hotels.book, Ticket(number="h")).answer(Mails.send, None).run(ANN)
    first.save(folder / "first.json")
    second = SagaTest(Second).answer(Hotels.book, Ticket(number="h")).answer(Cars.book, Ticket(number="c")).run(ANN)
    second.save(folder / "second.json")


@pytest.mark.parametrize("sagas", [(PinnedFirst, Second), (Second, PinnedFirst)])
def test_each_history_is_replayed_with_the_version_that_it_is_in(sagas: "list[type[Travel]]", tmp_path: Path) -> None:
    of_both_versions(tmp_path)
    assert check_histories(tmp_path, *sagas) == 2


def test_a_version_that_is_not_given_is_named(tmp_path: Path) -> None:
    of_both_versions(tmp_path)
    with pytest.raises(
        AssertionError, match=r"first\.json: the run is pinned to version 1; given of Travel is version 2"
    ):
        check_histories(tmp_path, Second)
    with pytest.raises(AssertionError, match=r"second\.json: the run came to version 2; given of Travel is version 1"):
        check_histories(tmp_path, PinnedFirst)


def test_what_is_not_pinned_goes_on_with_the_newest(tmp_path: Path) -> None:
    done().save(tmp_path / "done.json")
    with pytest.raises(AssertionError, match=r"the history has hotels\.book, the code asks for cars\.book"):
        check_histories(tmp_path, Travel, Second)


def test_two_sagas_in_one_version_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="two of the given sagas are Travel in version 1: give one of them"):
        check_histories(tmp_path, Travel, Changed)


def test_code_that_takes_over_repeats_nothing_unless_it_declines() -> None:
    test = SagaTest(Travel).answer(Hotels.book, Ticket(number="h"))
    half_way = test.start(ANN).advance(1).end().decisions
    replay(Half, half_way)
    replay(Half, done().decisions)
    with pytest.raises(AssertionError, match=r"the hook raises KeyError\('room'\)"):
        replay(Raising, half_way)
    with pytest.raises(AssertionError, match=r"step 1: the history has hotels\.book, the code did not ask"):
        replay(Declining, half_way)
