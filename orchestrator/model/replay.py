"""Whether a recorded run goes on with today's code: the production rule, asked without deciding anything."""

from __future__ import annotations

from orchestrator.errors import BUGS, Abort, Canceled, ContinueAsNew, StepFailed
from orchestrator.model.definition import Definition
from orchestrator.model.divergence import Divergence, name_in_history
from orchestrator.model.driver import Driver
from orchestrator.model.events import Cause, Status
from orchestrator.model.frozen import frozen
from orchestrator.model.migrations import migrates, results_of
from orchestrator.model.state import SagaState


@frozen
class Difference:
    """What today's code does otherwise. `step` is the sequence where it shows and `at` its name in the history.

    Where it shows only at the end, `step` is 0 and `at` is "the end"; at the start, "the start".
    """

    step: int
    at: str
    message: str


def difference(definition: Definition, state: SagaState) -> Difference | None:
    """What keeps a run from going on with this code, which is that of its version or newer; None if nothing does.

    It repeats what was done and has to ask for what the history holds; or its hook takes that over. `state` is only
    read.
    """
    if migrates(definition, state) or state.migrates_from:
        return _taken_over(definition, state)
    return _repeated(definition, state)


def _taken_over(definition: Definition, state: SagaState) -> Difference | None:
    """The code repeats nothing, unless its hook declines."""
    if definition.migrate is None or state.ended:
        return None
    try:
        payload = definition.migrate(state.migrates_from or state.version, state.payload, results_of(state))
    except BUGS as bug:
        return Difference(0, "the migration", f"the hook raises {bug!r}")
    return _repeated(definition, state) if payload is None else None


def _repeated(definition: Definition, state: SagaState) -> Difference | None:
    problem = definition.check_input(state.payload)
    if problem is not None:
        return Difference(0, "the start", f"its input does not fit any more: {problem}")
    driver = Driver(definition, state)
    try:
        driver.catch_up()
    except Divergence as diverges:
        step = state.steps.get(diverges.sequence)
        return Difference(diverges.sequence, "the end" if step is None else name_in_history(step), str(diverges))
    else:
        message = _raised(driver) or _other_end(driver, state)
        return None if message is None else Difference(0, "the end", message)
    finally:
        driver.detach()


def _raised(driver: Driver) -> str | None:
    """The code's own mistake."""
    error = driver.error
    if error is None or isinstance(error, StepFailed | Abort | Canceled | ContinueAsNew):
        return None
    return f"the code raises {error!r}"


def _other_end(driver: Driver, state: SagaState) -> str | None:
    """Where the history went on by the code's last word, and today's would be another."""
    failed = state.cause is Cause.FAILED
    ended = {Status.COMPLETED: "the saga completed", Status.CONTINUED_AS_NEW: "the saga continued as new"}.get(
        state.phase or Status.RUNNING, "the saga failed" if failed else None
    )
    if ended is None:
        return None
    if not driver.finished:
        return f"{ended}, the code goes on"
    if driver.error is None:
        return None if state.phase is Status.COMPLETED else f"{ended}, the code completes"
    continues = isinstance(driver.error, ContinueAsNew)
    if continues is (state.phase is Status.CONTINUED_AS_NEW) and (continues or failed):
        return None
    return f"{ended}, the code raises {driver.error!r}"
