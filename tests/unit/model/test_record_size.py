"""Whatever comes from outside, and however much of it: what a decision says of it fits one journal record."""

from __future__ import annotations

from contextlib import suppress

import pytest

from model.family import Family
from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from model.shopping import started
from orchestrator.errors import StepFailed
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.checks import MAX_SIGNALS
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome, ReplyAddress
from orchestrator.model.updates import MAX_WAITING, UpdateRejected
from orchestrator.promises import promise
from orchestrator.questions import update
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.wire.journal import write_decision

LARGEST = 800 * 1024
"""Bytes of a decision's body; `Play` asserts the same."""


class Told(Saga[None, str]):
    told = signal(str)
    answer = promise(str)

    async def run(self, _: None) -> str:
        await self.step(Shop.reserve(), undo=Shop.release)
        return await self.receive(Told.told)


def test_names_of_signals_count_as_what_they_say_does() -> None:
    play = Play(Told)
    name = "x" * 16_000
    for n in range(MAX_BYTES // 16_010):
        play.signal(f"{name}{n}")
    assert "signals are kept" in play.rejected(lambda: play.signal(name))
    play.start()
    assert len(play.of(ev.SignalDropped)) == MAX_BYTES // 16_010


@pytest.mark.parametrize(("count", "text"), [(MAX_SIGNALS, ""), (2, "x" * (MAX_BYTES // 2 - 10))])
def test_signals_held_for_missing_code_count_too(count: int, text: str) -> None:
    play = started(Told)
    play.lose_code()
    play.cold = play.checked = False
    for _ in range(count):
        play.signal("told", text)
    assert play.status is Status.WAITING_FOR_CODE
    assert "signals are kept" in play.rejected(lambda: play.signal("told", "one more"))


@pytest.mark.parametrize("known", [True, False])
def test_what_is_said_of_broken_promises_counts(known: bool) -> None:
    play = started(Told)
    if not known:
        play.lose_code()
    message = "x" * 4_000
    for n in range(MAX_BYTES // 4_010):
        play.fail(f"answer/{n}", "No", message)
    assert "are settled already" in play.rejected(lambda: play.fail("answer/more", "No", message))


def test_only_so_many_wait_for_updates() -> None:
    class Cart(Saga[None, None]):
        @update
        async def buy(self) -> None:
            await self.step(Shop.reserve())

        async def run(self, _: None) -> None:
            await self.step(Shop.note())

    play = started(Cart)

    def ask(n: int) -> None:
        play.take(msg.Update(SAGA_ID, f"m-{n}", "u", "buy", b"{}", ReplyAddress("saga.answers", 0, f"c-{n}")))

    for n in range(MAX_WAITING):
        ask(n)
    ask(0)
    with pytest.raises(UpdateRejected) as caught:
        ask(MAX_WAITING)
    assert caught.value.kind is ev.Refusal.NOT_NOW
    play.do(1)
    ask(MAX_WAITING)
    assert len([answer for answer in play.answers if answer.status == "UPDATE_FAILED"]) == MAX_WAITING + 1


def test_what_a_run_inherits_is_counted_with_the_errors_of_its_steps() -> None:
    class Stubborn(Saga[None, None]):
        async def run(self, _: None) -> None:
            while True:
                with suppress(StepFailed):
                    await self.step(Shop.reserve())

    play = started(Stubborn)
    for sequence in range(1, 81):
        reply = (SAGA_ID, play.state.run, sequence, False, 1, Outcome.FAILURE, b"", "No", "x" * 4_000)
        play.take(msg.Reply(*reply))
    play.take(msg.Reset(SAGA_ID, "reset", 81, by="ann", reply_to=INBOX))
    assert "can be inherited" in play.answers[-1].error_message
    play.take(msg.Reset(SAGA_ID, "less", 21, by="ann", reply_to=INBOX))
    assert len(play.of(ev.StepInherited)) == 20


def test_children_bear_their_parents_baggage_within_the_budget() -> None:
    class Child(Saga[int, None]):
        async def run(self, n: int) -> None:
            await self.step(Shop.note())

    class Wide(Saga[int, None]):
        async def run(self, width: int) -> None:
            await self.gather(*(self.child(Child, n) for n in range(width)))

    family = Family(Wide, Child)
    family.take(msg.Start("wide", "start", "Wide", b"250", baggage="user=" + "x" * 8_000))
    sizes = [len(write_decision(each)) for each in family.decisions if each.saga_id == "wide"]
    assert max(sizes) < LARGEST
    family.deliver()
    assert len(family.runs) == 251
    family.close()
