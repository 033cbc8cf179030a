"""Queries: what a saga tells about itself, and that it changes nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from model.play import INBOX, SAGA_ID, Play, frozen
from model.shop import Shop
from model.shopping import started
from orchestrator.errors import DefinitionError
from orchestrator.model.effects import Answer
from orchestrator.model.messages import Query
from orchestrator.model.queries import answer
from orchestrator.questions import query
from orchestrator.saga import Saga
from orchestrator.signals import signal


class Telling(Saga[None, str]):
    told = signal(int)

    def __init__(self) -> None:
        self.sum = 0
        self.place = "before"

    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(), undo=Shop.release)
        self.place = "reserved"
        while self.sum < 10:
            self.sum += await self.receive(Telling.told)
        return self.stage()

    @query
    def stage(self) -> str:
        return f"{self.place} {self.sum}"

    @query
    def more_than(self, least: int, factor: int = 1) -> bool:
        self.sum *= 100  # which is lost
        return self.sum > 100 * least * factor

    @query
    def wrong(self) -> int:
        return "text"  # type: ignore[return-value]

    @query
    def large(self) -> str:
        return "x" * 300_000


def ask(play: Play, name: str, arguments: Any = None, saga_type: str | None = None) -> Answer:
    before = frozen(play.state)
    question = Query(SAGA_ID, "q", INBOX, name, orjson.dumps(arguments or {}), saga_type)
    told = answer(play.definition if play.known else None, play.state, question)
    assert frozen(play.state) == before
    assert told.reply_to == INBOX
    return told


def test_it_tells_where_the_saga_is_before_each_outcome_and_after_the_end() -> None:
    play = started(Telling)
    assert ask(play, "stage").payload == b'"before 0"'
    play.do(1, "x")
    play.signal("told", 4)
    assert ask(play, "stage").payload == b'"reserved 4"'
    play.crash()
    assert ask(play, "stage", saga_type="Telling").status == "ANSWERED"
    play.signal("told", 7)
    assert play.ending.payload == ask(play, "stage").payload == b'"reserved 11"'


def test_it_changes_nothing_even_if_it_tries() -> None:
    play = started(Telling)
    play.do(1, "x")
    play.signal("told", 4)
    assert ask(play, "more_than", {"least": 3}).payload == b"true"
    assert ask(play, "more_than", {"least": 3, "factor": 2}).payload == b"false"
    play.signal("told", 7)
    assert play.ending.payload == b'"reserved 11"'


def test_a_saga_that_was_undone_or_is_parked_still_tells() -> None:
    play = started(Telling)
    play.do(1, "x")
    play.cancel()
    play.undo(1)
    assert ask(play, "stage").payload == b'"reserved 0"'

    class Bug(Telling, name="Telling"):
        async def run(self, _: None) -> str:
            self.place = "at the bug"
            raise ValueError("a bug")

    assert ask(started(Bug), "stage").payload == b'"at the bug 0"'


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("dance", {}, "no query 'dance'; its queries: stage, more_than, wrong, large"),
        ("more_than", {}, "missing a required argument: 'least'"),
        ("more_than", {"least": 1, "most": 2}, "unexpected keyword argument 'most'"),
        ("more_than", {"least": "many"}, "do not fit: Input should be a valid integer"),
        ("more_than", [1], "a JSON object of their names"),
        ("wrong", {}, "ValidationError"),
        ("large", {}, "300002 bytes, at most"),
    ],
)
def test_what_cannot_be_answered_goes_to_who_asks(name: str, arguments: Any, why: str) -> None:
    told = ask(started(Telling), name, arguments)
    assert (told.status, told.error_type) == ("REFUSED", "QueryFailed")
    assert why in told.error_message


def test_no_saga_another_type_no_code_and_other_code_are_told_apart() -> None:
    question = Query(SAGA_ID, "q", INBOX, "stage", b"{}")
    assert answer(None, None, question).error_type == "NotFound"
    early = Play(Telling)
    early.signal("told", 1)
    assert ask(early, "stage").error_type == "NotFound"
    play = started(Telling)
    assert ask(play, "stage", saga_type="Other").error_type == "OtherType"
    play.known = False
    assert ask(play, "stage").error_type == "NoCode"

    class Changed(Telling, name="Telling"):
        async def run(self, _: None) -> str:
            return await self.step(Shop.ship())

    play.known, play.definition = True, Changed.definition
    assert "diverges from the history" in ask(play, "stage").error_message


def test_the_saga_calls_its_own_queries_as_methods() -> None:
    assert Telling().stage() == "before 0"
    assert repr(Telling.stage) == "query stage"


def test_a_query_that_awaits_or_takes_anything_is_declared_wrongly() -> None:
    with pytest.raises(DefinitionError, match="a query awaits nothing"):

        @query
        async def later(self: Any) -> int:
            return 1

    @query
    def loose(self: Any, *numbers: int) -> int:
        return 1

    with pytest.raises(DefinitionError, match="name every argument, 'numbers'"):
        loose.encode(1, 2)
