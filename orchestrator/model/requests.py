"""What a saga's code asks for, and lets go of, as events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import BUGS
from orchestrator.model import calls, children, locks
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.definition import ChildRequest, RecordRequest, Request, SignalRequest, StepRequest, WaitRequest
from orchestrator.model.divergence import name_of
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Leaving
from orchestrator.model.state import OPEN, STOPPED, StepStatus

if TYPE_CHECKING:
    from orchestrator.model.driver import Driver
    from orchestrator.model.turn import Turn


def take(turn: Turn, driver: Driver) -> bool:
    """Turns what the code asked for into events. False: something stopped it."""
    asked = driver.requests
    for taken, (sequence, after, request) in enumerate(asked):
        if isinstance(request, StepRequest) and turn.holds_back(request.service, request.command):
            del asked[:taken]
            return False
        try:
            event, size = _event(turn, sequence, after, request)
        except BUGS as bug:
            turn.park_for_bug(bug)
            return False
        if size > MAX_BYTES:
            what = f"{name_of(request)}: {size} bytes, at most {MAX_BYTES}; pass a reference"
            turn.park("a step's payload is too large", what)
            return False
        effects = 1 if isinstance(event, ev.StepScheduled) else 0
        sends = not isinstance(request, RecordRequest) and _sends(request)
        if not turn.fits(effects=effects + sends, size=size):
            del asked[:taken]
            return False
        turn.emit(event, effects=effects)
        if isinstance(request, StepRequest) and request.service in turn.moment.open_circuits:
            turn.emit(ev.StepHeld(sequence))
        if isinstance(request, ChildRequest):
            children.start(turn, sequence, request)
        elif isinstance(request, StepRequest) and request.kind is ev.StepKind.CALL:
            calls.ask(turn, turn.state.steps[sequence])
        elif isinstance(request, WaitRequest) and request.kind is ev.StepKind.LOCK:
            locks.take(turn, turn.state.steps[sequence], at_once=request.at_once)
        elif isinstance(request, SignalRequest):
            tell(turn, sequence, request)
    asked.clear()
    return True


def _sends(request: StepRequest | WaitRequest | SignalRequest | ChildRequest) -> bool:
    """Whether another saga hears of it."""
    if isinstance(request, SignalRequest | ChildRequest):
        return True
    return request.kind in (ev.StepKind.CALL, ev.StepKind.LOCK)


def _event(turn: Turn, sequence: int, after: int, request: Request) -> tuple[ev.Event, int]:
    """What is recorded of a request, and how many bytes that takes. Raises what the saga's own function raises."""
    if isinstance(request, WaitRequest):
        due_ms = turn.moment.due_ms(request.until_ms, request.timeout_ms)
        return ev.WaitScheduled(sequence, after, request.kind, request.name, due_ms), 0
    if isinstance(request, RecordRequest):
        return ev.Recorded(sequence, after, request.kind, request.name, request.payload), len(request.payload)
    if isinstance(request, SignalRequest):
        told = ev.Recorded(sequence, after, ev.StepKind.SENT, request.name, request.hears.encode())
        return told, len(request.payload)
    scheduled = _scheduled(turn, sequence, after, request)
    return scheduled, len(request.payload) + len(scheduled.undo_payload or b"")


def tell(turn: Turn, sequence: int, request: SignalRequest) -> None:
    """Tells another saga something, by a step of this run."""
    turn.send(_told(turn, sequence, request))


def _told(turn: Turn, sequence: int, request: SignalRequest) -> msg.Input:
    """The same as the other saga takes it."""
    state = turn.state
    message_id = f"{state.saga_id}/{state.run}/{sequence}"
    if request.start is None:
        return msg.Signal(request.saga_id, message_id, request.signal, request.payload, by=state.saga_id)
    saga_type, payload = request.start
    if request.update:
        return msg.Update(request.saga_id, message_id, message_id, request.signal, request.payload, saga_type=saga_type)
    return msg.Start(
        request.saga_id,
        message_id,
        saga_type,
        payload,
        signal=request.signal,
        signal_payload=request.payload,
        reuse=msg.Reuse.ALLOW_DUPLICATE,
    )


