"""Runs that people ask for: restart, redrive, reset, fork."""

from __future__ import annotations

from datetime import timedelta

import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from orchestrator.errors import Abort
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.effects import effects
from orchestrator.model.events import Following, Status
from orchestrator.model.state import StepStatus
from orchestrator.promises import promise
from orchestrator.retry import Retry
from orchestrator.saga import Saga
from orchestrator.signals import signal


class Order(Saga[str, str]):
    async def run(self, what: str) -> str:
        price = await self.step(Shop.ship(what=f"price of {what}"))
        await self.step(Shop.reserve(what=f"{what} {self.uuid()}"), undo=Shop.release)
        receipt = await self.step(Shop.charge(what=price), undo=lambda receipt: Shop.refund(receipt=receipt))
        await self.step(Shop.note(what=str(receipt.number)), undo=Shop.release)
        return price


def order(saga: type[Saga[str, str]] = Order) -> Play:
    play = Play(saga)
    play.start("book", INBOX)
    return play


def refused() -> Play:
    """It ended FAILED without an undo at its third step: the second's undo is done."""
    play = order()
    play.do(1, "9")
    play.do(2, "r-1")
    play.refuse(3, "CardExpired")
    play.undo(2)
    assert play.status is Status.COMPENSATED
    return play


def set_back() -> tuple[Play, str]:
    """It was set back to its third step, and goes on in its second run; the first one's id."""
    play = order()
    first = play.state.run
    play.do(1, "9")
    play.do(2, "r-1")
    play.reset(3)
    play.undo(3)
    return play, first


def absorbed(events: list[ev.Event]) -> str:
    (event,) = [event for event in events if isinstance(event, ev.InputAbsorbed)]
    return event.reason


def last_sent(play: Play) -> tuple[str, bool, int, str]:
    sent = play.sent[-1]
    return sent.name, sent.undo, sent.sequence, sent.run


# -- the code sees again what it saw


def test_the_time_of_the_beginning_is_that_of_the_run_that_made_the_history() -> None:
    class Timed(Saga[str, str]):
        async def run(self, what: str) -> str:
            began = self.now()
            await self.step(Shop.note(what="one"))
            if self.now() - began < timedelta(seconds=1):
                await self.sleep(60)
            return str((await self.step(Shop.ship(what="two")), began.timestamp()))

    play = Play(Timed)
    play.start("x")
    began = play.now_ms
    play.now_ms += 5_000
    play.do(1)
    play.refuse(2)
    play.now_ms += 60_000
    play.redrive()
    assert play.sent[-1].sequence == 2, "the code went the way that it went before"
    play.do(2, "s")
    assert str(began / 1_000) in play.state.result.decode()
    play.reset(1)
    assert play.state.began_ms == play.now_ms, "where nothing is inherited it begins anew"


# -- restart


def test_a_restart_runs_from_the_beginning_under_new_keys() -> None:
    play = refused()
    first = play.state.run
    play.restart()
    assert play.state.run != first
    assert play.of(ev.RunFollows)[0].cause is Following.RESTARTED
    assert (play.of(ev.RunFollows)[0].by, play.of(ev.RunFollows)[0].reason) == ("ann", "once more")
    assert last_sent(play) == ("ship", False, 1, play.state.run)
    assert play.sent[-1].payload == b'{"what":"price of book"}'


def test_a_restart_may_have_another_input() -> None:
    play = refused()
    play.restart("pen", same=False)
    assert play.state.payload == b'"pen"'
    assert play.sent[-1].payload == b'{"what":"price of pen"}'


def test_a_restart_with_an_input_that_does_not_fit_is_refused() -> None:
    play = refused()
    assert play.rejected(lambda: play.restart({"not": "a text"}, same=False)).startswith("the input does not fit")


def test_what_is_under_way_is_not_restarted() -> None:
    play = order()
    assert absorbed(play.restart()) == "it has not ended: reset it to step 1, or cancel or terminate it first"


def test_a_completed_saga_is_restarted_and_nothing_of_it_undone() -> None:
    play = order()
    for sequence, value in enumerate(("9", "r-1", {"number": 4}, None), 1):
        play.do(sequence, value)
    assert play.status is Status.COMPLETED
    play.restart()
    assert play.undone == []
    assert play.status is Status.RUNNING


