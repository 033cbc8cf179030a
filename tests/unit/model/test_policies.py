"""When a group is over: all, the first, the first success, some of them, all whatever they come to; a few at a time."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from model.play import Play
from model.shop import Shop
from model.shopping import Shopping, asked, started
from orchestrator.errors import Abort, Canceled, StepFailed
from orchestrator.groups import Done
from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.state import StepStatus


def told(result: object) -> str:
    """A group's result as text."""
    if isinstance(result, tuple):
        return f"({' '.join(told(each) for each in result)})"
    if isinstance(result, StepFailed):
        return f"!{result.error_type}"
    return f"={result.value}" if isinstance(result, Done) else str(result)


class Grouped(Shopping):
    """What the group gives goes into a step after it, and is the saga's result."""

    def group(self) -> Awaitable[object]:
        raise NotImplementedError

    async def run(self, _: None) -> str:
        result = told(await self.group())
        await self.note("after")
        return result


class Racing(Grouped):
    def group(self) -> Awaitable[object]:
        return self.race(self.get("a"), self.tidily("b"), self.sleep(60))


class First(Grouped):
    def group(self) -> Awaitable[object]:
        return self.any(self.get("a"), self.get("b"), self.get("c"))


class TwoOfThree(Grouped):
    def group(self) -> Awaitable[object]:
        return self.some([self.get("a"), self.get("b"), self.get("c")], successes=2)


class Settling(Grouped):
    def group(self) -> Awaitable[object]:
        return self.settle(self.get("a"), self.get("b"), self.note("c"))


class Each(Grouped):
    def group(self) -> Awaitable[object]:
        return self.each("abcde", self.get, concurrency=2)


class EachButTwo(Grouped):
    def group(self) -> Awaitable[object]:
        return self.each("abcde", self.get, concurrency=2, tolerated_failures=2)


def finished(play: Play) -> str:
    """The result, once the step after the group and all undos are answered."""
    last = play.state.sequence
    assert asked(play)[-1] == "after"
    play.do(last)
    for sequence in sorted(play.state.undo_open, reverse=True):
        play.undo(sequence)
    assert play.ending.status is Status.COMPLETED
    return play.ending.payload.decode().strip('"')


# -- race


def test_the_first_to_end_wins_a_race_and_the_losers_are_undone_at_once() -> None:
    play = started(Racing)
    play.do(1, "A")
    assert play.step(2).status is StepStatus.UNDOING
    assert play.step(2).cause == "canceled"
    assert play.step(3).status is StepStatus.WAIT_CANCELED
    assert asked(play)[2:] == ["cleaned up b"], "the winner waits for what the losers clean up"
    play.do(4)
    assert finished(play) == "(0 A)"


def test_a_race_may_be_won_by_the_time() -> None:
    play = started(Racing)
    play.fire(3)
    play.do(4)
    assert play.undone == [2, 1]
    assert finished(play) == "(2 None)"


def test_a_race_is_lost_with_the_first_failure() -> None:
    play = started(Racing)
    play.refuse(1, "SoldOut")
    play.do(4)
    play.undo(2)
    assert (play.ending.status, play.ending.error_type) == (Status.COMPENSATED, "SoldOut")


def test_a_loser_that_answers_late_changes_nothing() -> None:
    play = started(Racing)
    play.do(1, "A")
    assert play.do(2, "B") == [ev.InputAbsorbed("Reply", "late: the step is UNDOING", 2, 1)]
    play.do(4)
    assert finished(play) == "(0 A)"


def test_of_two_that_end_in_the_same_decision_the_first_in_order_wins() -> None:
    class Instant(Grouped):
        async def at_once(self, what: str) -> str:
            return what

        def group(self) -> Awaitable[object]:
            return self.race(self.get("never"), self.at_once("b"), self.at_once("c"))

    play = started(Instant)
    assert [(sent.name, sent.undo) for sent in play.sent] == [("note", False), ("release", True)]
    assert finished(play) == "(1 b)"


def test_what_a_loser_returns_or_fails_with_is_nothing_to_the_winner() -> None:
    class Deaf(Grouped):
        async def deaf(self, what: str) -> str:
            try:
                return await self.get(what)
            except Canceled:
                return "went on"

        async def failing(self, what: str) -> str:
            try:
                return await self.get(what)
            finally:
                await self.get("worse")

        def group(self) -> Awaitable[object]:
            return self.race(self.get("a"), self.deaf("b"), self.failing("c"))

    play = started(Deaf)
    play.do(1, "A")
    play.refuse(4)
    assert finished(play) == "(0 A)"


