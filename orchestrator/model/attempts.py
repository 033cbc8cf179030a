"""The attempts of a step's `do` and `undo`: what a reply, a time that is up or a command that cannot be sent means."""

from __future__ import annotations

from orchestrator.errors import BUGS
from orchestrator.model import events as ev
from orchestrator.model import locks
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.events import StepKind, UnknownCause
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Outcome
from orchestrator.model.retries import DO_POLICY, UNDO_POLICY, FailedAttempt, RetryPolicy
from orchestrator.model.state import SagaState, Step, StepStatus
from orchestrator.model.turn import Turn


def reply(turn: Turn, input: msg.Reply) -> None:
    step = turn.state.steps[input.sequence]
    if input.outcome is Outcome.HEARTBEAT:
        _heartbeat(turn, step, input)
        return
    if input.undo:
        _undo_reply(turn, step, input)
    else:
        _do_reply(turn, step, input)
    turn.advance()


def _heartbeat(turn: Turn, step: Step, input: msg.Reply) -> None:
    """One that comes too late is not worth a record."""
    if not input.undo and step.status is StepStatus.RUNNING and input.attempt == step.attempt:
        turn.emit(ev.HeartbeatReceived(step.sequence, step.attempt, input.payload))


_DO_OPEN = (StepStatus.RUNNING, StepStatus.BACKING_OFF, StepStatus.PARKED)


def _do_reply(turn: Turn, step: Step, input: msg.Reply) -> None:
    if step.status not in _DO_OPEN:
        turn.absorb(input, f"late: the step is {step.status}", step.sequence, input.attempt)
    elif input.outcome is Outcome.SUCCESS:
        succeed(turn, step, input.attempt, input.payload)
    elif input.attempt < step.attempt:
        # A lower attempt says nothing about a higher one that may be running now.
        turn.absorb(input, "a later attempt was issued", step.sequence, input.attempt)
    elif input.outcome is Outcome.FAILURE and step.status is not StepStatus.PARKED:
        if not turn.state.pivot_done:
            turn.emit(ev.StepRefused(step.sequence, step.attempt, input.error_type, input.error_message))
        else:
            turn.emit(ev.StepParked(step.sequence, f"refused after the pivot: {_words(input)}"))
    elif input.outcome is Outcome.RETRY and step.status is StepStatus.RUNNING:
        _attempt_failed(turn, step, input.error_type, input.error_message, input.retry_after_ms)
    else:
        turn.absorb(input, f"the step is {step.status}", step.sequence, input.attempt)


def succeed(turn: Turn, step: Step, attempt: int, payload: bytes, by: str = "", reason: str = "") -> None:
    if step.undo_command is not None:
        turn.warm()
    try:
        undo_payload = turn.undo_payload(step, payload)
    except BUGS as bug:
        turn.emit(ev.StepSucceeded(step.sequence, attempt, payload, None, by, reason))
        turn.park_for_bug(bug, f"the undo of step {step.sequence}")
        return
    size = len(undo_payload or b"")
    kept = undo_payload if size <= MAX_BYTES else None
    turn.emit(ev.StepSucceeded(step.sequence, attempt, payload, kept, by, reason))
    if size > MAX_BYTES:
        turn.park("an undo's payload is too large", f"step {step.sequence}: {size} bytes, at most {MAX_BYTES}")


def _words(input: msg.Reply) -> str:
    return f"{input.error_type}: {input.error_message}" if input.error_message else input.error_type


