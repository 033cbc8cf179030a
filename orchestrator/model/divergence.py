"""Where today's code asks for something else than the history holds, told so that a person sees it at once."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.definition import ChildRequest, Request, SignalRequest, StepRequest
from orchestrator.model.events import StepKind
from orchestrator.model.state import SagaState, Step

NOTHING = "(nothing)"
_AROUND = 3
"""Lines shown before and after the difference."""
_MAX_WIDTH = 60


class Divergence(Exception):
    """Today's code does not ask for what the history holds.

    `sequence` is the first difference, `known` what the history has there and `wanted` what the code asks for. The
    message's first line says it; `shown` adds the lines around.
    """

    def __init__(self, sequence: int, known: str, wanted: str, shown: str) -> None:
        asks = "did not ask for anything" if wanted == NOTHING else f"asks for {wanted}"
        super().__init__(f"step {sequence}: the history has {known}, the code {asks}\n{shown}")
        self.sequence = sequence
        self.known = known
        self.wanted = wanted


def name_of(request: Request) -> str:
    """What a person calls it: `payments.charge`, `signal approved`."""
    if isinstance(request, StepRequest):
        return _called(request.kind, request.service, request.command)
    if isinstance(request, ChildRequest):
        return f"{StepKind.CHILD} {request.saga_type}"
    kind = StepKind.SENT if isinstance(request, SignalRequest) else request.kind
    return _called(kind, "", request.name)


def name_in_history(step: Step) -> str:
    """What a person calls a recorded step."""
    if step.kind is StepKind.CHILD:
        return f"{step.kind} {step.service}"
    return _called(step.kind, step.service, step.command)


def _called(kind: StepKind, service: str, name: str) -> str:
    return f"{service}.{name}" if kind is StepKind.SERVICE else f"{kind} {name}".rstrip()


def side_by_side(at: int, state: SagaState, asked: Mapping[int, str], delivered: int) -> str:
    """History and code side by side around the difference at sequence `at`.

    `asked` names what the code asked for since the outcome before; `delivered` is how many outcomes it has seen.
    """
    last = max(state.sequence, *asked, 0) if asked else state.sequence
    rows = [("", "step", "history", "code", "")]
    for sequence in range(max(1, at - _AROUND), min(last, at + _AROUND) + 1):
        step = state.steps.get(sequence)
        known = NOTHING if step is None else name_in_history(step)
        if sequence in asked:
            code = asked[sequence]
        else:
            code = known if sequence < at else NOTHING
        mark = "!" if known != code or sequence == at else ""
        rows.append((mark, str(sequence), known, code, "" if step is None else str(step.status)))
    width = min(_MAX_WIDTH, max(len(row[2]) for row in rows))
    wide = min(_MAX_WIDTH, max(len(row[3]) for row in rows))
    lines = [
        f"{mark:1} {number:>4}  {known[:_MAX_WIDTH]:{width}}  {code[:_MAX_WIDTH]:{wide}}  {status.lower()}".rstrip()
        for mark, number, known, code, status in rows
    ]
    woken = f"after {delivered} outcomes, the last of {_last(state, delivered)}" if delivered else "at its start"
    return "\n".join((f"the code was woken {woken}", *lines))


def _last(state: SagaState, delivered: int) -> str:
    sequence = state.outcomes[delivered - 1]
    return f"step {sequence} ({name_in_history(state.steps[sequence])})" if sequence else "the cancellation"
