"""Events change a state as the tables say, and in no other way."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.evolve import _APPLY, AFTER_THE_END, BEFORE_THE_START, BrokenHistory, evolve, transition_of
from orchestrator.model.state import FINAL, SAGA_TRANSITIONS, STEP_TRANSITIONS, WAITS, SagaState, StepStatus

ADDRESS = msg.ReplyAddress("saga.answers", 0, "c")

STEP_EVENTS: dict[str, ev.Event] = {
    "StepScheduled": ev.StepScheduled(1, 0, "shop", "reserve", b"{}", 0, "release"),
    "HeartbeatReceived": ev.HeartbeatReceived(1, 1, b"7"),
    "StepHeld": ev.StepHeld(1),
    "UndoHeld": ev.UndoHeld(1),
    "StepBackedOff": ev.StepBackedOff(1, 1, 2_000, "Busy", ""),
    "StepAttempted": ev.StepAttempted(1, 2),
    "ChildCanceled": ev.ChildCanceled(1),
    "StepParked": ev.StepParked(1, "why"),
    "StepSucceeded": ev.StepSucceeded(1, 1, b"1"),
    "StepRefused": ev.StepRefused(1, 1, "No", ""),
    "StepEndedUnknown": ev.StepEndedUnknown(1, ev.UnknownCause.TIMEOUT, "Timeout", ""),
    "StepAbandoned": ev.StepAbandoned(1),
    "UndoScheduled": ev.UndoScheduled(1),
    "UndoBackedOff": ev.UndoBackedOff(1, 1, 2_000, "Busy", ""),
    "UndoAttempted": ev.UndoAttempted(1, 2),
    "UndoParked": ev.UndoParked(1, "why"),
    "UndoSucceeded": ev.UndoSucceeded(1, 1),
    "UndoSkipped": ev.UndoSkipped(1, "", "ann"),
    "WaitScheduled": ev.WaitScheduled(1, 0, ev.StepKind.SIGNAL, "told", 5_000),
    "SignalTaken": ev.SignalTaken(1),
    "PromiseKept": ev.PromiseKept(1),
    "PromiseBroken": ev.PromiseBroken(1),
    "UpdateAccepted": ev.UpdateAccepted(1, "u-1", "add", b"{}", ADDRESS),
    "UpdateEnded": ev.UpdateEnded(1, b"1", waiters=(ADDRESS,)),
    "LockTaken": ev.LockTaken(1),
    "LockRefused": ev.LockRefused(1, "Locked"),
    "LockReleased": ev.LockReleased(1),
    "CallDone": ev.CallDone(1),
    "CallRefused": ev.CallRefused(1),
    "WaitExpired": ev.WaitExpired(1),
    "WaitCanceled": ev.WaitCanceled(1),
    "Recorded": ev.Recorded(1, 0, ev.StepKind.VALUE, "draw", b"1"),
}
SAGA_EVENTS: dict[str, ev.Event] = {
    "SignalBuffered": ev.SignalBuffered("told", b"1", 9_000),
    "SagaStarted": ev.SagaStarted("Order", b"{}", "m-1"),
    "SagaBegun": ev.SagaBegun(),
    "CodeMissing": ev.CodeMissing(),
    "CodeFound": ev.CodeFound(),
    "CompensationStarted": ev.CompensationStarted(ev.Cause.FAILED, "No", ""),
    **{f"SagaEnded.{status}": ev.SagaEnded(status, ev.Undone.NONE) for status in sorted(FINAL)},
}
OTHER_EVENTS: list[ev.Event] = [
    ev.BeginMoved(9_000),
    ev.CircuitOpened("shop", 5),
    ev.CircuitClosed("shop"),
    ev.WaiterAdded(ADDRESS),
    ev.CancelRequested(ev.Cause.CANCELED, "", ""),
    ev.CancelRaised(),
    ev.SagaParked("why", ""),
    ev.SagaUnparked("ann", ""),
    ev.SagaForked("f", 1, "ann", ""),
    ev.InputHeld(msg.Cancel("s", "m")),
    ev.ContinueDue(),
    ev.Continued(),
    ev.InputAbsorbed("Reply", "late"),
    ev.AttachRefused(ADDRESS, ev.Refusal.NOT_FOUND, "why"),
    ev.SignalDropped(0, "told", "why"),
    ev.PromiseSettled("told", b"1"),
]


def paths(table: dict[tuple[Any, str], Any]) -> dict[Any, list[str]]:
    """The shortest way to every status of a table, by its own rows."""
    found: dict[Any, list[str]] = {None: []}
    queue = deque([None])
    while queue:
        status = queue.popleft()
        for (before, name), after in table.items():
            if before == status and after not in found:
                found[after] = [*found[status], name]
                queue.append(after)
    return found


STEP_PATHS = paths(STEP_TRANSITIONS)
SAGA_PATHS = paths(SAGA_TRANSITIONS)


def started() -> SagaState:
    state = SagaState("s", "1-10-0")
    evolve(state, SAGA_EVENTS["SagaStarted"], 1_000)
    return state


def step_in(status: StepStatus | None) -> SagaState:
    state = started()
    evolve(state, ev.SignalReceived("told", b"1"), 1_000)
    evolve(state, ev.PromiseSettled("told", b"1"), 1_000)
    for name in STEP_PATHS[status]:
        evolve(state, STEP_EVENTS[name], 1_000)
    assert status is None or state.steps[1].status is status
    return state


def saga_in(status: ev.Status | None) -> SagaState:
    state = SagaState("s", "1-10-0")
    for name in SAGA_PATHS[status]:
        evolve(state, SAGA_EVENTS[name], 1_000)
    assert state.phase is status
    return state


def test_the_tables_name_events_that_exist_and_all_their_statuses_can_be_reached() -> None:
    assert {name for _, name in STEP_TRANSITIONS} == set(STEP_EVENTS)
    assert {name for _, name in SAGA_TRANSITIONS} == set(SAGA_EVENTS)
    assert set(STEP_PATHS) == {None, *StepStatus}
    assert set(SAGA_PATHS) == {None, *ev.Status} - {ev.Status.PARKED, ev.Status.PAUSED}


def test_every_event_is_applied_by_something() -> None:
    assert set(_APPLY) == set(ev.Event.__args__)


@pytest.mark.parametrize("name", STEP_EVENTS)
@pytest.mark.parametrize("status", STEP_PATHS)
def test_a_step_moves_as_its_table_says_and_in_no_other_way(status: StepStatus | None, name: str) -> None:
    state = step_in(status)
    after = STEP_TRANSITIONS.get((status, name))
    if after is None:
        with pytest.raises(BrokenHistory):
            evolve(state, STEP_EVENTS[name], 1_000)
    else:
        evolve(state, STEP_EVENTS[name], 1_000)
        assert state.steps[1].status is after


@pytest.mark.parametrize("name", SAGA_EVENTS)
@pytest.mark.parametrize("status", SAGA_PATHS)
def test_a_saga_moves_as_its_table_says_and_in_no_other_way(status: ev.Status | None, name: str) -> None:
    state = saga_in(status)
    after = SAGA_TRANSITIONS.get((status, name))
    if after is None:
        with pytest.raises(BrokenHistory):
            evolve(state, SAGA_EVENTS[name], 1_000)
    else:
        evolve(state, SAGA_EVENTS[name], 1_000)
        assert state.phase is after


@pytest.mark.parametrize("event", [*STEP_EVENTS.values(), *OTHER_EVENTS], ids=lambda event: type(event).__name__)
def test_before_its_start_signals_are_kept_for_a_run_and_nothing_else_happens(event: ev.Event) -> None:
    state = SagaState("s", "1-10-0")
    if type(event) not in BEFORE_THE_START:
        with pytest.raises(BrokenHistory):
            evolve(state, event, 1_000)
    evolve(state, SAGA_EVENTS["SignalBuffered"], 1_000)
    if type(event) in BEFORE_THE_START:
        evolve(state, event, 1_000)
    else:
        with pytest.raises(BrokenHistory):
            evolve(state, event, 1_000)
    assert state.phase is ev.Status.NOT_STARTED


def test_only_a_signal_that_is_kept_can_be_dropped() -> None:
    with pytest.raises(BrokenHistory, match="SignalDropped at 0 of 0"):
        evolve(started(), ev.SignalDropped(0, "told", "why"), 1_000)


@pytest.mark.parametrize("event", OTHER_EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("status", sorted(FINAL))
def test_after_the_end_a_run_is_only_asked_about(status: ev.Status, event: ev.Event) -> None:
    state = saga_in(status)
    if type(event) in AFTER_THE_END:
        evolve(state, event, 1_000)
        assert state.waiters == []
    else:
        with pytest.raises(BrokenHistory):
            evolve(state, event, 1_000)


@pytest.mark.parametrize("name", sorted(name for name in STEP_EVENTS if (None, name) not in STEP_TRANSITIONS))
def test_an_event_of_a_step_that_does_not_exist_is_a_broken_history(name: str) -> None:
    with pytest.raises(BrokenHistory, match="does not exist"):
        evolve(started(), STEP_EVENTS[name], 1_000)


def test_steps_are_numbered_without_gaps() -> None:
    with pytest.raises(BrokenHistory, match="step 2 after 0"):
        evolve(started(), ev.WaitScheduled(2, 0, ev.StepKind.SLEEP, "", 5_000), 1_000)


def test_nothing_can_be_taken_from_an_empty_mailbox() -> None:
    with pytest.raises(BrokenHistory, match="mailbox"):
        evolve(started(), ev.HeldInputTaken(), 1_000)


@pytest.mark.parametrize("status", [s for s in StepStatus if s not in {*WAITS, "RECORDED", "UPDATING", "UPDATED"}])
def test_what_is_kept_beside_the_steps_follows_their_status(status: StepStatus) -> None:
    state = step_in(status)
    assert state.open == ({1} if status in ("RUNNING", "BACKING_OFF", "PARKED") else set())
    assert state.undo_open == ({1} if status in ("UNDOING", "UNDO_BACKING_OFF", "UNDO_PARKED") else set())
    assert state.undo_now == ([1] if status in ("UNKNOWN", "ABANDONED") else [])
    assert state.to_undo() == ([1] if status in ("DONE", "UNKNOWN", "ABANDONED") else [])
    assert set(state.parked) == ({1} if status in ("PARKED", "UNDO_PARKED") else set())
    assert state.undos_done == (status == "UNDONE")
    assert state.undos_skipped == (status == "UNDO_SKIPPED")


@pytest.mark.parametrize("status", [*StepStatus])
def test_a_status_that_waits_for_nothing_has_no_timer(status: StepStatus) -> None:
    timed = ("BACKING_OFF", "UNDO_BACKING_OFF", "WAITING")
    assert (step_in(status).due_of(1) is not None) == (status in timed)


def test_the_end_has_a_name_of_its_own_in_the_table_for_each_status() -> None:
    assert transition_of(ev.SagaEnded(ev.Status.FAILED, ev.Undone.NONE)) == "SagaEnded.FAILED"
    assert transition_of(ev.CodeFound()) == "CodeFound"


def test_a_waiter_is_remembered_once_and_not_after_the_end() -> None:
    state = started()
    evolve(state, ev.WaiterAdded(ADDRESS), 1_000)
    evolve(state, ev.WaiterAdded(ADDRESS), 1_000)
    assert state.waiters == [ADDRESS]


def test_any_cancellation_stops_the_sagas_own_clock() -> None:
    state = SagaState("s", "1-10-0")
    evolve(state, ev.SagaStarted("Order", b"{}", "m-1", timeout_ms=60_000), 1_000)
    assert state.due_of(0) == 61_000
    evolve(state, ev.CancelRequested(ev.Cause.CANCELED, "", "ann"), 2_000)
    assert state.due_of(0) is None


def test_the_end_clears_every_timer_and_what_was_parked() -> None:
    state = SagaState("s", "1-10-0")
    evolve(state, ev.SagaStarted("Order", b"{}", "m-1", timeout_ms=60_000), 1_000)
    evolve(state, ev.WaitScheduled(1, 0, ev.StepKind.SLEEP, "", 5_000), 1_000)
    evolve(state, ev.SagaParked("why", "detail"), 1_000)
    evolve(state, ev.ContinueDue(), 1_000)
    assert state.status is ev.Status.PARKED
    assert state.due_of(0) == 0, "what is due at once comes before the saga's own timer"
    evolve(state, ev.SagaEnded(ev.Status.TERMINATED, ev.Undone.NONE), 2_000)
    assert state.status is ev.Status.TERMINATED
    assert (state.due_of(0), state.due_of(1), state.parked, state.ended_at_ms) == (None, None, {}, 2_000)
