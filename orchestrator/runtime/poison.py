"""An input at which the engine fails again and again sets its saga aside, without running code."""

from __future__ import annotations

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.decide import InputRejected
from orchestrator.model.events import Status
from orchestrator.model.starts import refuse_child
from orchestrator.model.turn import Execution, Moment, Turn


def set_aside(
    given: msg.Input, execution: Execution | None, moment: Moment, failures: int, *, external: bool
) -> tuple[ev.Event, ...]:
    """The events; none where there is nothing to set aside. Raises `InputRejected` for what came from outside then.

    A child's start is refused: its parent is the one who can do something about it.
    """
    why = f"deciding it failed {failures} times; the worker's log says why"
    if isinstance(given, msg.Start) and given.parent is not None:
        return refuse_child(execution, given, why, moment)[1]
    if execution is None or execution.state.ended or execution.state.phase is Status.NOT_STARTED:
        if external:
            raise InputRejected(why)
        return ()
    turn = Turn(execution, None, moment)
    if 0 in execution.state.parked:
        turn.absorb(given, "deciding it failed before")
    else:
        turn.park(f"deciding an input failed {failures} times", type(given).__name__)
    return tuple(turn.events)
