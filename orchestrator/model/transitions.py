"""The tables that say which event may follow which status, of a step and of a run."""

from __future__ import annotations

from enum import StrEnum

from orchestrator.model.kinds import Status


class StepStatus(StrEnum):
    """The states of a step, a wait and a recorded value. `None` stands for: not scheduled yet."""

    RUNNING = "RUNNING"
    BACKING_OFF = "BACKING_OFF"
    PARKED = "PARKED"
    DONE = "DONE"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"
    ABANDONED = "ABANDONED"
    UNDOING = "UNDOING"
    UNDO_BACKING_OFF = "UNDO_BACKING_OFF"
    UNDO_PARKED = "UNDO_PARKED"
    UNDONE = "UNDONE"
    UNDO_SKIPPED = "UNDO_SKIPPED"
    WAITING = "WAITING"
    WAITED = "WAITED"
    EXPIRED = "EXPIRED"
    WAIT_FAILED = "WAIT_FAILED"
    WAIT_CANCELED = "WAIT_CANCELED"
    RECORDED = "RECORDED"
    LOCK_RELEASED = "LOCK_RELEASED"
    UPDATING = "UPDATING"
    UPDATED = "UPDATED"


_S = StepStatus

STEP_TRANSITIONS: dict[tuple[StepStatus | None, str], StepStatus] = {
    (None, "StepScheduled"): _S.RUNNING,
    (_S.RUNNING, "HeartbeatReceived"): _S.RUNNING,
    (_S.RUNNING, "StepBackedOff"): _S.BACKING_OFF,
    (_S.BACKING_OFF, "StepAttempted"): _S.RUNNING,
    (_S.RUNNING, "StepHeld"): _S.BACKING_OFF,
    (_S.BACKING_OFF, "StepHeld"): _S.BACKING_OFF,
    (_S.PARKED, "StepAttempted"): _S.RUNNING,
    (_S.RUNNING, "ChildCanceled"): _S.RUNNING,
    (_S.RUNNING, "StepParked"): _S.PARKED,
    (_S.BACKING_OFF, "StepParked"): _S.PARKED,
    (_S.RUNNING, "StepSucceeded"): _S.DONE,
    (_S.BACKING_OFF, "StepSucceeded"): _S.DONE,
    (_S.PARKED, "StepSucceeded"): _S.DONE,
    (_S.RUNNING, "StepRefused"): _S.REFUSED,
    (_S.BACKING_OFF, "StepRefused"): _S.REFUSED,
    (_S.RUNNING, "StepEndedUnknown"): _S.UNKNOWN,
    (_S.BACKING_OFF, "StepEndedUnknown"): _S.UNKNOWN,
    (_S.PARKED, "StepEndedUnknown"): _S.UNKNOWN,
    (_S.DONE, "StepAbandoned"): _S.ABANDONED,
    (_S.UNKNOWN, "CallDone"): _S.ABANDONED,
    (_S.UNKNOWN, "CallRefused"): _S.REFUSED,
    (_S.DONE, "UndoScheduled"): _S.UNDOING,
    (_S.ABANDONED, "UndoScheduled"): _S.UNDOING,
    (_S.UNKNOWN, "UndoScheduled"): _S.UNDOING,
    (_S.UNDOING, "UndoBackedOff"): _S.UNDO_BACKING_OFF,
    (_S.UNDO_BACKING_OFF, "UndoAttempted"): _S.UNDOING,
    (_S.UNDOING, "UndoHeld"): _S.UNDO_BACKING_OFF,
    (_S.UNDO_BACKING_OFF, "UndoHeld"): _S.UNDO_BACKING_OFF,
    (_S.UNDO_PARKED, "UndoAttempted"): _S.UNDOING,
    (_S.UNDOING, "UndoParked"): _S.UNDO_PARKED,
    (_S.UNDOING, "UndoSucceeded"): _S.UNDONE,
    (_S.UNDO_BACKING_OFF, "UndoSucceeded"): _S.UNDONE,
    (_S.UNDO_PARKED, "UndoSucceeded"): _S.UNDONE,
    (_S.UNDO_PARKED, "UndoSkipped"): _S.UNDO_SKIPPED,
    (_S.UNDO_BACKING_OFF, "UndoSkipped"): _S.UNDO_SKIPPED,
    (None, "WaitScheduled"): _S.WAITING,
    (_S.WAITING, "SignalTaken"): _S.WAITED,
    (_S.WAITING, "PromiseKept"): _S.WAITED,
    (_S.WAITING, "PromiseBroken"): _S.WAIT_FAILED,
    (_S.WAITING, "LockTaken"): _S.WAITED,
    (_S.WAITING, "LockRefused"): _S.WAIT_FAILED,
    (_S.WAITED, "LockReleased"): _S.LOCK_RELEASED,
    (_S.WAITING, "WaitExpired"): _S.EXPIRED,
    (_S.WAITING, "WaitCanceled"): _S.WAIT_CANCELED,
    (None, "Recorded"): _S.RECORDED,
    (None, "UpdateAccepted"): _S.UPDATING,
    (_S.UPDATING, "UpdateEnded"): _S.UPDATED,
}
"""What is legal for one step. Whatever is not listed is a broken history."""

