"""Promises: what somebody outside does, and says when it is done."""

from __future__ import annotations

import pytest

from model.play import Play
from model.shop import Shop
from model.shopping import started
from orchestrator.errors import DefinitionError, StepFailed
from orchestrator.model import checks
from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.promises import promise
from orchestrator.saga import Saga


class Approval(Saga[None, str]):
    approved = promise(str)

    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(), undo=Shop.release)
        by = await self.receive(self.promise(Approval.approved), timeout=60)
        return "late" if by is None else f"{by}, {await self.promise(Approval.approved)}"


def test_a_promise_is_kept_once_for_all_who_wait_for_it() -> None:
    play = started(Approval)
    play.do(1, "x")
    settled, *_ = play.keep("approved", "ann")
    assert settled == ev.PromiseSettled("approved", b'"ann"', by="ann")
    assert play.ending.payload == b'"ann, ann"'
    assert play.names.count("PromiseKept") == 2
    assert play.names.count("PromiseSettled") == 1, "its result is journaled once"


def test_it_may_be_kept_before_the_saga_waits_for_it_and_the_first_time_counts() -> None:
    play = started(Approval)
    play.keep("approved", "ann")
    (again,) = play.keep("approved", "bob")
    assert isinstance(again, ev.InputAbsorbed)
    assert "settled already" in again.reason
    play.fail("approved", "Denied")
    play.do(1, "x")
    assert play.ending.payload == b'"ann, ann"'


def test_a_promise_that_is_failed_fails_the_saga_as_a_step_does() -> None:
    play = started(Approval)
    play.do(1, "x")
    play.fail("approved", "Denied", "too dear")
    play.undo(1)
    assert play.status is Status.COMPENSATED
    assert (play.ending.error_type, play.ending.error_message) == ("Denied", "too dear")


def test_the_saga_may_go_on_after_a_failed_promise() -> None:
    class Anyway(Saga[None, str]):
        approved = promise()

        async def run(self, _: None) -> str:
            try:
                await self.promise(Anyway.approved)
            except StepFailed as failed:
                return f"{failed.error_type} {failed.unknown} {failed}"
            return "approved"

    play = started(Anyway)
    play.fail("approved", "Denied")
    assert play.ending.payload.startswith(b'"Denied False promise approved')


def test_nobody_keeps_it_in_time_and_later_it_changes_nothing() -> None:
    play = started(Approval)
    play.do(1, "x")
    play.fire(2)
    assert play.ending.payload == b'"late"'
    assert isinstance(play.keep("approved", "ann")[0], ev.InputAbsorbed)


def test_a_promise_by_key_is_one_of_several() -> None:
    class Lines(Saga[None, list[str]]):
        checked = promise(str)

        async def run(self, _: None) -> list[str]:
            return list(await self.gather(*(self.receive(self.promise(Lines.checked, key)) for key in ("a", "b/c"))))

    play = started(Lines)
    play.keep("checked/b/c", "two")
    play.keep("checked/d", "kept for nobody")
    play.keep("checked/a", "one")
    assert play.ending.payload == b'["one","two"]'


def test_what_no_code_promised_is_rejected_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    play = started(Approval)
    assert "no promise 'dance'; its promises: approved" in play.rejected(lambda: play.keep("dance"))
    assert "the promise approved does not fit" in play.rejected(lambda: play.keep("approved", 3))
    assert "pass a reference" in play.rejected(lambda: play.keep("approved", "x" * 300_000))
    assert "there is no saga" in Play(Approval).rejected(lambda: Play(Approval).keep("approved", "x"))
    monkeypatch.setattr(checks, "MAX_SIGNALS", 1)
    play.keep("approved/1", "x")
    assert "1 promises of the saga are settled" in play.rejected(lambda: play.keep("approved/2", "x"))
    assert isinstance(play.keep("approved/1", "x")[0], ev.InputAbsorbed)


def test_one_for_another_run_is_only_recorded() -> None:
    play = started(Approval)
    (absorbed,) = play.keep("approved", "ann", run="1-9-0")
    assert isinstance(absorbed, ev.InputAbsorbed)


def test_without_the_code_it_is_held() -> None:
    play = started(Approval)
    play.do(1, "x")
    play.lose_code()
    play.keep("approved", "ann")
    assert play.names[-2:] == ["CodeMissing", "InputHeld"]
    play.find_code()
    assert play.ending.payload == b'"ann, ann"'


def test_a_saga_that_is_being_undone_keeps_no_promise() -> None:
    play = started(Approval)
    play.do(1, "x")
    play.keep("approved/other", "ann")
    play.cancel()
    assert play.status is Status.COMPENSATING
    assert isinstance(play.keep("approved", "ann")[0], ev.InputAbsorbed)
    assert play.state.promises == {}


def test_the_token_is_recorded_before_anybody_waits() -> None:
    class Asking(Saga[None, str]):
        approved = promise(str)

        async def run(self, _: None) -> str:
            asked = self.promise(Asking.approved, "boss")
            await self.step(Shop.note(what=asked.token))
            return await asked

    play = started(Asking)
    assert play.names == ["SagaStarted", "Recorded", "StepScheduled"]
    assert f"order-7/{play.state.run}/approved/boss".encode() in play.sent[0].payload
    play.do(2)
    play.keep("approved/boss", "ann")
    assert play.ending.payload == b'"ann"'


def test_only_a_declared_promise_can_be_made() -> None:
    class Other(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.promise(Approval.approved)

    play = started(Other)
    assert "is no promise of Other" in play.state.parked[0]
    assert DefinitionError.__name__ in play.state.parked[0]
