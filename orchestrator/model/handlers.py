"""What handlers of updates came to: recorded, and told to who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import BUGS, Abort, StepFailed
from orchestrator.model import calls
from orchestrator.model import events as ev
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.state import StepStatus

if TYPE_CHECKING:
    from orchestrator.model.driver import Driver
    from orchestrator.model.turn import Turn


def take_answers(turn: Turn, driver: Driver) -> bool:
    """Records what updates came to. False: something stopped it."""
    for taken, (sequence, payload, error) in enumerate(driver.answers):
        step = turn.state.steps[sequence]
        if step.status is not StepStatus.UPDATING:
            continue
        if isinstance(error, BUGS) and not isinstance(error, StepFailed | Abort):
            turn.park_for_bug(error, f"the update {step.command}")
            return False
        if len(payload) > MAX_BYTES:
            turn.park("an update's result is too large", f"{step.command}: {len(payload)} bytes; pass a reference")
            return False
        if not turn.fits(effects=sequence in turn.state.callers, size=len(payload)):
            del driver.answers[:taken]
            return False
        _end(turn, _ended(turn, sequence, payload, error))
    driver.answers.clear()
    return True


def end_all(turn: Turn, reason: str) -> None:
    """Nobody handles updates any more: who waits for one is told."""
    for sequence in list(turn.state.asked):
        waiters = tuple(turn.state.asked[sequence])
        _end(turn, ev.UpdateEnded(sequence, b"", "SagaEnded", reason, waiters))


def _end(turn: Turn, ended: ev.UpdateEnded) -> None:
    caller = turn.state.callers.get(ended.sequence)
    turn.emit(ended)
    if caller is not None:
        calls.answer(turn, caller, ended.payload, ended.error_type, ended.error_message)


def _ended(turn: Turn, sequence: int, payload: bytes, error: BaseException | None) -> ev.UpdateEnded:
    waiters = tuple(turn.state.asked[sequence])
    if error is None:
        return ev.UpdateEnded(sequence, payload, waiters=waiters)
    if not isinstance(error, StepFailed | Abort):
        return ev.UpdateEnded(sequence, b"", "Canceled", "", waiters)
    error_type = _recordable(str(error.error_type)[:256]) or "Failure"
    return ev.UpdateEnded(sequence, b"", error_type, _recordable(str(error.message)[:4_000]), waiters)


def _recordable(text: str) -> str:
    return text.encode(errors="replace").decode()