@pytest.mark.parametrize(("error", "status"), [(ValueError, Status.PARKED), (Abort, Status.COMPENSATING)])
def test_another_error_of_a_loser_is_raised(error: type[Exception], status: Status) -> None:
    class Broken(Grouped):
        async def broken(self) -> None:
            try:
                await self.get("b")
            finally:
                raise error("enough")

        def group(self) -> Awaitable[object]:
            return self.race(self.get("a"), self.broken())

    play = started(Broken)
    play.do(1, "A")
    assert play.status is status
    assert "after" not in asked(play)


def test_a_cancellation_while_losers_clean_up_ends_the_saga_after_them() -> None:
    play = started(Racing)
    play.do(1, "A")
    play.cancel()
    assert play.step(4).status is StepStatus.RUNNING
    play.do(4)
    for sequence in (2, 1):
        play.undo(sequence)
    assert play.ending.status is Status.CANCELED
    assert asked(play)[-1] == "cleaned up b"


# -- any, some


def test_failures_are_borne_until_the_first_success() -> None:
    play = started(First)
    play.refuse(1)
    play.refuse(3)
    play.do(2, "B")
    assert finished(play) == "(1 B)"


def test_where_all_fail_the_last_failure_is_raised() -> None:
    play = started(First)
    for sequence, error in ((1, "One"), (3, "Three"), (2, "Two")):
        play.refuse(sequence, error)
    assert (play.ending.status, play.ending.error_type) == (Status.FAILED, "Two")


def test_enough_successes_let_go_of_the_rest() -> None:
    play = started(TwoOfThree)
    play.do(3, "C")
    assert play.step(1).status is StepStatus.RUNNING
    play.do(1, "A")
    assert play.undone == [2]
    assert finished(play) == "(A C)"


def test_one_failure_too_many_ends_a_group_at_once() -> None:
    play = started(TwoOfThree)
    play.refuse(1, "One")
    assert play.status is Status.RUNNING
    play.refuse(2, "Two")
    assert play.undone == [3]
    play.undo(3)
    assert (play.ending.status, play.ending.error_type) == (Status.COMPENSATED, "Two")


# -- settle


def test_results_and_failures_stand_side_by_side() -> None:
    play = started(Settling)
    play.refuse(2, "SoldOut")
    play.do(1, "A")
    play.do(3)
    assert finished(play) == "(=A !SoldOut =None)"


@pytest.mark.parametrize("error", [ValueError, Abort, Canceled])
def test_only_a_failed_step_is_borne(error: type[BaseException]) -> None:
    class Broken(Grouped):
        async def broken(self) -> None:
            raise error("enough")

        def group(self) -> Awaitable[object]:
            return self.settle(self.get("a"), self.broken())

    play = started(Broken)
    assert play.status in (Status.PARKED, Status.COMPENSATING)
    assert "after" not in asked(play)


def test_a_cancellation_ends_a_group_that_bears_failures() -> None:
    play = started(Settling)
    play.refuse(2)
    play.cancel()
    play.undo(1)
    assert play.ending.status is Status.CANCELED
    assert "after" not in asked(play)


# -- each


def test_only_so_many_are_open_at_a_time_in_the_order_of_the_items() -> None:
    play = started(Each)
    assert asked(play) == ["a", "b"]
    play.do(2, "B")
    assert asked(play) == ["a", "b", "c"]
    for sequence, what in ((1, "A"), (3, "C"), (5, "E"), (4, "D")):
        assert len(play.state.open) <= 2
        play.do(sequence, what)
    assert finished(play) == "(A B C D E)"


def test_after_a_failure_nothing_more_is_begun() -> None:
    play = started(Each)
    play.do(1, "A")
    play.refuse(2, "SoldOut")
    assert asked(play) == ["a", "b", "c"]
    assert play.undone == [3], "it was begun after the first had ended"
    play.undo(3)
    play.undo(1)
    assert (play.ending.status, play.ending.error_type) == (Status.COMPENSATED, "SoldOut")


def test_tolerated_failures_stand_in_the_places_of_their_items() -> None:
    play = started(EachButTwo)
    play.refuse(1, "One")
    play.do(2, "B")
    play.refuse(3, "Three")
    play.do(4, "D")
    play.do(5, "E")
    assert finished(play) == "(!One =B !Three =D =E)"


def test_more_failures_than_tolerated_are_raised() -> None:
    play = started(EachButTwo)
    for sequence, error in ((1, "One"), (2, "Two"), (3, "Three")):
        play.refuse(sequence, error)
    assert asked(play) == ["a", "b", "c", "d"]
    play.undo(4)
    assert (play.ending.status, play.ending.error_type) == (Status.COMPENSATED, "Three")


