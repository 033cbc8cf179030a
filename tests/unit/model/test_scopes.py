"""A branch that failed and is borne, or that lost, is undone while its saga goes on: wholly, and in reverse order."""

from __future__ import annotations

from typing import Any

import pytest

from model.play import Play
from model.shop import Shop
from model.shopping import Shopping, asked, started
from orchestrator.errors import Abort, StepFailed
from orchestrator.groups import Done
from orchestrator.model import events as ev
from orchestrator.model.budget import MAX_EVENTS
from orchestrator.model.events import Status, Undone
from orchestrator.model.messages import Outcome, Override
from orchestrator.model.state import StepStatus
from orchestrator.saga import Retry, Saga


class Lines(Shopping):
    async def line(self, *names: str) -> str:
        for name in names:
            await self.get(name)
        return names[-1]


class Racing(Lines):
    async def run(self, _: None) -> str:
        _, won = await self.race(self.line("a", "b"), self.line("c", "d"))
        await self.note("after")
        return won


class Attempt(Lines):
    """A scope: what it did is undone if it fails."""

    async def run(self, _: None) -> str:
        await self.get("before")
        (settled,) = await self.settle(self.line("a", "b", "c"))
        if isinstance(settled, Done):
            return settled.value
        await self.get("instead")
        return settled.error_type


def undone(play: Play) -> list[str]:
    """What was asked to be undone, by name, in that order."""
    return [play.step(sequence).payload.decode()[9:-2] for sequence in play.undone]


def test_all_that_a_loser_did_is_undone() -> None:
    play = started(Racing)
    play.do(2, "C")
    play.do(1, "A")
    play.do(3, "D")
    assert asked(play) == ["a", "c", "d", "b", "after"]
    assert play.of(ev.StepAbandoned) == [ev.StepAbandoned(1)]
    assert undone(play) == ["b"], "what was done before waits for what was done after it"
    play.undo(4)
    assert undone(play) == ["b", "a"]
    play.do(5)
    assert play.status is Status.RUNNING, "the last undo is waited for"
    play.undo(1)
    assert (play.ending.status, play.ending.payload) == (Status.COMPLETED, b'"d"')
    assert [play.step(s).status for s in (2, 3)] == [StepStatus.DONE, StepStatus.DONE]


def test_what_a_borne_failure_leaves_is_undone_and_the_saga_goes_on() -> None:
    play = started(Attempt)
    for sequence in (1, 2, 3):
        play.do(sequence, "x")
    play.refuse(4, "SoldOut")
    assert asked(play)[-1] == "instead"
    assert undone(play) == ["b"]
    play.undo(3)
    assert undone(play) == ["b", "a"]
    play.undo(2)
    play.do(5, "x")
    assert (play.ending.status, play.ending.payload) == (Status.COMPLETED, b'"SoldOut"')


def test_what_succeeds_in_a_scope_stays_and_is_undone_with_the_saga() -> None:
    class Later(Attempt):
        async def run(self, _: None) -> str:
            await super().run(_)
            raise Abort("Enough")

    play = started(Later)
    for sequence in (1, 2, 3, 4):
        play.do(sequence, "x")
    for sequence in (4, 3, 2, 1):
        play.undo(sequence)
    assert undone(play) == ["c", "b", "a", "before"]
    assert play.of(ev.StepAbandoned) == []


def test_a_saga_that_fails_while_a_scope_is_undone_undoes_the_rest_after_it() -> None:
    play = started(Attempt)
    for sequence in (1, 2, 3):
        play.do(sequence, "x")
    play.refuse(4)
    play.refuse(5, "Worse")
    assert play.status is Status.COMPENSATING
    assert undone(play) == ["b"]
    for sequence in (3, 2, 1):
        play.undo(sequence)
    assert undone(play) == ["b", "a", "before"]
    assert (play.ending.status, play.ending.undone) == (Status.COMPENSATED, Undone.ALL)


def test_a_failed_group_is_undone_with_the_scope_around_it_and_not_before() -> None:
    class Nested(Lines):
        async def pair(self) -> str:
            await self.gather(self.line("a", "b"), self.line("c", "d"))
            return "pair"

        async def both(self) -> str:
            await self.get("first")
            try:
                return await self.pair()
            except StepFailed:
                await self.get("second try")
                raise

        async def run(self, _: None) -> str:
            settled, other = await self.settle(self.both(), self.get("other"))
            return f"{isinstance(settled, Done)} {isinstance(other, Done)}"

    play = started(Nested)
    play.do(1, "x")
    play.do(3, "x")
    assert asked(play) == ["first", "other", "a", "c", "b"]
    play.refuse(4)
    assert asked(play)[-1] == "second try"
    assert undone(play) == ["b"], "it was let go of; what was done stays, for the code goes on"
    play.undo(5)
    assert play.of(ev.StepAbandoned) == []
    play.do(6, "x")
    assert [event.sequence for event in play.of(ev.StepAbandoned)] == [1, 3, 6]
    for sequence in (6, 3, 1):
        play.undo(sequence)
    assert undone(play) == ["b", "second try", "a", "first"]
    play.do(2, "x")
    assert play.ending.payload == b'"False True"'


