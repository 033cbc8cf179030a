"""Updates: what a saga is asked to do, and who hears what came of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from model.shopping import started
from orchestrator.errors import Abort, DefinitionError
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.messages import ReplyAddress
from orchestrator.model.updates import UpdateRejected
from orchestrator.questions import update
from orchestrator.saga import Saga


class Cart(Saga[None, list[str]]):
    def __init__(self) -> None:
        self.items: list[str] = []
        self.closed = False

    @update
    async def add(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    @add.validator
    def _known(self, item: str) -> None:
        if item == "poison":
            raise ValueError("we do not sell poison")

    @update
    async def buy(self, item: str) -> str:
        got = await self.step(Shop.reserve(what=item), undo=Shop.release)
        self.items.append(got)
        return got

    @update
    async def stop(self) -> None:
        self.closed = True

    @update
    async def refuse(self) -> None:
        raise Abort("Unwilling", "not today")

    @update
    async def broken(self) -> None:
        raise ValueError("a bug")

    async def run(self, _: None) -> list[str]:
        await self.wait_until(lambda: self.closed)
        return self.items


def ask(play: Play, name: str, update_id: str = "", to: ReplyAddress | None = INBOX, **arguments: Any) -> Any:
    given = play.message_id()
    return play.take(msg.Update(SAGA_ID, given, update_id or given, name, orjson.dumps(arguments), to))


def told(play: Play) -> list[tuple[str, str, str]]:
    """Correlation id, status, and what was said."""
    return [(a.reply_to.correlation_id, a.status, a.payload.decode() or a.error_type) for a in play.answers]


def rejected(play: Play, name: str, **arguments: Any) -> UpdateRejected:
    before = len(play.journal)
    with pytest.raises(UpdateRejected) as caught:
        ask(play, name, **arguments)
    assert len(play.journal) == before
    return caught.value


def test_an_update_changes_the_saga_and_gives_a_result() -> None:
    play = started(Cart)
    ask(play, "add", item="tea")
    ask(play, "add", item="cup")
    assert told(play) == [
        ("c-1/accepted", "ANSWERED", ""),
        ("c-1", "ANSWERED", "1"),
        ("c-1/accepted", "ANSWERED", ""),
        ("c-1", "ANSWERED", "2"),
    ]
    ask(play, "stop")
    assert play.ending.payload == b'["tea","cup"]'


def test_it_may_await_steps_and_is_undone_with_the_saga() -> None:
    play = started(Cart)
    ask(play, "buy", item="tea")
    ask(play, "buy", item="cup")
    play.crash()
    play.do(4, "cup")
    play.do(2, "tea")
    assert told(play)[2:] == [("c-1", "ANSWERED", '"cup"'), ("c-1", "ANSWERED", '"tea"')]
    play.cancel()
    assert sorted(play.undone) == [2, 4]


def test_what_the_validator_refuses_leaves_no_trace() -> None:
    play = started(Cart)
    refused = rejected(play, "add", item="poison")
    assert refused.reason == "we do not sell poison"
    assert [answer.reply_to.correlation_id for answer in refused.answers()] == ["c-1/accepted", "c-1"]
    assert "no update 'dance'; its updates: add" in rejected(play, "dance").reason
    assert "missing a required argument" in rejected(play, "add").reason
    assert rejected(play, "add", item="poison", to=None).answers() == ()


def test_the_same_id_is_the_same_update() -> None:
    play = started(Cart)
    ask(play, "buy", "u-1", item="tea")
    assert ask(play, "buy", "u-1", item="tea") == [], "who asks again waits already"
    other = ReplyAddress("saga.answers", 1, "c-2")
    ask(play, "buy", "u-1", other, item="tea")
    play.do(2, "tea")
    assert told(play)[-2:] == [("c-1", "ANSWERED", '"tea"'), ("c-2", "ANSWERED", '"tea"')]
    ask(play, "stop", "u-2")
    assert play.state.ended
    ask(play, "buy", "u-1", other, item="tea")
    assert told(play)[-2:] == [("c-2/accepted", "ANSWERED", ""), ("c-2", "ANSWERED", '"tea"')]


def test_one_that_fails_tells_who_asked_and_the_saga_goes_on() -> None:
    play = started(Cart)
    ask(play, "refuse")
    assert play.answers[-1].error_type == "Unwilling"
    assert play.answers[-1].status == "UPDATE_FAILED"
    ask(play, "buy", item="tea")
    play.refuse(3, "SoldOut")
    assert play.answers[-1].error_type == "SoldOut"
    assert play.status is Status.RUNNING


def test_a_bug_parks_the_saga_and_the_update_is_carried_out_after_all() -> None:
    play = started(Cart)
    ask(play, "broken")
    assert play.status is Status.PARKED
    assert "the update broken raised ValueError" in play.state.parked[0]
    assert rejected(play, "add", item="tea").kind is ev.Refusal.NOT_NOW

    class Mended(Cart, name="Cart"):
        @update
        async def broken(self) -> None:
            self.items.append("mended")

    play.definition = Mended.definition
    play.retry()
    assert told(play)[-1] == ("c-1", "ANSWERED", "null")


class Restless(Cart, name="Cart"):
    @update
    async def begin_again(self) -> None:
        self.continue_as_new(None)

    @update
    async def leave(self) -> None:
        raise SystemExit(3)


@pytest.mark.parametrize(("name", "words"), [("begin_again", "ForeignAwait"), ("leave", "SystemExit")])
def test_what_would_end_the_run_or_the_worker_is_a_bug_in_an_update(name: str, words: str) -> None:
    play = started(Restless)
    ask(play, name)
    assert play.status is Status.PARKED
    assert f"the update {name} raised {words}" in play.state.parked[0]


def test_the_end_tells_who_still_waits_and_undoes_what_nobody_counts_on() -> None:
    play = started(Cart)
    ask(play, "buy", item="tea")
    ask(play, "stop")
    play.undo(2)
    assert play.ending.payload == b"[]"
    assert [answer.error_type for answer in play.answers if answer.status == "UPDATE_FAILED"] == ["SagaEnded"]
    late = rejected(play, "add", item="tea")
    assert "COMPLETED" in late.reason


def test_a_cancellation_and_a_termination_tell_who_waits() -> None:
    for stop in (Play.cancel, Play.terminate):
        play = started(Cart)
        ask(play, "buy", item="tea")
        stop(play)
        assert play.answers[-1].error_type == "SagaEnded"


def test_without_a_saga_or_its_code_there_is_no_update() -> None:
    assert rejected(Play(Cart), "add", item="tea").kind is ev.Refusal.NOT_FOUND
    play = started(Cart)
    play.lose_code()
    assert rejected(play, "add", item="tea").kind is ev.Refusal.NO_CODE


def test_a_saga_that_is_paused_takes_no_update_for_its_code_may_be_behind() -> None:
    play = started(Cart)
    play.pause()
    assert rejected(play, "add", item="tea").kind is ev.Refusal.NOT_NOW
    play.resume()
    ask(play, "add", item="tea")
    assert told(play)[-1] == ("c-1", "ANSWERED", "1")


def test_a_refusal_does_not_lose_what_was_noted_when_the_code_came_back() -> None:
    play = started(Cart)
    play.crash()
    play.definition = replace(play.definition, version=play.definition.version + 1)
    (noted, refused) = ask(play, "add", item="poison")
    assert isinstance(noted, ev.VersionChanged)
    assert isinstance(refused, ev.AttachRefused)
    assert told(play)[-1] == ("c-1", "REFUSED", "Rejected")


def test_an_update_is_an_async_method() -> None:
    with pytest.raises(DefinitionError, match="an update is an async method"):

        @update
        def now(self: Any) -> int:  # type: ignore[arg-type]
            return 1
