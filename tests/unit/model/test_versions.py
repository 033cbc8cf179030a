"""Versions of a saga's code: pinned runs keep theirs, others go on with the newest, a person may move one."""

from __future__ import annotations

from typing import Any

import pytest

from model.play import SAGA_ID, Play
from model.shop import Shop
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.definition import Definition
from orchestrator.model.events import Status
from orchestrator.model.state import SagaState
from orchestrator.model.versions import SameVersion, by_type, name_needed, names_of, of_run, of_start
from orchestrator.saga import Saga


class One(Saga[None, str], name="Order"):
    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(what="a"))
        await self.step(Shop.reserve(what="b"))
        return "one"


class Two(Saga[None, str], name="Order", version=2):
    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(what="a"))
        await self.step(Shop.reserve(what="b"))
        return "two"


class PinnedOne(One, name="Order", version=1, pinned=True):
    pass


class OtherTwo(Saga[None, str], name="Order", version=2, pinned=True):
    async def run(self, _: None) -> str:
        await self.step(Shop.charge(what="a"))
        return "two"


def having(*sagas: type[Saga[Any, Any]], shares: dict[tuple[str, int], float] | None = None) -> Definition:
    return by_type([saga.definition for saga in sagas], shares)["Order"]


def playing(*sagas: type[Saga[Any, Any]]) -> Play:
    play = Play(having(*sagas))
    play.start()
    return play


def deploy(play: Play, *sagas: type[Saga[Any, Any]]) -> None:
    play.crash()
    play.definition = having(*sagas)
    if play.state.phase is Status.WAITING_FOR_CODE:
        play.find_code()


def move(play: Play, version: int) -> list[ev.Event]:
    return play.take(msg.MoveVersion(SAGA_ID, play.message_id(), version, None, "the fix", "ann"))


def result(play: Play) -> str:
    while not play.state.ended:
        (sequence,) = play.state.open
        play.do(sequence, "x")
    return play.ending.payload.decode()


def test_the_version_is_recorded_at_the_start() -> None:
    assert [(event.version, event.pinned) for event in playing(One).of(ev.SagaStarted)] == [(1, False)]
    assert [(event.version, event.pinned) for event in playing(PinnedOne, Two).of(ev.SagaStarted)] == [(2, False)]
    assert [(event.version, event.pinned) for event in playing(PinnedOne).of(ev.SagaStarted)] == [(1, True)]


def test_a_run_goes_on_with_the_newest_version_and_says_so() -> None:
    play = playing(One)
    deploy(play, One, Two)
    play.do(1, "x")
    assert play.of(ev.VersionChanged) == [ev.VersionChanged(2, False)]
    assert result(play) == '"two"'
    assert play.of(ev.VersionChanged) == [ev.VersionChanged(2, False)]


def test_a_pinned_run_keeps_its_version_and_waits_for_it() -> None:
    play = playing(PinnedOne)
    deploy(play, PinnedOne, OtherTwo)
    play.do(1, "x")
    deploy(play, OtherTwo)
    play.do(2, "y")
    assert play.status is Status.WAITING_FOR_CODE
    deploy(play, PinnedOne, OtherTwo)
    assert (play.status, play.ending.payload) == (Status.COMPLETED, b'"one"')
    assert play.of(ev.VersionChanged) == []


def test_no_run_goes_back_by_itself() -> None:
    play = playing(Two)
    deploy(play, One)
    play.do(1, "x")
    assert play.status is Status.WAITING_FOR_CODE
    deploy(play, One, Two)
    assert result(play) == '"two"'


def test_a_run_that_never_had_code_gets_the_newest() -> None:
    play = Play(having(One), known=False)
    play.start()
    assert play.state.version == 0
    play.known = True
    deploy(play, PinnedOne, OtherTwo)
    assert play.of(ev.VersionChanged) == [ev.VersionChanged(2, True)]
    assert (play.state.version, play.state.pinned) == (2, True)