def _attempt_failed(
    turn: Turn,
    step: Step,
    error_type: str,
    message: str,
    retry_after_ms: int | None = None,
    *,
    timeout: bool = False,
    last: bool = False,
) -> None:
    """An attempt ended without an outcome: back off, or end the step unknown, or park it where unknown cannot stand."""
    now_ms, policy = turn.moment.now_ms, step.retry or DO_POLICY
    out_of_time = step.deadline_ms is not None and now_ms >= step.deadline_ms
    due_ms = None
    if not out_of_time and not last:
        due_ms = _next_due(turn, step, policy, "do", step.attempt, error_type, retry_after_ms)
    if due_ms is not None and policy.asks:
        try:
            wanted = _is_wanted(turn, step, error_type, message)
        except BUGS as bug:
            turn.emit(ev.StepParked(step.sequence, f"the retry's predicate raised {type(bug).__name__}: {bug}"))
            return
        due_ms = due_ms if wanted else None
    if due_ms is not None:
        turn.emit(ev.StepBackedOff(step.sequence, step.attempt, due_ms, error_type, message))
    elif policy.park or step.pivot or turn.state.pivot_done:
        words = "its time is up" if out_of_time else f"attempt {step.attempt} was the last"
        turn.emit(ev.StepParked(step.sequence, f"{words}: {error_type} {message}".rstrip()))
    else:
        cause = UnknownCause.TIMEOUT if timeout or out_of_time else UnknownCause.EXHAUSTED
        turn.emit(ev.StepEndedUnknown(step.sequence, cause, error_type, message))


def _next_due(
    turn: Turn,
    step: Step,
    policy: RetryPolicy,
    direction: Direction,
    attempt: int,
    error_type: str,
    retry_after_ms: int | None,
) -> int | None:
    """When the next attempt begins; None where the policy has none."""
    if policy.exhausted(attempt, error_type):
        return None
    if retry_after_ms is None:
        key = idempotency_key(turn.state.saga_id, turn.state.run_of(step), step.sequence, direction)
        retry_after_ms = policy.interval_ms(attempt, error_type, key)
    due_ms = turn.moment.now_ms + retry_after_ms
    if policy.retry_timeout_ms is not None and due_ms > step.since_ms + policy.retry_timeout_ms:
        return None
    return due_ms


def _is_wanted(turn: Turn, step: Step, error_type: str, message: str) -> bool:
    """What the saga's code says about another attempt: yes where it cannot be asked, for the saga itself is parked.

    The event that follows holds the answer, so no replay asks again.
    """
    driver = turn.warm()
    request = None if driver is None else driver.request_of(step.sequence)
    if request is None or request.retry_if is None:
        return True
    return bool(request.retry_if(FailedAttempt(f"{step.service}.{step.command}", step.attempt, error_type, message)))


_UNDO_OPEN = (StepStatus.UNDOING, StepStatus.UNDO_BACKING_OFF, StepStatus.UNDO_PARKED)


def _undo_reply(turn: Turn, step: Step, input: msg.Reply) -> None:
    if step.status not in _UNDO_OPEN:
        turn.absorb(input, f"late: the step is {step.status}", step.sequence, input.attempt)
    elif input.outcome is Outcome.SUCCESS:
        turn.emit(ev.UndoSucceeded(step.sequence, input.attempt))
    elif input.attempt < step.undo_attempt or step.status is not StepStatus.UNDOING:
        turn.absorb(input, f"the undo is {step.status}", step.sequence, input.attempt)
    elif input.outcome is Outcome.FAILURE:
        turn.emit(ev.UndoParked(step.sequence, f"the undo was refused: {_words(input)}"))
    else:
        _undo_attempt_failed(turn, step, input.error_type, input.error_message, input.retry_after_ms)


def _undo_attempt_failed(
    turn: Turn, step: Step, error_type: str, message: str, retry_after_ms: int | None = None
) -> None:
    policy = step.undo_retry or UNDO_POLICY
    due_ms = _next_due(turn, step, policy, "undo", step.undo_attempt, error_type, retry_after_ms)
    if due_ms is None:
        reason = f"undo attempt {step.undo_attempt} was the last: {error_type} {message}".rstrip()
        turn.emit(ev.UndoParked(step.sequence, reason))
    else:
        turn.emit(ev.UndoBackedOff(step.sequence, step.undo_attempt, due_ms, error_type, message))