def test_a_failed_branch_of_many_is_undone_while_the_others_go_on() -> None:
    class Many(Lines):
        async def run(self, _: None) -> str:
            results = await self.each("abc", self.pair, concurrency=1, tolerated_failures=1)
            return "".join(one.value if isinstance(one, Done) else "-" for one in results)

        async def pair(self, name: str) -> str:
            return await self.line(name, name.upper())

    play = started(Many)
    play.do(1, "x")
    play.refuse(2)
    assert asked(play) == ["a", "A", "b"]
    assert undone(play) == ["a"]
    play.undo(1)
    for sequence in (3, 4, 5, 6):
        play.do(sequence, "x")
    assert play.ending.payload == b'"-BC"'


def test_what_a_cancelled_loser_cleans_up_with_is_undone_with_it() -> None:
    class Tidy(Lines):
        async def tidy(self) -> str:
            try:
                return await self.line("a", "b")
            finally:
                await self.get("cleaned up")

        async def run(self, _: None) -> str:
            place, _ = await self.race(self.tidy(), self.sleep(5))
            return str(place)

    play = started(Tidy)
    play.do(1, "x")
    play.fire(2)
    play.do(4, "x")
    for sequence in (3, 4, 1):
        play.undo(sequence)
    assert undone(play) == ["b", "cleaned up", "a"]
    assert (play.ending.status, play.ending.payload) == (Status.COMPLETED, b'"1"')


def test_a_cancelled_saga_undoes_everything_once() -> None:
    play = started(Attempt)
    for sequence in (1, 2, 3):
        play.do(sequence, "x")
    play.refuse(4)
    play.cancel()
    for sequence in (5, 3, 2, 1):
        play.undo(sequence)
    assert sorted(play.undone) == [1, 2, 3, 5]
    assert play.ending.status is Status.CANCELED


def test_an_undo_of_a_scope_that_fails_is_parked_and_holds_the_saga() -> None:
    play = started(Attempt)
    for sequence in (1, 2, 3):
        play.do(sequence, "x")
    play.refuse(4)
    play.undo(3, Outcome.FAILURE, "Gone")
    assert play.status is Status.PARKED
    play.do(5, "x")
    assert play.status is Status.PARKED
    play.unpark(Override.SKIP, 3)
    assert undone(play) == ["b", "a"]
    play.undo(2)
    assert play.ending.status is Status.COMPLETED


def test_after_the_pivot_a_loser_is_undone_all_the_same() -> None:
    class Pivoted(Lines):
        async def run(self, _: None) -> str:
            await self.get("before")
            await self.step(Shop.ship(), pivot=True)
            _, won = await self.race(self.line("a", "b"), self.line("c"))
            return won

    play = started(Pivoted)
    for sequence in (1, 2, 3, 4):
        play.do(sequence, "x")
    assert undone(play) == ["b"]
    play.undo(5)
    play.undo(3)
    assert (play.ending.status, undone(play)) == (Status.COMPLETED, ["b", "a"])


def test_steps_without_an_undo_are_left() -> None:
    class Bare(Shopping):
        async def notes(self) -> None:
            await self.note("a")
            await self.note("b")

        async def run(self, _: None) -> str:
            await self.settle(self.notes())
            return "done"

    play = started(Bare)
    play.do(1)
    play.refuse(2)
    assert play.ending.status is Status.COMPLETED
    assert play.of(ev.StepAbandoned) == []


def test_many_branches_are_given_up_in_parts() -> None:
    size = MAX_EVENTS + 100

    class Many(Lines):
        async def run(self, _: None) -> str:
            await self.race(self.sleep(5), self.gather(*[self.get("x") for _ in range(size)], self.sleep(9)))
            return "done"

    play = started(Many, checked=False)
    for sequence in range(2, size + 2):
        play.do(sequence, "x")
    play.fire(1)
    assert len(play.of(ev.StepAbandoned)) == size
    assert play.state.undo_open == set(range(2, size + 2)), "what overlapped is undone at the same time"


@pytest.mark.parametrize("catch", [True, False])
def test_code_may_compensate_by_itself(catch: bool) -> None:
    class ByHand(Saga[None, str]):
        async def run(self, _: None) -> str:
            seat = await self.step(Shop.reserve(what="seat"))
            try:
                await self.step(Shop.charge(what=seat), retry=Retry(maximum_attempts=1))
            except StepFailed as failed:
                await self.step(Shop.release(what=seat))
                if failed.unknown:
                    await self.step(Shop.refund())
                if not catch:
                    raise
                return "given back"
            return "sold"

    play = started(ByHand)
    play.do(1, "7A")
    play.again(2)
    play.do(3)
    play.do(4)
    assert asked_for(play) == ["reserve", "charge", "release", "refund"]
    assert play.ending.status is (Status.COMPLETED if catch else Status.FAILED)


def asked_for(play: Any) -> list[str]:
    return [event.command for event in play.of(ev.StepScheduled)]