# -- redrive


def test_a_redrive_keeps_what_still_stands() -> None:
    play = refused()
    first = play.state.run
    play.redrive()
    assert play.status is Status.RUNNING
    (kept,) = play.of(ev.StepInherited)
    assert (kept.sequence, kept.run, kept.result) == (1, first, b'"9"')
    assert last_sent(play) == ("reserve", False, 2, play.state.run), (
        "it was undone, so it happens again under a new key"
    )
    play.do(2, "r-2")
    play.do(3, {"number": 4})
    play.do(4)
    assert (play.status, play.state.result) == (Status.COMPLETED, b'"9"')
    assert [answer.status for answer in play.answers] == ["COMPENSATED"], "who was told is not told again"


def test_randomness_is_that_of_the_run_up_to_where_it_was_inherited() -> None:
    class Drawn(Saga[str, str]):
        async def run(self, what: str) -> str:
            before = self.random.random()
            await self.step(Shop.note(what=str(before)))
            await self.step(Shop.note(what=str(self.random.random())))
            return str(before)

    play = Play(Drawn)
    play.start("x")
    play.do(1)
    play.refuse(2)
    first, second = (sent.payload for sent in play.sent)
    play.redrive()
    assert play.sent[-1].sequence == 2
    assert play.sent[-1].payload != second, "what is done anew is drawn anew"
    play.do(2)
    assert play.ending.status is Status.FAILED
    assert play.state.result.strip(b'"') in first


def test_a_redrive_of_what_is_parked_tries_it_again_under_the_same_key() -> None:
    class Parking(Saga[str, None]):
        async def run(self, what: str) -> None:
            await self.step(Shop.charge(what=what), pivot=True, retry=Retry(maximum_attempts=1))

    play = Play(Parking)
    play.start("x")
    play.again(1)
    assert play.status is Status.PARKED
    run = play.state.run
    play.redrive()
    assert (play.state.run, play.sent[-1].run, play.sent[-1].attempt) == (run, run, 2)


def test_a_redrive_whose_code_ended_it_by_itself_asks_the_code_anew() -> None:
    mended = False

    class Buggy(Saga[str, str]):
        async def run(self, what: str) -> str:
            await self.step(Shop.note(what=what))
            if not mended:
                raise Abort("TooDear", "a mistake in the code")
            await self.step(Shop.ship(what=what))
            return "done"

    play = Play(Buggy)
    play.start("x")
    play.do(1)
    assert play.status is Status.FAILED
    mended = True
    play.redrive()
    assert last_sent(play)[:3] == ("ship", False, 2)


def test_only_what_failed_is_redriven() -> None:
    play = order()
    assert "under way" in absorbed(play.redrive())
    for sequence, value in enumerate(("9", "r-1", {"number": 4}, None), 1):
        play.do(sequence, value)
    assert absorbed(play.redrive()) == "it is COMPLETED: restart it, or reset it to a step"


def test_who_asked_hears_what_came_of_it() -> None:
    play = refused()
    play.redrive(INBOX)
    assert [event.reason for event in play.of(ev.InputAnswered)] == [""]


def test_a_canceled_saga_goes_on_where_it_waited() -> None:
    class Waiting(Saga[str, str]):
        told = signal(str)

        async def run(self, what: str) -> str:
            await self.step(Shop.note(what=what))
            return await self.receive(Waiting.told)

    play = Play(Waiting)
    play.start("x")
    play.do(1)
    play.cancel()
    assert play.status is Status.CANCELED
    play.redrive()
    assert [event.sequence for event in play.of(ev.StepInherited)] == [1]
    play.signal("told", "go")
    assert play.state.result == b'"go"'


# -- reset


def test_a_reset_undoes_from_the_step_on_and_goes_on_from_there() -> None:
    play = order()
    first = play.state.run
    play.do(1, "9")
    play.do(2, "r-1")
    play.do(3, {"number": 4})
    play.reset(3)
    assert play.status is Status.COMPENSATING
    assert last_sent(play) == ("release", True, 4, first), "nobody knows whether the fourth happened"
    play.undo(4)
    assert last_sent(play) == ("refund", True, 3, first)
    play.undo(3)
    assert play.status is Status.RUNNING
    assert [event.sequence for event in play.of(ev.StepInherited)] == [1, 2]
    assert last_sent(play) == ("charge", False, 3, play.state.run)
    assert [event.status for event in play.of(ev.SagaEnded)] == [Status.RESET]
    play.do(3, {"number": 5})
    play.do(4)
    assert play.answers[-1].status == "COMPLETED", "who waited, waited on"


