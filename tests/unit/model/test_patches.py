"""Changed code and running sagas: `patched` keeps a run on the way it went, `deprecate_patch` and its end."""

from __future__ import annotations

from typing import Any

import pytest

from model.play import Play
from model.shop import Shop
from model.shopping import started
from orchestrator.model import events as ev
from orchestrator.model.events import Status, StepKind
from orchestrator.model.replay import difference
from orchestrator.saga import Saga


class Old(Saga[None, str], name="Order"):
    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(what="a"))
        await self.step(Shop.reserve(what="b"))
        return "old"


class Patched(Saga[None, str], name="Order"):
    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(what="a"))
        if self.patched("check"):
            await self.step(Shop.charge(what="check"))
        await self.step(Shop.reserve(what="b"))
        return "new" if self.patched("check") else "old"


class Deprecated(Saga[None, str], name="Order"):
    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(what="a"))
        self.deprecate_patch("check")
        await self.step(Shop.charge(what="check"))
        await self.step(Shop.reserve(what="b"))
        return "new"


class Gone(Saga[None, str], name="Order"):
    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(what="a"))
        await self.step(Shop.charge(what="check"))
        await self.step(Shop.reserve(what="b"))
        return "new"


def deploy(play: Play, saga: type[Saga[Any, Any]]) -> None:
    """The partition moves to a worker with this code."""
    play.crash()
    play.definition = saga.definition


def finish(play: Play) -> str:
    while not play.state.ended:
        assert not play.state.parked, play.state.parked
        (sequence,) = play.state.open
        play.do(sequence, {"number": 7} if play.step(sequence).command == "charge" else "x")
    return play.ending.payload.decode()


def names(play: Play) -> list[str]:
    return [step.command for step in play.state.steps.values()]


@pytest.mark.parametrize(
    ("done", "result", "steps"),
    [
        (0, '"new"', ["reserve", "check", "charge", "reserve"]),
        (1, '"old"', ["reserve", "reserve"]),
    ],
    ids=["before", "behind"],
)
def test_a_run_goes_on_the_way_it_went(done: int, result: str, steps: list[str]) -> None:
    play = started(Old)
    for sequence in range(1, done + 1):
        play.do(sequence, "x")
    deploy(play, Patched)
    assert finish(play) == result
    assert names(play) == steps


def test_a_new_run_takes_the_changed_way_and_its_marker_is_recorded_once() -> None:
    play = started(Patched)
    assert finish(play) == '"new"'
    assert play.of(ev.Recorded) == [ev.Recorded(2, 1, StepKind.PATCH, "check", b"")]


def test_from_patched_over_deprecated_to_gone_at_every_point() -> None:
    for at in range(4):
        for then in range(at, 4):
            play = started(Patched)
            for code, until in ((Deprecated, at), (Gone, then)):
                while len(play.state.outcomes) < until:
                    (sequence,) = play.state.open
                    play.do(sequence, {"number": 7} if play.step(sequence).command == "charge" else "x")
                if not play.state.ended and (code is Deprecated or "check" not in names(play)):
                    deploy(play, code)
            assert finish(play) == '"new"'


def test_code_without_the_call_passes_over_a_deprecated_marker_wherever_it_stands() -> None:
    class Ends(Saga[None, str], name="Order"):
        async def run(self, _: None) -> str:
            await self.step(Shop.reserve(what="a"))
            self.deprecate_patch("one")
            self.deprecate_patch("two")
            await self.wait_until(lambda: False, timeout=60)
            self.deprecate_patch("three")
            return ""

    class Bare(Saga[None, str], name="Order"):
        async def run(self, _: None) -> str:
            await self.step(Shop.reserve(what="a"))
            await self.wait_until(lambda: False, timeout=60)
            return "bare"

    class Half(Saga[None, str], name="Order"):
        async def run(self, _: None) -> str:
            await self.step(Shop.reserve(what="a"))
            assert self.patched("two")
            await self.wait_until(lambda: False, timeout=60)
            return "half"

    for code, result in ((Bare, '"bare"'), (Half, '"half"')):
        play = started(Ends)
        play.do(1, "x")
        assert names(play) == ["reserve", "one", "two", "until a condition holds"]
        deploy(play, code)
        play.fire(4)
        assert (play.status, play.ending.payload.decode()) == (Status.COMPLETED, result)


