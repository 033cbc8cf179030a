"""How a run begins: a first start, another run of an id that exists, the next run; and who waits for it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.model import calls, checks, children, inheritance, keys, migrations, pauses, told, updates
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.definition import TOKEN_OF, Definition
from orchestrator.model.events import Status
from orchestrator.model.ids import run_id
from orchestrator.model.messages import Conflict, Reuse
from orchestrator.model.state import GOES_ON, SagaState
from orchestrator.model.turn import Execution, Moment, Turn
from orchestrator.model.versions import of_start

MAX_WAITERS = 100
"""Addresses that one run answers when it ends: all in one decision, whose effects are bounded."""


def begin(turn: Turn, input: msg.Start) -> None:
    definition = turn.definition
    checks.check_start(input, turn.state, definition)
    version, pinned = (0, False) if definition is None else (definition.version, definition.pinned)
    turn.emit(
        ev.SagaStarted(
            input.saga_type,
            input.payload,
            input.message_id,
            input.reply_to,
            input.traceparent,
            definition.execution_timeout_ms if definition is not None else None,
            run_timeout_ms=definition.run_timeout_ms if definition is not None else None,
            begin_ms=_begin_ms(turn, input),
            baggage=input.baggage,
            version=version,
            pinned=pinned,
            note=input.note,
            parent=input.parent,
            ballast=input.ballast,
            began_ms=input.began_ms,
        )
    )
    for step in input.inherited:
        turn.emit(_with_own_token(turn, step))
    keys.listen_again(turn)
    if definition is None:
        turn.emit(ev.CodeMissing())
    else:
        turn.drop_signals(definition.check_signal)
    if input.signal is not None:
        turn.emit(ev.SignalReceived(input.signal, input.signal_payload))
    turn.advance()


def _with_own_token(turn: Turn, step: ev.StepInherited) -> ev.StepInherited:
    """What a fork inherits: by its origin's token somebody would settle the promise of that."""
    if step.kind is not ev.StepKind.VALUE or not step.command.startswith(TOKEN_OF):
        return step
    token = turn.moment.sign(turn.state.saga_id, turn.state.run, step.command.removeprefix(TOKEN_OF))
    return replace(step, result=token.encode())


def begin_with(turn: Turn, input: msg.Update) -> None:
    """A saga that begins because it is asked for something. Raises `UpdateRejected`, having changed nothing."""
    if turn.definition is None and input.reply_to is not None:
        reason = f"the worker that owns it has no code of {input.saga_type}"
        raise updates.UpdateRejected(input, ev.Refusal.NO_CODE, reason)
    if input.reply_to is not None and (rule := pauses.over_saga(turn.moment.paused, input.saga_type)):
        raise updates.paused_by(rule, input)
    begin(turn, msg.Start(input.saga_id, input.message_id, input.saga_type, b"null"))
    calls.deliver(turn, input)


def _begin_ms(turn: Turn, input: msg.Start) -> int | None:
    """When the run begins, where it is not at once."""
    begin_ms = turn.moment.due_ms(input.begin_at_ms, input.begin_after_ms)
    return begin_ms if begin_ms is not None and begin_ms > turn.moment.now_ms else None


def after_the_end(
    execution: Execution, definition: Definition | None, moment: Moment, aside: tuple[str, str] | None = None
) -> tuple[Execution, tuple[ev.Event, ...], str]:
    """What a run that has ended left to be continued: its children and keys hear of it, then the next run begins.

    `aside`: that is parked as it begins, for this reason and with this detail.
    """
    state = execution.state
    if state.follows is not None and not tells_of_its_end(state):
        return _begin_next(execution, state.follows, definition, moment, aside)
    turn = Turn(execution, None, moment)
    if state.follows is None:
        turn.emit(ev.Continued())
    turn.leave_all()
    if state.follows is None and state.released:  # its time was up before: that was begun with
        forget(turn)
    return execution, tuple(turn.events), state.run


def tells_of_its_end(state: SagaState) -> bool:
    """Whether others have to hear of the end first."""
    return bool(children.to_leave(state) or keys.to_leave(state) or children.to_release(state))


