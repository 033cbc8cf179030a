"""Promises in a test of a saga."""

from datetime import timedelta

import pytest

from orchestrator import Saga, Status, promise
from orchestrator.testing import SagaTest


class Approval(Saga[None, str]):
    approved = promise(str)

    async def run(self, _: None) -> str:
        by = await self.receive(self.promise(Approval.approved, "boss"), timeout=timedelta(days=3))
        return f"approved by {by}" if by else "nobody answered"


def test_somebody_keeps_it_after_a_day() -> None:
    end = SagaTest(Approval).complete_promise(Approval.approved, "ann", key="boss", after=timedelta(days=1)).run(None)
    assert end.result == "approved by ann"
    assert SagaTest(Approval).run(None).result == "nobody answered"


def test_it_is_failed() -> None:
    end = SagaTest(Approval).fail_promise(Approval.approved, "Denied", "too dear", key="boss").run(None)
    assert (end.status, end.reason) == (Status.FAILED, "Denied: too dear")


def test_by_hand() -> None:
    saga = SagaTest(Approval).start(None).until(Approval.approved, key="boss")
    assert saga.complete_promise(Approval.approved, "ann", key="boss").finish().result == "approved by ann"
    saga = SagaTest(Approval).start(None)
    assert saga.fail_promise(Approval.approved, "Denied", key="boss").finish().status is Status.FAILED


def test_one_that_nobody_waits_for_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"promise approved/other was never waited for"):
        SagaTest(Approval).complete_promise(Approval.approved, "ann", key="other").run(None)
