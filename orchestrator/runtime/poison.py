"""Inputs at which the engine fails again and again: how they are known, and how their sagas are set aside.

What came in a record goes to the dead letters first, as any input does that cannot be taken: `intake` lets nothing pass
it before its letter stands, and the decision that parks its saga has its position. What the engine gives itself has no
record and needs none: timers, continuations, refused commands and results of local steps follow from the state, so the
next owner comes to them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from traceback import format_exception_only

from orchestrator.log.base import Record
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.calls import answer
from orchestrator.model.definition import Definition
from orchestrator.model.events import Status
from orchestrator.model.starts import after_the_end, refuse_child, tells_of_its_end
from orchestrator.model.state import SagaState
from orchestrator.model.turn import Execution, Moment, Turn
from orchestrator.runtime.intake import Given
from orchestrator.wire.dead_letters import REDRIVES

MAX_FAILURES = 2
"""Failures to decide an input after which its saga is set aside; each of them ended the partition's epoch."""
MAX_REMEMBERED = 1_000
"""Inputs of a partition that failed and are still known; each cost two epochs, so the oldest are long over."""
_TEXT_CHARACTERS = 1_000

Decided = tuple[Execution | None, tuple[ev.Event, ...], str]
"""As `decide` gives it: the execution, the events and the run's id."""


@dataclass(slots=True)
class Failed:
    """An input that could not be decided, and the last error's class and text."""

    failures: int = 0
    kind: str = ""
    text: str = ""
    buried: bool = False
    """Its dead letter stands."""

    @property
    def reason(self) -> str:
        return f"deciding it failed {MAX_FAILURES} times: {self.text}"

    @property
    def hopeless(self) -> bool:
        """Its saga could not even be set aside."""
        return self.failures > MAX_FAILURES


class Poison:
    """The inputs of one partition that could not be decided, through all epochs of one worker.

    One is known by what it says and not by its place, for the reply to a command that was sent again stands elsewhere,
    and timers have no place at all. Only what somebody has redriven is one of its own: it is to be tried again.
    """

    def __init__(self) -> None:
        self._failed: dict[tuple[Given, tuple[str, int] | None], Failed] = {}

    def __bool__(self) -> bool:
        return bool(self._failed)

    def find(self, given: Given, record: Record | None) -> Failed | None:
        """What is known of an input that is not to be decided any more."""
        failed = self._failed.get((given, _place(record)))
        return failed if failed is not None and failed.failures >= MAX_FAILURES else None

    def note(self, given: Given, record: Record | None, error: BaseException) -> None:
        """Deciding it failed."""
        failed = self._failed.setdefault((given, _place(record)), Failed())
        failed.failures += 1
        text = "".join(format_exception_only(error)).strip()[:_TEXT_CHARACTERS]
        failed.kind, failed.text = type(error).__name__, text.encode(errors="replace").decode()
        while len(self._failed) > MAX_REMEMBERED:
            del self._failed[next(iter(self._failed))]

    def bury(self, given: Given, record: Record) -> None:
        """Its dead letter stands."""
        if (failed := self.find(given, record)) is not None:
            failed.buried = True

    def forget(self, given: Given, record: Record | None) -> None:
        """It was decided after all, here or where somebody had redriven it."""
        self._failed.pop((given, _place(record)), None)
        self._failed.pop((given, None), None)


def _place(record: Record | None) -> tuple[str, int] | None:
    if record is None or all(name != REDRIVES for name, _ in record.headers):
        return None
    return record.topic, record.offset


def is_told(given: Given) -> bool:
    """Whether another saga waits for it that can be told: of a child's start, and of a call. That is no dead letter.

    Who asked goes on by what it hears: taken later all the same, a lock would never be given back.
    """
    return (isinstance(given, msg.Start) and given.parent is not None) or (
        isinstance(given, msg.Update) and given.caller is not None
    )


def set_aside(
    given: Given,
    execution: Execution | None,
    definition: Definition | None,
    moment: Moment,
    failed: Failed,
    *,
    external: bool,
) -> Decided:
    """Parks the saga and tells who waits; no code is run. `external`: it came in a record, whose dead letter stands.

    A child's start is refused, and parks nothing. Where a run has ended and its next one could not begin, that begins
    and is parked. What cannot be parked is left as it is.
    """
    run = "" if execution is None else execution.state.run
    if failed.hopeless:
        return execution, (), run
    if isinstance(given, msg.Start) and given.parent is not None:
        return refuse_child(execution, given, failed.reason, moment)
    where = "; it stands among the dead letters" if external and not is_told(given) else ""
    why = f"deciding an input failed {MAX_FAILURES} times", f"{type(given).__name__}: {failed.text}{where}"
    known = execution or Execution(SagaState(given.saga_id, ""))
    state = known.state
    if state.ended and state.continue_due and isinstance(given, msg.Continue | msg.TimerDue):
        if state.follows is None or tells_of_its_end(state):
            return execution, (), run
        return after_the_end(known, definition, moment, aside=why)
    turn = Turn(known, None, moment)
    if execution is not None and not (state.ended or state.phase is Status.NOT_STARTED):
        if 0 not in state.parked:
            turn.park(*why)
        elif external and not isinstance(given, msg.SetPauseRule | msg.Query):
            turn.absorb(given, failed.reason + where)
    _tell(turn, given, failed.reason + where)
    return execution, tuple(turn.events), run


def _tell(turn: Turn, given: Given, why: str) -> None:
    """Tells who waits for a call, a start or an operation. There is no word for who wants to attach."""
    if isinstance(given, msg.Update) and given.caller is not None:
        answer(turn, given.caller, b"", str(ev.Refusal.REJECTED), why)
    elif isinstance(given, (msg.Start, msg.SetPauseRule, *msg.OPERATIONS)) and given.reply_to is not None:
        turn.emit(ev.AttachRefused(given.reply_to, ev.Refusal.REJECTED, why))