def forget(turn: Turn) -> None:
    """The time may be up for which a saga that has ended is kept; its children hear of that first."""
    state = turn.state
    if state.continue_due or state.due_ms is None or turn.moment.now_ms < state.due_ms:
        return
    if children.release(turn):
        turn.emit(ev.SagaForgotten())


def _begin_next(
    execution: Execution,
    follows: ev.RunFollows,
    definition: Definition | None,
    moment: Moment,
    aside: tuple[str, str] | None,
) -> tuple[Execution, tuple[ev.Event, ...], str]:
    """The next run of a saga id. One that continues takes over who waits, and the signals that were not asked for."""
    old = execution.state
    execution.detach()
    run = run_id(moment.incarnation, moment.offset, 0)
    fresh = Execution(old.successor(run))
    definition = of_start(definition, old.saga_id)
    turn = Turn(fresh, definition, moment)
    timeout_ms = definition.execution_timeout_ms if definition is not None else None
    if follows.cause in _CONTINUING and old.execution_due_ms is not None:
        timeout_ms = max(0, old.execution_due_ms - moment.now_ms)
    turn.emit(
        ev.SagaStarted(
            old.saga_type,
            follows.payload,
            follows.started_by,
            follows.reply_to,
            follows.traceparent,
            timeout_ms,
            old.run,
            definition.run_timeout_ms if definition is not None else None,
            follows.begin_ms,
            follows.baggage,
            0 if definition is None else definition.version,
            definition is not None and definition.pinned,
            follows.note,
            follows.parent if follows.cause is ev.Following.REUSED else old.parent,
            follows.cause,
            _ballast(old, follows),
            inheritance.began_ms(old, follows.until) if follows.cause is ev.Following.RESET else 0,
        )
    )
    _hand_on(turn, old, follows)
    if follows.signal is not None:
        turn.emit(ev.SignalReceived(follows.signal, follows.signal_payload))
    if definition is None:
        turn.emit(ev.CodeMissing())
    if aside is not None:
        turn.park(*aside)
    turn.advance()
    handed_on = calls.left_open(old) if follows.cause is ev.Following.CONTINUED else []
    for update in handed_on if follows.update is None else [follows.update]:
        calls.deliver(turn, update)
    return fresh, tuple(turn.events), run


def _ballast(old: SagaState, follows: ev.RunFollows) -> int:
    if follows.cause is ev.Following.MIGRATED:
        return old.sequence
    return old.ballast if follows.cause is ev.Following.RESET else 0


_CONTINUING = (ev.Following.CONTINUED, ev.Following.MIGRATED)


def _hand_on(turn: Turn, old: SagaState, follows: ev.RunFollows) -> None:
    """What a run gets of the one before, whose work it carries on."""
    signals = old.signals if follows.cause in _CONTINUING else []
    steps: list[ev.StepInherited] = []
    if follows.cause is ev.Following.RESET:
        steps, signals = inheritance.inherited(old, follows.until), inheritance.signals_again(old, follows.until)
    elif follows.cause is ev.Following.MIGRATED:
        steps = migrations.ballast(old)
    for step in steps:
        turn.emit(step)
    if follows.cause in (ev.Following.RESET, ev.Following.MIGRATED):
        for name, (payload, error_type, error_message) in old.promises.items():
            turn.emit(ev.PromiseSettled(name, payload, error_type, error_message))
    for name, payload in signals:
        turn.emit(ev.SignalReceived(name, payload))
    keys.listen_again(turn)
    if old.phase in GOES_ON:
        for waiter in old.waiters:
            turn.emit(ev.WaiterAdded(waiter))


