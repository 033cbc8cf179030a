"""Inputs: everything the engine reacts to, as frozen values. `wire.inputs` makes them from records.

Payloads are bytes that the core never opens. Each input names the saga it is for. `run` is None where the sender may
not know it (then the current run is meant). Of inputs that name another run than the current one a `Reply` is rejected
and becomes a dead letter, for it tells of an effect that somebody has to be able to find; all others are absorbed.
"""

from __future__ import annotations

from orchestrator.model.frozen import frozen
from orchestrator.model.policies import ChildCancellation as ChildCancellation
from orchestrator.model.policies import Conflict as Conflict
from orchestrator.model.policies import Leaving as Leaving
from orchestrator.model.policies import Outcome as Outcome
from orchestrator.model.policies import Override as Override
from orchestrator.model.policies import Parent as Parent
from orchestrator.model.policies import ParentClose as ParentClose
from orchestrator.model.policies import ReplyAddress as ReplyAddress
from orchestrator.model.policies import Reuse as Reuse
from orchestrator.model.step_events import StepInherited


@frozen
class Start:
    """Start a saga. On an id that exists the sender is attached to what is there, if no policy says otherwise.

    `note` is what lists show of it (`wire.notes`).

    `signal` names one that comes along, with what it says; it is for what exists, too.
    It begins at once, or at a point of time, or so long after the start is decided. `inherited` are results that a fork
    begins with, the first `ballast` of them for nothing but their numbers.
    """

    saga_id: str
    message_id: str
    saga_type: str
    payload: bytes
    reply_to: ReplyAddress | None = None
    traceparent: str | None = None
    signal: str | None = None
    signal_payload: bytes = b""
    reuse: Reuse | None = None
    conflict: Conflict = Conflict.USE_EXISTING
    begin_at_ms: int | None = None
    begin_after_ms: int | None = None
    baggage: str | None = None
    note: bytes = b""
    parent: Parent | None = None
    inherited: tuple[StepInherited, ...] = ()
    ballast: int = 0
    began_ms: int = 0


@frozen
class Reschedule:
    """Move the time at which a saga begins, to a point of time or to so long after now. Once it has begun: nothing."""

    saga_id: str
    message_id: str
    begin_at_ms: int | None = None
    begin_after_ms: int | None = None
    run: str | None = None
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Attach:
    """Answer this address when the saga ends; at once if it has ended, or if there is no such saga of this type.

    Without a type any will do.
    """

    saga_id: str
    message_id: str
    reply_to: ReplyAddress
    saga_type: str | None = None


@frozen
class Query:
    """A question to the saga's code. It is answered and not journaled, so it is no `Input`."""

    saga_id: str
    message_id: str
    reply_to: ReplyAddress
    name: str
    payload: bytes = b""
    saga_type: str | None = None


@frozen
class Cancel:
    """Stop going forward and undo. The code may clean up first."""

    saga_id: str
    message_id: str
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Reply:
    """A participant's answer to attempt `attempt` of one step's `do` or `undo`."""

    saga_id: str
    run: str
    sequence: int
    undo: bool
    attempt: int
    outcome: Outcome
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""
    retry_after_ms: int | None = None


@frozen
class ChildEnded:
    """How a child of the saga ended (or that it could not be started), or what came of the `undo` it was asked for."""

    saga_id: str
    run: str
    sequence: int
    undo: bool
    child_run: str
    status: str
    undone: str
    payload: bytes
    error_type: str
    error_message: str


@frozen
class UndoChild:
    """The saga's parent undoes it. `child_run` is the run that had completed, None where nobody knows."""

    saga_id: str
    parent: Parent
    child_run: str | None = None
    run: str | None = None


@frozen
class ParentLeft:
    """What the saga's parent has to say to it, before it has ended."""

    saga_id: str
    parent: Parent
    how: Leaving
    run: str | None = None


@frozen
class Signal:
    """Something for the saga's code to know, kept until it asks for it."""

    saga_id: str
    message_id: str
    name: str
    payload: bytes = b""
    run: str | None = None
    by: str = ""


@frozen
class Update:
    """Have the saga's code do something and tell what came of it. The same `update_id` is the same update.

    With a `saga_type` it starts the saga where there is none. `caller` is the step of another saga that waits.
    """

    saga_id: str
    message_id: str
    update_id: str
    name: str
    payload: bytes = b""
    reply_to: ReplyAddress | None = None
    saga_type: str = ""
    caller: Parent | None = None


