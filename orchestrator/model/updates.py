"""Updates: whether the saga takes one, and who hears what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.effects import REFUSED, Answer, accepted_address

if TYPE_CHECKING:
    from orchestrator.model.turn import Turn

MAX_OPEN = 100
"""Updates of one run under way."""
MAX_WAITING = 200
"""Addresses that wait for them: all are told in one decision when the run ends."""
UNMIGRATED = "its newer code has yet to take over what the older one did: ask again once it went on"


class UpdateRejected(Exception):
    """An update that the saga does not take: nothing of it is journaled, its sender is told."""

    def __init__(self, update: msg.Update, kind: ev.Refusal, reason: str) -> None:
        super().__init__(reason)
        self.update = update
        self.kind = kind
        self.reason = reason[:4_000]

    def answers(self) -> tuple[Answer, ...]:
        """To who waits for the update to be accepted, and who waits for its result; none where nobody does."""
        to = self.update.reply_to
        if to is None:
            return ()
        saga_id, kind, reason = self.update.saga_id, self.kind, self.reason
        return tuple(Answer(saga_id, "", address, REFUSED, b"", kind, reason) for address in (accepted_address(to), to))


def paused_by(rule: str, update: msg.Update) -> UpdateRejected:
    """That a rule holds the saga which is asked."""
    return UpdateRejected(update, ev.Refusal.NOT_NOW, f"the saga is paused by the rule {rule}")


def update(turn: Turn, input: msg.Update) -> None:
    """Accepts an update. Raises `UpdateRejected`, having changed nothing."""
    state = turn.state
    known = state.updates.get(input.update_id)
    if known is not None:
        waiting = state.asked.get(known)
        if input.reply_to is not None and (waiting is None or input.reply_to not in waiting):
            if waiting is not None and sum(map(len, state.asked.values())) >= MAX_WAITING:
                raise UpdateRejected(input, ev.Refusal.NOT_NOW, f"{MAX_WAITING} wait for updates of the saga")
            turn.emit(ev.UpdateAsked(known, input.reply_to))
        return
    if state.ended or state.phase is ev.Status.COMPENSATING:
        raise UpdateRejected(input, ev.Refusal.REJECTED, f"the saga is {state.status}")
    if turn.definition is None or state.phase is not ev.Status.RUNNING:
        raise UpdateRejected(input, ev.Refusal.NO_CODE, f"the worker that owns it has no code of {state.saga_type}")
    if state.parked or state.paused or state.begin_ms is not None:
        words = "has not begun" if state.begin_ms is not None else f"is {state.status}"
        raise UpdateRejected(input, ev.Refusal.NOT_NOW, f"the saga {words}")
    if rule := turn.rule():
        raise paused_by(rule, input)
    if len(state.asked) >= MAX_OPEN:
        raise UpdateRejected(input, ev.Refusal.NOT_NOW, f"{MAX_OPEN} updates of the saga are under way")
    if len(input.payload) > MAX_BYTES:
        raise UpdateRejected(input, ev.Refusal.REJECTED, f"the arguments have more than {MAX_BYTES} bytes")
    driver, kind = turn.warm(), ev.Refusal.REJECTED
    problem: str | None
    if driver is None:
        kind = ev.Refusal.NOT_NOW
        problem = f"the saga is {state.status}" if state.parked else UNMIGRATED
    elif driver.finished:
        problem = "the saga's code has ended, only what it left is still being undone"
    else:
        problem = turn.definition.check_update(driver.subject, input.name, input.payload)
    if problem is not None and not turn.events:
        raise UpdateRejected(input, kind, problem)
    if problem is not None:
        # The code was brought back, or could not be, and that was noted: so the refusal is journaled with it.
        if input.reply_to is not None:
            turn.emit(ev.AttachRefused(input.reply_to, kind, problem))
        else:
            turn.absorb(input, problem)
        return
    turn.emit(ev.UpdateAccepted(state.sequence + 1, input.update_id, input.name, input.payload, input.reply_to))
    turn.advance()
