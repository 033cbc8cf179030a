"""What a running saga is told by others: signals, and results of its promises."""

from __future__ import annotations

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Cause, Status
from orchestrator.model.turn import Turn


def signal(turn: Turn, input: msg.Signal) -> None:
    if _is_stopping(turn):
        turn.absorb(input, "the saga is stopping already")
        return
    turn.emit(ev.SignalReceived(input.name, input.payload, input.by))
    turn.advance()


def settle(turn: Turn, input: msg.Settle) -> None:
    if _is_stopping(turn):
        turn.absorb(input, "the saga is stopping already")
        return
    if input.name in turn.state.promises:
        turn.absorb(input, f"the promise {input.name} is settled already")
        return
    turn.emit(ev.PromiseSettled(input.name, input.payload, input.error_type, input.error_message, input.by))
    turn.advance()


def _is_stopping(turn: Turn) -> bool:
    """Whether no code will ever ask for it. That of a run that is set back will, in the next one."""
    return turn.state.phase is Status.COMPENSATING and turn.state.cause is not Cause.RESET
