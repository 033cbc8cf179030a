"""Whatever a saga does and whatever happens to it: the journal holds everything, and a replay decides the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from model.play import PLAYS, Play
from model.programs import PROGRAMS, definition_of
from orchestrator.model import events as ev
from orchestrator.model import turn
from orchestrator.model.events import Status, StepKind
from orchestrator.model.messages import Outcome, Override
from orchestrator.model.state import FINAL, StepStatus

MANY = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TIMEOUTS = st.sampled_from((None, None, 20_000))
ERRORS = ("Busy", "Fatal")


def actions(play: Play) -> list[tuple[Any, ...]]:
    """What may happen next."""
    state = play.state
    found: list[tuple[Any, ...]] = []
    for sequence in sorted(state.open):
        step = state.steps[sequence]
        if step.kind is StepKind.SIGNAL:
            found.append(("signal", step.command))
        elif step.is_command:
            for outcome in Outcome:
                found.append(("reply", sequence, outcome, False))
    for sequence in sorted(state.undo_open):
        for outcome in Outcome:
            found.append(("reply", sequence, outcome, True))
    for sequence in (0, *state.steps):
        if state.due_of(sequence) is not None:
            found.append(("fire", sequence))
    if state.status is Status.PARKED:
        found += [("unpark", action) for action in Override]
    return found


def act(play: Play, action: tuple[Any, ...], data: st.DataObject) -> None:
    kind = action[0]
    if kind == "reply":
        _, sequence, outcome, undo = action
        step = play.step(sequence)
        issued = step.undo_attempt if undo else step.attempt
        attempt = data.draw(st.integers(1, issued))
        error = "" if outcome is Outcome.SUCCESS else data.draw(st.sampled_from(ERRORS))
        payload = b'"r%d"' % play.offset if outcome is Outcome.SUCCESS else b""
        play.reply(sequence, outcome, error, payload=payload, undo=undo, attempt=attempt)
    elif kind == "fire":
        play.fire(action[1])
    elif kind == "signal":
        play.signal(action[1], play.offset)
    elif kind == "unpark":
        play.unpark(action[1], payload=b'"set"')


def disturb(play: Play, data: st.DataObject) -> None:
    """Something out of order."""
    steps = [s for s, step in play.state.steps.items() if step.is_command]
    kind = data.draw(
        st.sampled_from(("crash", "cancel", "late", "unsent", "lose", "find", "wait", "signal", "terminate"))
    )
    if kind == "crash":
        play.crash()
    elif kind == "cancel":
        play.cancel()
    elif kind in ("late", "unsent") and steps:
        sequence = data.draw(st.sampled_from(steps))
        undo = play.step(sequence).undo_attempt > 0 and data.draw(st.booleans())
        if kind == "late":
            play.reply(sequence, data.draw(st.sampled_from(Outcome)), "Late", undo=undo)
        elif not play.state.ended:
            play.send_failed(sequence, undo=undo)
    elif kind == "lose":
        play.lose_code()
    elif kind == "find":
        play.find_code()
    elif kind == "signal":
        play.signal(data.draw(st.sampled_from("stu")), play.offset)
    elif kind == "wait":
        play.now_ms += 3_000
    elif kind == "terminate" and data.draw(st.integers(0, 9)) == 0:
        play.terminate()


def finish(play: Play) -> None:
    """Lets everything go well from here on."""
    for _ in range(300):
        state = play.state
        if state.ended:
            return
        if not play.known:
            play.find_code()
        elif 0 in state.parked:
            play.cancel()
            if not state.ended and 0 in state.parked:
                open_steps = [s for s in sorted(state.open) if state.steps[s].is_command]
                assert open_steps, "nothing can free the saga"
                play.do(open_steps[0], "r")
        elif state.parked:
            play.unpark(Override.SET_RESULT, min(state.parked), b'"set"')
        elif todo := [a for a in actions(play) if a[0] != "reply" or a[2] is Outcome.SUCCESS]:
            action = todo[0]
            if action[0] == "fire":
                play.fire(action[1])
            elif action[0] == "signal":
                play.signal(action[1], "in time")
            else:
                play.reply(action[1], Outcome.SUCCESS, payload=b'"r"', undo=action[3])
        else:
            raise AssertionError(f"the saga waits for nothing: {play.names}")
    raise AssertionError("the saga does not end")


def check_end(play: Play) -> None:
    state = play.state
    assert state.phase in FINAL
    assert play.names.count("SagaEnded") == 1
    if state.phase is Status.TERMINATED:
        return
    assert not state.open
    assert not state.undo_open
    for step in state.steps.values():
        assert not (step.status is StepStatus.UNKNOWN and step.undo_command), "an unknown step was left"
        if state.phase in (Status.COMPENSATED, Status.FAILED):
            assert not step.needs_undo, "a step was left that could be undone"
    check_undo_order(play)


def check_undo_order(play: Play) -> None:
    """While the saga compensates: no undo before those of all that was scheduled after the step's end are over."""
    state = play.state
    over: set[int] = set()
    compensating = False
    for event in play.journal:
        if isinstance(event, ev.CompensationStarted):
            compensating = True
        elif isinstance(event, ev.UndoSucceeded | ev.UndoSkipped):
            over.add(event.sequence)
        elif isinstance(event, ev.UndoScheduled) and compensating:
            step = state.steps[event.sequence]
            for later in state.steps.values():
                if later.sequence > step.sequence and later.undo_attempt and later.after >= step.ended:
                    assert later.sequence in over, f"undo of {step.sequence} before that of {later.sequence}"


def play_out(program: Any, timeout_ms: int | None, data: st.DataObject) -> None:
    play = Play(definition_of(program, timeout_ms), known=data.draw(st.integers(0, 9)) > 0)
    try:
        play.start()
        for _ in range(data.draw(st.integers(0, 25))):
            if play.state.forgotten:
                break
            if data.draw(st.integers(0, 4)) == 0:
                disturb(play, data)
            elif choices := actions(play):
                act(play, data.draw(st.sampled_from(choices)), data)
        finish(play)
        check_end(play)
    finally:
        play.crash()
        PLAYS.clear()


@MANY
@given(PROGRAMS, TIMEOUTS, st.data())
def test_every_saga_is_the_same_from_its_events_from_the_store_and_replayed(
    program: Any, timeout_ms: int | None, data: st.DataObject
) -> None:
    play_out(program, timeout_ms, data)


@MANY
@given(PROGRAMS, TIMEOUTS, st.data())
def test_it_is_so_too_where_decisions_are_cut_into_many_parts(
    program: Any, timeout_ms: int | None, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn, "MAX_EFFECTS", 1)
        patch.setattr(turn, "MAX_EVENTS", 4)
        play_out(program, timeout_ms, data)