def start(turn: Turn, input: msg.Start) -> None:
    """A start of an id that exists: another run of it, a refusal, or somebody more who waits."""
    state = turn.state
    if input.saga_type != state.saga_type:
        _refuse_start(turn, input, ev.Refusal.OTHER_TYPE, _other_type(state))
    elif may_start_anew(input, state):
        follows = ev.RunFollows(
            ev.Following.REUSED,
            input.payload,
            input.message_id,
            input.reply_to,
            input.traceparent,
            input.signal,
            input.signal_payload,
            _begin_ms(turn, input),
            input.baggage,
            input.note,
            input.parent,
        )
        if state.ended:
            turn.emit(follows)
        else:
            turn.terminate("a new start of the same id ends it", input.message_id, follows)
    elif input.parent is not None or _is_refused(input, state):
        reason = f"the id has a saga that is {state.status}, and the start's policy refuses that"
        _refuse_start(turn, input, ev.Refusal.ALREADY_EXISTS, reason)
    else:
        if input.reply_to is not None and _may_wait(state, input.reply_to):
            turn.emit(ev.WaiterAdded(input.reply_to))
        else:
            turn.absorb(input, "the id exists already")
        if input.signal is not None:
            _signal_along(turn, input)


def may_start_anew(input: msg.Start, state: SagaState) -> bool:
    """Whether a start's policies want another run of an id that exists."""
    if not state.ended:
        return input.reuse is Reuse.TERMINATE_IF_RUNNING or input.conflict is Conflict.TERMINATE_EXISTING
    if input.parent is not None and input.reuse is None:
        return children.is_left_over(state, input.parent)
    if input.reuse is Reuse.ALLOW_DUPLICATE_FAILED_ONLY:
        return state.phase is not Status.COMPLETED
    return input.reuse in (Reuse.ALLOW_DUPLICATE, Reuse.TERMINATE_IF_RUNNING)


def _is_refused(input: msg.Start, state: SagaState) -> bool:
    """Whether they refuse an id that exists, where they do not want another run."""
    return input.reuse is not None if state.ended else input.conflict is Conflict.FAIL


def _refuse_start(turn: Turn, input: msg.Start, kind: ev.Refusal, reason: str) -> None:
    if input.parent is not None:
        turn.send(children.refusal(input, reason))
    elif input.reply_to is None:
        turn.absorb(input, reason)
    else:
        turn.emit(ev.AttachRefused(input.reply_to, kind, reason))


def refuse_child(
    execution: Execution | None, input: msg.Start, reason: str, moment: Moment
) -> tuple[Execution | None, tuple[ev.Event, ...], str]:
    """A child that cannot be started: its parent is told, where anybody else's start becomes a dead letter."""
    turn = Turn(execution or Execution(SagaState(input.saga_id, "")), None, moment)
    turn.send(children.refusal(input, reason))
    return execution, tuple(turn.events), "" if execution is None else execution.state.run


def _other_type(state: SagaState) -> str:
    return f"the id belongs to a saga of type {state.saga_type}"


def attach(turn: Turn, input: msg.Attach) -> None:
    if input.saga_type not in (None, turn.state.saga_type):
        turn.emit(ev.AttachRefused(input.reply_to, ev.Refusal.OTHER_TYPE, _other_type(turn.state)))
    elif _may_wait(turn.state, input.reply_to):
        turn.emit(ev.WaiterAdded(input.reply_to))


def _may_wait(state: SagaState, reply_to: msg.ReplyAddress) -> bool:
    """Who waits already is not noted again; who is one too many asks again later, and is answered after the end."""
    return state.ended or (len(state.waiters) < MAX_WAITERS and reply_to not in state.waiters)


def _signal_along(turn: Turn, input: msg.Start) -> None:
    """The signal that came with the start of a saga that exists."""
    assert input.signal is not None
    signal = msg.Signal(input.saga_id, input.message_id, input.signal, input.signal_payload)
    if turn.state.ended:
        turn.absorb(signal, "the saga has ended")
    elif turn.state.phase is Status.WAITING_FOR_CODE:
        turn.emit(ev.InputHeld(signal))
    elif turn.definition is None and turn.state.phase is Status.RUNNING:
        turn.execution.detach()
        turn.emit(ev.CodeMissing())
        turn.emit(ev.InputHeld(signal))
    else:
        told.signal(turn, signal)