def let_go(turn: Turn, driver: Driver) -> bool:
    """Ends what the code no longer waits for, gives up what it does not count on. False: the budget is used up."""
    for taken, (sequence, after) in enumerate(driver.released):
        if sequence in turn.state.locks:  # it had the key, and the code has not heard of it
            driver.unlocked.append(sequence)
        if not release(turn, sequence, after):
            del driver.released[:taken]
            return False
    driver.released.clear()
    for taken, (sequence, how) in enumerate(driver.to_stop):
        step = turn.state.steps[sequence]
        at_once = how is Leaving.TERMINATE
        told = step.terminate_sent if at_once else step.cancel_sent
        undecided = step.status is StepStatus.PARKED and how is Leaving.LEFT
        if not undecided and (step.status is not StepStatus.RUNNING or told):
            continue
        if not turn.fits(effects=1):
            del driver.to_stop[:taken]
            return False
        if undecided:  # the child has ended, and no person has said what that means
            turn.emit(ev.StepEndedUnknown(sequence, ev.UnknownCause.EXHAUSTED, "Canceled", ""))
        else:
            turn.emit(ev.ChildCanceled(sequence, at_once))
            children.leave(turn, step, how)
    driver.to_stop.clear()
    for taken, sequence in enumerate(driver.unlocked):
        if sequence in turn.state.locks:
            if not turn.fits(effects=1):
                del driver.unlocked[:taken]
                return False
            locks.give(turn, turn.state.steps[sequence])
            turn.emit(ev.LockReleased(sequence))
    driver.unlocked.clear()
    for taken, sequence in enumerate(driver.abandoned):
        step = turn.state.steps[sequence]
        if step.status is StepStatus.DONE and step.needs_undo:
            if not turn.fits():
                del driver.abandoned[:taken]
                return False
            turn.emit(ev.StepAbandoned(sequence))
    driver.abandoned.clear()
    return True


def hand_out(turn: Turn) -> bool:
    """Gives kept signals and settled promises to the waits for their names. Whether there were any."""
    state, given = turn.state, False
    kept = {name for name, _ in state.signals}
    for sequence in sorted(state.open):
        step = state.steps[sequence]
        if step.kind is ev.StepKind.SIGNAL and step.command in kept:
            event: ev.Event = ev.SignalTaken(sequence)
        elif step.kind is ev.StepKind.PROMISE and step.command in state.promises:
            _, error_type, _ = state.promises[step.command]
            event = ev.PromiseBroken(sequence) if error_type else ev.PromiseKept(sequence)
        else:
            continue
        if not turn.fits():
            return False
        turn.emit(event)
        kept, given = {name for name, _ in state.signals}, True
    return given


def _scheduled(turn: Turn, sequence: int, after: int, request: StepRequest | ChildRequest) -> ev.StepScheduled:
    if isinstance(request, ChildRequest):
        child_id = children.child_id(turn.state, sequence, request.child_id)
        undo_command = "undo" if request.undo else None
        kind = ev.StepKind.CHILD
        return ev.StepScheduled(sequence, after, request.saga_type, child_id, b"", -1, undo_command, kind=kind)
    undo = request.undo_payload
    key = f"{turn.state.saga_id}/{sequence}" if request.spread else turn.state.saga_id
    return ev.StepScheduled(
        sequence,
        after,
        request.service,
        request.command,
        request.payload,
        -1 if request.kind is not ev.StepKind.SERVICE else partition_of(key, turn.moment.partitions),
        request.undo_command,
        undo(None) if callable(undo) else undo,
        request.pivot,
        request.start_to_close_ms,
        request.schedule_to_close_ms,
        request.retry,
        request.undo_retry,
        request.kind,
        request.schedule_to_start_ms,
        request.heartbeat_ms,
    )


def release(turn: Turn, sequence: int, after: int, *, stopped: bool = False) -> bool:
    """Ends one step or wait unless it is over already; `stopped`: not the code did. False: the budget is used up."""
    step = turn.state.steps[sequence]
    if step.status in OPEN:
        if not turn.fits():
            return False
        if step.status is StepStatus.WAITING:
            turn.emit(ev.WaitCanceled(sequence, stopped))
            if step.kind is ev.StepKind.LOCK:
                locks.give(turn, step)
        else:
            if step.kind is ev.StepKind.CHILD and step.undo_command is None:
                children.leave(turn, step, Leaving.LEFT)
            error_type = STOPPED if stopped else "Canceled"
            heard = calls.is_refused_late(turn.state, sequence)
            turn.emit(ev.StepEndedUnknown(sequence, ev.UnknownCause.CANCELED, error_type, "", after))
            if heard:
                turn.emit(ev.CallRefused(sequence))
    return True
