"""Sagas that have ended are known for a while, and then no longer: nothing is left of them, and nobody needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.family import Family
from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_EFFECTS
from orchestrator.model.events import Status
from orchestrator.model.messages import Override, ParentClose, Reuse
from orchestrator.model.turn import ENDED_KEEP_MS
from orchestrator.saga import Saga
from orchestrator.signals import signal


class Order(Saga[str, str]):
    told = signal(str)

    async def run(self, what: str) -> str:
        return str(await self.step(Shop.reserve(what=what), undo=Shop.release))


class Parent(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.child(Order, what, id="child")
        await self.step(Shop.note())
        return what


class Leaving(Saga[str, None]):
    async def run(self, what: str) -> None:
        self.start_child(Order, what, id="child", parent_close=ParentClose.ABANDON)
        await self.step(Shop.note())


class Rounds(Saga[int, str]):
    async def run(self, rounds: int) -> str:
        await self.child(Order, "tea", id=f"child-{rounds}")
        await self.step(Shop.note())
        if rounds:
            self.continue_as_new(rounds - 1)
        return "done"


class Many(Saga[int, str]):
    async def run(self, children: int) -> str:
        for number in range(children):
            self.start_child(Order, "tea", id=f"child-{number}", parent_close=ParentClose.TERMINATE)
        await self.step(Shop.note())
        return "done"


@pytest.fixture(params=[True, False], ids=["cold", "warm"])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    made = Family(Order, Parent, Leaving, Rounds, Many, cold=request.param)
    yield made
    made.close()


def ended() -> Play:
    play = Play(Order)
    play.start("tea")
    play.signal("told", "x")
    play.do(1, "kept")
    assert play.status is Status.COMPLETED
    return play


def test_a_saga_is_known_until_its_time_is_up_and_then_nothing_is_left_of_it() -> None:
    play = ended()
    due_ms = play.now_ms + ENDED_KEEP_MS
    assert play.state.due_of(0) == due_ms
    run = play.state.run
    play.now_ms = due_ms - 1
    assert play.take(msg.TimerDue(SAGA_ID, run, 0, due_ms)) == []
    assert play.take(msg.TimerDue(SAGA_ID, run, 0, due_ms - 1)) == []
    assert play.fire(0) == [ev.SagaForgotten()]
    assert list(play.store.scan(b"")) == []
    assert "there is no saga" in play.rejected(play.cancel)
    (refused,) = play.take(msg.Attach(SAGA_ID, "m", INBOX, "Order"))
    assert isinstance(refused, ev.AttachRefused)


def test_a_start_of_a_forgotten_id_is_a_first_one() -> None:
    play = ended()
    run = play.state.run
    play.fire(0)
    play.start("coffee")
    assert play.of(ev.SagaStarted)[-1].previous_run == ""
    assert play.state.run != run
    assert play.state.signals == []
    play.do(1, "kept")
    assert play.status is Status.COMPLETED


def test_a_saga_that_is_run_again_is_not_forgotten_at_the_time_of_its_first_end() -> None:
    play = ended()
    run, due_ms = play.state.run, play.state.due_of(0)
    assert due_ms is not None
    play.start("coffee", reuse=Reuse.ALLOW_DUPLICATE)
    assert play.state.due_of(0) is None
    play.now_ms = due_ms
    play.take(msg.TimerDue(SAGA_ID, run, 0, due_ms))
    play.do(1, "kept")
    assert play.state.due_of(0) == due_ms + ENDED_KEEP_MS


def test_one_that_is_reset_after_its_end_is_kept_from_its_next_end_on() -> None:
    play = ended()
    play.now_ms += ENDED_KEEP_MS - 1
    play.take(msg.Reset(SAGA_ID, "reset", 1, by="ann"))
    play.undo(1)
    assert not play.state.ended
    assert play.state.due_of(0) is None


def test_signals_that_nobody_took_leave_nothing() -> None:
    play = Play(Order)
    play.signal("told", "x")
    assert [type(event) for event in play.fire(0)] == [ev.SignalDropped, ev.SagaForgotten]
    assert list(play.store.scan(b"")) == []


def test_a_child_is_kept_as_long_as_its_parent_may_have_it_undone(family: Family) -> None:
    family.start(Parent, "parent", "tea")
    family.reply("child", 1, "x")
    assert family.state("child").due_of(0) is None
    family.now_ms += 3 * ENDED_KEEP_MS
    family.cancel("parent")
    family.reply("child", 1, undo=True)
    assert (family.status("child"), family.status("parent")) == ("COMPENSATED", "CANCELED")
    assert family.state("child").due_of(0) is None
    family.fire("parent")
    assert list(family.runs) == ["child"]
    family.fire("child")
    assert list(family.runs) == []


def test_a_childs_time_counts_from_its_own_end(family: Family) -> None:
    family.start(Parent, "parent", "tea")
    family.reply("child", 1, "x")
    family.now_ms += 5_000
    family.reply("parent", 2)
    family.fire("parent")
    assert family.state("child").due_of(0) == family.now_ms
    family.fire("child")
    assert list(family.runs) == []


def test_a_child_that_outlives_its_parent_is_forgotten_by_itself(family: Family) -> None:
    family.start(Leaving, "parent", "tea")
    family.reply("parent", 2)
    family.fire("parent")
    assert (family.status("child"), list(family.runs)) == ("RUNNING", ["child"])
    sent = len(family.decisions)
    family.reply("child", 1, "x")
    assert not [event for each in family.decisions[sent:] for event in each.events if isinstance(event, ev.InputSent)]
    family.fire("child")
    assert list(family.runs) == []


def test_what_a_child_still_says_to_a_forgotten_parent_is_nothing(family: Family) -> None:
    family.start(Leaving, "parent", "tea")
    family.reply("parent", 2)
    child = family.state("child")
    assert child.parent is not None
    told = msg.ChildEnded(child.parent.saga_id, child.parent.run, 1, False, child.run, "COMPLETED", "none", b"", "", "")
    family.fire("parent")
    before = len(family.decisions)
    family.take(told)
    assert [each.events for each in family.decisions[before:]] == [()]


def test_runs_that_go_on_let_go_of_what_they_had_started(family: Family) -> None:
    family.start(Rounds, "parent", 2)
    for rounds in (2, 1):
        family.reply(f"child-{rounds}", 1, "x")
        family.reply("parent", 2)
        assert family.state(f"child-{rounds}").due_of(0) == family.now_ms + ENDED_KEEP_MS
        family.fire(f"child-{rounds}")
    assert sorted(family.runs) == ["child-0", "parent"]


def test_a_reset_lets_go_only_of_what_it_does_not_inherit(family: Family) -> None:
    family.start(Parent, "parent", "tea")
    family.reply("child", 1, "x")
    family.take(msg.Reset("parent", "reset", 2, by="ann"))
    family.deliver()
    assert not family.state("child").parent_gone
    family.take(msg.Reset("parent", "again", 1, by="ann"))
    family.deliver()
    family.reply("child", 1, undo=True)
    assert family.status("child") == "RUNNING", "the parent's next run has started it again"
    assert family.state("child").due_of(0) is None


def test_however_many_children_hear_that_their_parent_is_forgotten(family: Family) -> None:
    count = 450
    family.start(Many, "parent", count)
    family.reply("parent", count + 1)
    before = len(family.decisions)
    family.fire("parent")
    assert len(family.runs) == count
    assert all(state.parent_gone for state in (family.state(saga_id) for saga_id in family.runs))
    sent = [sum(isinstance(event, ev.InputSent) for event in each.events) for each in family.decisions[before:]]
    assert (max(sent), sum(sent)) == (MAX_EFFECTS, count)
    for saga_id in list(family.runs):
        family.fire(saga_id)
    assert list(family.runs) == []


def test_what_is_forgotten_does_not_count_as_undone(family: Family) -> None:
    family.start(Parent, "parent", "tea")
    family.reply("child", 1, "x")
    family.take(msg.Start("child", "by hand", "Order", b'"coffee"', reuse=Reuse.ALLOW_DUPLICATE))
    family.deliver()
    family.reply("child", 1, "y")
    family.fire("child")
    family.cancel("parent")
    assert family.status("parent") == "PARKED"
    assert "nothing is known of saga child any more" in family.state("parent").parked[1]


def test_nor_does_it_when_a_person_has_the_undo_tried_again(family: Family) -> None:
    family.start(Parent, "parent", "tea")
    family.take(msg.Start("child", "by hand", "Order", b'"coffee"', reuse=Reuse.TERMINATE_IF_RUNNING))
    family.deliver()
    family.reply("child", 1, "y")
    family.fire("child")
    for _ in range(2):
        assert family.status("parent") == "PARKED"
        family.take(msg.Unpark("parent", "again", Override.RETRY, by="ann"))
        family.deliver()


def test_a_child_whose_parent_is_forgotten_can_be_run_again_and_is_forgotten_then(family: Family) -> None:
    family.start(Leaving, "parent", "tea")
    family.reply("parent", 2)
    family.fire("parent")
    for given in (msg.Restart("child", "restart", by="ann"), msg.Redrive("child", "redrive", by="ann")):
        family.refuse("child", 1)
        assert family.status("child") == "FAILED"
        family.take(given)
        family.deliver()
        assert family.status("child") == "RUNNING"
    family.reply("child", 1, "x")
    family.fire("child")
    assert list(family.runs) == []