def time_is_up(turn: Turn, step: Step) -> None:
    """The step's timer is due: an attempt, a pause between two, or a wait is over."""
    now_ms = turn.moment.now_ms
    if step.status is StepStatus.WAITING:
        turn.emit(ev.WaitExpired(step.sequence))
        if step.kind is StepKind.LOCK:
            locks.give(turn, step)
    elif step.status is StepStatus.RUNNING:
        _attempt_timed_out(turn, step)
    elif step.status is StepStatus.BACKING_OFF:
        if step.deadline_ms is not None and now_ms >= step.deadline_ms:
            _attempt_failed(turn, step, step.error_type or "CircuitOpen", step.error_message)
        elif turn.holds_back(step.service, step.command):
            return
        elif is_held_back(turn, step):
            turn.emit(ev.StepHeld(step.sequence))
        else:
            turn.emit(ev.StepAttempted(step.sequence, step.attempt + 1))
    elif step.status is StepStatus.UNDOING:
        _undo_attempt_failed(turn, step, "Timeout", f"no reply to undo attempt {step.undo_attempt}")
    elif turn.holds_back(step.service, step.undo_command or ""):
        return
    elif is_held_back(turn, step):
        turn.emit(ev.UndoHeld(step.sequence))
    else:
        turn.emit(ev.UndoAttempted(step.sequence, step.undo_attempt + 1))


def is_held_back(turn: Turn, step: Step) -> bool:
    """Whether its next attempt waits for the service's circuit. One that has waited comes as a probe, and may go."""
    return step.service in turn.moment.open_circuits and not step.held


_TELLING = (msg.Reply, msg.TimerDue, msg.SendFailed)


def sign_of(input: msg.Input, state: SagaState) -> tuple[str, bool] | None:
    """What an input tells of a service before it is decided: (its name, whether it answers); None for nothing.

    A `retry` with its own delay says nothing: the service is there, and knows when it wants to be asked again.
    """
    if not isinstance(input, _TELLING) or input.run != state.run:
        return None
    step = state.steps.get(input.sequence)
    if step is None or step.kind is not StepKind.SERVICE:
        return None
    if isinstance(input, msg.TimerDue):
        over = step.status in (StepStatus.RUNNING, StepStatus.UNDOING) and step.due_ms == input.due_ms
        return (step.service, False) if over else None
    if isinstance(input, msg.SendFailed) or input.outcome is Outcome.RETRY:
        attempt, waits = (step.undo_attempt, StepStatus.UNDOING) if input.undo else (step.attempt, StepStatus.RUNNING)
        said_when = isinstance(input, msg.Reply) and input.retry_after_ms is not None
        failed = step.status is waits and input.attempt == attempt and not said_when
        return (step.service, False) if failed else None
    return (step.service, True) if input.outcome is not Outcome.HEARTBEAT else None


def _attempt_timed_out(turn: Turn, step: Step) -> None:
    now_ms, attempt = turn.moment.now_ms, step.attempt
    if step.deadline_ms is not None and now_ms >= step.deadline_ms:
        _attempt_failed(turn, step, "Timeout", f"no reply to attempt {attempt}", timeout=True)
    elif step.schedule_to_start_ms is not None and not step.started_ms:
        # Another attempt would stand in the same queue, further behind.
        why = f"nobody has begun attempt {attempt} within {step.schedule_to_start_ms} ms"
        _attempt_failed(turn, step, "ScheduleToStartTimeout", why, timeout=True, last=True)
    elif step.started_ms and (step.start_to_close_ms is None or now_ms < step.started_ms + step.start_to_close_ms):
        why = f"attempt {attempt} was not heard of for {step.heartbeat_ms} ms"
        _attempt_failed(turn, step, "HeartbeatTimeout", why, timeout=True)
    else:
        _attempt_failed(turn, step, "Timeout", f"no reply to attempt {attempt}", timeout=True)


def send_failed(turn: Turn, input: msg.SendFailed) -> None:
    step = turn.state.steps[input.sequence]
    if input.undo and step.status is StepStatus.UNDOING and input.attempt == step.undo_attempt:
        _undo_attempt_failed(turn, step, "SendFailed", input.error_message)
    elif not input.undo and step.status is StepStatus.RUNNING and input.attempt == step.attempt:
        _attempt_failed(turn, step, "SendFailed", input.error_message)
    turn.advance()
