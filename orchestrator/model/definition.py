"""What both styles of saga are compiled to: a name and a coroutine that asks for steps."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from orchestrator.model.effects import LocalCall
from orchestrator.model.events import StepKind
from orchestrator.model.frozen import frozen
from orchestrator.model.messages import ChildCancellation, Leaving, ParentClose, Reply, Reuse
from orchestrator.model.retries import FailedAttempt, RetryPolicy


class Context(Protocol):
    """What a saga's code may know besides its input: everything in it is a function of the history."""

    @property
    def saga_id(self) -> str: ...

    @property
    def run(self) -> str: ...

    @property
    def seed(self) -> str:
        """What randomness comes from here: the run, or that of whoever made the inherited history."""

    @property
    def baggage(self) -> str | None:
        """As the start carried it."""

    @property
    def now_ms(self) -> int:
        """The partition's clock when the outcome that woke the code was recorded."""

    @property
    def outcomes(self) -> int:
        """How many outcomes the code has seen in this run."""

    @property
    def ended(self) -> bool:
        """Whether the run is over. Only what is asked later can find that: a query."""

    @property
    def replaying(self) -> bool:
        """Whether the code is being brought to where it was: for logs that should be written once."""

    def begin(self, request: ChildRequest) -> None:
        """Starts another saga; no pause, and its end is waited for by nobody. Only for the saga's own code."""

    def tell(self, request: SignalRequest) -> None:
        """Tells another saga something; no pause. Only for the saga's own code."""

    def unlock(self, hold: int) -> None:
        """Gives back the key that the lock step of this number got. Nothing if that is done already."""

    def stop(self, request: ChildRequest, how: Leaving) -> None:
        """Has a child that the code waits for stop; its end is waited for as before. Nothing if it is not under way."""

    def beside(self, body: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine beside the code that waits. What it raises ends the code; when the code ends, it does."""

    subject: Any
    """The object that answers queries, put here by the body."""

    def sign(self, promise: str) -> str:
        """The token by which anybody who has it settles this run's promise of that name."""

    def record(self, kind: StepKind, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` gives now, or gave when the history was made; no pause. Only for the saga's own code."""

    def patched(self, name: str) -> bool:
        """Whether the code takes the changed way here; recorded where it comes here first. Only for its own code."""

    def deprecate_patch(self, name: str) -> None:
        """The old way of a patch is gone from the code."""


Sign = Callable[[str, str, str], str]
"""The token of a promise, from saga id, run and name."""
TOKEN_OF = "token of "
"""What the name of a value begins with that is the token of the promise named behind it. No other value's does."""


def unsigned(saga_id: str, run: str, promise: str) -> str:
    """A token that proves nothing: for tests."""
    return f"{saga_id}/{run}/{promise}"


UndoPayload = Callable[[bytes | None], bytes]
"""The undo's payload from the step's reply, or from None where the outcome is unknown."""


@frozen
class StepRequest:
    """A step that code asks for. `undo_payload`: None sends the step's own payload again.

    `retry_if` has a word in whether an attempt is followed by another: it is asked once, when the attempt has failed.
    Of a local step `command` and `undo_command` are names of functions, and its service is empty; of a call they are
    names of updates, and its service is the other saga's id. `problem` says why the code could not read a result.
    """

    service: str
    command: str
    payload: bytes
    undo_command: str | None = None
    undo_payload: bytes | UndoPayload | None = None
    pivot: bool = False
    start_to_close_ms: int | None = None
    schedule_to_close_ms: int | None = None
    retry: RetryPolicy | None = None
    undo_retry: RetryPolicy | None = None
    spread: bool = False
    schedule_to_start_ms: int | None = None
    heartbeat_ms: int | None = None
    retry_if: Callable[[FailedAttempt], bool] | None = None
    kind: StepKind = StepKind.SERVICE
    problem: Callable[[bytes], str | None] | None = None


@frozen
class WaitRequest:
    """A pause of the code until something named comes from outside, or until the time is up: after so long, or at
    a point of time. `at_once`: of a lock, that it fails where another saga holds the key."""

    kind: StepKind
    name: str = ""
    timeout_ms: int | None = None
    until_ms: int | None = None
    at_once: bool = False


@frozen
class RecordRequest:
    """A value that is kept in the history; the code goes on at once."""

    kind: StepKind
    name: str
    payload: bytes


@frozen
class SignalRequest:
    """Something that another saga is told; the code goes on at once.

    `start`: the type and the input by which it is started first, if it is not under way. `update`: it is an update.
    `hears`: it keeps a business key, and this saga hears by this name what is told for that, until it ends.
    """

    saga_id: str
    signal: str
    payload: bytes
    start: tuple[str, bytes] | None = None
    update: bool = False
    hears: str = ""

    @property
    def name(self) -> str:
        return f"{self.signal} to {self.saga_id}"


@frozen
class ChildRequest:
    """Another saga that the code starts. `undo`: it is undone with its parent. `baggage`: None is its parent's."""

    saga_type: str
    payload: bytes
    child_id: str | None = None
    undo: bool = True
    parent_close: ParentClose = ParentClose.TERMINATE
    cancellation: ChildCancellation = ChildCancellation.WAIT_CANCELLATION_COMPLETED
    reuse: Reuse | None = None
    baggage: str | None = None
    note: bytes = b""
    problem: Callable[[bytes], str | None] | None = None


Request = StepRequest | WaitRequest | RecordRequest | SignalRequest | ChildRequest


class Functions(Protocol):
    """What local steps call, by name. Neither way of calling raises: whatever goes wrong is the outcome."""

    def is_async(self, name: str) -> bool:
        """Whether it is called by `perform_async`."""

    def perform(self, call: LocalCall) -> Reply: ...

    def perform_async(self, call: LocalCall) -> Coroutine[Any, Any, Reply]: ...


Migrate = Callable[[int, bytes, tuple[tuple[str, str, bytes], ...]], bytes | None]
Body = Callable[[Context, bytes], Coroutine[Any, Any, bytes]]


def _no_update(subject: Any, name: str, payload: bytes) -> str | None:
    return f"the saga has no update {name[:40]!r}"


async def _no_handler(subject: Any, name: str, payload: bytes) -> bytes:
    raise ValueError(f"the saga has no update {name[:40]!r}")


def _no_query(subject: Any, name: str, payload: bytes) -> bytes:
    raise ValueError(f"the saga answers no query {name[:40]!r}")


@frozen
class Definition:
    """One saga type. `body` is started with a context and the start's payload; its return value is the result.

    `check_input` says what is wrong with a start's payload, None if nothing is; it is asked once, before the start.

    `check_signal` says the same of a signal's name and payload when it comes in, `check_promise` of a promise's name
    and its result (None where it is broken).

    `query` gives the answer of a query's name and arguments, from the object that the body put into its context.

    `functions` are those of its local steps; None where it has no such steps.

    `check_update` says of an update's name and arguments why that object does not take it, None if it does; `update`
    carries it out.

    `migrate` makes the input of this version's code from the version, the input and the results (service, command,
    payload) of a run of an older version; None has the code repeat what was done, as without it.

    `commands` names every (service, command) of the static graph where there is one: for pictures, not for running.

    `version` counts from 1; runs of a `pinned` one keep it. `older`: the other versions of the type that a worker has,
    the newest first. `share`: the percentage of saga ids that get this version.

    `lasting`: it is neither cancelled nor set back, for what it did for others must not be undone.
    """

    name: str
    body: Body
    check_input: Callable[[bytes], str | None] = lambda payload: None
    check_signal: Callable[[str, bytes], str | None] = lambda name, payload: None
    execution_timeout_ms: int | None = None
    run_timeout_ms: int | None = None
    commands: tuple[tuple[str, str], ...] = ()
    functions: Functions | None = None
    version: int = 1
    pinned: bool = False
    older: tuple[Definition, ...] = ()
    share: float = 100.0
    check_promise: Callable[[str, bytes | None], str | None] = lambda name, payload: None
    query: Callable[[Any, str, bytes], bytes] = _no_query
    check_update: Callable[[Any, str, bytes], str | None] = _no_update
    update: Callable[[Any, str, bytes], Coroutine[Any, Any, bytes]] = _no_handler
    migrate: Migrate | None = None
    lasting: bool = False
