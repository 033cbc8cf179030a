"""Newer code takes over what older code has come to."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import orjson
import pytest
from pydantic import BaseModel

from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from model.test_versions import deploy, having
from orchestrator.errors import Abort
from orchestrator.migrations import PastRun
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Following, Status
from orchestrator.model.queries import PUBLISHED, answer
from orchestrator.model.state import StepStatus
from orchestrator.model.updates import UpdateRejected
from orchestrator.promises import promise
from orchestrator.questions import update
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.streams import stream


class Old(Saga[str, str], name="Order"):
    told = signal(str)
    approved = promise(str)

    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        token = self.promise(Old.approved).token
        await self.step(Shop.note(what=token))
        await self.receive(Old.told, timeout=60)
        await self.step(Shop.ship(what=what))
        return "old"


class Progress(BaseModel):
    what: str
    reserved: list[str] = []


class New(Saga[Progress, str], name="Order", version=2):
    told = signal(str)
    approved = promise(str)

    async def run(self, progress: Progress) -> str:
        if not progress.reserved:
            progress.reserved.append(await self.step(Shop.reserve(what=progress.what), undo=Shop.release))
        receipt = await self.step(Shop.charge(what=progress.what), undo=lambda receipt: Shop.refund(receipt=receipt))
        said = await self.receive(New.told)
        if said == "stop":
            raise Abort("Stopped")
        return f"{progress.reserved} {receipt.number} {said}"

    @classmethod
    def migrate(cls, past: PastRun) -> Progress | None:
        return Progress(what=past.input, reserved=past.results(Shop.reserve))


class Asked(Old, name="Order"):
    @update
    async def hurry(self) -> None:
        pass


class NewlyAsked(New, name="Order", version=2):
    @update
    async def hurry(self) -> None:
        pass


def waiting() -> Play:
    play = Play(having(Old))
    play.start("tea", INBOX)
    play.do(1, "r-1")
    play.do(3)
    return play


def test_new_code_takes_over_what_was_done_and_asks_for_the_rest() -> None:
    play = waiting()
    first = play.state.run
    deploy(play, New)
    play.signal("told", "go")
    assert [event.migrates for event in play.of(ev.VersionChanged)] == [True]
    assert play.of(ev.RunFollows)[0].cause is Following.MIGRATED
    assert play.state.payload == b'{"what":"tea","reserved":["r-1"]}'
    assert (play.state.previous_run, play.state.version, play.state.ballast) == (first, 2, 4)
    assert (play.sent[-1].name, play.sent[-1].sequence, play.sent[-1].run) == ("charge", 5, play.state.run)
    play.do(5, {"number": 7})
    assert play.answers[-1].payload == b"\"['r-1'] 7 go\"", "who waits and the signal came along"


def test_what_was_done_before_is_undone_with_it_under_its_old_key() -> None:
    play = waiting()
    first = play.state.run
    deploy(play, New)
    play.signal("told", "stop")
    play.do(5, {"number": 7})
    play.undo(5)
    play.undo(1)
    assert play.status is Status.COMPENSATED
    assert [(sent.name, sent.sequence, sent.run == first) for sent in play.sent if sent.undo] == [
        ("refund", 5, False),
        ("release", 1, True),
    ]
    assert play.sent[-1].payload == b'{"what":"tea"}'


def test_it_waits_for_what_is_in_flight() -> None:
    play = Play(having(Old))
    play.start("tea")
    deploy(play, New)
    play.signal("told", "early")
    assert play.state.migrates_from == 1
    assert play.of(ev.RunFollows) == []
    play.do(1, "r-1")
    assert play.state.payload == b'{"what":"tea","reserved":["r-1"]}'
    assert play.state.migrates_from == 0


def test_who_asks_meanwhile_is_told_to_ask_again() -> None:
    play = Play(having(Asked))
    play.start("tea")
    deploy(play, NewlyAsked)
    ask = partial(msg.Update, SAGA_ID, name="hurry", payload=b"{}")
    noted = play.take(ask(play.message_id(), "u-1", reply_to=INBOX))
    assert [type(event) for event in noted] == [ev.VersionChanged, ev.AttachRefused]
    assert play.answers[-1].error_type == ev.Refusal.NOT_NOW
    with pytest.raises(UpdateRejected, match="has yet to take over") as refused:
        play.take(ask(play.message_id(), "u-2", reply_to=INBOX))
    assert [answer.error_type for answer in refused.value.answers()] == [ev.Refusal.NOT_NOW] * 2


def test_an_update_that_nobody_waits_for_is_noted_where_the_code_cannot_be_had() -> None:
    play = Play(having(Asked))
    play.start("tea")
    deploy(play, NewlyAsked)
    noted = play.take(msg.Update(SAGA_ID, play.message_id(), "u-1", "hurry", b"{}"))
    assert [type(event) for event in noted] == [ev.VersionChanged, ev.InputAbsorbed]


def test_a_cancel_meanwhile_undoes_without_code() -> None:
    play = Play(having(Old))
    play.start("tea")
    deploy(play, New)
    play.signal("told", "early")
    play.cancel()
    play.undo(1)
    assert play.status is Status.CANCELED


def test_a_hook_that_declines_has_the_code_repeat_what_was_done() -> None:
    class Same(Old, name="Order", version=2):
        @classmethod
        def migrate(cls, past: PastRun) -> str | None:
            assert (past.version, past.input, past.has_done(Shop.note), past.has_done(Shop.ship)) == (
                1,
                "tea",
                True,
                False,
            )
            return None

    play = waiting()
    deploy(play, Same)
    play.signal("told", "go")
    assert (play.state.version, play.state.migrates_from, play.of(ev.RunFollows)) == (2, 0, [])
    play.do(5, "s")
    assert play.state.result == b'"old"'


def test_a_hook_that_raises_parks_the_saga_and_a_mended_one_goes_on() -> None:
    class Broken(New, name="Order", version=2):
        @classmethod
        def migrate(cls, past: PastRun) -> Progress | None:
            raise KeyError("what")

    play = waiting()
    deploy(play, Broken)
    play.signal("told", "go")
    assert play.status is Status.PARKED
    assert play.state.parked[0].startswith("the migration raised KeyError")
    deploy(play, New)
    play.retry()
    assert (play.sent[-1].name, play.state.signals) == ("charge", [("told", b'"go"')])


def test_a_token_given_away_before_settles_the_promise_of_the_new_run() -> None:
    play = waiting()
    first = play.state.run
    deploy(play, New)
    play.signal("told", "go")
    play.keep("approved", "yes", first)
    assert play.state.promises == {"approved": (b'"yes"', "", "")}


def test_a_person_has_a_pinned_run_migrated() -> None:
    class Pinned(Old, name="Order", version=1, pinned=True):
        pass

    play = Play(having(Pinned))
    play.start("tea")
    play.do(1, "r-1")
    play.do(3)
    deploy(play, New, Pinned)
    play.take(msg.MoveVersion("order-7", "m-9", 2, None, "it is time", "ann"))
    assert (play.sent[-1].name, play.state.version) == ("charge", 2)


def test_its_waits_are_over() -> None:
    play = waiting()
    deploy(play, New)
    play.fire(4)
    assert play.step(4).status is StepStatus.EXPIRED
    assert play.sent[-1].name == "charge"


def test_a_migrated_saga_is_migrated_again() -> None:
    class Newest(New, name="Order", version=3):
        @classmethod
        def migrate(cls, past: PastRun) -> Progress | None:
            assert past.input == {"what": "tea", "reserved": ["r-1"]}
            return Progress(what="coffee", reserved=past.input["reserved"])

    play = waiting()
    first = play.state.run
    deploy(play, New)
    play.signal("told", "one")
    deploy(play, Newest)
    play.do(5, {"number": 7})
    assert (play.state.version, play.sent[-1].payload) == (3, b'{"what":"coffee"}')
    assert play.state.run_of(play.step(1)) == first


def test_a_query_waits_for_the_newer_code_to_take_over() -> None:
    play = waiting()
    deploy(play, New)
    told = answer(play.definition, play.state, msg.Query(SAGA_ID, "q", INBOX, "stage"))
    assert (told.status, told.error_type) == ("REFUSED", "NotNow")


def test_a_run_that_took_over_is_reset_within_its_own_part() -> None:
    play = waiting()
    deploy(play, New)
    play.signal("told", "go")
    play.do(5, {"number": 7})
    play.take(msg.Reset(SAGA_ID, "reset", 6, by="ann"))
    assert (play.state.ballast, play.state.sequence) == (4, 6)
    assert play.answers[-1].status == "COMPLETED", "the signal came again"
    play.take(msg.Reset(SAGA_ID, "back", 4, by="ann", reply_to=INBOX))
    assert "newer code took over what it did before step 5: restart it" in play.answers[-1].error_message


def test_a_fork_of_a_run_that_took_over_begins_where_that_did() -> None:
    play = waiting()
    deploy(play, New)
    play.signal("told", "go")
    play.take(msg.Fork(SAGA_ID, "fork", 6, "other", by="ann"))
    (sent,) = play.of(ev.InputSent)
    other = Play(play.definition)
    other.take(replace(sent.input, saga_id=SAGA_ID))
    assert other.status is Status.RUNNING
    assert (other.state.ballast, [each.name for each in other.sent]) == (4, ["charge"])


class Telling(Saga[str, str], name="Order"):
    progress = stream(int)

    async def run(self, what: str) -> str:
        self.publish(Telling.progress, 1)
        await self.sleep(60)
        return what


class TellingOn(Telling, name="Order", version=2):
    async def run(self, what: str) -> str:
        self.publish(Telling.progress, 2)
        await self.sleep(60)
        return what

    @classmethod
    def migrate(cls, past: PastRun) -> str | None:
        return "on"


class Wordy(Saga[str, str], name="Order"):
    words = stream(str)

    async def run(self, what: str) -> str:
        for _ in range(40):
            self.publish(Wordy.words, "x" * 15_000)
            await self.sleep(1)
        return what


class WordyOn(Wordy, name="Order", version=2):
    async def run(self, what: str) -> str:
        self.publish(Wordy.words, what)
        await self.sleep(60)
        return what

    @classmethod
    def migrate(cls, past: PastRun) -> str | None:
        return "on"


def test_what_was_published_before_is_let_go_of_where_it_is_too_much() -> None:
    play = Play(having(Wordy), cold=False)
    play.start("tea")
    for number in range(1, 40):
        play.fire(2 * number)
    deploy(play, WordyOn)
    play.fire(80)
    assert play.of(ev.RunFollows)[0].cause is Following.MIGRATED
    asked = msg.Query(SAGA_ID, "q", INBOX, PUBLISHED, b"0 words")
    told = orjson.loads(answer(play.definition, play.state, asked).payload)
    assert [value for _, value in told["values"]] == ["on"]


def test_what_was_published_before_can_still_be_followed() -> None:
    play = Play(having(Telling))
    play.start("tea")
    deploy(play, TellingOn)
    play.fire(2)
    assert play.of(ev.RunFollows)[0].cause is Following.MIGRATED
    asked = msg.Query(SAGA_ID, "q", INBOX, PUBLISHED, b"0 progress")
    told = orjson.loads(answer(play.definition, play.state, asked).payload)
    assert [value for _, value in told["values"]] == [1, 2]
