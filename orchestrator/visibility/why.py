"""What a run waits for, since when, and what would free it: made of its history alone, no worker is asked."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.model import events as ev
from orchestrator.model import locks
from orchestrator.model.calls import awaits_answer
from orchestrator.model.effects import ANSWERED
from orchestrator.model.events import Status, StepKind
from orchestrator.model.messages import Query, ReplyAddress
from orchestrator.model.pauses import over_command, over_saga
from orchestrator.model.queries import answer
from orchestrator.model.state import SagaState, Step, StepStatus
from orchestrator.wire.notes import note_in, read_note, take_tasks

_NOBODY: Mapping[str, str] = {}
_NAMED = 10
"""Sagas that one line names."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that a run waits for. `step` is its number, 0 for the saga itself. Times in milliseconds since 1970.

    `frees`: what would let it go on; a command to type begins with `saga `.
    """

    what: str
    step: int
    since_ms: int
    due_ms: int | None = None
    attempt: int | None = None
    error: str = ""
    frees: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Why:
    """A run's status and everything it waits for; nothing where it has ended."""

    saga_id: str
    run: str
    saga_type: str
    status: str
    waits: tuple[Wait, ...]
    notes: tuple[str, ...] = ()


class Trace:
    """What a state does not keep: since when each step is as it is, and the last error of its undo."""

    def __init__(self) -> None:
        self.since: dict[int, int] = {}
        self.undo_error: dict[int, str] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        """What people are to do, as the saga's notes tell it."""
        self.last_ms = 0

    def note(self, event: ev.Event, at_ms: int) -> None:
        """Takes the next event of the run."""
        self.last_ms = at_ms
        if isinstance(event, ev.InputAbsorbed):
            return
        sequence = getattr(event, "sequence", None)
        if sequence is not None:
            self.since[sequence] = at_ms
        elif isinstance(event, ev.SagaParked | ev.CodeMissing):
            self.since[0] = at_ms
        if note := note_in(event):
            take_tasks(self.tasks, read_note(note))
        if isinstance(event, ev.UndoBackedOff):
            self.undo_error[event.sequence] = _error(event.error_type, event.error_message)


def awaited_keys(state: SagaState) -> list[str]:
    """The keys that a run waits for."""
    steps = (state.steps[sequence] for sequence in sorted(state.open))
    return [step.command for step in steps if step.kind is StepKind.LOCK]


def holder_of(lock: SagaState) -> str:
    """The saga that holds a key, empty if none does."""
    told = answer(locks.DEFINITION, lock, Query(lock.saga_id, "why", ReplyAddress("", 0, ""), locks.HELD))
    return str(json.loads(told.payload)["holder"]) if told.status == ANSWERED else ""


def why(state: SagaState, trace: Trace, rules: Collection[str] = (), holders: Mapping[str, str] = _NOBODY) -> Why:
    """Explains a run as it stands; `rules` are those of its partition that stand, `holders` has who holds a key."""
    waits = () if state.ended else tuple(_waits(state, trace, holders))
    return Why(state.saga_id, state.run, state.saga_type, str(state.status), waits, tuple(_notes(state, rules)))


def _waits(state: SagaState, trace: Trace, holders: Mapping[str, str]) -> Iterator[Wait]:
    saga = f"saga {{}} {state.saga_id}"
    if state.paused is not None:
        yield _pause(state)
    if 0 in state.parked:
        frees = (f"{saga.format('park retry')} once the code is mended", saga.format("cancel"))
        yield Wait(f"a person: {state.parked[0].splitlines()[0]}", 0, trace.since.get(0, 0), frees=frees)
    if state.phase is Status.WAITING_FOR_CODE:
        kept = f"; {len(state.mailbox)} inputs are kept until then" if state.mailbox else ""
        frees = (f"a worker with the code of {state.saga_type}", saga.format("terminate"))
        yield Wait(f"the code of {state.saga_type}{kept}", 0, trace.since.get(0, 0), frees=frees)
    if state.phase is Status.RUNNING:
        yield from (_task(state.saga_id, key, said) for key, said in trace.tasks.items())
    for sequence in sorted(state.open | state.undo_open):
        step = state.steps[sequence]
        yield _step(state, step, trace) if step.is_command else _wait(state, step, trace, holders)
    for step in state.steps.values():
        if awaits_answer(step) and step.needs_undo:
            what = f"{step.service} to answer {step.command}, which is undone if it was carried out"
            yield Wait(what, step.sequence, trace.since.get(step.sequence, 0), frees=(f"saga why {step.service}",))
    if state.continue_due:
        yield Wait("its next decision: the last one was too large for one", 0, trace.last_ms, frees=("a worker",))
    elif not (
        trace.tasks
        or state.open
        or state.undo_open
        or state.parked
        or state.paused
        or state.phase is not Status.RUNNING
    ):
        frees = ("a signal that makes it true", saga.format("cancel"))
        yield Wait("a condition in its code to hold", 0, trace.last_ms, frees=frees)


def _task(saga_id: str, key: str, said: dict[str, Any]) -> Wait:
    whose = said.get("assignee") or (f"one of {said['group']}" if said.get("group") else "somebody")
    frees = (f"saga tasks complete {saga_id} {key} --form JSON", f"saga tasks reassign {saga_id} {key}")
    what = f"the task {key} of {whose}: {said.get('title', '')}"
    return Wait(what, 0, said.get("opened_ms", 0), said.get("due_ms"), frees=frees)