@frozen
class Called:
    """What came of an update that a step of the saga asked another saga for; with an error type it failed."""

    saga_id: str
    run: str
    sequence: int
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""


@frozen
class Settle:
    """A promise of the saga is kept, with its result; or broken, where there is an error type."""

    saga_id: str
    message_id: str
    name: str
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""
    run: str | None = None
    by: str = ""


@frozen
class TimerDue:
    """A timer of the saga reached its time. Sequence 0 is the saga's own timer, others are a step's."""

    saga_id: str
    run: str
    sequence: int
    due_ms: int


@frozen
class Continue:
    """Go on where the last decision of this saga had used up its budget."""

    saga_id: str
    run: str


@frozen
class CodeArrived:
    """This owner has the code that a waiting saga needs."""

    saga_id: str
    run: str


@frozen
class SendFailed:
    """A command could not be handed to Kafka for good: its topic is missing or may not be written."""

    saga_id: str
    run: str
    sequence: int
    undo: bool
    attempt: int
    error_message: str


@frozen
class Terminate:
    """An operator ends the saga at once; nothing is undone."""

    saga_id: str
    message_id: str
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Pause:
    """Keep a saga where it is. What comes in is still recorded."""

    saga_id: str
    message_id: str
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Resume:
    """Let a paused saga go on."""

    saga_id: str
    message_id: str
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Compensate:
    """Undo what the saga did, now and without its code."""

    saga_id: str
    message_id: str
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Restart:
    """Run a saga that has ended again, with the same input or with another one."""

    saga_id: str
    message_id: str
    payload: bytes | None = None
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Redrive:
    """Have a saga that failed or is parked go on, with all that still stands; one that has ended with another input."""

    saga_id: str
    message_id: str
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None
    payload: bytes | None = None


@frozen
class Reset:
    """Undo what a saga did from step `to` on, and have it go on from there with the results before."""

    saga_id: str
    message_id: str
    to: int
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Fork:
    """Start the saga `target` with this one's results before step `to`; this one goes on as it would."""

    saga_id: str
    message_id: str
    to: int
    target: str
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Released:
    """The rule that paused the saga stands no longer."""

    saga_id: str
    run: str


@frozen
class SetPauseRule:
    """Pause, or no longer, all that a rule names: an input of a partition and of no saga. See `model.pauses`."""

    message_id: str
    rule: str
    standing: bool
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None

    @property
    def saga_id(self) -> str:
        return ""


@frozen
class MoveVersion:
    """An operator has a run go on with another version of its code, and stay there; 0: with the newest, as others."""

    saga_id: str
    message_id: str
    version: int
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


@frozen
class Unpark:
    """A person decides about a step that is parked or between two attempts. `sequence` 0: whatever is.

    `payload` is the result to set, or what to retry the step with instead of its own.
    """

    saga_id: str
    message_id: str
    action: Override
    sequence: int = 0
    payload: bytes | None = None
    run: str | None = None
    reason: str = ""
    by: str = ""
    reply_to: ReplyAddress | None = None


Input = (
    Start
    | Attach
    | Cancel
    | Reply
    | TimerDue
    | Continue
    | CodeArrived
    | SendFailed
    | Terminate
    | Unpark
    | Signal
    | Reschedule
    | MoveVersion
    | Pause
    | Resume
    | Compensate
    | Restart
    | Redrive
    | Reset
    | Fork
    | Released
    | ChildEnded
    | UndoChild
    | ParentLeft
    | Settle
    | Update
    | Called
)
OPERATIONS = (
    *(Cancel, Terminate, Unpark, Pause, Resume, Compensate),
    *(Restart, Redrive, Reset, Fork, Reschedule, MoveVersion),
)
"""What a person asks for: who gave an address hears what came of it."""
EXTERNAL = (Start, Signal, SetPauseRule, Settle, *OPERATIONS)
"""Inputs that come from outside and are remembered by their `message_id`. To attach twice is to attach."""

KEPT_MESSAGES = 10_000
"""So many of them are known of a saga at least, the newest, and as many that had a run of it begin."""


def memory_of(given: Input | SetPauseRule) -> str:
    """By what an input that comes from outside is remembered with its saga, empty for any other.

    An update that starts its saga is remembered beyond its run: a repeat must not be done again in the next one.
    """
    if isinstance(given, EXTERNAL):
        return given.message_id
    starts = isinstance(given, Update) and given.saga_type != "" and given.reply_to is not None
    return f"update {given.update_id}" if isinstance(given, Update) and starts else ""
