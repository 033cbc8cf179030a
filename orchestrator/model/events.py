"""Events: past-tense facts, the only thing that changes a saga's state. One journal record holds those of one decision.

The record itself names the saga, the run and the time (`Decision`); events carry what is particular to them. A released
event is never edited: fields are added with defaults, in the schema of the same name in `schemas/` too.
"""

from __future__ import annotations

from orchestrator.model.frozen import frozen
from orchestrator.model.kinds import Cause as Cause
from orchestrator.model.kinds import Following as Following
from orchestrator.model.kinds import Refusal as Refusal
from orchestrator.model.kinds import Status as Status
from orchestrator.model.kinds import StepKind as StepKind
from orchestrator.model.kinds import Undone as Undone
from orchestrator.model.kinds import UnknownCause as UnknownCause
from orchestrator.model.messages import Input, Parent, ReplyAddress, Update
from orchestrator.model.partition_events import AttachRefused as AttachRefused
from orchestrator.model.partition_events import CircuitClosed as CircuitClosed
from orchestrator.model.partition_events import CircuitOpened as CircuitOpened
from orchestrator.model.partition_events import InputAnswered as InputAnswered
from orchestrator.model.partition_events import InputForwarded as InputForwarded
from orchestrator.model.partition_events import PauseRuleSet as PauseRuleSet
from orchestrator.model.said import PromiseBroken as PromiseBroken
from orchestrator.model.said import PromiseKept as PromiseKept
from orchestrator.model.said import PromiseSettled as PromiseSettled
from orchestrator.model.said import UpdateAccepted as UpdateAccepted
from orchestrator.model.said import UpdateAsked as UpdateAsked
from orchestrator.model.said import UpdateEnded as UpdateEnded
from orchestrator.model.step_events import CallDone as CallDone
from orchestrator.model.step_events import CallRefused as CallRefused
from orchestrator.model.step_events import HeartbeatReceived as HeartbeatReceived
from orchestrator.model.step_events import StepAbandoned as StepAbandoned
from orchestrator.model.step_events import StepAttempted as StepAttempted
from orchestrator.model.step_events import StepBackedOff as StepBackedOff
from orchestrator.model.step_events import StepEndedUnknown as StepEndedUnknown
from orchestrator.model.step_events import StepHeld as StepHeld
from orchestrator.model.step_events import StepInherited as StepInherited
from orchestrator.model.step_events import StepParked as StepParked
from orchestrator.model.step_events import StepRefused as StepRefused
from orchestrator.model.step_events import StepScheduled as StepScheduled
from orchestrator.model.step_events import StepSucceeded as StepSucceeded
from orchestrator.model.step_events import UndoAttempted as UndoAttempted
from orchestrator.model.step_events import UndoBackedOff as UndoBackedOff
from orchestrator.model.step_events import UndoHeld as UndoHeld
from orchestrator.model.step_events import UndoParked as UndoParked
from orchestrator.model.step_events import UndoScheduled as UndoScheduled
from orchestrator.model.step_events import UndoSkipped as UndoSkipped
from orchestrator.model.step_events import UndoSucceeded as UndoSucceeded
from orchestrator.model.wait_events import LockRefused as LockRefused
from orchestrator.model.wait_events import LockReleased as LockReleased
from orchestrator.model.wait_events import LockTaken as LockTaken
from orchestrator.model.wait_events import Recorded as Recorded
from orchestrator.model.wait_events import SignalBuffered as SignalBuffered
from orchestrator.model.wait_events import SignalDropped as SignalDropped
from orchestrator.model.wait_events import SignalReceived as SignalReceived
from orchestrator.model.wait_events import SignalTaken as SignalTaken
from orchestrator.model.wait_events import WaitCanceled as WaitCanceled
from orchestrator.model.wait_events import WaitExpired as WaitExpired
from orchestrator.model.wait_events import WaitScheduled as WaitScheduled


@frozen
class SagaStarted:
    """`timeout_ms` is for all runs of the saga, `run_timeout_ms` for this one; both count from its beginning.

    `begin_ms`: when the code begins to run, None for at once. `following`: why there is another run after
    `previous_run`. `ballast`: so many inherited steps are none of its code, and only there to be undone with it.
    `began_ms`: what the code takes for the time of its beginning, where it repeats what an earlier run did; 0 is now.
    """

    saga_type: str
    payload: bytes
    started_by: str
    reply_to: ReplyAddress | None = None
    traceparent: str | None = None
    timeout_ms: int | None = None
    previous_run: str = ""
    run_timeout_ms: int | None = None
    begin_ms: int | None = None
    baggage: str | None = None
    version: int = 1
    pinned: bool = False
    note: bytes = b""
    parent: Parent | None = None
    following: Following | None = None
    ballast: int = 0
    began_ms: int = 0


@frozen
class RunFollows:
    """The id's next run begins in the next decision, before anything else of this id.

    `by` and `reason` are the person's who wanted it. After a reset it inherits the steps before the one numbered
    `until`.
    """

    cause: Following
    payload: bytes
    started_by: str = ""
    reply_to: ReplyAddress | None = None
    traceparent: str | None = None
    signal: str | None = None
    signal_payload: bytes = b""
    begin_ms: int | None = None
    baggage: str | None = None
    note: bytes = b""
    parent: Parent | None = None
    by: str = ""
    reason: str = ""
    until: int = 0
    update: Update | None = None


@frozen
class BeginMoved:
    """The saga begins at another time than was said before."""

    begin_ms: int
    by: str = ""