def _pause(state: SagaState) -> Wait:
    paused = state.paused
    assert paused is not None
    reason = f": {paused.reason}" if paused.reason else ""
    if not paused.rule:
        frees = f"saga resume {state.saga_id}", *(() if state.stopping else (f"saga cancel {state.saga_id}",))
        return Wait(f"the end of its pause by {paused.by or 'a person'}{reason}", 0, paused.at_ms, frees=frees)
    return Wait(f"the end of the pause of {paused.rule}", 0, paused.at_ms, frees=(_resume(paused.rule),))


def _resume(rule: str) -> str:
    kind, *names = rule.split(":")
    if kind == "partition":
        return "saga resume --partition with the partition's number"
    if kind == "step":
        return f"saga resume --step {names[-1]}" + (f" --type {names[0]}" if len(names) == 2 else "")
    return f"saga resume --{kind} {names[0]}"


def _step(state: SagaState, step: Step, trace: Trace) -> Wait:
    """A command's step whose do or undo has no outcome."""
    sequence = step.sequence
    undo = sequence in state.undo_open
    command = step.undo_command if undo else step.command
    name = f"{step.service}.{command}" if step.service else f"the function {command}"
    attempt = step.undo_attempt if undo else step.attempt
    error = trace.undo_error.get(sequence, "") if undo else _error(step.error_type, step.error_message)
    frees: tuple[str, ...]
    park = f"saga park {{}} {state.saga_id} --step {sequence}"
    if sequence in state.parked:
        frees = (park.format("retry"), park.format("skip"), park.format("set-result") + " --result JSON")
        what, error = f"a person: {name} is parked", state.parked[sequence]
    elif step.held:
        frees = (f"an answer of the service {step.service} to a probe", park.format("retry") + " (at once)")
        what = f"the circuit of {step.service} to close: {name} is held"
    elif step.status in (StepStatus.BACKING_OFF, StepStatus.UNDO_BACKING_OFF):
        frees = ("its time", park.format("retry") + " (at once)")
        what = f"attempt {attempt + 1} of {name}"
    else:
        frees = (f"a reply of the service {step.service}" if step.service else "its end, in a worker",)
        what = f"the reply to {name}" if step.service else name
    return Wait(what, sequence, trace.since.get(sequence, 0), step.due_ms, attempt, error, frees)


def _wait(state: SagaState, step: Step, trace: Trace, holders: Mapping[str, str]) -> Wait:
    """What is no command: a signal, a time, and whatever else the code waits for by name."""
    frees: tuple[str, ...] = () if step.due_ms is None else ("its time",)
    what = f"the {step.kind} {step.command}".rstrip()
    if step.kind is StepKind.SLEEP and step.command:
        what, frees = "a condition in its code to hold", ("a signal that makes it true", *frees)
    elif step.kind is StepKind.SLEEP:
        what = "its time"
    elif step.kind is StepKind.PROMISE:
        promise = f"saga promise {{}} {state.saga_id} {step.command}"
        frees = (promise.format("complete") + " RESULT", promise.format("fail") + " ERROR_TYPE", *frees)
    elif step.kind is StepKind.CHILD:
        frees = (f"what holds that saga up: saga why {step.command}", *frees)
    elif step.kind is StepKind.LOCK:
        what, freed = _lock(state, step, holders.get(step.command, ""))
        frees = (*freed, *frees)
    elif step.kind is StepKind.CALL:
        what = f"{step.service} to answer {step.undo_command if step.sequence in state.undo_open else step.command}"
        frees = (f"what holds that saga up: saga why {step.service}", *frees)
    elif step.kind is StepKind.SIGNAL:
        name, _, key = step.command.partition("/")
        keyed = f"saga signal {state.saga_type}.{name} VALUE --key {key}"
        frees = (keyed if key else f"saga signal {state.saga_id} {name} VALUE", *frees)
    return Wait(what, step.sequence, trace.since.get(step.sequence, 0), step.due_ms, frees=frees)


def _lock(state: SagaState, step: Step, holder: str) -> tuple[str, tuple[str, ...]]:
    key = step.command
    if not holder:
        return f"the lock {key}", (f"whoever holds it: saga locks show {key}",)
    if state.parent is not None and holder == state.parent.saga_id:
        what = f"the lock {key}, which its parent {holder} holds: where that waits for its child neither goes on"
        return what, (f"saga cancel {holder}", f"saga locks release {key}")
    return f"the lock {key}, which {holder} holds", (f"what holds that saga up: saga why {holder}",)


def _notes(state: SagaState, rules: Collection[str]) -> Iterator[str]:
    """What will hold it later, or is kept for it."""
    if state.ended:
        return
    if state.cancel is not None and not state.cancel_resolved and state.phase is not Status.COMPENSATING:
        pivot = any(state.steps[sequence].pivot for sequence in state.open)
        yield f"it is to stop, once {'the outcome of its pivot is known' if pivot else 'it goes on'}"
    if waiting := sorted({caller.saga_id for caller in state.callers.values()}):
        more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
        yield f"it is waited for by {', '.join(waiting[:_NAMED])}{more}"
    if state.signals:
        names = ", ".join(sorted({name for name, _ in state.signals}))
        yield f"{len(state.signals)} signals are kept that its code has not asked for: {names}"
    if state.paused is None and (rule := over_saga(rules, state.saga_type)):
        yield f"{rule} is paused: it waits when it would go on"
    for sequence in sorted(state.open | state.undo_open):
        step = state.steps[sequence]
        if step.is_command and state.paused is None:
            command = step.undo_command if sequence in state.undo_open else step.command
            if rule := over_command(rules, state.saga_type, step.service, command or ""):
                yield f"{rule} is paused: step {sequence} is not attempted again until then"


def _error(error_type: str, message: str) -> str:
    return f"{error_type}: {message}" if message else error_type
