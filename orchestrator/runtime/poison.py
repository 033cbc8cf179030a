"""An input at which the engine fails again and again sets its saga aside, without running code."""

from __future__ import annotations

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.decide import InputRejected
from orchestrator.model.events import Status
from orchestrator.model.turn import Execution, Moment, Turn


def set_aside(
    given: msg.Input, execution: Execution | None, moment: Moment, failures: int, *, external: bool
) -> tuple[ev.Event, ...]:
    """The events; none where there is nothing to set aside. Raises `InputRejected` for what came from outside then."""
    if execution is None or execution.state.ended or execution.state.phase is Status.NOT_STARTED:
        if external:
            raise InputRejected(f"deciding it failed {failures} times; the worker's log says why")
        return ()
    turn = Turn(execution, None, moment)
    if 0 in execution.state.parked:
        turn.absorb(given, "deciding it failed before")
    else:
        turn.park(f"deciding an input failed {failures} times", type(given).__name__)
    return tuple(turn.events)