def test_inherited_steps_are_undone_once_under_the_key_of_the_run_that_made_them() -> None:
    play, first = set_back()
    second = play.state.run
    play.refuse(3, "CardExpired")
    assert last_sent(play) == ("release", True, 2, first)
    play.undo(2)
    assert play.status is Status.COMPENSATED
    undone = [(sent.sequence, sent.run) for sent in play.sent if sent.undo]
    assert undone == [(3, first), (2, first)]
    assert second != first


def test_an_inherited_steps_reply_of_the_old_run_counts_and_others_do_not() -> None:
    play, first = set_back()
    late = msg.Reply(SAGA_ID, first, 3, False, 1, msg.Outcome.SUCCESS, b'{"number":1}')
    assert absorbed(play.take(late)) == f"it is for run {first}"
    assert play.step(3).status is StepStatus.RUNNING
    late = msg.Reply(SAGA_ID, first, 2, False, 1, msg.Outcome.SUCCESS, b'"again"')
    assert absorbed(play.take(late)) == "late: the step is DONE"


def test_two_resets_keep_the_keys_of_each_run() -> None:
    play, first = set_back()
    second = play.state.run
    play.do(3, {"number": 4})
    play.reset(4)
    play.undo(4)
    third = play.state.run
    assert [play.state.run_of(play.step(sequence)) for sequence in (1, 2, 3, 4)] == [first, first, second, third]
    play.refuse(4)
    play.undo(3)
    play.undo(2)
    assert [(s.sequence, s.run) for s in play.sent if s.undo] == [(3, first), (4, second), (3, second), (2, first)]
    assert play.status is Status.COMPENSATED


def test_a_completed_saga_is_reset_and_undoes_what_came_after() -> None:
    play = order()
    for sequence, value in enumerate(("9", "r-1", {"number": 4}, None), 1):
        play.do(sequence, value)
    play.reset(4)
    assert last_sent(play)[:3] == ("release", True, 4)
    play.undo(4)
    assert last_sent(play)[:3] == ("note", False, 4)
    assert len(play.answers) == 1, "who was told of the first end is not told again"


def test_a_terminated_saga_is_reset_and_undoes_what_was_left() -> None:
    play = order()
    play.do(1, "9")
    play.do(2, "r-1")
    play.terminate()
    play.redrive()
    assert last_sent(play)[:3] == ("refund", True, 3), "nobody knows whether the third happened"
    play.undo(3)
    assert last_sent(play)[:3] == ("charge", False, 3)
    assert [event.sequence for event in play.of(ev.StepInherited)] == [1, 2]


def test_to_reset_to_what_was_undone_goes_back_to_before_it() -> None:
    play = refused()
    play.reset(3)
    assert [event.sequence for event in play.of(ev.StepInherited)] == [1]
    assert last_sent(play)[:3] == ("reserve", False, 2)


def test_to_reset_to_the_middle_of_a_group_goes_back_to_its_beginning() -> None:
    class Both(Saga[str, None]):
        async def run(self, what: str) -> None:
            await self.step(Shop.note(what="first"))
            await self.gather(self.step(Shop.reserve(), undo=Shop.release), self.step(Shop.ship()))
            await self.step(Shop.note(what="last"))

    play = Play(Both)
    play.start("x")
    play.do(1)
    play.do(3, "s")
    play.do(2, "r")
    play.reset(3)
    play.undo(2)
    assert [event.sequence for event in play.of(ev.StepInherited)] == [1]
    assert {sent.sequence for sent in play.sent if sent.run == play.state.run} == {2, 3}
    play.reset(4)


