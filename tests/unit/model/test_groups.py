"""Groups: results in the order of asking, a first failure or a cancellation that stops the branches, cleaning up."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from model.play import Play
from model.shop import Shop
from model.shopping import Shopping, TidyGroup, asked
from orchestrator.errors import Abort, Canceled, StepFailed
from orchestrator.groups import tolerated_of
from orchestrator.model.events import Status
from orchestrator.model.state import StepStatus


def test_in_a_group_every_branch_cleans_up_undisturbed() -> None:
    play = Play(TidyGroup)
    play.start()
    play.cancel()
    assert asked(play) == ["a", "b", "c", "cleaned up a", "cleaned up b"]
    assert [play.step(s).status for s in (4, 5)] == ["RUNNING", "RUNNING"]
    play.do(4)
    assert play.step(5).status is StepStatus.RUNNING, "the end of one branch is nothing to the others"
    play.do(5)
    assert play.status is Status.COMPENSATING


def test_the_first_failure_stops_the_other_branches_which_clean_up_before_it_is_raised() -> None:
    play = Play(TidyGroup)
    play.start()
    play.refuse(3, "SoldOut")
    assert asked(play)[3:] == ["cleaned up a", "cleaned up b"]
    assert [play.step(s).cause for s in (1, 2)] == ["canceled", "canceled"]
    play.do(5)
    play.do(4)
    assert play.status is Status.COMPENSATING
    for sequence in (2, 1):
        play.undo(sequence)
    assert (play.ending.status, play.ending.error_type) == (Status.COMPENSATED, "SoldOut")


def test_of_several_failures_in_a_group_the_first_is_raised() -> None:
    class Several(Shopping):
        async def worse(self) -> None:
            try:
                await self.get("a")
            except Canceled:
                raise Abort("Second") from None

        async def run(self, _: None) -> str:
            await self.gather(self.worse(), self.get("b"))
            return "done"

    play = Play(Several)
    play.start()
    play.refuse(2, "First")
    play.undo(1)
    assert play.ending.error_type == "First"


def test_a_branch_that_has_ended_is_not_disturbed_by_the_failure_of_another() -> None:
    play = Play(TidyGroup)
    play.start()
    play.do(1, "x")
    play.do(4)
    play.refuse(3)
    assert play.step(1).status is StepStatus.DONE
    assert play.step(2).cause == "canceled"


def test_a_cancellation_during_a_clean_up_after_a_failure_lets_it_finish() -> None:
    play = Play(TidyGroup)
    play.start()
    play.refuse(3)
    play.cancel()
    assert [play.step(s).status for s in (4, 5)] == ["RUNNING", "RUNNING"]
    play.do(4)
    play.do(5)
    for sequence in (2, 1):
        play.undo(sequence)
    assert play.ending.status is Status.CANCELED


def test_who_waits_for_a_group_that_was_cancelled_is_cancelled_too() -> None:
    class Stubborn(Shopping):
        async def deaf(self, what: str) -> str:
            try:
                return await self.get(what)
            except Canceled:
                return "went on"

        async def run(self, _: None) -> str:
            try:
                await self.gather(self.deaf("a"), self.deaf("b"))
            except StepFailed:
                await self.get("after a failure")
            await self.get("never")
            return "done"

    play = Play(Stubborn)
    play.start()
    play.cancel()
    assert asked(play) == ["a", "b"]
    assert play.status is Status.COMPENSATING


def test_a_cancelled_group_in_which_a_failure_was_under_way_ends_as_cancelled() -> None:
    class Catching(Shopping):
        async def run(self, _: None) -> str:
            try:
                await self.gather(self.tidily("a"), self.get("b"))
            except StepFailed:
                await self.get("after the failure")
            return "done"

    play = Play(Catching)
    play.start()
    play.refuse(2)
    play.cancel()
    play.do(3)
    assert asked(play) == ["a", "b", "cleaned up a"]
    play.undo(1)
    assert play.ending.status is Status.CANCELED


def test_a_bug_in_a_cancelled_group_is_not_hidden() -> None:
    class Broken(Shopping):
        async def wrong(self) -> None:
            try:
                await self.get("a")
            finally:
                raise ValueError("a bug")

        async def run(self, _: None) -> str:
            await self.gather(self.wrong(), self.get("b"))
            return "done"

    play = Play(Broken)
    play.start()
    play.cancel()
    assert "the code raised ValueError" in play.state.parked[0]


def test_a_cancellation_reaches_groups_within_groups() -> None:
    class Deep(Shopping):
        async def pair(self, first: str, second: str) -> None:
            try:
                await self.gather(self.tidily(first), self.get(second))
            finally:
                await self.note(f"pair {first}{second}")

        async def run(self, _: None) -> str:
            await self.gather(self.pair("a", "b"), self.pair("c", "d"))
            return "done"

    play = Play(Deep)
    play.start()
    play.cancel()
    assert asked(play) == ["a", "b", "c", "d", "cleaned up a", "cleaned up c"]
    play.do(6)
    assert asked(play)[-1] == "pair cd"
    play.do(5)
    assert asked(play)[-1] == "pair ab"
    play.do(7)
    play.do(8)
    assert play.status is Status.COMPENSATING


def test_a_branch_that_had_not_begun_is_cancelled_before_its_first_step() -> None:
    class Early(Shopping):
        async def fail(self) -> None:
            raise Abort("Enough")

        async def run(self, _: None) -> str:
            await self.gather(self.get("a"), self.fail(), self.get("c"))
            return "done"

    play = Play(Early)
    play.start()
    assert asked(play) == ["a"]
    assert play.sent[0].undo, "what was let go of in the same decision is not sent, only undone"
    play.undo(1)
    assert play.ending.status is Status.COMPENSATED


def test_a_pivot_inside_a_group_is_refused() -> None:
    class Inside(Shopping):
        async def ship(self) -> None:
            await self.step(Shop.ship(), pivot=True)

        async def run(self, _: None) -> str:
            await self.gather(self.ship(), self.get("b"))
            return "done"

    play = Play(Inside)
    play.start()
    assert "a pivot must be awaited alone" in play.state.parked[0]


def test_gathered_results_come_in_the_order_of_asking() -> None:
    class Gather(Shopping):
        async def run(self, _: None) -> str:
            nothing = await self.gather()
            (one,) = await self.gather(self.get("a"))
            several: list[Awaitable[str]] = [self.get(what) for what in "bcd"]
            return one + "".join(await self.gather(*several)) + str(len(nothing))

    play = Play(Gather)
    play.start()
    play.do(1, "A")
    for sequence in (3, 4, 2):
        play.do(sequence, f"{sequence}")
    assert play.ending.payload == b'"A2340"'


@pytest.mark.parametrize(
    ("share", "count", "may_fail"),
    [
        (0.29, 100, 29),
        (0.57, 100, 57),
        (1 / 3, 3, 1),
        (0.289, 100, 28),
        (1, 7, 7),
        (0, 7, 0),
        (0.5, 0, 0),
        (0.3, 10**9, 3 * 10**8),
    ],
)
def test_a_share_lets_as_many_fail_as_it_says(share: float, count: int, may_fail: int) -> None:
    assert tolerated_of(share, count) == may_fail


def test_every_share_of_a_hundred_is_that_many() -> None:
    assert [tolerated_of(number / 100, 100) for number in range(101)] == list(range(101))


def test_twenty_nine_of_a_hundred_may_fail_but_no_more() -> None:
    class Share(Shopping):
        async def run(self, _: None) -> str:
            await self.each(range(100), self.small, concurrency=100, tolerated_share=0.29)
            return "done"

        async def small(self, number: int) -> None:
            await self.get(str(number))

    for failing in (29, 30):
        play = Play(Share)
        play.start()
        for sequence in range(1, failing + 1):
            play.refuse(sequence)
        assert (play.status is Status.RUNNING) == (failing == 29)