def test_a_person_moves_a_run_that_diverges_back_and_it_stays_there() -> None:
    class Diverging(OtherTwo, name="Order", version=2, pinned=False):
        pass

    play = playing(One)
    deploy(play, One, Diverging)
    play.do(1, "x")
    assert "the code asks for shop.charge" in play.state.parked[0]
    assert move(play, 1)[:2] == [ev.VersionChanged(1, True, "ann", "the fix"), ev.SagaUnparked("ann", "the fix")]
    assert result(play) == '"one"'


def test_a_run_is_not_moved_to_a_version_that_its_worker_lacks() -> None:
    play = playing(One)
    reason = "the saga's worker has no version 77 of Order, but 1"
    assert move(play, 77) == [ev.InputAbsorbed("MoveVersion", reason)]
    assert result(play) == '"one"'


def test_a_run_whose_code_is_missing_is_moved_to_a_version_that_comes_later() -> None:
    play = playing(One)
    play.lose_code()
    assert [type(event).__name__ for event in move(play, 2)] == ["VersionChanged", "CodeMissing"]
    play.do(1, "x")
    play.known = True
    deploy(play, One, Two)
    assert result(play) == '"two"'


def test_a_run_that_waits_is_moved_to_the_code_that_is_there() -> None:
    play = playing(Two)
    deploy(play, One)
    play.do(1, "x")
    move(play, 1)
    assert (play.state.version, play.state.pinned) == (1, True)
    assert result(play) == '"one"'


def test_a_run_follows_the_newest_again() -> None:
    play = playing(PinnedOne)
    play.definition = having(PinnedOne, Two)
    play.do(1, "x")
    assert move(play, 0)[0] == ev.VersionChanged(2, False, "ann", "the fix")
    assert result(play) == '"two"'


def test_who_compensates_or_has_ended_is_not_moved() -> None:
    play = playing(One)
    play.do(1, "x")
    play.refuse(2)
    assert play.state.ended
    assert [type(event).__name__ for event in move(play, 2)] == ["InputAbsorbed"]


def test_who_compensates_is_not_moved() -> None:
    class Undoing(One, name="Order"):
        async def run(self, _: None) -> str:
            await self.step(Shop.charge(what="a"), undo=Shop.refund(receipt=None))
            await self.step(Shop.reserve(what="b"))
            return ""

    play = playing(Undoing)
    play.do(1, {"number": 7})
    play.refuse(2)
    assert play.status is Status.COMPENSATING
    (absorbed,) = move(play, 2)
    assert isinstance(absorbed, ev.InputAbsorbed)
    assert absorbed.reason == "the saga is compensating: its code has had its last word"


def test_two_definitions_of_one_version_are_refused() -> None:
    with pytest.raises(SameVersion, match="Order in version 2"):
        having(Two, OtherTwo)


def test_a_share_of_the_ids_gets_the_new_version() -> None:
    ids = [f"order-{number}" for number in range(2_000)]

    def those_on_two(percent: float) -> set[str]:
        newest = having(One, Two, shares={("Order", 2): percent})
        return {saga_id for saga_id in ids if (found := of_start(newest, saga_id)) is not None and found.version == 2}

    ten, thirty = those_on_two(10), those_on_two(30)
    assert 150 < len(ten) < 250
    assert 500 < len(thirty) < 700
    assert ten < thirty, "who has it keeps it while the share grows"
    assert (those_on_two(0), those_on_two(100)) == (set(), set(ids))
    for newest in (having(One, Two, shares={("Order", 2): 10}),):
        for saga_id in ids[:200]:
            state = SagaState(saga_id, "1-1-0")
            state.version = 1
            upgraded = of_run(newest, state)
            assert upgraded is not None
            assert upgraded.version == (2 if saga_id in ten else 1)
            state.version = 2
            kept = of_run(newest, state)
            assert kept is not None
            assert kept.version == 2, "a smaller share takes it from nobody"


def test_a_worker_announces_its_versions_and_a_pinned_run_needs_its_own() -> None:
    assert names_of({"Order": having(PinnedOne, Two)}) == ("Order", "Order@1", "Order@2")
    state = SagaState("a", "1-1-0")
    state.saga_type, state.version = "Order", 1
    assert name_needed(state) == "Order"
    state.pinned = True
    assert name_needed(state) == "Order@1"