def test_a_group_that_is_over_is_inherited_in_the_order_of_its_outcomes() -> None:
    class Both(Saga[str, None]):
        async def run(self, what: str) -> None:
            await self.gather(self.step(Shop.reserve(), undo=Shop.release), self.step(Shop.ship()))
            await self.step(Shop.note(what="last"))

    play = Play(Both)
    play.start("x")
    play.do(2, "s")
    play.do(1, "r")
    play.reset(3)
    assert play.state.outcomes == [2, 1]
    play.do(3)
    assert play.status is Status.COMPLETED


def test_signals_taken_after_the_point_come_again_and_later_ones_are_kept() -> None:
    class Listening(Saga[str, str]):
        told = signal(str)

        async def run(self, what: str) -> str:
            await self.step(Shop.note(what=what))
            said = await self.receive(Listening.told)
            await self.step(Shop.reserve(what=said), undo=Shop.release)
            return said + await self.receive(Listening.told)

    play = Play(Listening)
    play.start("x")
    play.do(1)
    play.signal("told", "one")
    play.reset(2)
    play.signal("told", "two")
    play.undo(3)
    play.do(3, "r")
    assert play.state.result == b'"onetwo"'


def test_promises_that_are_settled_stay_so() -> None:
    class Approved(Saga[str, str]):
        approved = promise(str)

        async def run(self, what: str) -> str:
            token = self.promise(Approved.approved).token
            await self.step(Shop.note(what=token))
            await self.step(Shop.note(what=what))
            return await self.receive(self.promise(Approved.approved))

    play = Play(Approved)
    play.start("x")
    first = play.state.run
    play.do(2)
    play.reset(3)
    assert play.state.run != first
    play.keep("approved", "yes", first)
    play.do(3)
    assert play.state.result == b'"yes"', "the token that the first run gave away is as good"


class Pivoting(Saga[str, None]):
    async def run(self, what: str) -> None:
        await self.step(Shop.reserve(), undo=Shop.release)
        await self.step(Shop.charge(), pivot=True)
        await self.step(Shop.ship(), undo=Shop.release)
        await self.step(Shop.note())


def past_its_pivot() -> Play:
    play = Play(Pivoting)
    play.start("x")
    play.do(1, "r")
    play.do(2, {"number": 1})
    play.do(3, "s")
    return play


def test_past_its_pivot_a_saga_is_only_reset_to_later_steps() -> None:
    play = past_its_pivot()
    assert absorbed(play.reset(2)) == "step 2 is its pivot and cannot be undone: reset it to a later step"
    play.reset(3)
    play.undo(3)
    assert play.state.pivot_done
    assert last_sent(play)[:3] == ("ship", False, 3)


def test_what_was_undone_past_its_pivot_is_only_restarted() -> None:
    play = past_its_pivot()
    play.take(msg.Compensate(SAGA_ID, "c-1"))
    for sequence in (4, 3, 1):
        if sequence in play.undone:
            play.undo(sequence)
    assert play.status is Status.COMPENSATED
    for to in range(1, 6):
        assert absorbed(play.reset(to)) == "step 2 is its pivot and cannot be undone: restart it"
    assert absorbed(play.redrive()) == "step 2 is its pivot and cannot be undone: restart it"
    play.restart()
    assert last_sent(play)[:3] == ("reserve", False, 1)


def test_what_was_canceled_past_its_pivot_is_reset_to_a_later_step() -> None:
    play = past_its_pivot()
    play.cancel()
    assert play.status is Status.CANCELED
    stays = "what it did from step 1 on is past its pivot and stays: restart it, or reset it to a later step"
    assert absorbed(play.reset(1)) == stays
    play.reset(4)
    assert last_sent(play)[:3] == ("note", False, 4)


@pytest.mark.parametrize("to", [0, 6, -1])
def test_there_must_be_such_a_step(to: int) -> None:
    play = order()
    assert absorbed(play.reset(to)) == f"it has no step {to}: its steps are 1 to 1"


def test_what_is_being_undone_is_not_reset() -> None:
    play = order()
    play.do(1, "9")
    play.do(2, "r-1")
    play.refuse(3)
    assert absorbed(play.reset(2)) == "it is being undone: wait until it has ended"


def test_a_paused_saga_is_reset_and_runs() -> None:
    play = order()
    play.do(1, "9")
    play.do(2, "r-1")
    play.pause()
    play.reset(2)
    play.undo(3)
    play.undo(2)
    assert play.status is Status.RUNNING
    assert last_sent(play)[:3] == ("reserve", False, 2)


