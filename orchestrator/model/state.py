"""A saga's state and the table that says which event may follow which status.

The state is mutable, owned by one partition, and changed only by `evolve`. Everything that a decision needs is here in
a form whose upkeep does not grow with the history: what is open, what is parked, what is left to undo.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.model.events import Cause, Following, RunFollows, Status, StepKind, Undone, UnknownCause
from orchestrator.model.messages import Input, Parent, ReplyAddress
from orchestrator.model.retries import RetryPolicy
from orchestrator.model.transitions import FINAL as FINAL
from orchestrator.model.transitions import GOES_ON as GOES_ON
from orchestrator.model.transitions import INHERITABLE as INHERITABLE
from orchestrator.model.transitions import OPEN as OPEN
from orchestrator.model.transitions import SAGA_TRANSITIONS as SAGA_TRANSITIONS
from orchestrator.model.transitions import STEP_TRANSITIONS as STEP_TRANSITIONS
from orchestrator.model.transitions import TO_UNDO as TO_UNDO
from orchestrator.model.transitions import UNDO_NOW as UNDO_NOW
from orchestrator.model.transitions import UNDO_OPEN as UNDO_OPEN
from orchestrator.model.transitions import UNSTARTED as UNSTARTED
from orchestrator.model.transitions import WAITS as WAITS
from orchestrator.model.transitions import StepStatus as StepStatus

STOPPED = "Stopped"
"""The error of a step or wait that the code did not let go of: the saga turned to undoing without it."""
SAME_LIFE = frozenset({Following.CONTINUED, Following.MIGRATED, Following.RESET})
"""Why a run may follow that carries on the work of the one before."""


class Pause(NamedTuple):
    """Why a saga is paused, since when; `rule` is empty where a person paused this one saga."""

    rule: str
    by: str
    reason: str
    at_ms: int


class Step:
    """What the code asked for under one sequence number: a service's step, a wait, a recorded value.

    A wait and a recorded value have their name as `command`.

    Outcomes that come from outside are numbered over the whole run: `resolved` is this step's number, 0 without one.
    `ended` is the count of outcomes that the code had seen when the step was over, whoever ended it: another step was
    scheduled after this one's end if its `after` is at least that.
    """

    __slots__ = (
        "after",
        "attempt",
        "cancel_sent",
        "cause",
        "command",
        "deadline_ms",
        "details",
        "due_ms",
        "ended",
        "error_message",
        "error_type",
        "heartbeat_ms",
        "held",
        "kind",
        "partition",
        "payload",
        "pivot",
        "resolved",
        "resolved_at_ms",
        "result",
        "retry",
        "run",
        "schedule_to_start_ms",
        "seed",
        "sequence",
        "service",
        "since_ms",
        "start_to_close_ms",
        "started_ms",
        "status",
        "terminate_sent",
        "undo_attempt",
        "undo_command",
        "undo_payload",
        "undo_retry",
    )

    def __init__(
        self,
        sequence: int,
        status: StepStatus,
        after: int,
        *,
        kind: StepKind = StepKind.SERVICE,
        service: str = "",
        command: str = "",
        payload: bytes = b"",
        partition: int = -1,
        undo_command: str | None = None,
        undo_payload: bytes | None = None,
        pivot: bool = False,
        start_to_close_ms: int | None = None,
        deadline_ms: int | None = None,
        due_ms: int | None = None,
        retry: RetryPolicy | None = None,
        undo_retry: RetryPolicy | None = None,
        schedule_to_start_ms: int | None = None,
        heartbeat_ms: int | None = None,
    ) -> None:
        self.sequence = sequence
        self.run = ""
        """The run that made it, where this one inherited it: its keys bear that run."""
        self.seed = ""
        """What the code's randomness came from before it asked for this, where it was inherited."""
        self.status = status
        self.after = after
        self.kind = kind
        self.service = service
        self.command = command
        self.payload = payload
        self.partition = partition
        self.undo_command = undo_command
        self.undo_payload = undo_payload
        self.pivot = pivot
        self.start_to_close_ms = start_to_close_ms
        self.deadline_ms = deadline_ms
        self.due_ms = due_ms
        self.retry = retry
        self.undo_retry = undo_retry
        self.schedule_to_start_ms = schedule_to_start_ms
        self.heartbeat_ms = heartbeat_ms
        self.held = False
        """It waits for its service's circuit to close, or to be the probe."""
        self.started_ms = 0
        """When a participant was heard to have begun the current attempt, 0 if none was."""
        self.details = b""
        """What a heartbeat said last, of whichever attempt."""
        self.since_ms = 0
        """When its `do`, then its `undo`, was scheduled, or a person had it tried again."""
        self.attempt = 1
        self.undo_attempt = 0
        self.cancel_sent = False
        """Of a child: it was asked to stop."""
        self.terminate_sent = False
        """Of a child: it was asked to end at once."""
        self.resolved = 0
        self.ended = 0
        self.resolved_at_ms = 0
        self.result = b""
        self.cause: UnknownCause | None = None
        self.error_type = ""
        self.error_message = ""

    @property
    def is_command(self) -> bool:
        """Whether attempts are made of it, and answered."""
        return self.kind in (StepKind.SERVICE, StepKind.LOCAL)

    @property
    def is_called(self) -> bool:
        """Whether the owner has a function to call now: its `do` or its `undo`."""
        return self.kind is StepKind.LOCAL and self.status in (StepStatus.RUNNING, StepStatus.UNDOING)

    @property
    def keeper(self) -> str:
        """The saga that keeps the business key for which this step has the saga listen; empty for any other step."""
        return self.command.partition(" to ")[2] if self.kind is StepKind.SENT and self.result else ""

    @property
    def needs_undo(self) -> bool:
        return self.undo_command is not None and self.status in TO_UNDO


