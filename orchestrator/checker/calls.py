"""C3 between sagas: what one saga asked another for was carried out once, and is undone if and only if it was.

C8: who waits for an answer waits for a saga that has yet to give it.
"""

from __future__ import annotations

from collections import Counter

from orchestrator.checker.evidence import Evidence, Verdict
from orchestrator.checker.journal import Accepted, History
from orchestrator.model import events as ev
from orchestrator.model.messages import Update
from orchestrator.model.state import Step, StepStatus


def check_calls(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    done: Counter[tuple[str, str]] = Counter()
    """By the id of the saga that was asked and the update's id, how often it was carried out."""
    for history, event in accepted.of_runs(ev.UpdateEnded):
        done[history.saga_id, history.state.steps[event.sequence].service] += not event.error_type
    for (saga_id, update_id), times in done.items():
        if times > 1 and "/" in update_id:
            verdict.blame("C3", f"{saga_id} carried out {update_id} {times} times")
    under_way = {each for history in accepted.histories.values() for each in _under_way(history)}
    for history in accepted.histories.values():
        borrowed = {event.sequence for event in history.events if isinstance(event, ev.StepInherited) and not event.run}
        for step in history.state.steps.values():
            if step.kind is ev.StepKind.CALL and step.sequence not in borrowed:
                _check_call(history, step, done, verdict)
                if evidence.settled and not history.state.ended:
                    _check_waiting(history, step, under_way, verdict)


def _under_way(history: History) -> set[tuple[str, str]]:
    """The updates that a saga has yet to answer: by its id and theirs."""
    state = history.state
    held = {(history.saga_id, given.update_id) for given in state.mailbox if isinstance(given, Update)}
    return held | {(history.saga_id, state.steps[sequence].service) for sequence in state.asked}


def _key(history: History, step: Step) -> str:
    return f"{history.saga_id}/{step.run or history.run}/{step.sequence}"


def _check_call(history: History, step: Step, done: Counter[tuple[str, str]], verdict: Verdict) -> None:
    key = _key(history, step)
    did, undid = done[step.service, f"{key}/do/1"], done[step.service, f"{key}/undo/1"]
    expected = {StepStatus.DONE: (1, 0), StepStatus.REFUSED: (0, 0), StepStatus.UNDONE: (1, 1)}.get(step.status)
    follows = history.state.follows
    if follows is not None and step.sequence < follows.until:
        return  # the next run answers for it
    if expected is not None and (did, undid) != expected and step.undo_attempt <= 1 and step.attempt == 1:
        verdict.blame("C3", f"call {key} is {step.status}: carried out {did} times, undone {undid} times")


def _check_waiting(history: History, step: Step, under_way: set[tuple[str, str]], verdict: Verdict) -> None:
    status, key = step.status, _key(history, step)
    if status is StepStatus.UNDOING:
        waits_for = f"{key}/undo/{step.undo_attempt}"
    elif status is StepStatus.RUNNING or (status is StepStatus.UNKNOWN and step.undo_command is not None):
        waits_for = f"{key}/do/{step.attempt}"
    else:
        return
    if (step.service, waits_for) not in under_way:
        verdict.blame("C8", f"{history.saga_id} waits for {waits_for}, which {step.service} does not know")
