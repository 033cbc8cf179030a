"""What one run of a saga can take over of another: up to which step, and what that is."""

from __future__ import annotations

from orchestrator.model import events as ev
from orchestrator.model import keys
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.state import INHERITABLE, STOPPED, SagaState, Step, StepStatus

MAX_INHERITED = 1_000
"""Steps that a run can inherit, with `MAX_BYTES` of payloads: all come in its first decision."""
_FAILED = (StepStatus.REFUSED, StepStatus.WAIT_FAILED)


def failed_at(state: SagaState) -> int:
    """The step by whose failure the code ended; where it ended by itself, what would have come next."""
    last = state.steps.get(state.outcomes[-1]) if state.outcomes else None
    if last is None or last.sequence <= state.ballast or not (last.status in _FAILED or last.cause is not None):
        return state.sequence + 1
    return last.sequence


def point(state: SagaState, to: int, *, fork: bool = False) -> tuple[int, str]:
    """The latest step not after `to` before which all is over and stands, or why there is none.

    The keys of a run are given back by its end, and are not a fork's: whoever goes on from there takes them anew.
    """
    if not 0 < to <= state.sequence + 1:
        return 0, f"it has no step {to}: its steps are 1 to {state.sequence}"
    if (state.ended or fork) and state.locks:
        to = min(to, *state.locks)
    while (earlier := _unfit(state, to)) is not None:
        to = earlier
    if to <= state.ballast:
        return 0, f"newer code took over what it did before step {state.ballast + 1}: restart it"
    if to - 1 > MAX_INHERITED:
        return 0, f"it would inherit {to - 1} steps, at most {MAX_INHERITED}: reset it to an earlier one"
    size = sum(size_of(step) for step in before(state, to))
    size += sum(len(name) + len(payload) for name, payload in signals_again(state, to))
    size += sum(2 * (len(keeper) + len(state.saga_id)) for keeper in keys.awaited(before(state, to)))
    size += sum(len(name) + len(payload) + len(message) for name, (payload, _, message) in state.promises.items())
    if size > MAX_BYTES:
        return 0, f"its steps before {to} and its signals have {size} bytes, at most {MAX_BYTES} can be inherited"
    return to, ""


def size_of(step: Step | ev.StepInherited) -> int:
    """What it takes of a run's first decision, in bytes and characters."""
    undo = len(step.undo_payload or b"")
    return len(step.payload) + len(step.result) + undo + len(step.command) + len(step.error_message)


def _unfit(state: SagaState, to: int) -> int | None:
    """A step before `to` to which a run has to be set back instead: it was under way by then, or was undone since."""
    if to == 1:
        return None
    seen = state.steps[to].after if to <= state.sequence else len(state.outcomes)
    for step in before(state, to):
        undone = step.status is StepStatus.UNDONE and step.cause is None
        let_go = step.cause is ev.UnknownCause.CANCELED or step.status is StepStatus.WAIT_CANCELED
        waited_for = let_go and step.error_type == STOPPED
        if step.ended > seen or step.status not in INHERITABLE or undone or waited_for:
            return step.sequence
    if state.cancel_resolved and seen >= state.cancel_resolved:
        return max((s.sequence for s in before(state, to) if s.after < state.cancel_resolved), default=1)
    return None


def began_ms(old: SagaState, until: int) -> int:
    """What the next run's code takes for the time of its beginning: the same, if it repeats any of what was done."""
    return old.began_ms if until > old.ballast + 1 else 0


def inherited(old: SagaState, until: int) -> list[ev.StepInherited]:
    """What the next run takes over of this one."""
    return [heir(step, old.run_of(step), step.seed or old.seed, owned=True) for step in before(old, until)]


def signals_again(old: SagaState, until: int) -> list[tuple[str, bytes]]:
    """Names and payloads of signals that the next run has to get: taken from `until` on, and not asked for yet."""
    taken = [
        step
        for step in old.steps.values()
        if step.sequence >= until and step.kind is ev.StepKind.SIGNAL and step.status is StepStatus.WAITED
    ]
    taken.sort(key=lambda step: step.resolved)
    return [*((step.command, step.result) for step in taken), *old.signals]


def before(state: SagaState, until: int) -> list[Step]:
    return [state.steps[sequence] for sequence in range(1, until)]


def since(state: SagaState, until: int) -> list[Step]:
    return [state.steps[sequence] for sequence in range(until, state.sequence + 1)]


def heir(
    step: Step,
    run: str,
    seed: str,
    *,
    owned: bool,
    status: StepStatus | None = None,
    payload: bytes | None = None,
    result: bytes | None = None,
) -> ev.StepInherited:
    """The step as the next run has it, `owned` with its undo; some of it otherwise than it is."""
    return ev.StepInherited(
        step.sequence,
        run,
        seed,
        status or step.status,
        step.kind,
        step.after,
        step.ended,
        step.resolved,
        step.resolved_at_ms,
        step.service,
        step.command,
        step.payload if payload is None else payload,
        step.result if result is None else result,
        step.partition,
        step.attempt,
        step.undo_command if owned else None,
        step.undo_payload if owned else None,
        step.pivot,
        step.start_to_close_ms,
        step.undo_retry,
        step.cause,
        step.error_type,
        step.error_message,
    )