class SagaState:
    """One run. `phase` is its status but for parking and pausing.

    `parked` maps a step's sequence (0: the saga) to the reason.

    `note` is that of the start, whichever run that began. `signals` are names and payloads of those that the code has
    not asked for yet, the oldest first; `promises` the settled ones by name, with the result or an error's type and
    message. `updates` has the sequence of each by its id, `asked` who waits for those under way, `callers` the sagas
    that do; `locks` are the steps whose keys the run holds, `keys` the keepers of the business keys for which the saga
    listens, since whichever of its runs. `follows` is the id's next run, which is due at once, `version` is of its
    code, 0 as long as it has had none. `migrates_from` is the version whose code did what is there, where the run's own
    has yet to take that over; so many inherited steps as `ballast` says are none of its code, and only undone with it.
    """

    __slots__ = (
        "asked",
        "baggage",
        "ballast",
        "began_ms",
        "begin_ms",
        "callers",
        "cancel",
        "cancel_at_ms",
        "cancel_resolved",
        "cause",
        "changed",
        "continue_due",
        "dropped_steps",
        "dropped_timers",
        "due_ms",
        "ended_at_ms",
        "error_message",
        "error_type",
        "follows",
        "forced",
        "forgotten",
        "keep",
        "keys",
        "local",
        "locks",
        "mailbox",
        "migrates_from",
        "new_due",
        "not_begun_ms",
        "note",
        "old_due",
        "open",
        "outcomes",
        "parent",
        "parent_gone",
        "parked",
        "paused",
        "payload",
        "phase",
        "pinned",
        "pivot_done",
        "previous_run",
        "promises",
        "released",
        "result",
        "run",
        "run_timeout_ms",
        "saga_id",
        "saga_type",
        "sequence",
        "signals",
        "started_at_ms",
        "started_by",
        "stays",
        "steps",
        "stored_local",
        "stored_paused",
        "stored_waiting",
        "timeout_ms",
        "traceparent",
        "undo_asked",
        "undo_now",
        "undo_open",
        "undo_stack",
        "undone",
        "undos_done",
        "undos_skipped",
        "updates",
        "version",
        "waiters",
    )

    def __init__(self, saga_id: str, run: str) -> None:
        self.saga_id = saga_id
        self.run = run
        self.saga_type = self.started_by = self.previous_run = ""
        self.phase: Status | None = None
        self.payload = self.result = self.note = b""
        self.started_at_ms = self.began_ms = 0
        """When its code began; while `begin_ms` is set, when it was asked to."""
        self.begin_ms: int | None = None  # when a delayed saga begins, until it does
        self.not_begun_ms: int | None = None  # the same, also after the end of one that never did
        self.timeout_ms: int | None = None
        self.run_timeout_ms: int | None = None
        self.ended_at_ms = 0
        self.traceparent: str | None = None
        self.baggage: str | None = None
        self.version = self.migrates_from = self.ballast = 0
        self.due_ms: int | None = None
        self.waiters: list[ReplyAddress] = []
        self.sequence = 0
        self.outcomes: list[int] = []
        """Sequences in the order of their outcomes, 0 for the cancellation: what a replay delivers."""
        self.steps: dict[int, Step] = {}
        self.open: set[int] = set()
        self.undo_open: set[int] = set()
        self.local: set[int] = set()
        """Local steps whose function is to be called: every owner has to see to it."""
        self.undo_stack: list[int] | None = None
        self.undo_now: list[int] = []
        """Steps that ended unknown or were abandoned, and whose undo was not issued yet; the latest last."""
        self.undos_done = self.undos_skipped = 0
        self.parked: dict[int, str] = {}
        self.paused: Pause | None = None
        self.mailbox: list[Input] = []
        self.signals: list[tuple[str, bytes]] = []
        self.promises: dict[str, tuple[bytes, str, str]] = {}
        self.updates: dict[str, int] = {}
        self.asked: dict[int, list[ReplyAddress]] = {}
        self.callers: dict[int, Parent] = {}
        self.locks: set[int] = set()
        self.keys: set[str] = set()
        self.pinned = self.continue_due = self.pivot_done = False
        self.forced = False
        """A person had it undone, so that a pivot keeps nothing from it."""
        self.keep = 0  # steps before this one are not undone: another run goes on from there
        self.cancel: Cause | None = None
        self.cancel_resolved = self.cancel_at_ms = 0
        self.cause: Cause | None = None
        self.error_type = self.error_message = ""
        self.undone: Undone | None = None
        self.changed: set[int] = set()
        """Sequences whose stored record is out of date; the run's own record always is."""
        self.old_due: dict[int, int | None] = {}
        """The timer each sequence had when `changed` was last emptied (0: the run's)."""
        self.new_due: list[int] = []
        """Sequences whose timer was set, for whoever keeps the timers to take out."""
        self.follows: RunFollows | None = None
        self.parent: Parent | None = None
        self.undo_asked = False  # by the parent
        self.parent_gone = False  # it asks for nothing any more
        self.released = 0
        """The last child that was told that this run asks for nothing any more."""
        self.forgotten = False
        self.stays = False  # it continued as new, and what could be undone of its runs before stays done
        self.dropped_steps = 0  # of former runs, and their timers: what the store may still have
        self.dropped_timers: set[tuple[int, int]] = set()
        self.stored_local = False
        """Whether the store lists it among those with a function to call."""
        self.stored_waiting = False  # likewise among those that wait for code
        self.stored_paused = ""
        """The rule under which the store lists it as paused."""

    def successor(self, run: str) -> SagaState:
        """The state of the same id's next run before its first event. It knows what of this run is to be forgotten.

        Keys that were not left are its own from then on, and the note of the start.
        """
        state = SagaState(self.saga_id, run)
        state.stored_waiting, state.stored_paused = self.stored_waiting, self.stored_paused
        state.stored_local = self.stored_local
        state.keys, state.note = set(self.keys), self.note
        state.stays = self.stays and self.follows is not None and self.follows.cause in SAME_LIFE
        state.parent_gone = self.parent_gone and self.follows is not None and self.follows.cause is not Following.REUSED
        state.dropped_steps = max(self.dropped_steps, self.sequence)
        stored = ((self.old_due.get(sequence, self.due_of(sequence)), sequence) for sequence in (0, *self.steps))
        state.dropped_timers = self.dropped_timers | {(due, sequence) for due, sequence in stored if due is not None}
        return state

    @property
    def status(self) -> Status:
        """What a user sees."""
        if self.parked and self.phase not in FINAL:
            return Status.PARKED
        if self.paused is not None:
            return Status.PAUSED
        assert self.phase is not None
        return self.phase

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop already. A run that is set back goes on in the next one, unless it is told to."""
        if self.phase is Status.COMPENSATING:
            return self.cause is not Cause.RESET
        return self.cancel is not None

    @property
    def ended(self) -> bool:
        return self.phase in FINAL

    @property
    def has_parent(self) -> bool:
        """Whether there is a parent that may still ask for something."""
        return self.parent is not None and not self.parent_gone

    @property
    def execution_due_ms(self) -> int | None:
        """When the time of all runs of the saga is up."""
        return None if self.timeout_ms is None else self.started_at_ms + self.timeout_ms

    def due_of(self, sequence: int) -> int | None:
        """When the timer of a step, or of the run (0), is due; None without one. What is due at once is due at 0."""
        if sequence == 0:
            return 0 if self.continue_due else self.due_ms
        step = self.steps.get(sequence)
        return step.due_ms if step is not None else None

    @property
    def timed(self) -> list[int]:
        """Sequences that have a timer, 0 for the run's."""
        return [s for s in (0, *self.open, *self.undo_open) if self.due_of(s) is not None]

    def to_undo(self) -> list[int]:
        """Steps that still need their undo, the latest last. Kept up by `evolve` once it was asked for."""
        if self.undo_stack is None:
            self.undo_stack = sorted(s for s, step in self.steps.items() if self.must_undo(step))
        return self.undo_stack

    def must_undo(self, step: Step) -> bool:
        """Whether compensation has to undo this step: past the pivot only what cannot stay in any case."""
        stays = step.sequence < self.keep or (self.pivot_done and not self.forced)
        return step.needs_undo and (not stays or step.status in UNDO_NOW)

    def run_of(self, step: Step) -> str:
        """The run whose keys a step bears."""
        return step.run or self.run

    def unit_of(self, step: Step) -> str:
        """What names a step among those of all runs of all sagas."""
        return f"{self.saga_id}/{self.run_of(step)}/{step.sequence}"

    def asker(self, step: Step) -> Parent:
        """Whom another saga answers that was asked for something by a step."""
        return Parent(self.saga_id, self.run_of(step), step.sequence)

    @property
    def seed(self) -> str:
        """What the randomness of the run's own code comes from."""
        return f"{self.saga_id}/{self.run}"

    def is_own(self, run: str, sequence: int = 0) -> bool:
        """Whether what names that run is for this one: for itself, or for a step that it inherited."""
        if run == self.run:
            return True
        step = self.steps.get(sequence)
        return step is not None and step.run == run