@frozen
class SagaBegun:
    """The time has come at which a delayed saga begins."""


@frozen
class WaiterAdded:
    reply_to: ReplyAddress


@frozen
class CancelRequested:
    cause: Cause
    reason: str
    by: str


@frozen
class CancelRaised:
    """The cancellation reaches the code: one outcome among the others, so that a replay raises it at the same place."""


@frozen
class CompensationStarted:
    """The code has had its last word. `forced_by`: a person who would not wait for it; then a pivot stops no undo.

    Steps before the one numbered `keep` stay done: another run goes on from there.
    """

    cause: Cause
    error_type: str
    error_message: str
    forced_by: str = ""
    keep: int = 0


@frozen
class SagaParked:
    """The saga itself cannot go on: its code has a bug, diverges from its history, or asked for too much."""

    reason: str
    detail: str


@frozen
class SagaUnparked:
    by: str
    reason: str


@frozen
class SagaForked:
    """A person had another saga, `target`, begin with the results of this one's steps before `until`."""

    target: str
    until: int
    by: str
    reason: str


@frozen
class VersionChanged:
    """From here on the run goes on with this version of its code: by itself, as a newer one came, or by a person.

    `migrates`: that code does not repeat what was done before, but takes over what came of it, in another run.
    """

    version: int
    pinned: bool
    by: str = ""
    reason: str = ""
    migrates: bool = False


@frozen
class SagaPaused:
    """Nothing goes forward or back until it is resumed. By a person, or by a rule over many (`model.pauses`)."""

    by: str
    reason: str
    rule: str = ""


@frozen
class SagaResumed:
    by: str
    reason: str


@frozen
class CodeMissing:
    """The owner does not know the saga's type; its inputs are kept until one does."""


@frozen
class CodeFound:
    pass


@frozen
class InputHeld:
    """One input in the mailbox of a saga that waits for code."""

    input: Input


@frozen
class HeldInputTaken:
    """The oldest input of the mailbox is decided now."""


@frozen
class ContinueDue:
    """The decision's budget was used up; the rest follows in a decision of its own, before anything else."""


@frozen
class Continued:
    """The decision that `ContinueDue` announced."""


@frozen
class InputAbsorbed:
    """An input that changes nothing, kept for the audit: late, for another run, or for a step that has its outcome."""

    kind: str
    reason: str
    sequence: int = 0
    attempt: int = 0


@frozen
class ChildCanceled:
    """A child was asked to stop, `at_once`: without undo; its step goes on until it has.

    After the parent's own end: it was told of that.
    """

    sequence: int
    at_once: bool = False


@frozen
class UndoAsked:
    """The saga's parent waits for it to be undone."""


@frozen
class InputSent:
    """An input that this saga has for another one; it goes by `saga.internal`, in order."""

    target: int
    counter: int
    input: Input


@frozen
class SagaEnded:
    """`forget_at_ms`: when the stores may forget the saga. None: it goes on, or its parent may ask for its undo."""

    status: Status
    undone: Undone
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""
    by: str = ""
    forget_at_ms: int | None = None


@frozen
class ParentGone:
    """The saga's parent asks for nothing any more, not even for its undo. `forget_at_ms`: of a saga that has ended."""

    forget_at_ms: int | None = None


@frozen
class SagaForgotten:
    """The time is up for which a saga that has ended is kept: nothing is known of its id from here on."""


Event = (
    SagaStarted
    | RunFollows
    | BeginMoved
    | SagaBegun
    | WaiterAdded
    | StepScheduled
    | StepInherited
    | HeartbeatReceived
    | StepBackedOff
    | StepAttempted
    | StepSucceeded
    | StepRefused
    | StepEndedUnknown
    | StepAbandoned
    | CallDone
    | CallRefused
    | StepHeld
    | UndoHeld
    | CircuitOpened
    | CircuitClosed
    | StepParked
    | WaitScheduled
    | WaitExpired
    | WaitCanceled
    | SignalReceived
    | SignalBuffered
    | SignalDropped
    | SignalTaken
    | LockTaken
    | LockRefused
    | LockReleased
    | PromiseSettled
    | PromiseKept
    | PromiseBroken
    | UpdateAccepted
    | UpdateAsked
    | UpdateEnded
    | Recorded
    | CancelRequested
    | CancelRaised
    | CompensationStarted
    | UndoScheduled
    | UndoBackedOff
    | UndoAttempted
    | UndoSucceeded
    | UndoParked
    | UndoSkipped
    | SagaParked
    | SagaUnparked
    | SagaForked
    | VersionChanged
    | SagaPaused
    | SagaResumed
    | PauseRuleSet
    | InputAnswered
    | CodeMissing
    | CodeFound
    | InputHeld
    | HeldInputTaken
    | ContinueDue
    | Continued
    | InputAbsorbed
    | SagaEnded
    | AttachRefused
    | InputForwarded
    | ChildCanceled
    | UndoAsked
    | ParentGone
    | SagaForgotten
    | InputSent
)


@frozen
class Decision:
    """What one input caused: the body of one journal record.

    `run` is the run the events belong to; `message_id` the input's, remembered for repeats. `at_ms` is the partition's
    clock when it was decided. `source` says which input it was: its topic's role and its offset, empty for the
    engine's own inputs. One that another partition sent carries that partition and its counter.
    """

    saga_id: str
    run: str
    at_ms: int
    events: tuple[Event, ...]
    message_id: str = ""
    source: str = ""
    source_offset: int = -1
    internal_partition: int = -1
    internal_counter: int = -1
