"""What goes outside follows from accepted events and from the state as it stands, and from nothing else."""

from __future__ import annotations

import pytest

from orchestrator.model import events as ev
from orchestrator.model.effects import Answer, Command, Forward, effects
from orchestrator.model.evolve import evolve
from orchestrator.model.messages import ReplyAddress
from orchestrator.model.state import SagaState

ADDRESS = ReplyAddress("saga.answers", 3, "c-9")
SCHEDULED = ev.StepScheduled(1, 0, "shop", "reserve", b"do", 2, "release", b"undo", start_to_close_ms=5_000)


def after(*events: ev.Event) -> SagaState:
    state = SagaState("s", "1-10-0")
    for event in (ev.SagaStarted("Order", b"{}", "m", ADDRESS, "00-trace"), *events):
        evolve(state, event, 1_000)
    return state


def test_a_scheduled_step_is_a_command_to_its_service() -> None:
    (command,) = effects(SCHEDULED, "s", after(SCHEDULED))
    assert command == Command("s", "1-10-0", "Order", 1, "do", 1, "shop", "reserve", 2, b"do", 6_000, "00-trace")


def test_an_undo_is_a_command_with_the_recorded_name_and_payload() -> None:
    undo = ev.UndoScheduled(1)
    (command,) = effects(undo, "s", after(SCHEDULED, ev.StepSucceeded(1, 1, b"r"), undo))
    assert isinstance(command, Command)
    assert (command.direction, command.command, command.payload, command.partition) == ("undo", "release", b"undo", 2)


def test_an_undo_without_a_payload_of_its_own_sends_the_steps() -> None:
    scheduled = ev.StepScheduled(1, 0, "shop", "reserve", b"do", 2, "release")
    undo = ev.UndoScheduled(1)
    (command,) = effects(undo, "s", after(scheduled, ev.StepSucceeded(1, 1, b"r"), undo))
    assert isinstance(command, Command)
    assert command.payload == b"do"


@pytest.mark.parametrize(
    "later",
    [
        (ev.StepSucceeded(1, 1, b"r"),),
        (ev.StepBackedOff(1, 1, 2_000, "Busy", ""),),
        (ev.StepBackedOff(1, 1, 2_000, "Busy", ""), ev.StepAttempted(1, 2)),
        (ev.StepEndedUnknown(1, ev.UnknownCause.TIMEOUT, "", ""),),
        (ev.StepParked(1, "why"),),
        (ev.SagaEnded(ev.Status.TERMINATED, ev.Undone.NONE),),
    ],
)
def test_an_attempt_that_is_over_is_not_sent_again(later: tuple[ev.Event, ...]) -> None:
    assert effects(SCHEDULED, "s", after(SCHEDULED, *later)) == ()


@pytest.mark.parametrize(
    "later",
    [
        (ev.UndoSucceeded(1, 1),),
        (ev.UndoBackedOff(1, 1, 2_000, "Busy", ""),),
        (ev.UndoBackedOff(1, 1, 2_000, "Busy", ""), ev.UndoAttempted(1, 2)),
        (ev.UndoParked(1, "why"),),
        (ev.SagaEnded(ev.Status.TERMINATED, ev.Undone.NONE),),
    ],
)
def test_an_undo_that_is_over_is_not_sent_again(later: tuple[ev.Event, ...]) -> None:
    undo = ev.UndoScheduled(1)
    assert effects(undo, "s", after(SCHEDULED, ev.StepSucceeded(1, 1, b"r"), undo, *later)) == ()


@pytest.mark.parametrize(("attempt", "sent"), [(1, 0), (2, 0), (3, 1)])
def test_only_the_latest_attempt_is_sent_again(attempt: int, sent: int) -> None:
    history: list[ev.Event] = [SCHEDULED]
    for n in (1, 2):
        history += [ev.StepBackedOff(1, n, 2_000, "Busy", ""), ev.StepAttempted(1, n + 1)]
    event = SCHEDULED if attempt == 1 else ev.StepAttempted(1, attempt)
    assert len(effects(event, "s", after(*history))) == sent


def test_the_end_answers_everyone_who_waits() -> None:
    other = ReplyAddress("saga.answers", 4, "c-10")
    end = ev.SagaEnded(ev.Status.COMPLETED, ev.Undone.NONE, b"7")
    state = after(ev.WaiterAdded(other), end)
    assert effects(end, "s", state) == tuple(
        Answer("s", "1-10-0", address, "COMPLETED", b"7", undone="none") for address in (ADDRESS, other)
    )


def test_who_asks_is_answered_after_the_end_only() -> None:
    asked = ev.WaiterAdded(ADDRESS)
    assert effects(asked, "s", after(asked)) == ()
    (answer,) = effects(asked, "s", after(ev.SagaEnded(ev.Status.TERMINATED, ev.Undone.NONE, b"", "X", "why")))
    assert answer == Answer("s", "1-10-0", ADDRESS, "TERMINATED", b"", "X", "why", "none")


def test_who_asks_for_a_saga_that_is_not_there_is_told_so() -> None:
    refused = ev.AttachRefused(ADDRESS, ev.Refusal.NOT_FOUND, "there is no such saga")
    (answer,) = effects(refused, "s", None)
    assert answer == Answer("s", "", ADDRESS, "REFUSED", b"", "NotFound", "there is no such saga")


def test_a_forwarded_input_goes_on_as_it_came() -> None:
    event = ev.InputForwarded(3, 12, "inbox", b"value", (("saga-type", b"Order"),))
    assert effects(event, "s", None) == (Forward(3, 12, "inbox", "s", b"value", (("saga-type", b"Order"),)),)


@pytest.mark.parametrize(
    "event",
    [ev.CompensationStarted(ev.Cause.FAILED, "", ""), ev.InputAbsorbed("Reply", ""), ev.SagaParked("", "")],
    ids=lambda event: type(event).__name__,
)
def test_most_events_have_no_effect(event: ev.Event) -> None:
    assert effects(event, "s", after()) == ()
    assert effects(event, "s", None) == ()
