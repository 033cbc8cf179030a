"""C13, from the journal alone: a lock has one holder at a time, and nobody holds or waits for ever.

On purpose not by the engine's code: what a lock was asked for and answered is read from its history.
"""

from __future__ import annotations

import json

from orchestrator.checker.evidence import Verdict
from orchestrator.checker.journal import Accepted, History, is_answered
from orchestrator.model import events as ev
from orchestrator.model.state import StepStatus

LOCK = "saga.lock"


def check_locks(accepted: Accepted, verdict: Verdict, *, settled: bool) -> None:
    """`settled`: all is quiet, so that nobody holds or waits for a key who should not."""
    held: dict[str, str] = {}
    broken = {
        history.saga_id
        for history in accepted.histories.values()
        if history.state.saga_type == LOCK
        and (history.state.phase is ev.Status.TERMINATED or history.state.mailbox or _is_broken(history))
    }
    """A person ended it or took it from whoever held it, or it does not hear what it is asked for."""
    for history in accepted.histories.values():
        if history.state.saga_type == LOCK:
            holds = _check_lock(history, verdict)
            if not history.state.ended and history.saga_id not in broken:
                held[history.saga_id] = next(iter(holds.values()), "")
                for hold, saga_id in holds.items():
                    _check_holder(accepted, verdict, history, hold, saga_id, settled=settled)
    for history in accepted.histories.values():
        state = history.state
        waits = [step for step in state.steps.values() if step.kind is ev.StepKind.LOCK]
        gave = any(isinstance(event, ev.SagaEnded) for event in history.events)  # it is undone after its end
        for step in waits if settled and not gave else ():
            lock = f"lock/{step.command}"
            if lock in broken:
                continue
            if step.status is StepStatus.WAITING and not held.get(lock) and not is_answered(history, step):
                verdict.blame("C13", f"{history.saga_id} waits for {lock}, which nobody holds")
            elif step.sequence in state.locks and held.get(lock) != history.saga_id:
                verdict.blame("C13", f"{history.saga_id} holds {lock}, which {held.get(lock)!r} holds")


def _is_broken(history: History) -> bool:
    return any(isinstance(event, ev.UpdateAccepted) and event.name == "break" for event in history.events)


def _check_lock(history: History, verdict: Verdict) -> dict[str, str]:
    """Who holds it in the end: saga ids by their takings."""
    holds: dict[str, str] = {}
    takes: dict[int, tuple[str, str]] = {}
    for event in history.events:
        if isinstance(event, ev.SagaStarted):
            given = json.loads(event.payload) or {"holder": "", "holds": []}
            holds = dict.fromkeys(given["holds"], given["holder"])
        elif isinstance(event, ev.UpdateAccepted) and event.name == "take":
            given = json.loads(event.payload)
            takes[event.sequence] = given["hold"], given["saga"]
        elif isinstance(event, ev.UpdateAccepted):
            holds = {} if event.name == "break" else holds
            holds.pop(json.loads(event.payload).get("hold"), None)
        elif isinstance(event, ev.UpdateEnded) and event.sequence in takes and not event.error_type:
            hold, saga_id = takes[event.sequence]
            others = set(holds.values()) - {saga_id}
            if others:
                verdict.blame("C13", f"{history.saga_id} is given to {saga_id} while {', '.join(others)} holds it")
            holds[hold] = saga_id
    return holds


def _check_holder(
    accepted: Accepted, verdict: Verdict, lock: History, hold: str, saga_id: str, *, settled: bool
) -> None:
    _, run, sequence = hold.rsplit("/", 2)
    holder = accepted.histories.get((saga_id, run))
    while holder is not None and (follows := holder.state.follows) is not None and int(sequence) < follows.until:
        before = holder.run  # the next run has inherited it
        holder = next(
            (h for h in accepted.histories.values() if (h.saga_id, h.state.previous_run) == (saga_id, before)), None
        )
    if holder is None:
        verdict.blame("C13", f"{lock.saga_id} is held by {hold}, which is not in the journal")
    elif settled and holder.state.ended:
        verdict.blame("C13", f"{lock.saga_id} is held by {hold}, which has ended")
