"""C3 between sagas: what one saga asked another for was carried out once, and is undone if and only if it was."""

from __future__ import annotations

from collections import Counter

from orchestrator.checker.evidence import Verdict
from orchestrator.checker.journal import Accepted, History
from orchestrator.model import events as ev
from orchestrator.model.state import Step, StepStatus


def check_calls(accepted: Accepted, verdict: Verdict) -> None:
    done: Counter[tuple[str, str]] = Counter()
    """By the id of the saga that was asked and the update's id, how often it was carried out."""
    for history, event in accepted.of_runs(ev.UpdateEnded):
        done[history.saga_id, history.state.steps[event.sequence].service] += not event.error_type
    for (saga_id, update_id), times in done.items():
        if times > 1 and "/" in update_id:
            verdict.blame("C3", f"{saga_id} carried out {update_id} {times} times")
    for history in accepted.histories.values():
        for step in history.state.steps.values():
            if step.kind is ev.StepKind.CALL and not step.run:
                _check_call(history, step, done, verdict)


def _check_call(history: History, step: Step, done: Counter[tuple[str, str]], verdict: Verdict) -> None:
    key = f"{history.saga_id}/{history.run}/{step.sequence}"
    did, undid = done[step.service, f"{key}/do/1"], done[step.service, f"{key}/undo/1"]
    expected = {StepStatus.DONE: (1, 0), StepStatus.REFUSED: (0, 0), StepStatus.UNDONE: (1, 1)}.get(step.status)
    follows = history.state.follows
    if follows is not None and step.sequence < follows.until:
        return  # the next run answers for it
    if expected is not None and (did, undid) != expected and step.undo_attempt <= 1 and step.attempt == 1:
        verdict.blame("C3", f"call {key} is {step.status}: carried out {did} times, undone {undid} times")
