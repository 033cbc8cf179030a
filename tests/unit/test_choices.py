"""What people write wrongly in a saga's code is said where it stands, before anything is recorded."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.choices import chosen
from orchestrator.client.requests import Requests
from orchestrator.errors import DefinitionError, InvalidRequest, QueryFailed, UpdateRejected
from orchestrator.locks import IfLocked
from orchestrator.model.events import Status
from orchestrator.model.policies import ParentClose
from orchestrator.questions import query, update
from orchestrator.retry import Retry
from orchestrator.saga import Saga
from orchestrator.service import Service, command
from orchestrator.signals import signal
from orchestrator.testing import SagaTest
from orchestrator.topics import TopicNames


class Order(BaseModel):
    id: str


class Payments(Service):
    charge = command(Order, str)
    refund = command(Order)


class Kid(Saga[int, int]):
    async def run(self, number: int) -> int:
        return number


async def _never() -> bool:
    return False


class Wrong(Saga[str, str]):
    """Writes what its input says."""

    async def run(self, what: str) -> str:
        words: Any = "abandon"
        charge = Payments.charge(id="o-1")
        nothing: Any = lambda reply: None  # noqa: E731
        asked: Any = _never
        match what:
            case "close":
                await self.child(Kid, 1, parent_close=words)
            case "cancellation":
                await self.child(Kid, 1, cancellation=words)
            case "reuse":
                await self.child(Kid, 1, reuse=words)
            case "start":
                self.start_child(Kid, 1, parent_close=words)
            case "locked":
                await self.lock("a", if_locked=words)
            case "key":
                keys: Any = [7]
                await self.lock(*keys)
            case "undo":
                await self.step(charge, undo=nothing)
            case "uncalled":
                uncalled: Any = Payments.charge
                await self.step(uncalled)
            case "upsert":
                self.upsert(words)
            case "patched":
                no_name: Any = 5
                assert self.patched(no_name)
            case "until":
                await self.wait_until(asked)
            case "sleep":
                seconds: Any = "5"
                await self.sleep(seconds)
        return "never"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            "close",
            "parent_close is ParentClose.TERMINATE, ParentClose.ABANDON, ParentClose.REQUEST_CANCEL, not 'abandon'",
        ),
        ("cancellation", "cancellation is ChildCancellation.WAIT_CANCELLATION_COMPLETED"),
        ("reuse", "reuse is Reuse.ALLOW_DUPLICATE"),
        ("start", "parent_close is ParentClose"),
        ("locked", "if_locked is IfLocked.WAIT, IfLocked.FAIL, not 'abandon'"),
        ("key", "the key of a lock is a text, such as 'account/ann', not 7"),
        ("undo", "gives None: a function of the reply gives a call"),
        ("uncalled", "a step is a command with its request"),
        ("upsert", "an attribute is set by its value"),
        ("patched", "a patch has a name"),
        ("until", "a condition only looks at the saga's own data"),
        ("sleep", "a duration is seconds or a timedelta, not '5'"),
    ],
)
def test_a_wrong_word_in_the_code_parks_the_saga_and_names_the_choices(what: str, words: str) -> None:
    end = SagaTest(Wrong).child(Kid, 1).answer(Payments.charge, "r").run(what)
    assert end.status is Status.PARKED
    assert words in end.reason


def test_an_option_may_be_written_as_its_name() -> None:
    assert chosen(ParentClose, "ABANDON", "parent_close") is ParentClose.ABANDON
    assert chosen(IfLocked, IfLocked.FAIL, "if_locked") is IfLocked.FAIL


def test_locks_that_are_one_text_are_not_locked_letter_by_letter() -> None:
    class Transfer(Saga[str, str], locks=lambda payer: f"account/{payer}"):
        async def run(self, payer: str) -> str:
            return payer

    assert "write ['account/ann']" in SagaTest(Transfer).run("ann").reason


def test_what_is_declared_may_not_hide_what_every_saga_has() -> None:
    with pytest.raises(DefinitionError, match=r"Hiding.step would hide `Saga.step`: give it another name"):

        class Hiding(Saga[int, int]):
            step = signal(int)  # type: ignore[assignment]

            async def run(self, number: int) -> int:
                return number


def test_a_validator_awaits_nothing() -> None:
    with pytest.raises(DefinitionError, match="a validator awaits nothing"):

        class Cart(Saga[int, int]):
            async def run(self, number: int) -> int:
                return number

            @update
            async def add(self, number: int) -> int:
                return number

            @add.validator  # type: ignore[arg-type]
            async def _fits(self, number: int) -> None:
                raise ValueError("never")


def test_a_client_names_the_choices_too() -> None:
    requests = Requests(TopicNames(""), 4)
    wrong: Any = "ALWAYS"
    for option in ("reuse", "conflict"):
        with pytest.raises(InvalidRequest, match=f"{option} is (Reuse|Conflict)\\."):
            requests.start("Kid", "k", b"1", "m", None, None, **{option: wrong})


class Leaving(Saga[str, str]):
    """Code that calls `sys.exit` where the engine asks it something."""

    left = False

    async def run(self, what: str) -> str:
        if what == "condition":
            await self.wait_until(self.exits)
        if what == "predicate":
            retry = Retry(maximum_attempts=3, predicate=lambda failed: self.exits())
            await self.step(Payments.charge(id="o-1"), retry=retry)
        await self.sleep(timedelta(hours=1))
        return "slept"

    def exits(self) -> bool:
        raise SystemExit(3)

    @query
    def stage(self) -> str:
        raise SystemExit(4)

    @update
    async def go_on(self) -> None:
        pass

    @go_on.validator
    def _may(self) -> None:
        raise SystemExit(5)


def test_an_exit_in_the_code_decides_about_its_saga_alone() -> None:
    for what in ("condition", "predicate"):
        end = SagaTest(Leaving).retry(Payments.charge, "Busy").answer(Payments.charge, "r").run(what)
        assert end.status is Status.PARKED
        assert "SystemExit" in end.reason
    started = SagaTest(Leaving).start("rest")
    with pytest.raises(QueryFailed, match="SystemExit: 4"):
        started.query(Leaving.stage)
    with pytest.raises(UpdateRejected, match="5"):
        started.update(Leaving.go_on)
