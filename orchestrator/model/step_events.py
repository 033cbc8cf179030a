"""Events of one step: its attempts, its endings, its undo."""

from __future__ import annotations

from orchestrator.model.frozen import frozen
from orchestrator.model.kinds import StepKind, UnknownCause
from orchestrator.model.retries import RetryPolicy
from orchestrator.model.transitions import StepStatus


@frozen
class StepScheduled:
    """A step's first attempt. `after`: how many outcomes the code had seen; a policy of None is the default.

    A local step's `command` and `undo_command` are names of functions, its service is empty, its partition -1.
    """

    sequence: int
    after: int
    service: str
    command: str
    payload: bytes
    partition: int
    undo_command: str | None = None
    undo_payload: bytes | None = None
    pivot: bool = False
    start_to_close_ms: int | None = None
    schedule_to_close_ms: int | None = None
    retry: RetryPolicy | None = None
    undo_retry: RetryPolicy | None = None
    kind: StepKind = StepKind.SERVICE
    schedule_to_start_ms: int | None = None
    heartbeat_ms: int | None = None


@frozen
class StepInherited:
    """What an earlier run of the saga came to under this number; `run` made it, and its undo bears that run's key.

    `after`, `ended` and `resolved` are counts of outcomes, as a `Step` has them. A fork inherits results without their
    undo, from a run of another saga: `seed` is what randomness came from there.
    """

    sequence: int
    run: str
    seed: str
    status: StepStatus
    kind: StepKind
    after: int
    ended: int
    resolved: int
    resolved_at_ms: int
    service: str = ""
    command: str = ""
    payload: bytes = b""
    result: bytes = b""
    partition: int = -1
    attempt: int = 1
    undo_command: str | None = None
    undo_payload: bytes | None = None
    pivot: bool = False
    start_to_close_ms: int | None = None
    undo_retry: RetryPolicy | None = None
    cause: UnknownCause | None = None
    error_type: str = ""
    error_message: str = ""


@frozen
class HeartbeatReceived:
    """A participant has begun an attempt, or is still at it. An empty payload: it says no more than that."""

    sequence: int
    attempt: int
    payload: bytes


@frozen
class StepBackedOff:
    sequence: int
    attempt: int
    due_ms: int
    error_type: str
    error_message: str


@frozen
class StepAttempted:
    """`payload`: a person had it tried with this one instead of the one it was scheduled with."""

    sequence: int
    attempt: int
    by: str = ""
    payload: bytes | None = None
    reason: str = ""


@frozen
class StepSucceeded:
    """`undo_payload` replaces the one recorded at scheduling where the undo depends on the reply.

    `by` and `reason`: a person set the result, or skipped the step.
    """

    sequence: int
    attempt: int
    payload: bytes
    undo_payload: bytes | None = None
    by: str = ""
    reason: str = ""


@frozen
class StepRefused:
    sequence: int
    attempt: int
    error_type: str
    error_message: str


@frozen
class StepEndedUnknown:
    """`after`, where the code itself let go of the step: how many outcomes it had seen by then."""

    sequence: int
    cause: UnknownCause
    error_type: str
    error_message: str
    after: int = 0


@frozen
class StepAbandoned:
    """A step that was done is undone although the saga goes on: its branch failed and that is borne, or it lost."""

    sequence: int


@frozen
class CallDone:
    """A call that the code had let go of was carried out, so it is undone now."""

    sequence: int


@frozen
class CallRefused:
    """A call that the code had let go of was refused: there is nothing to undo."""

    sequence: int


@frozen
class StepHeld:
    """Its service's circuit is open: no attempt is sent, nor counted, until it closes or this is the probe."""

    sequence: int


@frozen
class UndoHeld:
    """The same of an undo."""

    sequence: int


@frozen
class StepParked:
    sequence: int
    reason: str


@frozen
class UndoScheduled:
    sequence: int


@frozen
class UndoBackedOff:
    sequence: int
    attempt: int
    due_ms: int
    error_type: str
    error_message: str


@frozen
class UndoAttempted:
    sequence: int
    attempt: int
    by: str = ""
    payload: bytes | None = None
    reason: str = ""


@frozen
class UndoSucceeded:
    sequence: int
    attempt: int
    by: str = ""
    reason: str = ""


@frozen
class UndoParked:
    sequence: int
    reason: str


@frozen
class UndoSkipped:
    sequence: int
    reason: str
    by: str
