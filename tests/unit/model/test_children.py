"""Sagas started by sagas: results, failures, undo, cancellation, what becomes of them when their parent ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.family import Family
from model.shop import Shop
from orchestrator.errors import DefinitionError, StepFailed
from orchestrator.model import events as ev
from orchestrator.model.messages import ChildCancellation, CodeArrived, Override, ParentClose, Reuse, Start, Unpark
from orchestrator.saga import Saga


class Child(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        return f"{what} done"


class PastPivot(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), pivot=True)
        return what


class Parent(Saga[str, str]):
    async def run(self, what: str) -> str:
        result = await self.child(Child, what, id="child")
        await self.step(Shop.note())
        return result


@pytest.fixture(params=[True, False], ids=["cold", "warm"])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    made = Family(Parent, Child, PastPivot, cold=request.param)
    yield made
    made.close()


def started(family: Family, *sagas: type[Saga[str, str]]) -> Family:
    for saga in sagas:
        family.definitions[saga.definition.name] = saga.definition
    family.start(sagas[0] if sagas else Parent, "parent", "tea")
    return family


def names(family: Family, saga_id: str) -> list[str]:
    return [type(event).__name__ for event in family.journal[saga_id]]


def test_a_parent_goes_on_with_its_childs_result(family: Family) -> None:
    started(family)
    assert family.status("child") == "RUNNING"
    family.reply("child", 1, "x")
    family.reply("parent", 2)
    assert family.status("parent") == "COMPLETED"
    assert family.state("parent").result == b'"tea done"'


def test_a_child_that_ends_while_its_parents_code_is_missing_is_told_when_it_is_there(family: Family) -> None:
    started(family)
    code = family.definitions.pop("Parent")
    family.reply("child", 1, "x")
    assert names(family, "parent")[-2:] == ["CodeMissing", "InputHeld"]
    family.definitions["Parent"] = code
    family.take(CodeArrived("parent", family.state("parent").run))
    family.reply("parent", 2)
    assert family.state("parent").result == b'"tea done"'


def test_a_child_that_fails_without_a_trace_fails_its_step_and_is_not_undone(family: Family) -> None:
    started(family)
    family.refuse("child", 1)
    assert (family.status("child"), family.status("parent")) == ("FAILED", "FAILED")
    (refused,) = [event for event in family.journal["parent"] if isinstance(event, ev.StepRefused)]
    assert refused.error_type == "Refused"


def test_a_child_that_completed_is_undone_with_its_parent(family: Family) -> None:
    started(family)
    family.reply("child", 1, "x")
    family.refuse("parent", 2)
    assert family.status("child") == "COMPENSATING"
    family.reply("child", 1, undo=True)
    assert (family.status("child"), family.status("parent")) == ("COMPENSATED", "COMPENSATED")
    assert [command.direction for command in family.commands] == ["do", "do", "undo"]


def test_a_child_past_its_pivot_cannot_be_undone_and_a_person_decides(family: Family) -> None:
    class Over(Saga[str, str]):
        async def run(self, what: str) -> str:
            await self.child(PastPivot, what, id="child")
            await self.step(Shop.note())
            return what

    started(family, Over)
    family.reply("child", 1, "x")
    family.refuse("parent", 2)
    assert family.status("parent") == "PARKED"
    assert "past its pivot" in family.state("parent").parked[1]
    family.take(Unpark("parent", "skip", Override.SKIP, 1))
    assert (family.status("parent"), family.state("parent").undone) == ("COMPENSATED", "partial")


@pytest.mark.parametrize("rule", ["type:Child", "partition"])
def test_a_child_that_has_completed_is_undone_though_a_rule_pauses_its_type(family: Family, rule: str) -> None:
    started(family)
    family.reply("child", 1, "x")
    family.cancel("parent")
    family.rules.add(rule)
    family.refuse("parent", 2)
    assert family.status("child") == "COMPENSATING"
    family.reply("child", 1, undo=True)
    assert (family.status("child"), family.status("parent")) == ("COMPENSATED", "CANCELED")


class Monthly(Saga[str, str]):
    """It goes on in another run once its first is done; `idle`: that did nothing that could be undone."""

    async def run(self, what: str) -> str:
        if what != "idle":
            await self.step(Shop.reserve(what=what), undo=Shop.release)
        else:
            await self.step(Shop.note())
        if what in ("idle", "first"):
            self.continue_as_new("last")
        return what


class Subscriber(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.child(Monthly, what, id="child")
        await self.step(Shop.note())
        return what


def subscribed(family: Family, first: str) -> Family:
    """The child is in its last run."""
    family.definitions["Monthly"] = Monthly.definition
    family.definitions["Subscriber"] = Subscriber.definition
    family.start(Subscriber, "parent", first)
    family.reply("child", 1, None if first == "idle" else "x")
    assert family.state("child").payload == b'"last"'
    return family


def test_what_a_child_did_before_it_continued_as_new_stays_and_a_person_decides(family: Family) -> None:
    subscribed(family, "first")
    family.reply("child", 1, "x")
    family.refuse("parent", 2)
    family.reply("child", 1, undo=True)
    assert (family.status("child"), family.status("parent")) == ("COMPENSATED", "PARKED")
    assert "before it continued as new" in family.state("parent").parked[1]
    family.take(Unpark("parent", "skip", Override.SKIP, 1))
    assert (family.status("parent"), family.state("parent").undone) == ("COMPENSATED", "partial")


def test_a_child_that_fails_after_it_continued_as_new_is_refused_as_any(family: Family) -> None:
    subscribed(family, "first")
    family.refuse("child", 1)
    (refused,) = [event for event in family.journal["parent"] if isinstance(event, ev.StepRefused)]
    assert refused.error_type == "Refused"
    assert (family.status("parent"), family.state("parent").undone) == ("FAILED", "none")


def test_a_child_that_is_cancelled_after_it_continued_as_new_is_refused_as_any(family: Family) -> None:
    subscribed(family, "first")
    family.cancel("parent")
    family.reply("child", 1, "x")
    family.reply("child", 1, undo=True)
    assert (family.status("child"), family.status("parent")) == ("CANCELED", "CANCELED")


def test_a_child_that_continued_as_new_and_had_nothing_to_undo_is_undone_as_any(family: Family) -> None:
    subscribed(family, "idle")
    family.reply("child", 1, "x")
    family.refuse("parent", 2)
    family.reply("child", 1, undo=True)
    assert (family.status("parent"), family.state("parent").undone) == ("COMPENSATED", "all")


def test_a_terminated_child_is_not_undone_and_a_person_may_ask_again(family: Family) -> None:
    started(family)
    family.terminate("child")
    assert "it was terminated" in family.state("parent").parked[1]
    family.take(Unpark("parent", "again", Override.RETRY, 1))
    assert names(family, "parent")[-2:] == ["UndoAttempted", "InputSent"]
    family.deliver()
    assert "it was terminated" in family.state("parent").parked[1]


def test_a_cancelled_parent_waits_until_its_child_has_stopped(family: Family) -> None:
    started(family)
    family.cancel("parent")
    assert (family.status("child"), family.status("parent")) == ("COMPENSATING", "RUNNING")
    family.reply("child", 1, undo=True)
    assert (family.status("child"), family.status("parent")) == ("CANCELED", "CANCELED")
    assert names(family, "parent").count("ChildCanceled") == 1


def test_a_parent_that_only_tries_to_cancel_undoes_its_child_at_once(family: Family) -> None:
    class Trying(Saga[str, str]):
        async def run(self, what: str) -> str:
            return await self.child(Child, what, id="child", cancellation=ChildCancellation.TRY_CANCEL)

    started(family, Trying)
    family.cancel("parent")
    assert names(family, "parent")[-2:] == ["UndoScheduled", "InputSent"]
    family.reply("child", 1, undo=True)
    assert (family.status("child"), family.status("parent")) == ("CANCELED", "CANCELED")


def test_a_child_that_completes_while_it_is_to_be_undone_is_undone_after_that(family: Family) -> None:
    class Fast(Saga[str, str]):
        async def run(self, what: str) -> str:
            try:
                await self.step(Shop.reserve(what=what), undo=Shop.release)
            finally:
                await self.step(Shop.note())
            return what

    class Trying(Saga[str, str]):
        async def run(self, what: str) -> str:
            return await self.child(Fast, what, id="child", cancellation=ChildCancellation.TRY_CANCEL)

    started(family, Trying, Fast)
    family.reply("child", 1, "x")
    family.cancel("parent")
    family.reply("child", 2)
    family.reply("child", 1, undo=True)
    assert family.status("parent") == "CANCELED"
    assert family.status("child") == "CANCELED"


def test_an_id_that_is_taken_refuses_the_step(family: Family) -> None:
    family.start(Child, "child", "mine")
    started(family)
    assert family.status("parent") == "FAILED"
    assert "the id has a saga" in family.state("parent").error_message
    assert family.status("child") == "RUNNING"


def test_an_id_may_be_used_again_by_a_child(family: Family) -> None:
    class Again(Saga[str, str]):
        async def run(self, what: str) -> str:
            return await self.child(Child, what, id="child", reuse=Reuse.ALLOW_DUPLICATE)

    family.start(Child, "child", "mine")
    family.reply("child", 1, "x")
    started(family, Again)
    family.reply("child", 1, "y")
    assert family.state("parent").result == b'"tea done"'


def test_an_input_that_does_not_fit_refuses_the_step(family: Family) -> None:
    class Fussy(Saga[int, str], name="Child"):
        async def run(self, what: int) -> str:
            return ""

    family.definitions["Child"] = Fussy.definition
    started(family)
    assert family.status("parent") == "FAILED"
    assert "does not fit Child" in family.state("parent").error_message
    assert "child" not in family.runs


@pytest.mark.parametrize(
    ("close", "status"),
    [(ParentClose.TERMINATE, "TERMINATED"), (ParentClose.ABANDON, "RUNNING"), (ParentClose.REQUEST_CANCEL, "CANCELED")],
)
def test_a_child_whose_parent_is_terminated_does_what_it_was_started_with(
    family: Family, close: ParentClose, status: str
) -> None:
    class Closing(Saga[str, str]):
        async def run(self, what: str) -> str:
            return await self.child(Child, what, id="child", parent_close=close)

    started(family, Closing)
    family.terminate("parent")
    if status == "CANCELED":
        family.reply("child", 1, undo=True)
    assert family.status("child") == status


@pytest.mark.parametrize("close", ParentClose)
def test_a_child_that_nobody_waits_for_outlives_its_parent_or_not(family: Family, close: ParentClose) -> None:
    class Starting(Saga[str, str]):
        async def run(self, what: str) -> str:
            self.start_child(Child, what, id="child", parent_close=close)
            await self.step(Shop.note())
            return what

    started(family, Starting)
    assert family.status("child") == "RUNNING"
    family.reply("parent", 2)
    assert family.status("parent") == "COMPLETED"
    expected = {"TERMINATE": "TERMINATED", "ABANDON": "RUNNING", "REQUEST_CANCEL": "COMPENSATING"}
    assert family.status("child") == expected[close]


def test_children_run_side_by_side_and_are_undone_side_by_side(family: Family) -> None:
    class Wide(Saga[str, str]):
        async def run(self, what: str) -> str:
            await self.gather(self.child(Child, "a", id="a"), self.child(Child, "b", id="b"))
            await self.step(Shop.note())
            return what

    started(family, Wide)
    family.reply("b", 1, "x")
    family.reply("a", 1, "x")
    family.refuse("parent", 3)
    assert (family.status("a"), family.status("b")) == ("COMPENSATING", "COMPENSATING")
    family.reply("a", 1, undo=True)
    family.reply("b", 1, undo=True)
    assert family.status("parent") == "COMPENSATED"


def test_a_child_that_continues_as_new_reports_once_it_is_through(family: Family) -> None:
    class Months(Saga[int, str]):
        async def run(self, left: int) -> str:
            await self.step(Shop.reserve(what=str(left)))
            if left:
                self.continue_as_new(left - 1)
            return "through"

    class Yearly(Saga[str, str]):
        async def run(self, what: str) -> str:
            return await self.child(Months, 1, id="child", undo=False)

    started(family, Yearly, Months)
    family.reply("child", 1, "x")
    assert family.status("parent") == "RUNNING"
    family.reply("child", 1, "y")
    assert family.state("parent").result == b'"through"'


def test_a_child_without_an_id_gets_one_that_nobody_else_has(family: Family) -> None:
    class Nameless(Saga[str, str]):
        async def run(self, what: str) -> str:
            return await self.child(Child, what)

    started(family, Nameless)
    run = family.state("parent").run
    assert f"parent/{run}/1" in family.runs


def test_a_parent_may_catch_its_childs_failure(family: Family) -> None:
    class Catching(Saga[str, str]):
        async def run(self, what: str) -> str:
            try:
                return await self.child(Child, what, id="child")
            except StepFailed as failed:
                return failed.error_type

    started(family, Catching)
    family.refuse("child", 1)
    assert family.state("parent").result == b'"Refused"'


def test_what_is_left_to_itself_cannot_be_undone() -> None:
    class Wrong(Saga[str, str]):
        async def run(self, what: str) -> str:
            return await self.child(Child, what, cancellation=ChildCancellation.ABANDON)

    family = started(Family(Child), Wrong)
    assert DefinitionError.__name__ in family.state("parent").parked[0]
    family.close()


@pytest.mark.parametrize("at_once", [False, True])
def test_a_branch_has_a_child_stop_that_another_one_waits_for(family: Family, at_once: bool) -> None:
    class Deadline(Saga[str, str]):
        async def run(self, what: str) -> str:
            child = self.child(Child, what, id="child", undo=False, cancellation=ChildCancellation.ABANDON)
            child.cancel()  # nothing: it is not under way

            async def until_noted() -> None:
                await self.step(Shop.note())
                child.cancel()
                if at_once:
                    child.terminate()
                    child.terminate()

            waited, _ = await self.settle(child, until_noted())
            return waited.error_type if isinstance(waited, StepFailed) else "came through"

    started(family, Deadline)
    family.reply("parent", 2)
    told = [event.at_once for event in family.journal["parent"] if isinstance(event, ev.ChildCanceled)]
    if at_once:
        assert (family.status("child"), told) == ("TERMINATED", [False, True])
    else:
        assert (family.status("child"), family.status("parent"), told) == ("COMPENSATING", "RUNNING", [False])
        family.reply("child", 1, undo=True)
    assert family.state("parent").result == (b'"Terminated"' if at_once else b'"Canceled"')


def test_a_child_has_its_parents_baggage(family: Family) -> None:
    family.take(Start("parent", "start", "Parent", b'"tea"', baggage='{"tenant":"acme"}'))
    family.deliver()
    assert family.state("child").baggage == '{"tenant":"acme"}'
