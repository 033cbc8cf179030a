"""What a saga under test waits for, and what a test can do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.model.divergence import name_in_history
from orchestrator.model.events import Decision, StepKind
from orchestrator.model.state import SagaState
from orchestrator.questions import Update
from orchestrator.saga import Saga
from orchestrator.signals import declared_by
from orchestrator.wire.notes import note_in, read_note, take_tasks

if TYPE_CHECKING:
    from orchestrator.testing.world import World


def waits_of(state: SagaState) -> list[str]:
    """Steps by their command's name, sleeps, and what is parked."""
    open_ = [name_in_history(state.steps[sequence]) for sequence in sorted(state.open)]
    undos = [f"the undo of {name_in_history(state.steps[sequence])}" for sequence in sorted(state.undo_open)]
    return [*open_, *undos, *(["a person"] if state.parked else [])]


def tasks_of(decisions: Sequence[Decision]) -> dict[str, dict[str, Any]]:
    """The open human tasks by their keys."""
    tasks: dict[str, dict[str, Any]] = {}
    for event in (event for decision in decisions for event in decision.events):
        if note := note_in(event):
            take_tasks(tasks, read_note(note))
    return tasks


def reason_of(state: SagaState) -> str:
    """Why it is parked, or failed."""
    return "; ".join(state.parked.values()) or ": ".join(filter(None, (state.error_type, state.error_message)))


def why_stuck(world: World, saga: type[Saga[Any, Any]]) -> str:
    """What a saga that nothing will happen to waits for, and what to do about it."""
    names = sorted({repr(sent) for sent in world.waiting()})
    if names:
        return (
            f"the saga waits for ever: {', '.join(names)} is never answered, and its step has no timeout. Give the "
            "step start_to_close or schedule_to_close, or use .start(...) and .answer(...) on what it gives"
        )
    if world.state.paused is not None:
        return "the saga is paused: .resume() it"
    tasks = tasks_of(world.decisions)
    waits = [*waits_of(world.state), *(f"task {key}" for key in tasks)]
    advice = dict.fromkeys([*_for_waits(world.state), *_for_tasks(tasks)])  # each once, in order
    if not advice and declared_by(saga, Update):
        advice = {"ask for it by .update(...)": None}
    said = f": {' or '.join(advice)}" if advice else ""
    return f"the saga waits for ever, for {', '.join(waits) or 'a condition'}{said}"


def in_circles(state: SagaState, inputs: int) -> str:
    """What a saga that never ends did last, and what to do about it."""
    last = [name_in_history(state.steps[sequence]) for sequence in range(1, state.sequence + 1)[-3:]]
    return (
        f"the saga is not at its end after {inputs:,} outcomes, timers and signals, so it goes round in circles; "
        f"what it asked for last: {', '.join(last) or 'nothing'}. "
        f"If it is meant to go on for so long, give its SagaTest .limit({10 * inputs:_})"
    )


def _for_waits(state: SagaState) -> Iterator[str]:
    for sequence in sorted(state.open):
        step = state.steps[sequence]
        _, _, key = step.command.partition("/")
        by_key = f", key={key!r}" if key else ""
        if step.kind is StepKind.LOCK:
            yield ".locked(..., for_=...) says when somebody else gives it back"
        elif step.kind is StepKind.SIGNAL:
            yield f"tell it by .signal(...{by_key})"
        elif step.kind is StepKind.PROMISE:
            yield f"keep it by .complete_promise(...{by_key})"


def _for_tasks(tasks: dict[str, dict[str, Any]]) -> Iterator[str]:
    for key, task in tasks.items():
        form = task["form"].get("title", "")
        yield f"fill it in by .complete_task({form}(...){'' if key == form else f', key={key!r}'})"
