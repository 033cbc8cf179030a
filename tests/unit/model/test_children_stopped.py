"""Children that are stopped, undone or started again in odd moments: their parents always hear of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from model.family import Family
from model.shop import Shop
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_EFFECTS
from orchestrator.model.messages import ChildCancellation, CodeArrived, Leaving, Override, ParentClose, Reuse, Unpark
from orchestrator.saga import Saga


class Child(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        await self.step(Shop.note())
        return f"{what} done"


class Waiting(Saga[str, str]):
    async def run(self, what: str) -> str:
        result = await self.child(Child, what, id="child")
        await self.step(Shop.note())
        return result


class Trying(Saga[str, str]):
    async def run(self, what: str) -> str:
        return await self.child(Child, what, id="child", cancellation=ChildCancellation.TRY_CANCEL)


class Slow(Saga[str, str]):
    async def run(self, what: str) -> str:
        try:
            return await self.step(Shop.reserve(what=what), undo=Shop.release)
        finally:
            await self.step(Shop.note(what="is stopped"))


class TryingSlowly(Saga[str, str]):
    async def run(self, what: str) -> str:
        return await self.child(Slow, what, id="child", cancellation=ChildCancellation.TRY_CANCEL)


class PastPivot(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), pivot=True)
        return await self.child(Child, what, id="child")


@pytest.fixture(params=[True, False], ids=["cold", "warm"])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    made = Family(Waiting, Trying, TryingSlowly, PastPivot, Child, Slow, cold=request.param)
    yield made
    made.close()


def names(family: Family, saga_id: str) -> list[str]:
    return [type(event).__name__ for event in family.journal[saga_id]]


PARENTS = pytest.mark.parametrize("parent", [Waiting, Trying])


@PARENTS
def test_a_child_without_code_is_stopped_once_there_is_some(family: Family, parent: type[Saga[str, str]]) -> None:
    family.start(parent, "parent", "tea")
    code = family.definitions.pop("Child")
    family.cancel("parent")
    assert family.status("child") == "WAITING_FOR_CODE"
    family.definitions["Child"] = code
    family.take(CodeArrived("child", family.state("child").run))
    family.reply("child", 1, undo=True)
    assert (family.status("child"), family.status("parent")) == ("CANCELED", "CANCELED")


@PARENTS
@pytest.mark.parametrize("rule", ["", "type:Child", "partition"])
def test_a_paused_child_is_stopped_with_its_parent(family: Family, parent: type[Saga[str, str]], rule: str) -> None:
    family.start(parent, "parent", "tea")
    if rule:
        family.rules.add(rule)
        family.reply("child", 1, "x")
        family.rules.discard("partition")  # which would hold the parent too
    else:
        family.take(msg.Pause("child", "pause"))
    assert family.status("child") == "PAUSED"
    family.cancel("parent")
    assert family.status("child") == "COMPENSATING"
    while undoing := family.state("child").undo_open:
        family.reply("child", max(undoing), undo=True)
    assert (family.status("child"), family.status("parent")) == ("CANCELED", "CANCELED")


@PARENTS
def test_code_that_came_during_a_childs_pause_has_a_word_when_its_parent_stops(
    family: Family, parent: type[Saga[str, str]]
) -> None:
    family.start(parent, "parent", "tea")
    code = family.definitions.pop("Child")
    family.reply("child", 1, "x")
    family.take(msg.Pause("child", "pause"))
    family.definitions["Child"] = code
    family.cancel("parent")
    told = names(family, "child")
    assert told[told.index("SagaResumed") :][:4] == ["SagaResumed", "CodeFound", "CancelRequested", "CancelRaised"]


@PARENTS
def test_a_child_that_is_being_reset_is_stopped_for_good(family: Family, parent: type[Saga[str, str]]) -> None:
    family.start(parent, "parent", "tea")
    family.take(msg.Reset("child", "reset", 1, by="ann"))
    family.cancel("parent")
    assert family.status("child") == "COMPENSATING"
    family.reply("child", 1, undo=True)
    assert (family.status("child"), family.status("parent")) == ("CANCELED", "CANCELED")
    assert "RunFollows" not in names(family, "child")


def test_a_child_that_its_parent_undoes_is_not_reset(family: Family) -> None:
    family.start(TryingSlowly, "parent", "tea")
    family.cancel("parent")
    family.take(msg.Reset("child", "reset", 1, by="ann"))
    assert "its parent undoes it" in family.journal["child"][-1].reason  # type: ignore[union-attr]
    family.reply("child", 2)
    family.reply("child", 1, undo=True)
    assert family.status("parent") == "CANCELED"


def test_a_child_that_was_refused_meanwhile_needs_no_undo(family: Family) -> None:
    family.start(Child, "child", "mine")
    family.take(msg.Start("parent", "start", "Trying", b'"tea"'))
    family.take(family.post.popleft())
    family.take(msg.Cancel("parent", "cancel"))
    family.deliver()
    assert family.status("parent") == "CANCELED"
    assert family.status("child") == "RUNNING"


def test_a_cancellation_reaches_a_parent_whose_child_ended_and_is_parked(family: Family) -> None:
    family.start(PastPivot, "parent", "tea")
    family.reply("parent", 1, "x")
    family.refuse("child", 1)
    assert family.status("parent") == "PARKED"
    family.cancel("parent")
    assert (family.status("parent"), family.state("parent").undone) == ("CANCELED", "partial")


@pytest.mark.parametrize("how", ["reset", "redrive"])
def test_a_next_run_starts_the_child_again_that_was_undone(family: Family, how: str) -> None:
    family.start(Waiting, "parent", "tea")
    if how == "reset":
        family.take(msg.Reset("parent", "reset", 1, by="ann"))
    else:
        family.refuse("child", 1)
        assert family.status("parent") == "FAILED"
        family.take(msg.Redrive("parent", "redrive", by="ann"))
    family.deliver()
    if how == "reset":
        family.reply("child", 1, undo=True)
    family.reply("child", 1, "x")
    family.reply("child", 2)
    family.reply("parent", 2)
    assert family.state("parent").result == b'"tea done"'
    assert len([name for name in names(family, "child") if name == "SagaStarted"]) == 2


def test_a_child_that_completed_in_a_former_run_stays(family: Family) -> None:
    family.start(Waiting, "parent", "tea")
    family.reply("child", 1, "x")
    family.reply("child", 2)
    family.terminate("parent")
    family.take(msg.Restart("parent", "restart", by="ann"))
    family.deliver()
    assert family.state("parent").error_type == "ChildRefused"
    assert family.status("child") == "COMPLETED"


@pytest.mark.parametrize("child_id", ["", "a\0b", "é" * 257, "\ud800"])
def test_an_id_that_no_saga_can_have_parks_the_parent(family: Family, child_id: str) -> None:
    class Odd(Saga[str, str]):
        async def run(self, what: str) -> str:
            return await self.child(Child, what, id=child_id)

    family.definitions["Odd"] = Odd.definition
    family.start(Odd, "parent", "tea")
    assert "is no child's id" in family.state("parent").parked[0]
    assert list(family.runs) == ["parent"]


def test_a_child_has_nothing_to_do_with_a_service_of_its_name(family: Family) -> None:
    family.open_circuits = frozenset({"Child"})
    family.rules = {"service:Child"}
    family.start(Waiting, "parent", "tea")
    family.reply("child", 1, "x")
    family.reply("child", 2)
    family.refuse("parent", 2)
    family.reply("child", 1, undo=True)
    assert family.status("parent") == "COMPENSATED"


class Many(Saga[int, str]):
    async def run(self, children: int) -> str:
        for n in range(children):
            self.start_child(Child, "tea", id=f"child-{n}", parent_close=ParentClose.TERMINATE)
        await self.step(Shop.note())
        if children == 500:
            self.continue_as_new(0)
        return "done"


@pytest.mark.parametrize("how", ["completed", "continued", "terminated", "replaced"])
def test_however_many_children_hear_of_their_parents_end(family: Family, how: str) -> None:
    family.definitions["Many"] = Many.definition
    count = 500 if how == "continued" else 499
    family.start(Many, "parent", count)
    before = len(family.decisions)
    run = family.state("parent").run
    if how == "terminated":
        family.terminate("parent")
    elif how == "replaced":
        family.take(msg.Start("parent", "again", "Many", b"0", reuse=Reuse.TERMINATE_IF_RUNNING))
        family.deliver()
    else:
        family.reply("parent", count + 1)
    assert {family.status(f"child-{n}") for n in range(count)} == {"TERMINATED"}
    assert (family.state("parent").run != run) == (how in ("continued", "replaced"))
    assert family.state("parent").ended == (how in ("completed", "terminated"))
    sent = [sum(isinstance(event, ev.InputSent) for event in each.events) for each in family.decisions[before:]]
    assert max(sent) <= MAX_EFFECTS
    told = Counter(
        event.input.how
        for each in family.decisions[before:]
        for event in each.events
        if isinstance(event, ev.InputSent) and isinstance(event.input, msg.ParentLeft)
    )
    assert told.pop(Leaving.CLOSED) == count
    assert told == ({Leaving.GONE: count} if how in ("continued", "replaced") else {})


def test_a_child_that_was_not_undone_is_asked_again(family: Family) -> None:
    family.start(Waiting, "parent", "tea")
    family.terminate("child")
    assert family.status("parent") == "PARKED"
    family.take(Unpark("parent", "skip", Override.SKIP, 1))
    assert (family.status("parent"), family.state("parent").undone) == ("COMPENSATED", "partial")