def test_a_marker_that_is_not_deprecated_is_no_detail() -> None:
    play = started(Patched)
    play.do(1, "x")
    deploy(play, Gone)
    play.do(3, {"number": 7})
    assert "step 2: the history has patch check, the code asks for shop.charge" in play.state.parked[0]
    deploy(play, Patched)
    play.retry()
    assert finish(play) == '"new"'


def test_a_condition_cannot_ask_for_a_patch() -> None:
    class Asking(Saga[None, str], name="Order"):
        async def run(self, _: None) -> str:
            asked = []
            await self.wait_until(lambda: bool(asked) and self.patched("check") if asked else bool(asked.append(1)))
            return ""

    play = started(Asking)
    assert "patch 'check' was asked for outside of the saga's run" in play.state.parked[0]


def test_each_branch_of_a_group_may_be_patched() -> None:
    class Before(Saga[None, str], name="Order"):
        async def run(self, _: None) -> str:
            await self.gather(*[self.one(what) for what in "ab"])
            return ""

        async def one(self, what: str) -> None:
            await self.step(Shop.reserve(what=what))
            await self.step(Shop.reserve(what=what * 2))

    class After(Before, name="Order"):
        async def one(self, what: str) -> None:
            await self.step(Shop.reserve(what=what))
            if self.patched(f"check-{what}"):
                await self.step(Shop.charge(what=what))
            await self.step(Shop.reserve(what=what * 2))

    play = started(Before)
    play.do(1, "x")
    deploy(play, After)
    play.do(2, "y")
    assert names(play) == ["reserve", "reserve", "reserve", "check-b", "charge"]
    play.do(5, {"number": 7})
    play.do(3, "z")
    play.do(6, "z")
    assert play.status is Status.COMPLETED


class Thanking(Saga[None, str], name="Order"):
    """As `Old`, with something new at its end."""

    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(what="a"))
        await self.step(Shop.reserve(what="b"))
        if self.patched("thank"):
            await self.step(Shop.charge(what="thanks"))
        return "old"


def test_a_run_that_has_ended_is_replayed_the_way_it_went() -> None:
    play = started(Old)
    finish(play)
    assert difference(Thanking.definition, play.state) is None
    play = started(Thanking)
    assert finish(play) == '"old"'
    assert names(play) == ["reserve", "reserve", "thank", "charge"]
    assert difference(Thanking.definition, play.state) is None


class Pair(Saga[None, str], name="Order"):
    async def first(self) -> None:
        await self.step(Shop.reserve(what="a"))

    async def run(self, _: None) -> str:
        await self.gather(self.first(), self.step(Shop.reserve(what="b")))
        return "old"


class PatchedPair(Pair, name="Order"):
    async def first(self) -> None:
        await self.step(Shop.reserve(what="a"))
        if self.patched("again"):
            await self.step(Shop.reserve(what="again"))


def test_a_branch_that_was_over_is_not_begun_again() -> None:
    play = started(Pair)
    play.do(1, "x")
    deploy(play, PatchedPair)
    play.do(2, "x")
    assert play.status is Status.COMPLETED
    assert names(play) == ["reserve", "reserve"]


def test_a_branch_goes_the_changed_way_whoever_took_over_in_between() -> None:
    play = started(PatchedPair)
    play.crash()
    play.do(2, "x")
    play.crash()
    play.do(1, "x")
    play.crash()
    assert names(play) == ["reserve", "reserve", "again", "reserve"]
    play.do(4, "x")
    assert play.status is Status.COMPLETED


class Many(Saga[None, int], name="Order"):
    """More than fits into one decision, with a patch behind it."""

    async def last(self) -> None:
        self.new = self.patched("last")
        await self.step(Shop.reserve(what="last"))

    async def run(self, _: None) -> int:
        self.new = False
        await self.gather(*(self.step(Shop.reserve(what=str(n))) for n in range(250)), self.last())
        return int(self.new)


@pytest.mark.parametrize("cold", [True, False])
def test_what_did_not_fit_into_one_decision_goes_the_changed_way(cold: bool) -> None:
    play = started(Many, cold=cold)
    assert names(play).count("last") == 1
    assert len(play.state.open) == 251


def test_what_came_while_the_saga_stood_still_is_no_way_that_it_went() -> None:
    play = started(Patched)
    play.pause()
    play.do(1, "x")
    play.crash()
    play.resume()
    assert names(play) == ["reserve", "check", "charge"]
