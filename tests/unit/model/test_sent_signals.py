"""Sagas that tell other sagas something: once, in order, before or after the other one's start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.family import Family
from model.shop import Shop
from orchestrator.errors import DefinitionError
from orchestrator.model import events as ev
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.testing import SagaTest


class Listener(Saga[int, list[int]]):
    heard = signal(int)

    async def run(self, many: int) -> list[int]:
        return [await self.receive(Listener.heard) for _ in range(many)]


class Teller(Saga[int, str]):
    async def run(self, many: int) -> str:
        for number in range(many):
            self.signal("listener", Listener.heard, number)
        await self.step(Shop.reserve(what="tea"), undo=Shop.release)
        self.signal("listener", Listener.heard, 100)
        return "told"


class Other(Saga[int, str]):
    async def run(self, many: int) -> str:
        await self.sleep(1)
        return "did not tell"


@pytest.fixture(params=[True, False], ids=["cold", "warm"])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    made = Family(Teller, Listener, cold=request.param)
    yield made
    made.close()


def received(family: Family) -> list[bytes]:
    return [event.payload for event in family.journal["listener"] if isinstance(event, ev.SignalReceived)]


def test_what_is_told_arrives_once_and_in_order_however_often_the_teller_is_replayed(family: Family) -> None:
    family.start(Listener, "listener", 4)
    family.start(Teller, "teller", 3)
    family.reply("teller", 4, "x")
    assert received(family) == [b"0", b"1", b"2", b"100"]
    assert family.state("listener").result == b"[0,1,2,100]"


def test_what_is_told_before_the_start_is_kept(family: Family) -> None:
    family.start(Teller, "teller", 2)
    assert family.status("listener") == "NOT_STARTED"
    family.start(Listener, "listener", 2)
    assert family.state("listener").result == b"[0,1]"


def test_the_history_says_who_told_it_and_the_tellers_what_was_told_to_whom(family: Family) -> None:
    family.start(Listener, "listener", 1)
    family.start(Teller, "teller", 1)
    (heard,) = [event for event in family.journal["listener"] if isinstance(event, ev.SignalReceived)]
    assert heard.by == "teller"
    (told,) = [event for event in family.journal["teller"] if isinstance(event, ev.Recorded)]
    assert (told.kind, told.name) == (ev.StepKind.SENT, "heard to listener")


def test_more_than_fits_into_one_decision_arrives_as_well() -> None:
    family = Family(Teller, Listener, cold=False)
    family.start(Listener, "listener", 500)
    family.start(Teller, "teller", 500)
    assert received(family) == [b"%d" % number for number in range(500)]
    family.close()


def test_code_that_no_longer_tells_it_diverges(family: Family) -> None:
    family.start(Teller, "teller", 1)
    family.runs["teller"].detach()
    family.definitions["Teller"] = Other.definition
    family.reply("teller", 2, "x")
    assert family.status("teller") == "PARKED"
    (parked,) = [event for event in family.journal["teller"] if isinstance(event, ev.SagaParked)]
    assert "the history has sent heard to listener, the code asks for sleep" in parked.detail


def test_the_test_kit_knows_what_was_told() -> None:
    end = SagaTest(Teller).answer(Shop.reserve, "x").run(2)
    assert end.signals(Listener.heard) == [("listener", 0), ("listener", 1), ("listener", 100)]


class Wrong(Saga[str, str]):
    async def run(self, id: str) -> str:
        try:
            self.signal(id, Listener.heard, 1)
        except DefinitionError as error:
            return str(error)
        return "told"


def test_an_id_that_no_saga_can_have_is_refused_at_once() -> None:
    assert "no NUL" in (SagaTest(Wrong).run("a\0b").result or "")
    assert "not empty" in (SagaTest(Wrong).run("").result or "")
