"""Human tasks: opened, listed, claimed, handed on, due, filled in; what does not fit changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field

from orchestrator.errors import Abort, DefinitionError, UpdateRejected
from orchestrator.model.events import Recorded, Status
from orchestrator.saga import Saga
from orchestrator.service import Service, command
from orchestrator.tasks import HumanTask
from orchestrator.testing import SagaTest
from orchestrator.testing.running import Running
from orchestrator.visibility.projection import Row
from orchestrator.visibility.tasks import tasks_of
from orchestrator.visibility.why import Trace, why


class Decision(BaseModel):
    approved: bool
    cents: int = Field(default=0, ge=0)


class Remark(BaseModel):
    text: str


class Note(BaseModel):
    to: str


class Mail(Service):
    send = command(Note)


class Budget(Service):
    reserve = command(Note)
    release = command(Note)


DAY = timedelta(days=1)


class Claim(Saga[int, str]):
    async def run(self, cents: int) -> str:
        await self.step(Budget.reserve(to="x"), undo=Budget.release)
        task = self.human_task(
            Decision,
            title=f"approve {cents}",
            description="it is for tea",
            group="managers",
            due=2 * DAY,
            escalate=self.remind,
        )
        decision = await task
        return f"{'yes' if decision.approved else 'no'} by {task.assignee} at {self.now():%d}"

    async def remind(self, task: HumanTask[Decision]) -> timedelta | None:
        await self.step(Mail.send(to=task.assignee or "managers"))
        if task.escalations == 2:
            task.reassign(assignee="director")
        if task.escalations == 4:
            raise Abort("NobodyDecided")
        return DAY


class Two(Saga[None, list[str]]):
    async def run(self, nothing: None) -> list[str]:
        first, second, decision = await self.gather(
            self.human_task(Remark, title="a", key="a", assignee="ann"),
            self.human_task(Remark, title="b", key="b"),
            self.human_task(Decision, title="c"),
        )
        return [first.text, second.text, str(decision.approved)]


class Hasty(Saga[None, str]):
    """Whoever is first: a person, or the time."""

    async def run(self, nothing: None) -> str:
        which, _ = await self.race(self.human_task(Decision, title="quick"), self.sleep(60))
        return ("decided", "too late")[which]


def claim() -> SagaTest[int, str]:
    return SagaTest(Claim).answer(Budget.reserve, None).answer(Budget.release, None).answer(Mail.send, None)


YES = Decision(approved=True)


def test_a_task_is_filled_in() -> None:
    end = claim().complete_task(YES, by="ann", after=DAY).run(900)
    end.assert_completed("yes by ann at 10")
    assert end.effects == [Budget.reserve]


def test_it_is_due_again_and_again_until_somebody_does_it() -> None:
    end = claim().complete_task(YES, by="director", after=3.5 * DAY).run(900)
    end.assert_completed("yes by director at 12")
    assert [each.to for each in end.requests(Mail.send)] == ["managers", "managers"]


def test_an_escalation_may_give_up() -> None:
    end = claim().run(900)
    end.assert_failed("NobodyDecided")
    end.assert_compensated(Budget.release)
    assert [each.to for each in end.requests(Mail.send)] == ["managers", "managers", "director", "director"]
    assert end.elapsed == 5 * DAY.total_seconds()


def test_who_fills_it_in_while_an_escalation_gives_up_is_heard() -> None:
    test = SagaTest(Claim).answer(Budget.reserve, None)
    for _ in range(3):
        test.answer(Mail.send, None)
    saga = test.never(Mail.send).start(900).advance(5 * DAY)  # the last mail before it gives up is under way
    assert len([sent for sent in saga.sent if sent.command is Mail.send]) == 4
    saga.complete_task(YES, by="director").answer(Mail.send, None)
    assert saga.finish().result == "yes by director at 14"


def test_what_lists_show_follows_the_task() -> None:
    saga = claim().start(900).advance(60)
    (task,) = saga.tasks.values()
    assert (task["title"], task["description"], task["assignee"], task["group"]) == (
        "approve 900",
        "it is for tea",
        None,
        "managers",
    )
    assert task["form"]["properties"].keys() == {"approved", "cents"}
    assert task["due_ms"] - task["opened_ms"] == 2 * DAY.total_seconds() * 1000
    saga.claim_task(by="ann")
    assert saga.tasks["Decision"]["assignee"] == "ann"
    saga.reassign_task(assignee="bob", key="Decision")
    assert (saga.tasks["Decision"]["assignee"], saga.tasks["Decision"]["group"]) == ("bob", None)
    saga.advance(2 * DAY)
    assert saga.tasks["Decision"]["due_ms"] == task["due_ms"] + DAY.total_seconds() * 1000
    saga.complete_task(YES, by="bob")
    assert not saga.tasks
    assert saga.finish().result == "yes by bob at 11"


REFUSED: dict[str, tuple[Callable[[Running[str]], object], str]] = {
    "the form does not fit": (
        lambda saga: saga.complete_task(Decision.model_construct(approved=True, cents=-5)),
        "the form of the task Decision does not fit: cents: Input should be greater than or equal to 0",
    ),
    "another form": (
        lambda saga: saga.complete_task(Remark(text="x"), key="Decision"),
        "the form of the task Decision does not fit: approved: Field required",
    ),
    "another task": (
        lambda saga: saga.complete_task(Remark(text="x")),
        "there is no open task 'Remark'; open: Decision",
    ),
    "somebody else's": (
        lambda saga: saga.claim_task(by="ann").complete_task(YES, by="bob"),
        "the task Decision is ann's; have it handed on first",
    ),
    "claimed already": (
        lambda saga: saga.claim_task(by="ann").claim_task(by="ann").claim_task(by="bob"),
        "the task Decision is ann's; have it handed on first",
    ),
    "claimed by nobody": (lambda saga: saga.claim_task(by=""), "who claims the task?"),
    "handed on under a wrong name": (
        lambda saga: saga.reassign_task(assignee="bob", key="Nothing"),
        "there is no open task 'Nothing'; open: Decision",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_saga_refuses_changes_nothing(what: str) -> None:
    act, reason = REFUSED[what]
    saga = claim().start(900).advance(60)
    with pytest.raises(UpdateRejected) as refused:
        act(saga)
    assert refused.value.reason == reason
    assert list(saga.tasks) == ["Decision"]
    by = saga.tasks["Decision"]["assignee"] or "cid"
    assert saga.complete_task(YES, by=by).finish().result == f"yes by {by} at 09"


def test_tasks_that_are_open_at_the_same_time_have_a_key_each() -> None:
    test = SagaTest(Two).complete_task(Remark(text="1"), key="a", by="ann").complete_task(Remark(text="2"), key="b")
    end = test.complete_task(YES).run(None)
    assert end.result == ["1", "2", "True"]
    saga = SagaTest(Two).start(None).advance(1)
    with pytest.raises(UpdateRejected, match="no open task ''; open: a, b, Decision"):
        saga.claim_task(by="ann")

    class Same(Saga[None, None]):
        async def run(self, nothing: None) -> None:
            await self.gather(self.human_task(Decision, title="1"), self.human_task(Decision, title="2"))

    end2 = SagaTest(Same).run(None)
    assert end2.status is Status.PARKED
    assert "is open already" in str(end2)


def test_a_task_that_nobody_waits_for_any_more_is_closed() -> None:
    saga = SagaTest(Hasty).start(None).advance(1)
    assert list(saga.tasks) == ["Decision"]
    saga.advance(60)
    assert not saga.tasks
    assert saga.finish().result == "too late"
    assert SagaTest(Hasty).complete_task(YES, after=1).run(None).result == "decided"
    cancelled = claim().start(900).advance(60).cancel()
    assert not cancelled.tasks


def test_what_cannot_be_is_refused_where_it_is_asked_for() -> None:
    async def nothing(task: HumanTask[Decision]) -> None:
        return None

    with pytest.raises(DefinitionError, match="needs to be due"):
        Claim().human_task(Decision, title="x", escalate=nothing)


def row_of(saga: Running[Any]) -> Row:
    row = Row("test", "1-1-0", 0, 0)
    for number, decision in enumerate(saga._world.decisions):
        row.apply(decision, number)
    return row


def test_open_tasks_are_in_the_list_and_in_why() -> None:
    saga = claim().start(900).advance(60)
    row = row_of(saga)
    (task,) = tasks_of([row])  # type: ignore[list-item]
    assert (task.saga_id, task.key, task.title, task.group) == ("test", "Decision", "approve 900", "managers")
    trace = Trace()
    for decision in saga._world.decisions:
        for event in decision.events:
            trace.note(event, decision.at_ms)
    waits = why(saga._world.state, trace).waits
    assert waits[0].what == "the task Decision of one of managers: approve 900"
    assert waits[0].due_ms == task.due_ms
    assert "saga tasks complete test Decision --form JSON" in waits[0].frees
    saga.terminate()
    assert not row_of(saga).tasks


def test_a_note_of_a_task_is_recorded_once() -> None:
    """Each replay gives it back, and each input of a test is preceded by one."""
    end = claim().complete_task(YES, by="ann", after=DAY).run(900)
    notes = [event for event in end.journal if isinstance(event, Recorded)]
    assert len(notes) == 2  # opened and closed
