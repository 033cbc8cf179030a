"""C3 between sagas: what one saga asked another for was carried out once, and is undone if and only if it was.

C8: who waits for an answer waits for a saga that has yet to give it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from orchestrator.checker.evidence import Verdict
from orchestrator.checker.journal import Accepted, History, is_answered
from orchestrator.model import events as ev
from orchestrator.model.messages import Update
from orchestrator.model.state import Step, StepStatus

_OF_A_SAGA = re.compile(r".+/\d+-\d+-\d+/\d+(/(do|undo)/\d+|/take|/give)?", re.DOTALL)
"""The id of an update that a saga asks for: by its own id, its run, and the step's number.

What owners send each other is counted, so it is known for ever. An update that a client asked for is known like any
input; the idempotency key of a service's step, which such an id may be, ends before the attempt.
"""


def check_calls(accepted: Accepted, verdict: Verdict, *, settled: bool) -> None:
    """`settled`: all is quiet, so that nobody waits for an answer that nobody will give."""
    done: Counter[tuple[str, str]] = Counter()
    """By the id of the saga that was asked and the update's id, how often it was carried out."""
    lived: Counter[tuple[str, int, str]] = Counter()
    """The same, apart for each time that the saga was forgotten."""
    for history, event in accepted.of_runs(ev.UpdateEnded):
        update_id = history.state.steps[event.sequence].service
        done[history.saga_id, update_id] += not event.error_type
        lived[history.saga_id, history.life, update_id] += not event.error_type
    for (saga_id, _, update_id), times in lived.items():
        known = saga_id not in accepted.cut or _OF_A_SAGA.fullmatch(update_id)
        if times > 1 and "/" in update_id and known:
            verdict.blame("C3", f"{saga_id} carried out {update_id} {times} times")
    _check_undos(accepted, verdict)
    under_way = {each for history in accepted.histories.values() for each in _under_way(history)}
    given = set(_given(accepted))
    for history in accepted.histories.values():
        for step in history.state.steps.values():
            if step.kind is ev.StepKind.CALL and history.state.unit_of(step) not in given:
                _check_call(history, step, done, verdict)
                if settled and not history.state.ended:
                    _check_waiting(history, step, under_way, verdict)


def _given(accepted: Accepted) -> Iterator[str]:
    """The keys of calls whose result is none of theirs: a fork has it from another saga, or a person has set it."""
    for history, event in accepted.of_runs(ev.StepInherited, ev.StepSucceeded, ev.UndoSucceeded):
        if not event.run if isinstance(event, ev.StepInherited) else event.by:
            yield history.state.unit_of(history.state.steps[event.sequence])


def _check_undos(accepted: Accepted, verdict: Verdict) -> None:
    """C4: a call is undone only once it was heard that it had been carried out."""
    for history in accepted.histories.values():
        heard = set()
        for event in history.events:
            if isinstance(event, ev.StepSucceeded | ev.CallDone) or (
                isinstance(event, ev.StepInherited) and event.status in (StepStatus.DONE, StepStatus.ABANDONED)
            ):
                heard.add(event.sequence)
            elif isinstance(event, ev.UndoScheduled) and event.sequence not in heard:
                step = history.state.steps[event.sequence]
                if step.kind is ev.StepKind.CALL:
                    verdict.blame(
                        "C4", f"call {history.state.unit_of(step)} is undone, and nobody has heard what came of it"
                    )


def _under_way(history: History) -> set[tuple[str, str]]:
    """The updates that a saga has yet to answer: by its id and theirs."""
    state = history.state
    held = {(history.saga_id, given.update_id) for given in state.mailbox if isinstance(given, Update)}
    return held | {(history.saga_id, state.steps[sequence].service) for sequence in state.asked}


def _check_call(history: History, step: Step, done: Counter[tuple[str, str]], verdict: Verdict) -> None:
    key = history.state.unit_of(step)
    did, undid = done[step.service, f"{key}/do/1"], done[step.service, f"{key}/undo/1"]
    expected = {StepStatus.DONE: (1, 0), StepStatus.REFUSED: (0, 0), StepStatus.UNDONE: (1, 1)}.get(step.status)
    follows = history.state.follows
    if follows is not None and step.sequence < follows.until:
        return  # the next run answers for it
    if expected is not None and (did, undid) != expected and step.undo_attempt <= 1 and step.attempt == 1:
        verdict.blame("C3", f"call {key} is {step.status}: carried out {did} times, undone {undid} times")


def _check_waiting(history: History, step: Step, under_way: set[tuple[str, str]], verdict: Verdict) -> None:
    if is_answered(history, step):
        return
    status, key = step.status, history.state.unit_of(step)
    if status is StepStatus.UNDOING:
        waits_for = f"{key}/undo/{step.undo_attempt}"
    elif status is StepStatus.RUNNING or (status is StepStatus.UNKNOWN and step.undo_command is not None):
        waits_for = f"{key}/do/{step.attempt}"
    else:
        return
    if (step.service, waits_for) not in under_way:
        verdict.blame("C8", f"{history.saga_id} waits for {waits_for}, which {step.service} does not know")