def test_a_reset_without_code_goes_on_when_a_worker_has_it() -> None:
    play = refused()
    play.lose_code()
    play.reset(2)
    assert play.status is Status.WAITING_FOR_CODE
    play.find_code()
    assert last_sent(play)[:3] == ("reserve", False, 2)


def test_too_much_is_not_inherited() -> None:
    class Large(Saga[str, None]):
        async def run(self, what: str) -> None:
            for _ in range(4):
                await self.step(Shop.ship(what="x" * 100_000))

    play = Play(Large)
    play.start("x")
    for sequence in (1, 2, 3, 4):
        play.do(sequence, "s")
    assert "at most 262144 can be inherited" in absorbed(play.reset(4))
    play.reset(2)
    assert last_sent(play)[:3] == ("ship", False, 2)


# -- fork


def test_a_fork_is_another_saga() -> None:
    play = order()
    (refused, _) = play.take(msg.Fork(SAGA_ID, "f-1", 1, SAGA_ID, by="ann", reply_to=INBOX))
    assert isinstance(refused, ev.InputAbsorbed)
    assert refused.reason == "a fork is another saga: give it an id of its own"


def test_a_fork_begins_with_the_results_and_undoes_none_of_them() -> None:
    play = order()
    play.do(1, "9")
    play.do(2, "r-1")
    events = play.take(msg.Fork(SAGA_ID, "f-1", 3, "order-8", reason="to see", by="ann", reply_to=INBOX))
    told, sent, answered = events
    assert told == ev.SagaForked("order-8", 3, "ann", "to see")
    assert isinstance(sent, ev.InputSent)
    assert isinstance(answered, ev.InputAnswered)
    start = sent.input
    assert isinstance(start, msg.Start)
    assert (start.saga_id, [step.sequence for step in start.inherited]) == ("order-8", [1, 2])
    assert play.status is Status.RUNNING
    assert play.undone == []

    forked = Play(Order)
    forked.take(msg.Start(SAGA_ID, "f-1", "Order", start.payload, inherited=start.inherited))
    assert last_sent(forked) == ("charge", False, 3, forked.state.run)
    forked.refuse(3)
    assert forked.status is Status.FAILED, "there is nothing of its own to undo"
    assert forked.undone == []


def test_effects_of_what_was_inherited_are_not_sent_again() -> None:
    play = refused()
    play.redrive()
    (kept,) = play.of(ev.StepInherited)
    assert effects(kept, SAGA_ID, play.state) == ()


class Approval(Saga[str, str]):
    approved = promise(str)

    async def run(self, what: str) -> str:
        approval = self.promise(Approval.approved)
        await self.step(Shop.note(what=approval.token))
        return await approval


def test_a_fork_has_a_token_of_its_own() -> None:
    play = order(Approval)
    play.do(2)
    play.take(msg.Fork(SAGA_ID, "f-1", 2, "order-8"))
    start = play.of(ev.InputSent)[-1].input
    forked = Play(Approval)
    forked.offset = 100
    forked.take(msg.Start(SAGA_ID, "f-1", "Approval", start.payload, inherited=start.inherited))
    assert forked.state.run != play.state.run
    assert forked.sent[-1].payload == b'{"what":"%s/%s/approved"}' % (SAGA_ID.encode(), forked.state.run.encode())
    forked.do(2)
    forked.keep("approved", "ann", run=forked.state.run)
    assert forked.ending.payload == b'"ann"'


def test_a_run_that_was_set_back_keeps_the_token_that_somebody_has() -> None:
    play = order(Approval)
    first = play.state.run
    play.do(2)
    play.reset(3)
    play.keep("approved", "ann", run=first)
    assert play.state.result == b'"ann"'


def test_a_fork_has_the_note_of_the_start() -> None:
    play = Play(Order)
    play.start("book", note=b'{"summary":"for ann"}')
    play.do(1, "9")
    play.reset(1)  # in another run, which is not told it again
    play.do(1, "9")
    play.take(msg.Fork(SAGA_ID, "f-1", 1, "order-8"))
    assert play.of(ev.InputSent)[-1].input.note == b'{"summary":"for ann"}'