@pytest.mark.parametrize(("share", "fails"), [(0.5, 2), (0.2, 1), (0.19, 0), (1.0, 5)])
def test_a_share_of_the_items_may_fail(share: float, fails: int) -> None:
    class Share(Grouped):
        def group(self) -> Awaitable[object]:
            return self.each("abcde", self.get, tolerated_share=share)

    play = started(Share)
    for sequence in range(1, fails + 1):
        play.refuse(sequence)
        assert play.status is Status.RUNNING
    if fails < 5:
        play.refuse(fails + 1)
        assert play.status is Status.COMPENSATING or play.state.ended


def test_a_cancellation_begins_no_further_item() -> None:
    play = started(Each)
    play.cancel()
    assert asked(play) == ["a", "b"]
    assert play.undone == [2, 1]


def test_items_may_be_decided_by_what_came_before() -> None:
    class Dynamic(Shopping):
        async def run(self, _: None) -> str:
            names = await self.get("names")
            while names:
                names = "".join(await self.each(names, self.get))
            return "done"

    play = started(Dynamic)
    play.do(1, "xyz")
    assert asked(play)[1:] == ["x", "y", "z"]
    for sequence, more in ((3, ""), (2, "u"), (4, "v")):
        play.do(sequence, more)
    assert asked(play)[4:] == ["u", "v"]
    play.do(5, "")
    play.do(6, "")
    assert play.ending.status is Status.COMPLETED


def test_branches_that_end_at_once_take_no_place() -> None:
    class Some(Grouped):
        async def maybe(self, what: str) -> str:
            return await self.get(what) if what in "xy" else what

        def group(self) -> Awaitable[object]:
            return self.each("abcxdey", self.maybe, concurrency=1)

    play = started(Some)
    assert asked(play) == ["x"]
    play.do(1, "X")
    play.do(2, "Y")
    assert finished(play) == "(a b c X d e Y)"


def test_an_item_that_the_function_cannot_take_parks_the_saga() -> None:
    class Wrong(Grouped):
        def choose(self, what: str) -> Awaitable[None]:
            return {"a": self.step(Shop.note())}[what]

        def group(self) -> Awaitable[object]:
            return self.each("ab", self.choose)

    play = started(Wrong)
    assert "the code raised KeyError" in play.state.parked[0]


# -- empty and wrong groups


def test_no_branches_are_over_at_once() -> None:
    class Empty(Shopping):
        async def run(self, _: None) -> str:
            return told((await self.gather(), await self.settle(), await self.each([], self.get)))

    assert started(Empty).ending.payload == b'"(() () ())"'


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("self.race()", "of no branches none can be the first"),
        ("self.any()", "of no branches none can be the first"),
        ("self.some([self.step(Shop.note())], successes=2)", "of 1 branches 2 are to succeed"),
        ("self.some([self.step(Shop.note())], successes=0)", "of 1 branches 0 are to succeed"),
        ("self.each('a', self.get, concurrency=0)", "concurrency=0 must be at least 1"),
        ("self.each('a', self.get, tolerated_failures=-1)", "tolerated_failures=-1 at least 0"),
        ("self.each('a', self.get, tolerated_share=1.5)", "tolerated_share=1.5 between 0 and 1"),
        ("self.each('a', self.get, tolerated_failures=0, tolerated_share=1.0)", "give one of them, not both"),
        ("self.each({'a', 'b'}, self.get)", "a set has another order in each process: give sorted(...)"),
        ("self.each(frozenset('ab'), self.get)", "a frozenset has another order in each process: give sorted(...)"),
        ("self.some({self.step(Shop.note())}, successes=1)", "a set has another order in each process: give a list"),
    ],
)
def test_a_group_that_cannot_be_is_refused(how: str, words: str) -> None:
    class Wrong(Shopping):
        async def run(self, _: None) -> str:
            await eval(how)
            return "done"

    play = started(Wrong)
    assert "the code raised DefinitionError" in play.state.parked[0]
    assert words in play.state.parked[0]


# -- many


def test_thousands_of_items_are_taken_a_hundred_at_a_time() -> None:
    class Many(Shopping):
        async def run(self, _: None) -> str:
            results = await self.each(range(3_000), self.small, concurrency=100, tolerated_share=0.5)
            return str(sum(isinstance(result, Done) for result in results))

        async def small(self, number: int) -> None:
            await self.step(Shop.note(), spread=True)

    play = started(Many, checked=False)
    for sequence in range(1, 3_001):
        assert len(play.state.open) <= 100
        if sequence % 3:
            play.do(sequence)
        else:
            play.refuse(sequence)
    assert play.ending.payload == b'"2000"'