_T = Status

SAGA_TRANSITIONS: dict[tuple[Status | None, str], Status] = {
    (None, "SagaStarted"): _T.RUNNING,
    (None, "SignalBuffered"): _T.NOT_STARTED,
    (_T.NOT_STARTED, "SignalBuffered"): _T.NOT_STARTED,
    (_T.NOT_STARTED, "SagaStarted"): _T.RUNNING,
    (_T.RUNNING, "SagaBegun"): _T.RUNNING,
    (_T.RUNNING, "CodeMissing"): _T.WAITING_FOR_CODE,
    (_T.WAITING_FOR_CODE, "CodeFound"): _T.RUNNING,
    (_T.RUNNING, "CompensationStarted"): _T.COMPENSATING,
    (_T.WAITING_FOR_CODE, "CompensationStarted"): _T.COMPENSATING,
    (_T.COMPENSATING, "CompensationStarted"): _T.COMPENSATING,
    (_T.RUNNING, "SagaEnded.COMPLETED"): _T.COMPLETED,
    (_T.RUNNING, "SagaEnded.CONTINUED_AS_NEW"): _T.CONTINUED_AS_NEW,
    (_T.COMPLETED, "CompensationStarted"): _T.COMPENSATING,
    (_T.COMPENSATING, "SagaEnded.COMPENSATED"): _T.COMPENSATED,
    (_T.COMPENSATING, "SagaEnded.FAILED"): _T.FAILED,
    (_T.COMPENSATING, "SagaEnded.CANCELED"): _T.CANCELED,
    (_T.COMPENSATING, "SagaEnded.TIMED_OUT"): _T.TIMED_OUT,
    (_T.COMPENSATING, "SagaEnded.RESET"): _T.RESET,
    (_T.TERMINATED, "CompensationStarted"): _T.COMPENSATING,
    (_T.RUNNING, "SagaEnded.TERMINATED"): _T.TERMINATED,
    (_T.WAITING_FOR_CODE, "SagaEnded.TERMINATED"): _T.TERMINATED,
    (_T.COMPENSATING, "SagaEnded.TERMINATED"): _T.TERMINATED,
}
"""What is legal for the run. PARKED is not a phase but lies over one: see `SagaState.status`."""

FINAL = frozenset(
    {
        *(Status.COMPLETED, Status.COMPENSATED, Status.FAILED, Status.CANCELED),
        *(Status.TIMED_OUT, Status.TERMINATED, Status.CONTINUED_AS_NEW, Status.RESET),
    }
)

GOES_ON = frozenset({Status.CONTINUED_AS_NEW, Status.RESET})
"""Ends of a run whose saga goes on in the next one: who waits or follows, waits on."""

UNSTARTED = frozenset({None, Status.NOT_STARTED})

OPEN = frozenset({_S.RUNNING, _S.BACKING_OFF, _S.PARKED, _S.WAITING})
"""No outcome yet."""

WAITS = frozenset({_S.WAITING, _S.WAITED, _S.EXPIRED, _S.WAIT_FAILED, _S.WAIT_CANCELED, _S.LOCK_RELEASED})

UNDO_OPEN = frozenset({_S.UNDOING, _S.UNDO_BACKING_OFF, _S.UNDO_PARKED})

UNDO_NOW = frozenset({_S.UNKNOWN, _S.ABANDONED})
"""What is undone also where the saga goes on, if the step has an undo."""

INHERITABLE = frozenset(
    {
        *(_S.DONE, _S.REFUSED, _S.UNKNOWN, _S.UNDONE, _S.UNDO_SKIPPED),
        *(_S.WAITED, _S.EXPIRED, _S.WAIT_FAILED, _S.WAIT_CANCELED, _S.RECORDED, _S.UPDATED),
        _S.LOCK_RELEASED,
    }
)
"""What a further run of the saga may take over from the one before: nothing is under way."""

TO_UNDO = UNDO_NOW | {_S.DONE}
"""The undo set, where a step has an undo: it happened, or nobody knows."""
